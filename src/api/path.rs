//! Path parameters: a sensor, a revision, a network, a token, a user. Used by every handler of one resource. A
//! malformed identifier and a resource outside the caller's network are 404, as if they did not exist.

use std::future::{Future, ready};
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde::de::value::MapDeserializer;
use utoipa::IntoParams;

use super::Context;
use super::caller::Caller;
use super::field_error::FieldError;
use super::fields::{Identifier, RevisionOrNewest, Sensor};
use super::problem::{Kind, Problem};
use crate::domain::{NetworkIdentifier, Scope};

/// The parameters of a path, read into a struct.
#[derive(Debug)]
pub(super) struct Path<T>(pub(super) T);

pub(super) trait PathParameters: DeserializeOwned {
    /// The 404 of each parameter, in their order.
    const NOT_FOUND: &'static [Kind];

    /// The 404 of a malformed parameter.
    fn not_found(_parameter: &str) -> Kind {
        Self::NOT_FOUND[0]
    }

    /// Checks that the resource is in the caller's network, unless the handler does.
    fn check(&self, _request: &HttpRequest) -> impl Future<Output = Result<(), Problem>> {
        ready(Ok(()))
    }
}

impl<T: PathParameters + 'static> FromRequest for Path<T> {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let named = MapDeserializer::new(request.match_info().iter());
            let named = serde_path_to_error::deserialize::<_, T>(named).map_err(
                |error: serde_path_to_error::Error<serde::de::value::Error>| {
                    let FieldError { path, detail } = FieldError::of(&error);
                    let parameter = path.first().map_or("", |name| name);
                    let detail = format!("{{{parameter}}} in the path: {detail}");
                    Problem::new(T::not_found(parameter), detail)
                },
            )?;
            named.check(&request).await?;
            Ok(Self(named))
        })
    }
}

/// `{identifier}` of a sensor.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct SensorPath {
    /// The sensor
    #[param(inline)]
    pub(super) identifier: Sensor,
}

impl PathParameters for SensorPath {
    const NOT_FOUND: &'static [Kind] = &[Kind::SensorNotFound];

    async fn check(&self, request: &HttpRequest) -> Result<(), Problem> {
        let Scope::Network(network) = Caller::of(request)?.scope else { return Ok(()) };
        let context = request.app_data::<web::Data<Context>>();
        let context = context.ok_or_else(|| Problem::internal("there is no context"))?;
        match context.store.network_holds(network, self.identifier.0).await? {
            true => Ok(()),
            false => Err(Problem::sensor_not_found()),
        }
    }
}

/// The same where the handler checks the sensor's network itself.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct UncheckedSensorPath {
    /// The sensor
    #[param(inline)]
    pub(super) identifier: Sensor,
}

impl PathParameters for UncheckedSensorPath {
    const NOT_FOUND: &'static [Kind] = &[Kind::SensorNotFound];
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct ConfigurationPath {
    /// The sensor
    #[param(inline)]
    pub(super) identifier: Sensor,
    /// A number, or `newest`
    #[param(inline)]
    pub(super) revision: RevisionOrNewest,
}

impl PathParameters for ConfigurationPath {
    const NOT_FOUND: &'static [Kind] = &[Kind::SensorNotFound, Kind::ConfigurationNotFound];

    fn not_found(parameter: &str) -> Kind {
        match parameter {
            "revision" => Kind::ConfigurationNotFound,
            _ => Kind::SensorNotFound,
        }
    }

    async fn check(&self, request: &HttpRequest) -> Result<(), Problem> {
        SensorPath { identifier: Sensor(self.identifier.0) }.check(request).await
    }
}

/// `{network}`
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct NetworkPath {
    /// Its identifier
    #[param(inline)]
    network: Identifier,
}

impl NetworkPath {
    pub(super) const fn network(&self) -> NetworkIdentifier {
        NetworkIdentifier(self.network.0)
    }
}

impl PathParameters for NetworkPath {
    const NOT_FOUND: &'static [Kind] = &[Kind::NetworkNotFound];

    async fn check(&self, request: &HttpRequest) -> Result<(), Problem> {
        match Caller::of(request)?.scope.covers(self.network()) {
            true => Ok(()),
            false => Err(Problem::not_found(Kind::NetworkNotFound)),
        }
    }
}

/// `{token}`: the store searches only the caller's network.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct TokenPath {
    /// Its identifier
    #[param(inline)]
    pub(super) token: Identifier,
}

impl PathParameters for TokenPath {
    const NOT_FOUND: &'static [Kind] = &[Kind::TokenNotFound];
}

/// `{user}`: the store searches only the caller's network.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct UserPath {
    /// Its identifier
    #[param(inline)]
    pub(super) user: Identifier,
}

impl PathParameters for UserPath {
    const NOT_FOUND: &'static [Kind] = &[Kind::UserNotFound];
}
