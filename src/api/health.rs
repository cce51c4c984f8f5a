//! Liveness, readiness and metrics, for monitoring. They respond within two seconds, also while the database is
//! unavailable.

use actix_web::web;
use actix_web::{HttpResponse, Responder};
use serde::Serialize;
use tracing::debug;
use utoipa::ToSchema;

use super::Context;
use super::access::Access;
use super::problem::{Kind, Missing, Problem};
use super::routes::Routes;
use crate::domain::Part;
use crate::store::StoreError;

const METRICS_MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The database's name beside those of the parts.
pub(super) const DATABASE: &str = "database";

/// The name of ingest, where an operator has paused it.
const INGEST: &str = "ingest";

#[derive(Serialize, ToSchema)]
#[schema(as = Health)]
pub(super) struct HealthStatus {
    status: &'static str,
}

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::Open, __path_alive, alive);
    routes.add(Access::Open, __path_ready, ready).fails_with(&[Kind::NotReady]);
    routes.add(Access::OpenIf(|config| config.metrics_open), __path_metrics, metrics);
}

/// The process is alive
#[utoipa::path(
    get, path = "/healthz", tag = "service", operation_id = "is_alive",
    responses((status = 200, description = "The process is alive", body = HealthStatus, example = json!({ "status": "alive" }))),
)]
async fn alive() -> impl Responder {
    HttpResponse::Ok().json(HealthStatus { status: "alive" })
}

/// The service can do its work
#[utoipa::path(
    get, path = "/readyz", tag = "service", operation_id = "is_ready",
    responses(
        (status = 200, description = "Broker and database are up", body = HealthStatus, example = json!({ "status": "ready" })),
        (status = 503, description = "Not ready; `missing` lists the parts that are down"),
    ),
)]
async fn ready(context: web::Data<Context>) -> Result<impl Responder, Problem> {
    let mut missing: Vec<_> = Part::ALL
        .into_iter()
        .map(|part| (part, context.health.condition(part)))
        .filter(|(_, condition)| !condition.up)
        .map(|(part, condition)| Missing {
            part: part.name(),
            problem: condition.problem.unwrap_or_default(),
            since: Some(condition.since.to_jiff()),
        })
        .collect();
    if let Some(problem) = database_problem(&context).await {
        missing.push(Missing { part: DATABASE, problem, since: None });
    }
    if let Some(since) = context.ingest.flow.paused_since() {
        let problem = "it is paused by an operator".into();
        missing.push(Missing { part: INGEST, problem, since: Some(since.to_jiff()) });
    }
    if missing.is_empty() {
        Ok(HttpResponse::Ok().json(HealthStatus { status: "ready" }))
    } else {
        Err(Problem::not_ready(missing))
    }
}

/// Why the database is unavailable, without details: no token is needed to read it.
pub(super) async fn database_problem(context: &Context) -> Option<String> {
    let error = context.access.ping().await.err()?;
    debug!(cause = %error, "the database does not answer");
    if let Some(reason) = error.handshake_problem() {
        return Some(format!("the TLS handshake failed: {reason}"));
    }
    let sentence = match error.sqlstate() {
        _ if matches!(error, StoreError::Migrating) => "its tables are being brought up to date",
        None => "it does not answer",
        Some(_) if error.lacks_tables() => "its tables do not exist; run tributary migrate",
        Some(_) => "it refuses the connection",
    };
    Some(sentence.into())
}

/// What is measured, for Prometheus
///
/// Of the whole service, for every token: a token of one network reads it too. No sensor and no network is
/// named. Without a token where `METRICS_OPEN=true`.
#[utoipa::path(
    get, path = "/metrics", tag = "service", operation_id = "read_metrics",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")),
)]
async fn metrics(context: web::Data<Context>) -> impl Responder {
    HttpResponse::Ok().content_type(METRICS_MEDIA_TYPE).body(context.metrics.render())
}
