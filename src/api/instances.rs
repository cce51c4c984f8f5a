//! The instances that are alive on this database, from their rows; this one as it is now. Read by administrators and by
//! the simulator, which sums the ledgers.

use actix_web::web;
use actix_web::{HttpResponse, Responder};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Context;
use super::access::Access;
use super::problem::Problem;
use super::routes::Routes;
use crate::domain::{FlowSnapshot, LedgerSnapshot};
use crate::store::InstanceRow;

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::ADMIN_OF_ALL, __path_list, list);
}

#[derive(Serialize, ToSchema)]
pub(super) struct Instances {
    items: Vec<Instance>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Instance {
    /// New with each start.
    identifier: Uuid,
    /// `MQTT_CLIENT_ID`
    client_id: String,
    host: String,
    version: String,
    started_at: jiff::Timestamp,
    /// When the rest was true: at most some seconds ago.
    heartbeat_at: jiff::Timestamp,
    /// Whether it does the work that one instance does for all.
    is_leader: bool,
    /// Whether it is the one that answers.
    is_self: bool,
    /// Messages in flight.
    window_messages: u64,
    /// The memory that they occupy.
    window_bytes: u64,
    ledger: LedgerSnapshot,
    /// `MQTT_TOPIC_PREFIX`
    topic_prefix: String,
    /// Host and port of `MQTT_URL`
    broker: String,
    /// Whether topic prefix or broker are other ones than those of the instance that answers: such instances must not
    /// share a database, unless both brokers are one cluster.
    differs: bool,
}

/// The instances that are alive
///
/// An instance whose row is older than ten seconds is not listed.
#[utoipa::path(
    get, path = "/api/v1/instances", tag = "service", operation_id = "list_instances",
    responses((status = 200, description = "By client id", body = Instances)),
)]
async fn list(context: web::Data<Context>) -> Result<impl Responder, Problem> {
    let mut rows = context.store.instances().await?;
    let own = context.identity.identifier;
    rows.retain(|row| row.is_alive || row.identifier == own);
    let items = rows.into_iter().map(|row| instance(row, &context)).collect();
    Ok(HttpResponse::Ok().json(Instances { items }))
}

fn instance(row: InstanceRow, context: &Context) -> Instance {
    let is_self = row.identifier == context.identity.identifier;
    let (ledger, flow) = match is_self {
        true => (context.ledger.snapshot(), context.ingest.flow.snapshot()),
        false => (row.ledger, row.flow),
    };
    let differs = row.differs_from(&context.identity.topic_prefix, &context.identity.broker);
    let FlowSnapshot { window_messages, window_bytes, .. } = flow;
    Instance {
        identifier: row.identifier,
        client_id: row.client_id,
        host: row.host,
        version: row.version,
        started_at: row.started_at.to_jiff(),
        heartbeat_at: row.heartbeat_at.to_jiff(),
        is_leader: row.is_leader,
        is_self,
        window_messages,
        window_bytes,
        ledger,
        topic_prefix: row.topic_prefix,
        broker: row.broker,
        differs,
    }
}
