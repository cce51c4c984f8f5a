//! The Idempotency-Key of a request: all requests with one key count as one. Used by the handlers that take it.
//! Pure. An invalid key is refused; bodies that differ in a byte are different requests.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::HeaderName;
use actix_web::{FromRequest, HttpRequest};
use sha2::{Digest, Sha256};

use super::problem::{Kind, Problem};
use crate::store::Idempotency;

const HEADER: HeaderName = HeaderName::from_static("idempotency-key");
const EXPECTED: &str = "Idempotency-Key takes 1 to 255 printable characters, in quotes or without";
const MAX_LENGTH: usize = 255;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct IdempotencyKey(Option<String>);

impl IdempotencyKey {
    /// The key with the digest of the body.
    pub(super) fn of(self, body: &str) -> Option<Idempotency> {
        self.0.map(|key| Idempotency { key, body_digest: Sha256::digest(body).into() })
    }
}

impl FromRequest for IdempotencyKey {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut values = request.headers().get_all(HEADER);
        ready(match (values.next(), values.next()) {
            (None, _) => Ok(Self(None)),
            (Some(value), None) => value
                .to_str()
                .ok()
                .and_then(key)
                .map(|key| Self(Some(key)))
                .ok_or_else(|| Problem::new(Kind::InvalidHeader, EXPECTED)),
            (Some(_), Some(_)) => Err(Problem::new(Kind::InvalidHeader, EXPECTED)),
        })
    }
}

/// The draft standard wants a quoted string (RFC 9651, section 3.3.3); many clients send it without quotes.
fn key(value: &str) -> Option<String> {
    let value = value.trim();
    let text = match value.strip_prefix('"') {
        None => value.to_owned(),
        Some(rest) => unquoted(rest)?,
    };
    let is_usable = (1..=MAX_LENGTH).contains(&text.len())
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    is_usable.then_some(text)
}

/// The text before the closing quote, which must be the last character.
fn unquoted(rest: &str) -> Option<String> {
    let mut text = String::with_capacity(rest.len());
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(text),
            '\\' => text.push(characters.next().filter(|it| ['"', '\\'].contains(it))?),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_quoted() {
        for value in ["abc-1", "\"abc-1\"", " abc-1 "] {
            assert_eq!(key(value).as_deref(), Some("abc-1"), "{value}");
        }
        assert_eq!(key(r#""a\"b\\c""#).as_deref(), Some(r#"a"b\c"#));
        let long = "x".repeat(256);
        for value in ["", "\"\"", "\"a", "\"a\"b", r#""\x""#, "ä", &long] {
            assert_eq!(key(value), None, "{value}");
        }
    }
}
