//! Pages of lists: queries and responses. Used by every handler of a list.

use actix_web::HttpResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::cursor::{self, CursorKey};
use super::fields::{Limit, RowOrder, Time};
use super::problem::Problem;
use super::query::And;
use crate::store::{Order, Page, RowKey, RowPage, Selection, TimeRange};

/// Items of a page, unless the query says otherwise.
pub(super) const DEFAULT_LIMIT: u32 = 100;

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct PageQuery {
    /// Items of a page
    #[param(inline, default = 100)]
    limit: Option<Limit>,
    /// The `next` of the page before
    cursor: Option<String>,
}

impl PageQuery {
    /// Of the list that is sorted by a key.
    pub(super) fn page<P: CursorKey>(self) -> Result<Page<P>, Problem> {
        self.page_of(P::TAG)
    }

    /// Of the list of this tag.
    pub(super) fn page_of<P: CursorKey>(self, list: u8) -> Result<Page<P>, Problem> {
        let limit = self.limit.map_or(DEFAULT_LIMIT, |limit| limit.0);
        Ok(Page { limit, after: after(list, self.cursor.as_deref())? })
    }
}

/// The key after which a page begins.
pub(super) fn after<P: CursorKey>(list: u8, cursor: Option<&str>) -> Result<Option<P>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let after = cursor::decode_in(list, cursor);
    after.map(Some).ok_or_else(|| {
        let detail = "it takes the next of an earlier page of this list, in this order";
        Problem::parameter("cursor", detail)
    })
}

/// A time range, by the sensor's clock.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct TimeRangeQuery {
    /// From this time on: RFC 3339 or Unix seconds
    #[param(inline)]
    from: Option<Time>,
    /// Before this time: RFC 3339 or Unix seconds
    #[param(inline)]
    to: Option<Time>,
}

impl TimeRangeQuery {
    pub(super) fn range(self) -> Result<TimeRange, Problem> {
        let (from, to) = (self.from.map(|time| time.0), self.to.map(|time| time.0));
        if let (Some(from), Some(to)) = (from, to)
            && to <= from
        {
            return Err(Problem::parameter("to", "`to` must be later than `from`"));
        }
        Ok(TimeRange { from, to })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct OrderQuery {
    /// `desc`: newest first
    #[param(inline, default = "desc")]
    order: Option<RowOrder>,
}

pub(super) type RowsQuery = And<And<TimeRangeQuery, OrderQuery>, PageQuery>;

impl RowsQuery {
    /// Of the rows of the kind of this tag; with the tag of the list.
    pub(super) fn selection(self, kind: u8) -> Result<(Selection, u8), Problem> {
        let (range, order, page, list) = self.parts::<RowKey>(kind)?;
        Ok((Selection { range, order, page }, list))
    }

    /// The same of rows that are sorted by another key.
    pub(super) fn parts<P: CursorKey>(
        self,
        kind: u8,
    ) -> Result<(TimeRange, Order, Page<P>, u8), Problem> {
        let And(And(range, OrderQuery { order }), page) = self;
        let order = order.map_or_else(Order::default, |order| order.0);
        let list = cursor::rows(kind, order);
        let range = range.range()?;
        let page = page.page_of::<P>(list)?;
        Ok((range, order, page, list))
    }
}

/// One page, as it stands on the wire.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Listing<T> {
    /// No more than `limit`.
    pub(super) items: Vec<T>,
    /// What to give as `cursor` for the next page; null on the last.
    pub(super) next: Option<String>,
}

/// The response with one page of rows; `key` is what the list is sorted by.
pub(super) fn listing<R, T: Serialize, P: CursorKey>(
    rows: Vec<R>,
    page: &Page<P>,
    key: impl Fn(&R) -> P,
    item: impl Fn(R) -> T,
) -> HttpResponse {
    listing_in(P::TAG, rows, page, (key, item))
}

/// The same of the list of this tag.
pub(super) fn listing_in<R, T: Serialize, P: CursorKey>(
    list: u8,
    mut rows: Vec<R>,
    page: &Page<P>,
    (key, item): (impl Fn(&R) -> P, impl Fn(R) -> T),
) -> HttpResponse {
    let limit = page.limit as usize;
    // The store reads one row more, so that the last page is recognised.
    let more = rows.len() > limit;
    rows.truncate(limit);
    row_listing(list, RowPage { rows, more }, key, item)
}

/// The response with one page of rows, already limited by the store, of the list with this tag.
pub(super) fn row_listing<R, T: Serialize, P: CursorKey>(
    list: u8,
    page: RowPage<R>,
    key: impl Fn(&R) -> P,
    item: impl Fn(R) -> T,
) -> HttpResponse {
    let RowPage { rows, more } = page;
    let next = more.then(|| rows.last().map(|last| cursor::encode_in(list, &key(last)))).flatten();
    let items = rows.into_iter().map(item).collect();
    HttpResponse::Ok().json(Listing { items, next })
}
