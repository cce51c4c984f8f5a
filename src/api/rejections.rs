//! What could not be stored: listed newest first, replayed, deleted. Reads what the writer recorded
//! beside the rows. Promises the bytes as they came: as text where they are text, in base64 where
//! not; that a request touches a bounded number of rejections; and that all of them are meant only
//! where that is said.

use std::sync::LazyLock;
use std::time::Duration;

use actix_web::web;
use actix_web::{HttpResponse, Responder};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::body::{Body, Members, pointer};
use super::caller::Caller;
use super::narrow::{MOMENT_EXPECTED, Moment, moment};
use super::openapi_words::{KindName, ReasonCode};
use super::page::{Listing, MAX_LIMIT, NoParameters, Parameters, row_listing};
use super::problem::Problem;
use super::problem_kind;
use super::routes::{Access, Routes};
use super::{Context, cursor, to_the_end};
use crate::domain::{Kind, Reason, Scope, SensorIdentifier};
use crate::replay::{ReplayError, ReplayReport, ReplayRequest};
use crate::store::{RejectionFilter, RejectionRow, Stretch};

/// A page is replayed within some hundred milliseconds; longer than this, nobody waits.
const REPLAY_PATIENCE: Duration = Duration::from_secs(25);

/// So many are deleted in one request: well within the time that a statement may take.
const MAX_DELETED: u32 = 10_000;

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
    routes.add(Access::OPERATOR, __path_delete, delete);
    routes.add(Access::OPERATOR, __path_replay, replay);
}

/// A rejection as it stands on the wire.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Rejection)]
pub(super) struct Item {
    identifier: i64,
    receipt_timestamp: jiff::Timestamp,
    topic: String,
    #[schema(value_type = Option<uuid::Uuid>)]
    sensor_identifier: Option<SensorIdentifier>,
    /// Null where the topic does not say so.
    #[schema(value_type = Option<KindName>)]
    kind: Option<String>,
    /// The item's place in its message, from 0; null where the whole message was refused.
    item_index: Option<i32>,
    /// How many items were refused with it.
    item_count: i32,
    #[schema(value_type = ReasonCode)]
    reason: String,
    /// What was wrong, in a sentence.
    detail: String,
    #[serde(flatten)]
    raw: Raw,
}

/// The bytes as they came: text where they are UTF-8.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum Raw {
    Text { raw: String },
    Bytes { raw_base64: String },
}

impl From<Vec<u8>> for Raw {
    fn from(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(raw) => Self::Text { raw },
            Err(not_utf8) => Self::Bytes { raw_base64: STANDARD.encode(not_utf8.as_bytes()) },
        }
    }
}

impl From<RejectionRow> for Item {
    fn from(row: RejectionRow) -> Self {
        Self {
            identifier: row.identifier,
            receipt_timestamp: row.received_at.to_jiff(),
            topic: row.topic,
            sensor_identifier: row.sensor,
            kind: row.kind,
            item_index: row.item_index,
            item_count: row.item_count,
            reason: row.reason,
            detail: row.detail,
            raw: row.raw.into(),
        }
    }
}

/// What could not be stored, newest first
///
/// A token of one network sees what its sensors said. A page ends early where its `raw` comes to more
/// than 4 MiB: follow `next`. The reason is the first that applies: whether the sensor exists is looked at
/// before its payload is, so that a payload that is too large of a sensor that nobody has created is
/// `unknown_sensor`.
#[utoipa::path(
    get, path = "/api/v1/rejections", tag = "rejections", operation_id = "list_rejections",
    params(
        ("limit" = Option<u32>, Query, description = "Items of a page"),
        ("cursor" = Option<String>, Query, description = "What the last page gave as next"),
        ("identifier" = Option<i64>, Query, description = "This one"),
        ("sensor" = Option<uuid::Uuid>, Query, description = "Of this sensor"),
        ("reason" = Option<ReasonCode>, Query, description = "With this code"),
        ("kind" = Option<KindName>, Query, description = "Of this kind"),
        ("since" = Option<String>, Query, description = "Received from this time on: RFC 3339 or Unix seconds"),
        ("until" = Option<String>, Query, description = "Received before this time: RFC 3339 or Unix seconds"),
    ),
    responses(
        (status = 200, description = "A page of rejections", body = Listing<Item>),
        (status = 404, description = "The sensor lies outside of the caller's network"),
    ),
)]
pub(super) async fn list(
    context: web::Data<Context>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let scope = caller.scope();
    let page = parameters.page::<i64>()?;
    let filter = filter_of(&mut parameters)?;
    parameters.finish()?;
    let filter = within(&context, scope, filter).await;
    let filter = filter.map_err(|problem| problem.in_parameter("sensor"))?;
    let rows = context.store.list_rejections(&page, &filter).await?;
    Ok(row_listing(<i64 as cursor::Position>::TAG, rows, |row| row.identifier, Item::from))
}

/// What was deleted.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = RejectionsDeleted)]
pub(super) struct Deletion {
    /// So many.
    deleted: u64,
    /// There are more that fulfil the filter: ask again.
    more: bool,
}

/// Deletes rejections
///
/// Those that fulfil all of the conditions; all of them only where `all=true` says so.
#[utoipa::path(
    delete, path = "/api/v1/rejections", tag = "rejections", operation_id = "delete_rejections",
    params(
        ("all" = Option<bool>, Query, description = "`true`: all are meant"),
        ("limit" = Option<u32>, Query, maximum = 10000, description = "How many at the most"),
        ("identifier" = Option<i64>, Query, description = "This one"),
        ("sensor" = Option<uuid::Uuid>, Query, description = "Of this sensor"),
        ("reason" = Option<ReasonCode>, Query, description = "With this code"),
        ("kind" = Option<KindName>, Query, description = "Of this kind"),
        ("since" = Option<String>, Query, description = "Received from this time on: RFC 3339 or Unix seconds"),
        ("until" = Option<String>, Query, description = "Received before this time: RFC 3339 or Unix seconds"),
    ),
    responses(
        (status = 200, description = "How many were", body = Deletion),
        (status = 404, description = "The sensor lies outside of the caller's network"),
    ),
)]
pub(super) async fn delete(
    context: web::Data<Context>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let scope = caller.scope();
    let all = parameters.take_as("all", "true", |text| (text == "true").then_some(()))?;
    let limit = parameters.take_as("limit", "a whole number from 1 to 10000", |text| {
        text.parse().ok().filter(|limit| (1..=MAX_DELETED).contains(limit))
    })?;
    let filter = filter_of(&mut parameters)?;
    parameters.finish()?;
    if says_too_little(&filter, all.is_some()) {
        return Err(Problem::parameter("all", WHICH));
    }
    let filter = within(&context, scope, filter).await;
    let filter = filter.map_err(|problem| problem.in_parameter("sensor"))?;
    let limit = limit.unwrap_or(MAX_DELETED);
    let deleted = context.store.delete_rejections(&filter, limit).await?;
    Ok(HttpResponse::Ok().json(Deletion { deleted, more: deleted == u64::from(limit) }))
}

/// What became of a page of a replay.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Replay {
    /// Rejections that went through the pipeline.
    replayed: u64,
    /// Of those: left the table, because their items are rows now, or rejections of their own.
    removed: u64,
    /// Of those: stay, because all of it is refused again.
    kept: u64,
    /// Of those: were not there any more when they were to be stored.
    gone: u64,
    /// Of those: stopped the actor of their sensor, or came behind one that did; they stay.
    failed: u64,
    /// Items that are rows now.
    stored_items: u64,
    /// Items that were rows before.
    duplicate_items: u64,
    /// Items that are refused again.
    refused_items: u64,
    /// Rejections that cannot be replayed; they stay.
    not_replayable: Vec<NotReplayable>,
    /// Where the next page begins; null behind the last.
    next: Option<String>,
}

/// What a replay takes: conditions, all of which are to be fulfilled, or that all are meant.
#[derive(utoipa::ToSchema)]
#[schema(as = ReplayOrder, example = json!({ "reason": "unknown_sensor", "limit": 1000 }))]
#[expect(dead_code, reason = "the document describes it; the members are read one by one")]
pub(super) struct ReplayBody {
    /// True: all are meant.
    #[schema(nullable = false)]
    all: Option<bool>,
    /// Rejections of a page, 1000 if not said.
    #[schema(minimum = 1, maximum = 1000, nullable = false)]
    limit: Option<u32>,
    /// What the page before gave as next; null for the first one.
    cursor: Option<String>,
    /// These.
    #[schema(min_items = 1, max_items = 1000, nullable = false)]
    identifiers: Option<Vec<i64>>,
    /// Of this sensor.
    #[schema(nullable = false)]
    sensor: Option<uuid::Uuid>,
    #[schema(nullable = false)]
    reason: Option<ReasonCode>,
    #[schema(nullable = false)]
    kind: Option<KindName>,
    /// Received from this time on.
    #[schema(nullable = false)]
    since: Option<Moment>,
    /// Received before this time.
    #[schema(nullable = false)]
    until: Option<Moment>,
}

/// A rejection that cannot be replayed.
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
            gone: outcome.gone,
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
/// Say which, or `"all": true`. What is stored leaves the table in the transaction that stores it; what
/// is refused again stays, with the reason of today. Of a payload that was too large only the beginning
/// was kept, under whatever reason it stands: it is told in `not_replayable`. Follow `next` as `cursor`
/// until it is null.
#[utoipa::path(
    post, path = "/api/v1/rejections/replay", tag = "rejections", operation_id = "replay_rejections",
    request_body = ReplayBody,
    responses(
        (status = 200, description = "What became of them", body = Replay),
        (status = 404, description = "The sensor lies outside of the caller's network"),
    ),
)]
pub(super) async fn replay(
    context: web::Data<Context>,
    caller: Caller,
    _: NoParameters,
    body: Body,
) -> Result<impl Responder, Problem> {
    let scope = caller.scope();
    let mut order = order(body.members()?)?;
    let filter = within(&context, scope, order.filter).await;
    order.filter = filter.map_err(|problem| problem.at(pointer("sensor")))?;
    let report = to_the_end(async move {
        match tokio::time::timeout(REPLAY_PATIENCE, context.replays.replay(order)).await {
            Ok(report) => report.map_err(Problem::from),
            Err(_elapsed) => Err(Problem::later(
                problem_kind::Kind::ReplayUnderWay,
                "the replay takes long, and goes on; the rejections tell what it has done",
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
            ReplayError::Busy | ReplayError::Ended => {
                Self::later(problem_kind::Kind::ReplayUnderWay, &error.to_string())
            }
        }
    }
}

fn order(mut members: Members<'_>) -> Result<ReplayRequest, Problem> {
    let all = members.take_as("all", "true", |all: bool| all.then_some(()))?;
    let limit = members.take_as("limit", "a whole number from 1 to 1000", |limit: u32| {
        (1..=MAX_LIMIT).contains(&limit).then_some(limit)
    })?;
    let stretch = members.take_nullable_as(
        "cursor",
        "what an earlier page of this replay gave as next",
        |it: String| cursor::decode::<Stretch>(&it),
    )?;
    let identifiers =
        members.take_as("identifiers", "1 to 1000 whole numbers", |identifiers: Vec<i64>| {
            (1..=MAX_LIMIT as usize).contains(&identifiers.len()).then_some(identifiers)
        })?;
    let filter = RejectionFilter {
        identifiers,
        network: None,
        sensor: members.take_as("sensor", SENSOR, |text: String| SensorIdentifier::parse(&text))?,
        reason: members.take_as("reason", &REASON, |text: String| known_code(&text))?,
        kind: members.take_as("kind", KIND, |text: String| known_kind(&text))?,
        since: members.take_as("since", MOMENT_EXPECTED, Moment::read)?,
        until: members.take_as("until", MOMENT_EXPECTED, Moment::read)?,
    };
    members.finish()?;
    if says_too_little(&filter, all.is_some()) {
        return Err(Problem::member(pointer("all"), WHICH));
    }
    Ok(ReplayRequest { filter, stretch: stretch.flatten(), limit: limit.unwrap_or(MAX_LIMIT) })
}

const SENSOR: &str = "a UUID in its hyphenated form";
const KIND: &str = "measurement, log_message or heartbeat";

/// Whoever has misspelt one learns of all.
static REASON: LazyLock<String> = LazyLock::new(|| {
    let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    format!("one of the codes of rejections: {}", codes.join(", "))
});

const WHICH: &str = "say which rejections are meant, or that all are: all=true";

/// What the filter finds in the caller's network. A rejection is of the network of its sensor; that of
/// a sensor that nobody has created is of none.
async fn within(
    context: &Context,
    scope: Scope,
    filter: RejectionFilter,
) -> Result<RejectionFilter, Problem> {
    if let (Scope::Network(network), Some(sensor)) = (scope, filter.sensor)
        && !context.store.network_holds(network, sensor).await?
    {
        return Err(Problem::new(
            problem_kind::Kind::SensorNotFound,
            "no sensor has this identifier",
        ));
    }
    Ok(RejectionFilter { network: scope.network(), ..filter })
}

/// Whether nothing is said of which rejections are meant.
fn says_too_little(filter: &RejectionFilter, all: bool) -> bool {
    *filter == RejectionFilter::default() && !all
}

fn filter_of(parameters: &mut Parameters) -> Result<RejectionFilter, Problem> {
    Ok(RejectionFilter {
        identifiers: parameters
            .take_as("identifier", "a whole number", |text| text.parse().ok())?
            .map(|identifier| vec![identifier]),
        network: None,
        sensor: parameters.take_as("sensor", SENSOR, SensorIdentifier::parse)?,
        reason: parameters.take_as("reason", &REASON, known_code)?,
        kind: parameters.take_as("kind", KIND, known_kind)?,
        since: parameters.take_as("since", MOMENT_EXPECTED, moment)?,
        until: parameters.take_as("until", MOMENT_EXPECTED, moment)?,
    })
}

fn known_code(text: &str) -> Option<&'static str> {
    Reason::ALL.iter().map(|reason| reason.code()).find(|code| *code == text)
}

fn known_kind(text: &str) -> Option<&'static str> {
    Kind::ALL.into_iter().map(Kind::name).find(|name| *name == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_where_they_are_text() {
        let json = |bytes: &[u8]| serde_json::to_value(Raw::from(bytes.to_vec())).unwrap();
        assert_eq!(json(b"{\"a\":1"), serde_json::json!({ "raw": "{\"a\":1" }));
        assert_eq!(json(b""), serde_json::json!({ "raw": "" }));
        assert_eq!(json(b"\xff\0"), serde_json::json!({ "raw_base64": "/wA=" }));
    }
}
