//! Asks who calls, before any handler runs. Wrapped around the whole application by `bind`.
//!
//! Invariant: what is not named in [`is_open`] is closed. A route that is added is closed, and one
//! that changes something takes an operator or more ([`least`]), before its handler says what it takes.

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
use crate::domain::{Role, Token};

/// The paths of sessions: who may sign in may also sign out, whatever the role.
const SESSIONS: &str = "/api/v1/sessions";
const BASE: &str = "/api/v1/";

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
    match least(request.method(), request.path()) {
        Need::Role(role) => drop(caller.may(role)?),
        // Where the role suffices, its handler says whether the network is there at all.
        Need::Everywhere(role) if caller.role() < role => caller.may_everywhere(role)?,
        Need::Everywhere(_) => {}
    }
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

/// What is asked at the least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Need {
    Role(Role),
    /// In all networks.
    Everywhere(Role),
}

/// What is asked at the least, whatever the handler asks: it comes after the look at what the path
/// names, so that whoever lacks the role is told here which it is.
fn least(method: &Method, path: &str) -> Need {
    let segments: Vec<&str> = path.strip_prefix(BASE).unwrap_or_default().split('/').collect();
    match segments[..] {
        _ if method.is_safe() => Need::Role(Role::Viewer),
        ["sessions", _, ..] => Need::Role(Role::Viewer),
        ["ingest", ..] | ["networks"] => Need::Everywhere(Role::Admin),
        ["networks", _] if method == Method::DELETE => Need::Everywhere(Role::Admin),
        ["networks" | "tokens" | "users", ..] => Need::Role(Role::Admin),
        ["sensors"] | ["sensors", _] => Need::Role(Role::Admin),
        _ => Need::Role(Role::Operator),
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

    #[test]
    fn a_change_takes_an_operator_at_the_least() {
        use Role::{Admin, Operator, Viewer};
        assert_eq!(least(&Method::GET, "/api/v1/x"), Need::Role(Viewer));
        assert_eq!(least(&Method::HEAD, "/api/v1/x"), Need::Role(Viewer));
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            for path in ["/", "/x", "/api/v1/x", "/api/v1/sensors/x/configurations"] {
                assert_eq!(least(&method, path), Need::Role(Operator), "{path}");
            }
            for path in ["/api/v1/sensors", "/api/v1/sensors/x", "/api/v1/users/x"] {
                assert_eq!(least(&method, path), Need::Role(Admin), "{path}");
            }
            for path in ["/api/v1/networks", "/api/v1/ingest/pause"] {
                assert_eq!(least(&method, path), Need::Everywhere(Admin), "{path}");
            }
        }
        assert_eq!(least(&Method::PATCH, "/api/v1/networks/x"), Need::Role(Admin));
        assert_eq!(least(&Method::DELETE, "/api/v1/networks/x"), Need::Everywhere(Admin));
        assert_eq!(least(&Method::DELETE, "/api/v1/sessions/current"), Need::Role(Viewer));
    }
}
