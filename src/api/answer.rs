//! The responses that resources have in common. Used by the handlers that create, read, change and delete
//! one resource.

use actix_web::HttpResponse;
use actix_web::http::header::LOCATION;
use serde::Serialize;

use super::problem::{Kind, Problem};

/// 200 with the resource, or 404.
pub(super) fn found(
    item: Option<impl Serialize>,
    not_found: Kind,
) -> Result<HttpResponse, Problem> {
    let item = item.ok_or_else(|| Problem::not_found(not_found))?;
    Ok(HttpResponse::Ok().json(item))
}

/// 201 with the resource and its location.
pub(super) fn created(location: String, item: impl Serialize) -> HttpResponse {
    HttpResponse::Created().insert_header((LOCATION, location)).json(item)
}

/// 204, or 404.
pub(super) fn deleted(existed: bool, not_found: Kind) -> Result<HttpResponse, Problem> {
    match existed {
        true => Ok(HttpResponse::NoContent().finish()),
        false => Err(Problem::not_found(not_found)),
    }
}
