//! Rejections, which the writer recorded: listed newest first, counted by reason, and deleted. The payload is as
//! received: as text where it is UTF-8, else in base64. A request touches a bounded number of rejections, and all of
//! them only if it says so.

use actix_web::web;
use actix_web::{HttpResponse, Responder};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::access::Access;
use super::caller::Caller;
use super::fields::{self, DeletionLimit, KindName, MAX_DELETED, Number, ReasonCode, Time, True};
use super::page::{Listing, PageQuery, row_listing};
use super::problem::{Kind, Problem};
use super::query::{And, Query};
use super::routes::Routes;
use super::{Context, cursor};
use crate::domain::{self, Scope, SensorIdentifier};
use crate::store::{ReasonCount, RejectionFilter, RejectionRow};

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_summarise, summarise).fails_with(&[Kind::SensorNotFound]);
    routes.add(Access::VIEWER, __path_list, list).fails_with(&[Kind::SensorNotFound]);
    routes.add(Access::OPERATOR, __path_delete, delete).fails_with(&[Kind::SensorNotFound]);
}

#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Rejection)]
pub(super) struct RejectionItem {
    identifier: i64,
    receipt_timestamp: jiff::Timestamp,
    topic: String,
    #[schema(value_type = Option<uuid::Uuid>)]
    sensor_identifier: Option<SensorIdentifier>,
    /// Null where the topic does not contain it.
    #[schema(value_type = Option<KindName>)]
    kind: Option<&'static str>,
    /// The item's index in its message, from 0; null where the whole message was rejected.
    item_index: Option<i32>,
    /// The number of items rejected with it.
    item_count: i32,
    #[schema(value_type = ReasonCode)]
    reason: String,
    /// What was wrong, in a sentence.
    detail: String,
    #[serde(flatten)]
    raw: Raw,
}

/// The payload as received: text where it is UTF-8.
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

impl From<RejectionRow> for RejectionItem {
    fn from(row: RejectionRow) -> Self {
        Self {
            identifier: row.identifier,
            receipt_timestamp: row.received_at.to_jiff(),
            topic: row.topic,
            sensor_identifier: row.sensor,
            kind: row.kind.map(domain::Kind::name),
            item_index: row.item_index.map(u32::cast_signed),
            item_count: row.item_count,
            reason: row.reason,
            detail: row.detail,
            raw: row.raw.into(),
        }
    }
}

/// Rejections, newest first
///
/// A token of one network sees those of its sensors. A page ends early where its `raw` exceeds 4 MiB: follow
/// `next`. The reason is the first that applies: whether the sensor exists is checked before the payload, so that
/// a too large payload of an unknown sensor is `unknown_sensor`.
#[utoipa::path(
    get, path = "/api/v1/rejections", tag = "rejections", operation_id = "list_rejections",
    responses(
        (status = 200, description = "A page of rejections", body = Listing<RejectionItem>),
        (status = 404, description = "The sensor is outside of the caller's network"),
    ),
)]
async fn list(
    context: web::Data<Context>,
    caller: Caller,
    Query(And(page, query)): Query<And<PageQuery, RejectionsQuery>>,
) -> Result<impl Responder, Problem> {
    let page = page.page::<i64>()?;
    let filter = queried(&context, &caller, query.into()).await?;
    let rows = context.store.list_rejections(&page, &filter).await?;
    Ok(row_listing(
        <i64 as cursor::CursorKey>::TAG,
        rows,
        |row| row.identifier,
        RejectionItem::from,
    ))
}

/// The rejections of one reason.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct RejectionCount {
    #[schema(value_type = ReasonCode)]
    reason: String,
    /// The number of rejections.
    count: i64,
    /// The number of items in them.
    item_count: i64,
    /// When the first was received.
    first_receipt_timestamp: jiff::Timestamp,
    /// When the last was received.
    last_receipt_timestamp: jiff::Timestamp,
}

impl From<ReasonCount> for RejectionCount {
    fn from(it: ReasonCount) -> Self {
        Self {
            reason: it.reason,
            count: it.rejections,
            item_count: it.items,
            first_receipt_timestamp: it.first_at.to_jiff(),
            last_receipt_timestamp: it.last_at.to_jiff(),
        }
    }
}

/// Counts of rejections, by reason
///
/// The most frequent first; all on one page.
#[utoipa::path(
    get, path = "/api/v1/rejections/summary", tag = "rejections", operation_id = "summarise_rejections",
    responses(
        (status = 200, description = "Each reason that occurs", body = Listing<RejectionCount>),
        (status = 404, description = "The sensor is outside of the caller's network"),
    ),
)]
async fn summarise(
    context: web::Data<Context>,
    caller: Caller,
    Query(query): Query<RejectionsQuery>,
) -> Result<HttpResponse, Problem> {
    let filter = queried(&context, &caller, query.into()).await?;
    let _turn = context.store.long_read(caller.holder()).await?;
    let counts = context.store.summarise_rejections(&filter).await?;
    let items = counts.into_iter().map(RejectionCount::from).collect();
    Ok(HttpResponse::Ok().json(Listing { items, next: None }))
}

#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = RejectionsDeleted)]
pub(super) struct Deletion {
    /// How many were deleted.
    deleted: u64,
    /// More rejections match: repeat the request.
    more: bool,
}

/// Deletes rejections
///
/// Those that match all conditions; without a condition only with `all=true`.
#[utoipa::path(
    delete, path = "/api/v1/rejections", tag = "rejections", operation_id = "delete_rejections",
    responses(
        (status = 200, description = "How many were", body = Deletion),
        (status = 404, description = "The sensor is outside of the caller's network"),
    ),
)]
async fn delete(
    context: web::Data<Context>,
    caller: Caller,
    Query(And(query, conditions)): Query<And<DeletionQuery, RejectionsQuery>>,
) -> Result<impl Responder, Problem> {
    let filter = RejectionFilter::from(conditions);
    if is_unconditional(&filter, query.all.is_some()) {
        return Err(Problem::parameter("all", CONDITION_REQUIRED));
    }
    let filter = queried(&context, &caller, filter).await?;
    let limit = query.limit.map_or(MAX_DELETED, |limit| limit.0);
    let deleted = context.store.delete_rejections(&filter, limit).await?;
    Ok(HttpResponse::Ok().json(Deletion { deleted, more: deleted == u64::from(limit) }))
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct RejectionsQuery {
    /// This one
    #[param(inline)]
    identifier: Option<Number>,
    /// Of this sensor
    #[param(inline)]
    sensor: Option<fields::Sensor>,
    /// With this code
    #[param(inline)]
    reason: Option<ReasonCode>,
    /// Of this kind
    #[param(inline)]
    kind: Option<KindName>,
    /// Received from this time on: RFC 3339 or Unix seconds
    #[param(inline)]
    since: Option<Time>,
    /// Received before this time: RFC 3339 or Unix seconds
    #[param(inline)]
    until: Option<Time>,
}

impl From<RejectionsQuery> for RejectionFilter {
    fn from(query: RejectionsQuery) -> Self {
        Self {
            identifiers: query.identifier.map(|identifier| vec![identifier.0]),
            network: None,
            sensor: query.sensor.map(|sensor| sensor.0),
            reason: query.reason.map(|reason| reason.0),
            kind: query.kind.map(|kind| kind.0),
            since: query.since.map(|time| time.0),
            until: query.until.map(|time| time.0),
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
struct DeletionQuery {
    /// `true`: delete without a condition
    #[param(inline)]
    all: Option<True>,
    /// At most this many
    #[param(inline, default = 10000)]
    limit: Option<DeletionLimit>,
}

pub(super) const CONDITION_REQUIRED: &str =
    "name the rejections by a condition, or all of them by all=true";

/// The filter of a query, limited to the caller's network.
async fn queried(
    context: &Context,
    caller: &Caller,
    filter: RejectionFilter,
) -> Result<RejectionFilter, Problem> {
    let filter = in_scope(context, caller.scope, filter).await;
    filter.map_err(|problem| problem.in_parameter("sensor"))
}

/// Limits the filter to the caller's network. A rejection belongs to the network of its sensor; that of an
/// unknown sensor belongs to none.
pub(super) async fn in_scope(
    context: &Context,
    scope: Scope,
    filter: RejectionFilter,
) -> Result<RejectionFilter, Problem> {
    if let (Scope::Network(network), Some(sensor)) = (scope, filter.sensor)
        && !context.store.network_holds(network, sensor).await?
    {
        return Err(Problem::new(Kind::SensorNotFound, "no sensor has this identifier"));
    }
    Ok(RejectionFilter { network: scope.network(), ..filter })
}

/// Whether the request neither names a condition nor asks for all.
pub(super) fn is_unconditional(filter: &RejectionFilter, all: bool) -> bool {
    *filter == RejectionFilter::default() && !all
}
