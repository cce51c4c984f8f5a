//! What a sensor measured, newest first. Reads the rows that the writer committed. Promises that
//! the numbers of a value come out as the table has them, not through a float.

use actix_web::Responder;
use actix_web::web::{self, ServiceConfig};
use serde::Serialize;
use serde_json::value::RawValue;

use super::page::{Parameters, listing};
use super::path::SensorPath;
use super::problem::Problem;
use super::{Context, read, resource};
use crate::store::{MeasurementRow, RowKey};

/// Within `/sensors/{identifier}`.
pub(super) fn routes(config: &mut ServiceConfig) {
    config.service(resource("/measurements", "GET, HEAD").route(read().to(list)));
}

/// A measurement as it stands on the wire.
#[derive(Serialize)]
struct Item {
    timestamp: f64,
    creation_timestamp: jiff::Timestamp,
    receipt_timestamp: jiff::Timestamp,
    revision: i32,
    value: Box<RawValue>,
}

impl From<MeasurementRow> for Item {
    fn from(row: MeasurementRow) -> Self {
        Self {
            timestamp: row.key.timestamp.unix_seconds(),
            creation_timestamp: row.key.timestamp.to_jiff(),
            receipt_timestamp: row.received_at.to_jiff(),
            revision: row.revision,
            value: row.value,
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
    let rows = context.store.list_measurements(sensor, &page).await?;
    let rows = rows.ok_or_else(Problem::sensor_not_found)?;
    Ok(listing(rows, &page, |row| row.key, Item::from))
}
