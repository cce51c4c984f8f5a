//! The log messages of a sensor, and their aggregates by severity and subject. The texts are as received.

use actix_web::HttpResponse;
use actix_web::web;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::access::Access;
use super::caller::Caller;
use super::cursor::CursorKey;
use super::fields::{SEVERITIES, SearchText, Severities, SeverityName};
use super::page::{Listing, PageQuery, RowsQuery, TimeRangeQuery, listing, row_listing};
use super::path::{Path, SensorPath};
use super::problem::Problem;
use super::query::{And, Query};
use super::routes::Routes;
use super::{Context, cursor};
use crate::store::{LogFilter, LogMessageRow, LogSummary, SummaryKey};

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
    routes.add(Access::VIEWER, __path_summarise, summarise);
}

#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = LogMessage)]
pub(super) struct LogMessageItem {
    /// By the sensor's clock, in Unix seconds.
    timestamp: f64,
    /// By the sensor's clock, as RFC 3339.
    creation_timestamp: jiff::Timestamp,
    /// When it reached the service.
    receipt_timestamp: jiff::Timestamp,
    /// The sensor named no time, so that its time is that of the receipt (`TIMESTAMP_MISSING=receipt`). Missing if false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    timed_at_receipt: bool,
    /// The revision of the configuration under which it was written; null: under none from the server.
    revision: Option<i32>,
    #[schema(value_type = SeverityName)]
    severity: String,
    subject: String,
    details: Option<String>,
}

impl From<LogMessageRow> for LogMessageItem {
    fn from(row: LogMessageRow) -> Self {
        Self {
            timestamp: row.key.timestamp.unix_seconds(),
            creation_timestamp: row.key.timestamp.to_jiff(),
            receipt_timestamp: row.received_at.to_jiff(),
            timed_at_receipt: row.timed_at_receipt,
            revision: row.revision,
            severity: row.severity,
            subject: row.subject,
            details: row.details,
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct LogMessageAggregate {
    #[schema(value_type = SeverityName)]
    severity: String,
    subject: String,
    count: i64,
    /// The lowest revision under which it was logged; null: under none.
    first_revision: Option<i32>,
    /// The highest.
    last_revision: Option<i32>,
    /// When it was first logged, by the sensor's clock.
    first_creation_timestamp: jiff::Timestamp,
    /// When it was last logged, by the sensor's clock.
    last_creation_timestamp: jiff::Timestamp,
}

impl From<LogSummary> for LogMessageAggregate {
    fn from(line: LogSummary) -> Self {
        Self {
            severity: line.key.severity,
            subject: line.key.subject,
            count: line.count,
            first_revision: line.first_revision,
            last_revision: line.last_revision,
            first_creation_timestamp: line.first_at.to_jiff(),
            last_creation_timestamp: line.last_at.to_jiff(),
        }
    }
}

/// Log messages of a sensor, page by page
///
/// Newest first by default.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/log-messages",
    operation_id = "list_log_messages",
    tag = "log messages",
    responses(
        (status = 200, description = "One page", body = Listing<LogMessageItem>),
    )
)]
async fn list(
    context: web::Data<Context>,
    caller: Caller,
    Path(path): Path<SensorPath>,
    Query(And(rows, query)): Query<And<RowsQuery, LogQuery>>,
) -> Result<HttpResponse, Problem> {
    let (selection, list) = rows.selection(cursor::LOG_MESSAGES)?;
    let filter: LogFilter = query.into();
    let _turn = match filter == LogFilter::default() {
        true => None,
        false => Some(context.store.long_read(caller.holder()).await?),
    };
    let page = context.store.list_log_messages(path.identifier.0, &selection, &filter).await?;
    let page = page.ok_or_else(Problem::sensor_not_found)?;
    Ok(row_listing(list, page, |row| row.key, LogMessageItem::from))
}

/// Log messages of a sensor, counted by severity and subject
///
/// Errors first, then by subject.
#[utoipa::path(
    get,
    path = "/api/v1/sensors/{identifier}/log-messages/aggregates",
    operation_id = "aggregate_log_messages",
    tag = "log messages",
    responses(
        (status = 200, description = "One page", body = Listing<LogMessageAggregate>),
    )
)]
async fn summarise(
    context: web::Data<Context>,
    caller: Caller,
    Path(path): Path<SensorPath>,
    Query(And(And(range, query), page)): Query<And<And<TimeRangeQuery, LogQuery>, PageQuery>>,
) -> Result<HttpResponse, Problem> {
    let (range, filter, page) = (range.range()?, query.into(), page.page::<SummaryKey>()?);
    let _turn = context.store.long_read(caller.holder()).await?;
    let lines =
        context.store.summarise_log_messages(path.identifier.0, (range, &filter), &page).await?;
    let lines = lines.ok_or_else(Problem::sensor_not_found)?;
    Ok(listing(lines, &page, |line| line.key.clone(), LogMessageAggregate::from))
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct LogQuery {
    /// One, or several with commas between them; all, by default
    #[param(inline, style = Form, explode = false)]
    severity: Option<Severities>,
    /// A part of the subject or of the details; case-insensitive
    #[param(inline)]
    text: Option<SearchText>,
}

impl From<LogQuery> for LogFilter {
    fn from(query: LogQuery) -> Self {
        let severities = query.severity.into_iter().flat_map(|severities| severities.0);
        Self {
            severities: severities.map(|severity| severity.0).collect(),
            text: query.text.map(|text| text.0),
        }
    }
}

/// Aggregates of a log, by severity and subject.
impl CursorKey for SummaryKey {
    const TAG: u8 = b'l';

    fn is_usable(&self) -> bool {
        SEVERITIES.contains(&&*self.severity) && self.subject.is_usable()
    }
}
