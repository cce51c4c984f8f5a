//! Query parameters, read into structs. Used by every handler that takes some. An unknown, doubled or malformed
//! parameter is an error that names it.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest};
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::field_error::FieldError;
use super::problem::Problem;

/// No route takes as many; bounds the search for doubled ones.
const MAX_PARAMETERS: usize = 32;

/// The parameters of a request.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

#[derive(Debug)]
pub(super) struct And<A, B>(pub(super) A, pub(super) B);

pub(super) trait QueryParameters: Sized {
    fn read(query: &str) -> Result<Self, Problem>;
}

impl<T: DeserializeOwned + IntoParams> QueryParameters for T {
    fn read(query: &str) -> Result<Self, Problem> {
        let pairs = url::form_urlencoded::parse(query.as_bytes());
        let deserializer = serde_urlencoded::Deserializer::new(pairs);
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let FieldError { path, detail } = FieldError::of(&error);
            Problem::parameter(path.first().map_or("", |name| name), detail)
        })
    }
}

impl<A: QueryParameters, B: QueryParameters> QueryParameters for And<A, B> {
    fn read(query: &str) -> Result<Self, Problem> {
        Ok(Self(A::read(query)?, B::read(query)?))
    }
}

impl<A: IntoParams, B: IntoParams> IntoParams for And<A, B> {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let mut parameters = A::into_params(&place);
        parameters.extend(B::into_params(&place));
        parameters
    }
}

impl<T: QueryParameters + 'static> FromRequest for Query<T> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(T::read(request.query_string()).map(Self))
    }
}

/// Refuses parameters that the route does not take. Called before the handler.
pub(super) fn check(query: &str, known: &[String]) -> Result<(), Problem> {
    let mut names = Vec::new();
    for (name, _) in url::form_urlencoded::parse(query.as_bytes()) {
        if names.contains(&name) {
            return Err(Problem::parameter(&name, "it is given twice"));
        }
        if names.len() == MAX_PARAMETERS {
            return Err(Problem::parameter(&name, "there are too many parameters"));
        }
        if !known.iter().any(|known| **known == *name) {
            return Err(Problem::parameter(&name, "unknown parameter"));
        }
        names.push(name);
    }
    Ok(())
}
