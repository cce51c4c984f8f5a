//! The status of the service: version, connections and ledger. Read by operators and by the simulator. Available
//! while the database is not.

use actix_web::web;
use actix_web::{HttpResponse, Responder};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::Access;
use super::caller::Caller;
use super::routes::Routes;
use super::{Context, Settings, health};
use crate::domain::{LedgerSnapshot, Part, Timestamp};

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_status, status);
}

#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    /// Who answers, where there are several; `/api/v1/instances` lists all.
    instance: StatusInstance,
    version: &'static str,
    commit: &'static str,
    started_at: jiff::Timestamp,
    connections: Connections,
    /// Since when an operator has stopped the reading from the broker.
    ingest_paused_since: Option<jiff::Timestamp>,
    settings: Settings,
    ledger: LedgerSnapshot,
    actors: Option<ActorStats>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct StatusInstance {
    /// New with each start.
    identifier: Uuid,
    /// `MQTT_CLIENT_ID`
    client_id: String,
    /// Whether it does the work that one instance does for all.
    is_leader: bool,
}

/// The sensors' actors of the process.
#[derive(Serialize, ToSchema)]
pub(super) struct ActorStats {
    /// Alive now.
    alive: u64,
    /// Started since the process began.
    started: u64,
    /// Started again after a panic.
    restarted: u64,
    /// Stopped because their sensor was silent or deleted.
    retired: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Connections {
    broker_ingest: Connection,
    broker_publishing: Connection,
    database_writing: Connection,
    database: Connection,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Connection {
    up: bool,
    since: Option<jiff::Timestamp>,
    problem: Option<String>,
}

/// Version, connections and ledger of the service
///
/// They concern the whole service and are visible to every token, also of one network; no sensor and no network is
/// named.
#[utoipa::path(
    get, path = "/api/v1/status", tag = "service", operation_id = "read_status",
    responses((status = 200, description = "Also while the database is unavailable", body = Status)),
)]
async fn status(context: web::Data<Context>, _: Caller) -> impl Responder {
    let database = health::database_problem(&context).await;
    let metrics = &context.metrics;
    HttpResponse::Ok().json(Status {
        instance: StatusInstance {
            identifier: context.identity.identifier,
            client_id: context.identity.client_id.clone(),
            is_leader: context.leadership.is_leader(),
        },
        version: env!("CARGO_PKG_VERSION"),
        commit: env!("TRIBUTARY_COMMIT"),
        started_at: context.started_at.to_jiff(),
        connections: Connections {
            broker_ingest: connection(&context, Part::Ingest),
            broker_publishing: connection(&context, Part::Publishing),
            database_writing: connection(&context, Part::Writing),
            database: Connection { up: database.is_none(), since: None, problem: database },
        },
        ingest_paused_since: context.ingest.flow.paused_since().map(Timestamp::to_jiff),
        settings: context.settings.clone(),
        ledger: context.ledger.snapshot(),
        actors: Some(ActorStats {
            alive: u64::try_from(metrics.actors_alive.get()).unwrap_or(0),
            started: metrics.actors_started.get(),
            restarted: metrics.actors_restarted.get(),
            retired: metrics.actors_retired.get(),
        }),
    })
}

pub(super) fn connection(context: &Context, part: Part) -> Connection {
    let condition = context.health.condition(part);
    Connection {
        up: condition.up,
        since: Some(condition.since.to_jiff()),
        problem: condition.problem,
    }
}
