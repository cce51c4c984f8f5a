//! State and control of ingest for administrators: messages in flight, pause and resume, the log filter. A pause
//! loses nothing: reading from the broker stops, messages already read are committed and acknowledged, and the
//! broker keeps the rest.

use actix_web::web;
use actix_web::{HttpResponse, Responder};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::Context;
use super::access::Access;
use super::body::Json;
use super::fields::LogFilterText;
use super::problem::Problem;
use super::routes::Routes;
use super::status::{Connection, connection};
use crate::domain::{Part, Timestamp};

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::ADMIN_OF_ALL, __path_state, state);
    routes.add(Access::ADMIN_OF_ALL, __path_pause, pause);
    routes.add(Access::ADMIN_OF_ALL, __path_resume, resume);
    routes.add(Access::ADMIN_OF_ALL, __path_set_log_level, set_log_level);
}

#[derive(Serialize, ToSchema)]
#[schema(as = Ingest)]
pub(super) struct IngestStatus {
    paused_since: Option<jiff::Timestamp>,
    window: IngestWindow,
    queue: IngestQueue,
    batches: IngestBatches,
    writers: Writers,
    connections: IngestConnections,
    log_filter: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct IngestWindow {
    messages: u64,
    max_messages: u64,
    bytes: u64,
    max_bytes: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct IngestQueue {
    messages: u64,
    items: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct IngestBatches {
    committed: u64,
    items: u64,
    last_items: u64,
    largest_items: u64,
    max_items: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = IngestWriters)]
pub(super) struct Writers {
    busy: u64,
    connections: u32,
}

#[derive(Serialize, ToSchema)]
pub(super) struct IngestConnections {
    broker_ingest: Connection,
    database_writing: Connection,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LogLevel)]
pub(super) struct LogLevel {
    /// Levels and `target=level`, separated by commas.
    #[schema(max_length = 1000, example = "info,tributary=debug")]
    filter: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogLevelBody {
    /// Levels and `target=level`, separated by commas.
    #[schema(inline)]
    filter: LogFilterText,
}

/// The state of ingest
#[utoipa::path(
    get, path = "/api/v1/ingest", tag = "ingest", operation_id = "read_ingest",
    responses((status = 200, description = "What is in flight, and its bounds", body = IngestStatus)),
)]
async fn state(context: web::Data<Context>) -> Result<impl Responder, Problem> {
    Ok(answer(&context))
}

/// Stops the reading from the broker
///
/// Messages already read are committed and acknowledged, the connection stays open, and the broker keeps the
/// rest. The service is not ready until ingest is resumed or the process is restarted.
#[utoipa::path(
    post, path = "/api/v1/ingest/pause", tag = "ingest", operation_id = "pause_ingest",
    responses((status = 200, description = "It is paused", body = IngestStatus)),
)]
async fn pause(context: web::Data<Context>) -> Result<impl Responder, Problem> {
    if context.ingest.flow.pause() {
        info!("ingest paused: nothing is read from the broker until it is resumed");
    }
    Ok(answer(&context))
}

/// Resumes ingest
#[utoipa::path(
    post, path = "/api/v1/ingest/resume", tag = "ingest", operation_id = "resume_ingest",
    responses((status = 200, description = "Ingest is resumed", body = IngestStatus)),
)]
async fn resume(context: web::Data<Context>) -> Result<impl Responder, Problem> {
    if context.ingest.flow.resume() {
        info!("ingest resumed");
    }
    Ok(answer(&context))
}

fn answer(context: &Context) -> HttpResponse {
    let ingest = &context.ingest;
    let flow = ingest.flow.snapshot();
    HttpResponse::Ok().json(IngestStatus {
        paused_since: ingest.flow.paused_since().map(Timestamp::to_jiff),
        window: IngestWindow {
            messages: flow.window_messages,
            max_messages: ingest.max_messages,
            bytes: flow.window_bytes,
            max_bytes: ingest.max_bytes,
        },
        queue: IngestQueue { messages: flow.waiting_messages, items: flow.waiting_items },
        batches: IngestBatches {
            committed: flow.batches,
            items: flow.batch_items,
            last_items: flow.last_batch_items,
            largest_items: flow.largest_batch_items,
            max_items: ingest.max_batch_items,
        },
        writers: Writers { busy: flow.writing, connections: ingest.writers },
        connections: IngestConnections {
            broker_ingest: connection(context, Part::Ingest),
            database_writing: connection(context, Part::Writing),
        },
        log_filter: ingest.log.present(),
    })
}

/// Sets the log filter until the process ends
#[utoipa::path(
    put, path = "/api/v1/ingest/log-level", tag = "ingest", operation_id = "set_log_level",
    responses((status = 200, description = "It is logged by this from now on", body = LogLevel)),
)]
async fn set_log_level(
    context: web::Data<Context>,
    Json(body): Json<LogLevelBody>,
) -> Result<impl Responder, Problem> {
    let filter = body.filter.0;
    let refusal = |problem| Problem::member("/filter".into(), format!("no filter: {problem}"));
    context.ingest.log.set(&filter).map_err(refusal)?;
    info!(filter, "log filter changed");
    Ok(HttpResponse::Ok().json(LogLevel { filter }))
}
