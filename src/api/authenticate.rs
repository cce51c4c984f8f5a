//! Authenticates the caller before any handler runs. Wrapped around each route by `routes.rs`.
//!
//! Invariant: a handler of a route that is not open runs only for a caller whose role suffices.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};

use super::access::Access;
use super::caller::Caller;
use super::problem::Problem;
use super::token_cache::{RateLimitKey, TokenCache};
use super::{Config, browser_guard, peer};
use crate::domain::Token;

/// The challenge of RFC 6750 to a caller without a token, and to one with an invalid token.
pub(super) const CHALLENGE: &str = "Bearer realm=\"tributary\"";
const CHALLENGE_INVALID: &str = "Bearer realm=\"tributary\", error=\"invalid_token\"";

/// The middleware of a route: puts the [`Caller`] into the request, or answers 401, 403, 429 or 503.
pub(super) async fn authenticate(
    access: Access,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match admit(access, &request).await {
        Ok(None) => {}
        Ok(Some(caller)) => drop(request.extensions_mut().insert(caller)),
        Err(problem) => return Ok(request.error_response(problem)),
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// `None` for a route without authentication.
async fn admit(access: Access, request: &ServiceRequest) -> Result<Option<Caller>, Problem> {
    let tokens = request.app_data::<web::Data<TokenCache>>();
    let tokens = tokens.ok_or_else(|| Problem::internal("no TokenCache is registered"))?;
    if access.is_open(&tokens.config) {
        return Ok(None);
    }
    if !tokens.config.required {
        let config = request.app_data::<web::Data<Config>>();
        let config = config.ok_or_else(|| Problem::internal("no Config is registered"))?;
        browser_guard::check(request.request(), &config.cors_origins)?;
        return Ok(Some(Caller::anybody()));
    }
    let token = bearer_token(request);
    let address =
        RateLimitKey::Address(request.peer_addr().map(|address| peer::network(address.ip())));
    // Requests without a cached token are limited by address before the database is queried.
    if !token.as_ref().is_ok_and(|token| tokens.remembers(token.digest())) {
        tokens.count(&address)?;
    }
    let caller = tokens.holder(token?.digest()).await?.ok_or_else(|| {
        Problem::unauthenticated("the token is unknown, expired or revoked", CHALLENGE_INVALID)
    })?;
    tokens.count(&caller.token.map_or(address, RateLimitKey::Token))?;
    access.check(&caller)?;
    Ok(Some(caller))
}

fn bearer_token(request: &ServiceRequest) -> Result<Token, Problem> {
    let Some(header) = request.headers().get(AUTHORIZATION) else {
        return Err(Problem::unauthenticated(
            "it takes the header Authorization: Bearer …; tributary token create makes a token",
            CHALLENGE,
        ));
    };
    let text = header.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    text.and_then(Token::parse).ok_or_else(|| {
        Problem::unauthenticated(
            "the header Authorization does not hold a valid token",
            CHALLENGE_INVALID,
        )
    })
}
