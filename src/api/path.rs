//! The sensor that a path names. Used by every handler under `/api/v1/sensors/{identifier}`.
//! Promises that what is no identifier names no sensor, and that a sensor outside the caller's
//! network is none either: 404, as for one that nobody has created.

use std::future::{Future, ready};
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};

use super::Context;
use super::caller::Caller;
use super::problem::Problem;
use crate::domain::{Scope, SensorIdentifier};

/// `{identifier}`
#[derive(Clone, Copy, Debug)]
pub(super) struct SensorPath(pub(super) SensorIdentifier);

impl FromRequest for SensorPath {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let text = request.match_info().get("identifier").unwrap_or_default();
        let identifier = SensorIdentifier::parse(text).ok_or_else(Problem::sensor_not_found);
        let (sensor, caller) = match (identifier, Caller::of(request)) {
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
