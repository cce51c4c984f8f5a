//! The sensor that a path names, and the revision. Used by every handler under
//! `/api/v1/sensors/{identifier}`. Promises that what is no identifier names no sensor: 404, as for one
//! that nobody has created.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};

use super::problem::Problem;
use crate::domain::SensorIdentifier;

/// `{identifier}`
#[derive(Clone, Copy, Debug)]
pub(super) struct SensorPath(pub(super) SensorIdentifier);

impl FromRequest for SensorPath {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = request.match_info().get("identifier").unwrap_or_default();
        let identifier = SensorIdentifier::parse(text);
        ready(identifier.map(Self).ok_or_else(Problem::sensor_not_found))
    }
}

pub(super) const REVISION_EXPECTED: &str = "a revision: a whole number from 0 on";

/// A revision.
pub(super) fn revision(text: &str) -> Option<i32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// `{revision}`; none: the newest, which is written `newest`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RevisionPath(pub(super) Option<i32>);

impl FromRequest for RevisionPath {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = request.match_info().get("revision").unwrap_or_default();
        ready(match text {
            "newest" => Ok(Self(None)),
            _ => revision(text)
                .map(|revision| Self(Some(revision)))
                .ok_or_else(Problem::configuration_not_found),
        })
    }
}
