//! Request bodies: JSON, read into structs. Used by every handler that takes a body. Errors: 413, 415, 400 for
//! what is not JSON, 422 with a pointer for a member that is unknown, missing, doubled or of the wrong type.

use std::future::{Future, ready};
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use actix_web::{FromRequest, HttpRequest};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::field_error::FieldError;
use super::limits;
use super::payload::{self, Coding};
use super::problem::{Kind, Problem};

/// A body, read into a struct.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned + 'static> FromRequest for Json<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = Body::from_request(request, payload);
        Box::pin(async move { read(body.await?.text()).map(Self) })
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let json: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
    // Serde would also read a struct from an array.
    if !json.get().starts_with('{') {
        return Err(Problem::member(String::new(), "the body is not a JSON object"));
    }
    let mut deserializer = serde_json::Deserializer::from_str(json.get());
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let fault = FieldError::of(&error);
        Problem::member(fault.pointer(), fault.detail)
    })
}

/// A body that is declared as JSON and is UTF-8; it is not parsed yet.
#[derive(Debug)]
pub(super) struct Body(String);

impl Body {
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

pub(super) fn not_json(error: &serde_json::Error) -> Problem {
    Problem::new(Kind::InvalidJson, error.to_string())
}

impl FromRequest for Body {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let max_bytes = limits::max_body_bytes(request);
        let coding = match check_headers(request).and_then(|()| Coding::of(request)) {
            Ok(coding) => coding,
            Err(problem) => return Box::pin(ready(Err(problem))),
        };
        let timeout = limits::body_timeout(request);
        let announced_bytes = content_length(request);
        let payload = payload.take();
        Box::pin(async move {
            let bytes = payload::read(payload, coding, max_bytes, announced_bytes);
            let bytes = tokio::time::timeout(timeout, bytes).await.map_err(|_elapsed| {
                Problem::new(Kind::RequestTimeout, "the body was not received in time")
            })??;
            let text = String::from_utf8(bytes)
                .map_err(|_not_utf8| Problem::new(Kind::InvalidJson, "the body is not UTF-8"))?;
            if limits::is_too_deep(&text) {
                return Err(Problem::new(Kind::InvalidJson, "the body is nested too deep"));
            }
            Ok(Self(text))
        })
    }
}

/// Refuses a body on a route that takes none, rather than ignoring it.
pub(super) fn check_none(request: &HttpRequest) -> Result<(), Problem> {
    let headers = request.headers();
    let is_empty = headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0");
    if is_empty && !headers.contains_key(TRANSFER_ENCODING) {
        return Ok(());
    }
    Err(Problem::new(Kind::BadRequest, "this path takes no body"))
}

fn content_length(request: &HttpRequest) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn check_headers(request: &HttpRequest) -> Result<(), Problem> {
    let header = |name| {
        let value = request.headers().get(name)?;
        Some(value.to_str().unwrap_or("?").to_ascii_lowercase())
    };
    let media_type = header(CONTENT_TYPE).unwrap_or_default();
    let mut parts = media_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    // No `+json`: a merge patch, for one, has semantics beyond JSON.
    let is_json = essence == "application/json";
    // JSON has no charset parameter (RFC 8259, section 11); one that contradicts it is refused.
    let is_utf8 = parts
        .filter_map(|parameter| parameter.strip_prefix("charset="))
        .all(|charset| charset.trim_matches('"') == "utf-8");
    if is_json && is_utf8 {
        return Ok(());
    }
    Err(Problem::unsupported_media_type("a body is application/json, in UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Members {
        a: Option<Box<RawValue>>,
        b: Option<String>,
    }

    #[test]
    fn members_keep_their_text() {
        let members: Members = read(r#" {"a": {"x": 1.0 }, "b": "\u0041"} "#).unwrap();
        assert_eq!(members.a.unwrap().get(), r#"{"x": 1.0 }"#);
        assert_eq!(members.b.as_deref(), Some("A"));
    }
}
