//! Replays rejections: a page of them goes through the pipeline again. A request replays a bounded number, and
//! all rejections only if it says so.

use std::time::Duration;

use actix_web::web;
use actix_web::{HttpResponse, Responder};
use serde::{Deserialize, Serialize};

use super::access::Access;
use super::body::Json;
use super::caller::Caller;
use super::field_error::pointer;
use super::fields::{
    self, Identifiers, KindName, Limit, MAX_LIMIT, ReasonCode, Time, True, not_null,
};
use super::problem::{Kind, Problem};
use super::rejections::{CONDITION_REQUIRED, in_scope, is_unconditional};
use super::routes::Routes;
use super::{Context, cursor, run_to_completion};
use crate::replay::{ReplayError, ReplayReport, ReplayRequest};
use crate::store::{RejectionFilter, ReplayRange};

/// A page normally takes some hundred milliseconds.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(25);

pub(super) fn routes(routes: &mut Routes) {
    routes
        .add(Access::OPERATOR, __path_replay, replay)
        .fails_with(&[Kind::SensorNotFound, Kind::ReplayUnderWay]);
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Replay {
    /// Rejections that went through the pipeline.
    replayed: u64,
    /// Of these: removed, because their items are rows now, or rejections of their own.
    removed: u64,
    /// Of these: kept, because every item was rejected again.
    kept: u64,
    /// Of these: deleted by others before they were stored.
    gone: u64,
    /// Of these: kept, because they stopped their sensor's actor, or came after one that did.
    failed: u64,
    /// Items that are rows now.
    stored_items: u64,
    /// Items that were rows before.
    duplicate_items: u64,
    /// Items that were rejected again.
    refused_items: u64,
    /// Rejections that cannot be replayed; they are kept.
    not_replayable: Vec<NotReplayable>,
    /// The cursor of the next page; null on the last.
    next: Option<String>,
}

/// Conditions, all of which must match, or `all`.
#[derive(Deserialize, utoipa::ToSchema)]
#[schema(as = ReplayOrder, example = json!({ "reason": "unknown_sensor", "limit": 1000 }))]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayBody {
    /// True: replay without a condition.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(inline, nullable = false)]
    all: Option<True>,
    /// Rejections of a page; 1000 by default.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(inline, nullable = false)]
    limit: Option<Limit>,
    /// The `next` of the previous page; null for the first.
    cursor: Option<String>,
    /// Rejections with these identifiers.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(min_items = 1, max_items = 1000, value_type = Vec<i64>, required = false)]
    identifiers: Option<Identifiers>,
    /// Of this sensor.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(inline, nullable = false)]
    sensor: Option<fields::Sensor>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    reason: Option<ReasonCode>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    kind: Option<KindName>,
    /// Received from this time on.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(inline, nullable = false)]
    since: Option<Time>,
    /// Received before this time.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(inline, nullable = false)]
    until: Option<Time>,
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct NotReplayable {
    identifier: i64,
    detail: String,
}

impl From<ReplayReport> for Replay {
    fn from(report: ReplayReport) -> Self {
        let ReplayReport { replayed, outcome, failed, not_replayable, rest } = report;
        let not_replayable = not_replayable
            .into_iter()
            .map(|(identifier, flaw)| NotReplayable { identifier, detail: flaw.to_string() })
            .collect();
        Self {
            replayed,
            removed: outcome.removed,
            kept: outcome.kept,
            gone: outcome.missing,
            failed,
            stored_items: outcome.stored_items,
            duplicate_items: outcome.duplicate_items,
            refused_items: outcome.refused_items,
            not_replayable,
            next: rest.map(|rest| cursor::encode(&rest)),
        }
    }
}

/// Replays rejections: a page of them goes through the pipeline again
///
/// Name a condition, or `"all": true`. A rejection is removed in the transaction that stores its items; one that
/// is rejected again is kept with the new reason. Of a too large payload only the beginning was kept, so that it is
/// listed in `not_replayable`. Follow `next` as `cursor` until it is null.
#[utoipa::path(
    post, path = "/api/v1/rejections/replay", tag = "rejections", operation_id = "replay_rejections",
    responses(
        (status = 200, description = "What became of them", body = Replay),
        (status = 404, description = "The sensor is outside of the caller's network"),
    ),
)]
async fn replay(
    context: web::Data<Context>,
    caller: Caller,
    Json(body): Json<ReplayBody>,
) -> Result<impl Responder, Problem> {
    let mut order = order(body)?;
    let filter = in_scope(&context, caller.scope, order.filter).await;
    order.filter = filter.map_err(|problem| problem.at(pointer("sensor")))?;
    let report = run_to_completion(async move {
        match tokio::time::timeout(REPLAY_TIMEOUT, context.replays.replay(order)).await {
            Ok(report) => report.map_err(Problem::from),
            Err(_elapsed) => Err(Problem::later(
                Kind::ReplayUnderWay,
                "the replay continues; the list of rejections shows its progress",
            )),
        }
    })
    .await?;
    Ok(HttpResponse::Ok().json(Replay::from(report)))
}

impl From<ReplayError> for Problem {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Store(error) => error.into(),
            ReplayError::Failed => Self::internal(error),
            ReplayError::Busy | ReplayError::Ended => {
                Self::later(Kind::ReplayUnderWay, &error.to_string())
            }
        }
    }
}

fn order(body: ReplayBody) -> Result<ReplayRequest, Problem> {
    let range = body.cursor.map(|cursor| {
        cursor::decode::<ReplayRange>(&cursor).ok_or_else(|| {
            let detail = "it takes the next of an earlier page of this replay";
            Problem::member(pointer("cursor"), detail)
        })
    });
    let filter = RejectionFilter {
        identifiers: body.identifiers.map(|identifiers| identifiers.0),
        network: None,
        sensor: body.sensor.map(|sensor| sensor.0),
        reason: body.reason.map(|reason| reason.0),
        kind: body.kind.map(|kind| kind.0),
        since: body.since.map(|time| time.0),
        until: body.until.map(|time| time.0),
    };
    if is_unconditional(&filter, body.all.is_some()) {
        return Err(Problem::member(pointer("all"), CONDITION_REQUIRED));
    }
    let limit = body.limit.map_or(MAX_LIMIT, |limit| limit.0);
    Ok(ReplayRequest { filter, range: range.transpose()?, limit })
}
