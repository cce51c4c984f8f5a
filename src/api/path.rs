//! The sensor that a path names. Used by every handler under `/api/v1/sensors/{identifier}`.
//! Promises that what is no identifier names no sensor: 404, as for one that nobody has created.

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
