//! What runs here, what it is connected to, and the account of all that it received. Called by
//! operators and by the simulator, which reads the ledger. Promises an answer while the database
//! is away, and ledger entries exactly as the ledger has them.

use actix_web::web;
use actix_web::{HttpResponse, Responder};
use serde::Serialize;
use utoipa::ToSchema;

use super::access::Access;
use super::caller::Caller;
use super::routes::Routes;
use super::{Context, health};
use crate::domain::{LedgerSnapshot, Part, Timestamp};
use crate::sensor::ActorStats;

/// The commit that the build was made from, where the build said so.
const COMMIT: &str = match option_env!("TRIBUTARY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_status, status);
}

/// What runs here, and how it fares.
#[derive(Serialize, ToSchema)]
pub(super) struct Status {
    version: &'static str,
    commit: &'static str,
    started_at: jiff::Timestamp,
    connections: Connections,
    /// Since when an operator has stopped the reading from the broker.
    ingest_paused_since: Option<jiff::Timestamp>,
    ledger: LedgerSnapshot,
    actors: Option<ActorStats>,
}

/// What must be up.
#[derive(Serialize, ToSchema)]
pub(super) struct Connections {
    broker_ingest: Connection,
    broker_publishing: Connection,
    database_writing: Connection,
    database: Connection,
}

/// Whether one part is up, since when, and why not.
#[derive(Serialize, ToSchema)]
pub(super) struct Connection {
    up: bool,
    since: Option<jiff::Timestamp>,
    problem: Option<String>,
}

/// What runs here, what it is connected to, and the account of all that it received
///
/// It is the account of the whole service, whoever asks: a token of one network sees it too. It counts, and
/// names no sensor and no network.
#[utoipa::path(
    get, path = "/api/v1/status", tag = "service", operation_id = "read_status",
    responses((status = 200, description = "Also while the database is unavailable", body = Status)),
)]
async fn status(context: web::Data<Context>, _: Caller) -> impl Responder {
    let (database, actors) =
        tokio::join!(health::database_problem(&context), context.supervisor.actor_stats());
    HttpResponse::Ok().json(Status {
        version: env!("CARGO_PKG_VERSION"),
        commit: COMMIT,
        started_at: context.started_at.to_jiff(),
        connections: Connections {
            broker_ingest: connection(&context, Part::Ingest),
            broker_publishing: connection(&context, Part::Publishing),
            database_writing: connection(&context, Part::Writing),
            database: Connection { up: database.is_none(), since: None, problem: database },
        },
        ingest_paused_since: context.ingest.flow.paused_since().map(Timestamp::to_jiff),
        ledger: context.ledger.snapshot(),
        actors,
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
