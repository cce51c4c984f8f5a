//! The sensor that a path names, and the revision. Used by every handler under
//! `/api/v1/sensors/{identifier}`.
//! Promises that what is no identifier names no sensor, and that a sensor outside the caller's
//! network is none either: 404, as for one that nobody has created.

use std::future::{Future, Ready, ready};
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use uuid::Uuid;

use super::Context;
use super::caller::Caller;
use super::problem::{Kind, Problem};
use crate::domain::{Scope, SensorIdentifier};

/// `{identifier}`, whoever calls: the handler has to hold it to the caller's network.
#[derive(Clone, Copy, Debug)]
pub(super) struct NamedSensor(pub(super) SensorIdentifier);

impl FromRequest for NamedSensor {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(named(request).map(Self))
    }
}

fn named(request: &HttpRequest) -> Result<SensorIdentifier, Problem> {
    let text = request.match_info().get("identifier").unwrap_or_default();
    SensorIdentifier::parse(text).ok_or_else(|| Problem::no_identifier(Kind::SensorNotFound))
}

/// `{identifier}`
#[derive(Clone, Copy, Debug)]
pub(super) struct SensorPath(pub(super) SensorIdentifier);

impl FromRequest for SensorPath {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let (sensor, caller) = match (named(request), Caller::of(request)) {
            (Ok(sensor), Ok(caller)) => (sensor, caller),
            (Err(problem), _) | (_, Err(problem)) => return Box::pin(ready(Err(problem))),
        };
        let (Scope::Network(network), Some(context)) =
            (caller.scope(), request.app_data::<web::Data<Context>>())
        else {
            return Box::pin(ready(Ok(Self(sensor))));
        };
        let store = context.store.clone();
        Box::pin(async move {
            match store.network_holds(network, sensor).await? {
                true => Ok(Self(sensor)),
                false => Err(Problem::sensor_not_found()),
            }
        })
    }
}

pub(super) const REVISION_EXPECTED: &str = "a revision: a whole number from 0 on";

/// A revision.
pub(super) fn revision(text: &str) -> Option<i32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

pub(super) const REVISION_OR_NEWEST_EXPECTED: &str =
    "a revision: a whole number from 0 on, or newest";

/// A revision; none: the newest, which is written `newest`.
pub(super) fn revision_or_newest(text: &str) -> Option<Option<i32>> {
    if text == "newest" { Some(None) } else { revision(text).map(Some) }
}

/// `{revision}`; none: the newest, which is written `newest`.
#[derive(Clone, Copy, Debug)]
pub(super) struct RevisionPath(pub(super) Option<i32>);

impl FromRequest for RevisionPath {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = request.match_info().get("revision").unwrap_or_default();
        ready(revision_or_newest(text).map(Self).ok_or_else(|| {
            let detail = format!("the path takes {REVISION_OR_NEWEST_EXPECTED}");
            Problem::new(Kind::ConfigurationNotFound, detail)
        }))
    }
}

/// The identifier in the path; what is none names nothing of this kind.
pub(super) fn path_uuid(request: &HttpRequest, name: &str, kind: Kind) -> Result<Uuid, Problem> {
    let text = request.match_info().get(name).unwrap_or_default();
    let identifier = SensorIdentifier::parse(text);
    identifier.map(|identifier| identifier.0).ok_or_else(|| Problem::no_identifier(kind))
}
