//! The parameters that a handler's extractors read, and the problems that they can answer with. Used by `routes.rs`,
//! so that the OpenAPI document shows exactly the parameters that the handler reads.

use actix_web::{HttpRequest, web};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::body::{Body, Json};
use super::caller::Caller;
use super::idempotency::IdempotencyKey;
use super::path::{Path, PathParameters};
use super::problem::Kind;
use super::query::Query;

/// An extractor, or all extractors of a handler.
pub(super) trait Extractor {
    /// The parameters of the path and of the query that it reads.
    fn parameters() -> Vec<Parameter> {
        Vec::new()
    }

    /// The problems of extraction, without those of a query, which are common to all routes.
    fn problems() -> Vec<Kind> {
        Vec::new()
    }
}

impl<T: IntoParams + PathParameters> Extractor for Path<T> {
    fn parameters() -> Vec<Parameter> {
        T::into_params(|| Some(ParameterIn::Path))
    }

    fn problems() -> Vec<Kind> {
        T::NOT_FOUND.to_vec()
    }
}

impl<T: IntoParams> Extractor for Query<T> {
    fn parameters() -> Vec<Parameter> {
        T::into_params(|| Some(ParameterIn::Query))
    }
}

impl<T> Extractor for Json<T> {
    fn problems() -> Vec<Kind> {
        [Body::problems(), vec![Kind::InvalidMember]].concat()
    }
}

impl Extractor for Body {
    fn problems() -> Vec<Kind> {
        use Kind::{InvalidJson, PayloadTooLarge, RequestTimeout, UnsupportedMediaType};
        vec![InvalidJson, RequestTimeout, PayloadTooLarge, UnsupportedMediaType]
    }
}

impl Extractor for IdempotencyKey {
    fn problems() -> Vec<Kind> {
        vec![Kind::InvalidHeader, Kind::IdempotencyKeyReused]
    }
}

impl<T> Extractor for web::Data<T> {}
impl Extractor for Caller {}
impl Extractor for HttpRequest {}

macro_rules! tuples {
    ($(($($name:ident)*))+) => {$(
        impl<$($name: Extractor),*> Extractor for ($($name,)*) {
            fn parameters() -> Vec<Parameter> {
                [$($name::parameters()),*].concat()
            }

            fn problems() -> Vec<Kind> {
                [$($name::problems()),*].concat()
            }
        }
    )+};
}

tuples! { (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) }

impl Extractor for () {}
