//! Request bodies: JSON, read member by member. Used by every handler that takes a body. Promises
//! that a text stays as it came, and that each refusal is the right one: 413, 415, 400 for what is
//! not JSON, 422 with a pointer for a member that is unknown, missing, doubled or of another type.

use std::fmt;
use std::future::{Future, Ready, ready};
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use actix_web::{FromRequest, HttpRequest};
use serde::Deserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::limits;
use super::payload;
use super::problem::{Kind, Problem};

/// A body that is JSON by its header, and UTF-8; whether it is JSON in fact, its reader finds out.
#[derive(Debug)]
pub(super) struct Body(String);

impl Body {
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Its members, to be taken one by one.
    pub(super) fn members(&self) -> Result<Members<'_>, Problem> {
        let mut deserializer = serde_json::Deserializer::from_str(&self.0);
        let read = (&mut deserializer).deserialize_map(MemberVisitor);
        let members = read.and_then(|members| deserializer.end().map(|()| members));
        let members = members.map_err(|error| match error.classify() {
            Category::Data => Problem::member(String::new(), "the body is no JSON object"),
            Category::Syntax | Category::Eof | Category::Io => not_json(&error),
        })?;
        let mut names = foldhash::HashSet::default();
        match members.iter().find(|(name, _)| !names.insert(name.as_str())) {
            None => Ok(Members(members)),
            Some((name, _)) => Err(Problem::member(pointer(name), "it stands there twice")),
        }
    }
}

/// The body is not JSON, and where.
pub(super) fn not_json(error: &serde_json::Error) -> Problem {
    Problem::new(Kind::InvalidJson, error.to_string())
}

impl FromRequest for Body {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let checked = check_headers(request).and_then(|()| payload::Encoding::of(request));
        let encoding = match checked {
            Ok(encoding) => encoding,
            Err(problem) => return Box::pin(ready(Err(problem))),
        };
        let patience = limits::body_patience(request);
        let max_bytes = limits::max_body_bytes(request);
        let announced_bytes = content_length(request);
        let payload = payload.take();
        Box::pin(async move {
            let bytes = payload::read(payload, encoding, max_bytes, announced_bytes);
            let bytes = tokio::time::timeout(patience, bytes).await.map_err(|_elapsed| {
                Problem::new(Kind::RequestTimeout, "the body did not come in time")
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

/// For handlers that take no body: one that is there was meant for something.
#[derive(Debug)]
pub(super) struct NoBody;

impl FromRequest for NoBody {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let headers = request.headers();
        let is_empty = headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0");
        let is_there = !is_empty || headers.contains_key(TRANSFER_ENCODING);
        let problem = Problem::new(Kind::BadRequest, "this path takes no body");
        ready(if is_there { Err(problem) } else { Ok(Self) })
    }
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
    // No `+json`: a merge patch, for one, means more than that it is JSON.
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

/// The members of a JSON object, each as its text.
#[derive(Debug)]
pub(super) struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// The text of a member.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1.get())
    }

    /// A member, understood; `expected` says in one phrase what it may hold. `null` is refused like
    /// anything else that it may not hold: whoever means nothing leaves the member out.
    pub(super) fn take_as<T: DeserializeOwned, U>(
        &mut self,
        name: &str,
        expected: &str,
        understand: impl FnOnce(T) -> Option<U>,
    ) -> Result<Option<U>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let understood = serde_json::from_str(text).ok().and_then(understand);
        understood
            .map(Some)
            .ok_or_else(|| Problem::member(pointer(name), format!("it takes {expected}")))
    }

    /// The same where `null` says something of its own: then the inner one is none.
    pub(super) fn take_nullable_as<T: DeserializeOwned, U>(
        &mut self,
        name: &str,
        expected: &str,
        understand: impl FnOnce(T) -> Option<U>,
    ) -> Result<Option<Option<U>>, Problem> {
        if self.0.iter().any(|(known, value)| known == name && value.get() == "null") {
            return Ok(self.take(name).map(|_null| None));
        }
        Ok(self.take_as(name, expected, understand)?.map(Some))
    }

    /// Refuses what nobody has taken.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::member(pointer(name), "no member has this name here")),
        }
    }
}

/// The JSON pointer of a member of the body (RFC 6901, section 3).
pub(super) fn pointer(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

/// A member that must be there.
pub(super) fn needed<T>(member: Option<T>, pointer: &str) -> Result<T, Problem> {
    member.ok_or_else(|| Problem::member(pointer.into(), "it is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(text: &str) -> String {
        Body(text.into()).members().unwrap_err().to_string()
    }

    #[test]
    fn members_keep_their_text() {
        let body = Body(r#" {"a": {"x": 1.0 }, "b": "\u0041", "c": null} "#.into());
        let mut members = body.members().unwrap();
        assert_eq!(members.take("a"), Some(r#"{"x": 1.0 }"#));
        let b: Option<String> = members.take_as("b", "a string", Some).unwrap();
        assert_eq!(b.as_deref(), Some("A"));
        assert_eq!(
            members.take_nullable_as("c", "a string", |it: String| Some(it)).unwrap(),
            Some(None)
        );
        assert_eq!(members.take("c"), None);
        members.finish().unwrap();
        let mut members = body.members().unwrap();
        assert!(members.take_as("c", "a string", |it: String| Some(it)).is_err());
    }

    #[test]
    fn each_refusal_is_the_right_one() {
        assert!(detail("").contains("not JSON"));
        assert!(detail("{").contains("not JSON"));
        assert!(detail("{} x").contains("not JSON"));
        assert!(detail("[1]").contains("no JSON object"));
        assert!(detail("7").contains("no JSON object"));
        assert!(detail(r#"{"a":1,"\u0061":2}"#).contains("twice"));
        let body = Body(r#"{"a":1}"#.into());
        assert!(body.members().unwrap().finish().is_err());
        let a = body.members().unwrap().take_as("a", "a string", |it: String| Some(it));
        assert!(a.is_err());
    }

    #[test]
    fn pointers_are_escaped() {
        assert_eq!(pointer("a/b~c"), "/a~1b~0c");
    }
}
