//! How a sensor acknowledged its configurations, newest first. Reads the rows that the writer
//! committed. Promises every heartbeat, not only the first of a revision.

use actix_web::Responder;
use actix_web::web::{self, ServiceConfig};
use serde::Serialize;

use super::page::{Parameters, listing};
use super::path::SensorPath;
use super::problem::Problem;
use super::{Context, read, resource};
use crate::store::{HeartbeatRow, RowKey};

/// Within `/sensors/{identifier}`.
pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/heartbeats", "GET, HEAD").route(read().to(list)));
}

/// A heartbeat as it stands on the wire.
#[derive(Serialize)]
struct Item {
    timestamp: f64,
    creation_timestamp: jiff::Timestamp,
    receipt_timestamp: jiff::Timestamp,
    revision: i32,
    success: bool,
}

impl From<HeartbeatRow> for Item {
    fn from(row: HeartbeatRow) -> Self {
        Self {
            timestamp: row.key.timestamp.unix_seconds(),
            creation_timestamp: row.key.timestamp.to_jiff(),
            receipt_timestamp: row.received_at.to_jiff(),
            revision: row.revision,
            success: row.success,
        }
    }
}

async fn list(
    context: web::Data<Context>,
    SensorPath(sensor): SensorPath,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let page = parameters.page::<RowKey>()?;
    parameters.finish()?;
    let rows = context.store.list_heartbeats(sensor, &page).await?;
    let rows = rows.ok_or_else(Problem::sensor_not_found)?;
    Ok(listing(rows, &page, |row| row.key, Item::from))
}
