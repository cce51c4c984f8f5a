//! What the arguments of a handler say of the parameters of its route. Asked by `routes.rs`. Promises that
//! the document shows the parameters that the handler reads, and no others are let through to it.

use actix_web::{HttpRequest, web};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use super::body::{Body, Json};
use super::caller::Caller;
use super::idempotency::IdempotencyKey;
use super::path::Path;
use super::query::Query;

/// An argument of a handler, or all of them.
pub(super) trait Extractor {
    /// The parameters of the path and of the query that it reads.
    fn parameters() -> Vec<Parameter> {
        Vec::new()
    }
}

impl<T: IntoParams> Extractor for Path<T> {
    fn parameters() -> Vec<Parameter> {
        T::into_params(|| Some(ParameterIn::Path))
    }
}

impl<T: IntoParams> Extractor for Query<T> {
    fn parameters() -> Vec<Parameter> {
        T::into_params(|| Some(ParameterIn::Query))
    }
}

impl<T> Extractor for Json<T> {}
impl<T> Extractor for web::Data<T> {}
impl Extractor for Body {}
impl Extractor for Caller {}
impl Extractor for HttpRequest {}
impl Extractor for IdempotencyKey {}

macro_rules! tuples {
    ($(($($name:ident)*))+) => {$(
        impl<$($name: Extractor),*> Extractor for ($($name,)*) {
            fn parameters() -> Vec<Parameter> {
                [$($name::parameters()),*].concat()
            }
        }
    )+};
}

tuples! { (A) (A B) (A B C) (A B C D) (A B C D E) (A B C D E F) }

impl Extractor for () {}
