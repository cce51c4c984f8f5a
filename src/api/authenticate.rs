//! Asks who calls, before any handler runs. Wrapped around the whole application by `bind`.
//!
//! Invariant: what is not named in [`is_open`] is closed. A route that is added is closed, and one
//! that changes something takes an admin, if `roles.rs` does not say less.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};

use super::AccessConfig;
use super::caller::Caller;
use super::gate::{Asker, Gate};
use super::problem::Problem;
use super::roles;
use crate::domain::Token;

/// Where one signs in.
const SESSIONS: &str = "/api/v1/sessions";

/// What RFC 6750 wants to be said to whom has shown no token, and to whom has shown a bad one.
pub(super) const CHALLENGE: &str = "Bearer realm=\"tributary\"";
const CHALLENGE_INVALID: &str = "Bearer realm=\"tributary\", error=\"invalid_token\"";

/// The middleware: puts the [`Caller`] into the request, or answers 401, 403, 429 or 503.
pub(super) async fn authenticate(
    gate: web::Data<Gate>,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    match admit(&gate, &request).await {
        Ok(None) => {}
        Ok(Some(caller)) => drop(request.extensions_mut().insert(caller)),
        Err(problem) => return Ok(request.error_response(problem)),
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// None where nobody is asked.
async fn admit(gate: &Gate, request: &ServiceRequest) -> Result<Option<Caller>, Problem> {
    if is_open(request.method(), request.path(), &gate.config) {
        return Ok(None);
    }
    if !gate.config.required {
        return Ok(Some(Caller::anybody()));
    }
    let token = shown(request);
    let address = Asker::Address(request.peer_addr().map(|address| address.ip()));
    // Who shows nothing that is known is counted before anything is asked of the database.
    if !token.as_ref().is_ok_and(|token| gate.remembers(token.digest())) {
        gate.count(&address)?;
    }
    let caller = gate.holder(token?.digest()).await?.ok_or_else(|| {
        Problem::unauthenticated("the token is unknown, expired or revoked", CHALLENGE_INVALID)
    })?;
    gate.count(&caller.token().map_or(address, Asker::Token))?;
    roles::needed(request.method(), request.path()).ask(&caller)?;
    Ok(Some(caller))
}

/// The token that stands in the header.
fn shown(request: &ServiceRequest) -> Result<Token, Problem> {
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
            "the header Authorization holds no token of ours",
            CHALLENGE_INVALID,
        )
    })
}

/// Where nobody is asked.
fn is_open(method: &Method, path: &str, config: &AccessConfig) -> bool {
    match path {
        "/healthz" | "/readyz" => true,
        "/metrics" => config.metrics_open,
        "/api/v1/openapi.json" | "/docs" => config.docs_open,
        SESSIONS => method == Method::POST,
        _ => path.starts_with("/docs/") && config.docs_open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: AccessConfig = AccessConfig {
        required: true,
        metrics_open: false,
        docs_open: false,
        session_hours: 1,
        requests_per_second: 1,
    };

    #[test]
    fn what_is_not_named_is_closed() {
        let open = AccessConfig { metrics_open: true, docs_open: true, ..CLOSED };
        for path in ["/healthz", "/readyz"] {
            assert!(is_open(&Method::GET, path, &CLOSED), "{path}");
        }
        for path in ["/metrics", "/docs", "/docs/x.js", "/api/v1/openapi.json"] {
            assert!(is_open(&Method::GET, path, &open), "{path}");
            assert!(!is_open(&Method::GET, path, &CLOSED), "{path}");
        }
        for path in ["/", "/healthz/", "/docsx", "/api/v1/sensors", "/api/v1/sessions/current"] {
            assert!(!is_open(&Method::GET, path, &open), "{path}");
        }
        assert!(is_open(&Method::POST, SESSIONS, &CLOSED));
        assert!(!is_open(&Method::GET, SESSIONS, &CLOSED));
    }
}
