//! Query parameters, and the pages of lists that they ask for. Used by every handler of a GET.
//! Promises that an unknown, doubled or malformed parameter is an error that names it.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, HttpResponse};
use serde::Serialize;

use super::cursor::{self, Position};
use super::problem::Problem;
use crate::store::{Page, RowPage};

/// Items of a page, when nothing is said.
pub(super) const DEFAULT_LIMIT: u32 = 100;

/// More would make a response that helps nobody and holds memory and a connection.
pub(super) const MAX_LIMIT: u32 = 1_000;

/// No route takes as many; the search for doubled ones stays short.
const MAX_PARAMETERS: usize = 32;

/// What stands behind the `?`. Handlers take what they know, then call [`Parameters::finish`].
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(query: &str) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(Problem::parameter(&name, "it stands there twice"));
            }
            if pairs.len() == MAX_PARAMETERS {
                return Err(Problem::parameter(&name, "there are too many parameters"));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter, if it is there.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// The value of a parameter, understood; `expected` says in one phrase what it may hold.
    pub(super) fn take_as<T>(
        &mut self,
        name: &str,
        expected: &str,
        understand: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let understood = understand(&text);
        understood.map(Some).ok_or_else(|| Problem::parameter(name, format!("it takes {expected}")))
    }

    /// `limit` and `cursor`.
    pub(super) fn page<P: Position>(&mut self) -> Result<Page<P>, Problem> {
        self.page_of(DEFAULT_LIMIT)
    }

    /// `limit`, which is this when nothing is said, and `cursor`.
    pub(super) fn page_of<P: Position>(&mut self, default: u32) -> Result<Page<P>, Problem> {
        self.page_in(P::TAG, default)
    }

    /// `limit` and `cursor` of the list of this tag.
    pub(super) fn page_in<P: Position>(
        &mut self,
        list: u8,
        default: u32,
    ) -> Result<Page<P>, Problem> {
        let limit = self.take_as("limit", "a whole number from 1 to 1000", |text| {
            text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
        })?;
        let after = self.take_as(
            "cursor",
            "what an earlier page of this list gave as next, in this order",
            |it| cursor::decode_in(list, it),
        )?;
        Ok(Page { limit: limit.unwrap_or(default), after })
    }

    /// Refuses what nobody has taken.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::parameter(name, "no parameter has this name here")),
        }
    }
}

impl FromRequest for Parameters {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::read(request.query_string()))
    }
}

/// For handlers that take no parameter.
#[derive(Debug)]
pub(super) struct NoParameters;

impl FromRequest for NoParameters {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let parameters = Parameters::read(request.query_string());
        ready(parameters.and_then(Parameters::finish).map(|()| Self))
    }
}

/// One page, as it stands on the wire.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Listing<T> {
    /// No more than `limit`.
    pub(super) items: Vec<T>,
    /// What to give as `cursor` for the next page; null on the last.
    pub(super) next: Option<String>,
}

/// The response that holds one page of rows; `key` is what the list is sorted by.
pub(super) fn listing<R, T: Serialize, P: Position>(
    rows: Vec<R>,
    page: &Page<P>,
    key: impl Fn(&R) -> P,
    item: impl Fn(R) -> T,
) -> HttpResponse {
    listing_in(P::TAG, rows, page, (key, item))
}

/// The same of the list of this tag.
pub(super) fn listing_in<R, T: Serialize, P: Position>(
    list: u8,
    mut rows: Vec<R>,
    page: &Page<P>,
    (key, item): (impl Fn(&R) -> P, impl Fn(R) -> T),
) -> HttpResponse {
    let limit = page.limit as usize;
    // The store looks one row ahead, so that the last page is known to be the last.
    let more = rows.len() > limit;
    rows.truncate(limit);
    row_listing(list, RowPage { rows, more }, key, item)
}

/// The response that holds one page of rows, of the list of this tag, that the store has cut.
pub(super) fn row_listing<R, T: Serialize, P: Position>(
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

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Result<Page<i32>, Problem> {
        let mut parameters = Parameters::read(query)?;
        let page = parameters.page()?;
        parameters.finish().map(|()| page)
    }

    #[test]
    fn limit_and_cursor_are_understood() {
        let first = page("").unwrap();
        assert_eq!((first.limit, first.after), (DEFAULT_LIMIT, None));
        let next = page(&format!("limit=1000&cursor={}", cursor::encode(&7_i32))).unwrap();
        assert_eq!((next.limit, next.after), (1_000, Some(7)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for query in [
            "limit=0",
            "limit=1001",
            "limit=-1",
            "limit=",
            "limit=1&limit=1",
            "cursor=",
            "cursor=x",
            "unknown",
            "limit=1&Limit=1",
        ] {
            assert!(page(query).is_err(), "{query}");
        }
    }
}
