//! Protects a service with `AUTH=off` from web pages in the operator's browser, which can reach the loopback
//! address. Called by `authenticate.rs`. Refuses requests by DNS rebinding and from forms of other sites.

use std::rc::Rc;

use actix_web::HttpRequest;
use actix_web::http::header::{CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use actix_web::http::uri::Authority;
use actix_web::http::{Method, Uri};

use super::connection::Control;
use super::problem::Problem;

const JSON: &str = "application/json";

/// A form cannot set it, and a script of another site needs a preflight request (Fetch, 3.3).
const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// `origins`: whose pages may call, beside those of the service.
///
/// # Errors
/// 403 for a foreign Host or Origin; 415 for a POST that a form could send.
pub(super) fn check(request: &HttpRequest, origins: &[String]) -> Result<(), Problem> {
    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or("?"));
    // In HTTP/2 it is in the request's URI.
    let host = request.uri().authority().map(Authority::as_str).or(header(HOST));
    if !host.is_some_and(|host| is_ours(host, request)) {
        return Err(Problem::forbidden(
            "with AUTH=off, Host must be a loopback address, or localhost, with the service's port",
        ));
    }
    if let Some(origin) = header(ORIGIN) {
        let is_known = origins.iter().any(|known| known == origin);
        let uri = origin.parse::<Uri>().ok();
        let authority = uri.as_ref().and_then(Uri::authority);
        if !is_known && !authority.is_some_and(|it| is_ours(it.as_str(), request)) {
            let detail = "with AUTH=off, only pages of the service and of CORS_ORIGINS may call";
            return Err(Problem::forbidden(detail));
        }
        return Ok(());
    }
    // Other methods are never sent by a form.
    let is_json = header(CONTENT_TYPE)
        .and_then(|it| it.get(..JSON.len()))
        .is_some_and(|essence| essence.eq_ignore_ascii_case(JSON));
    if request.method() == Method::POST && !is_json && header(REQUESTED_WITH).is_none() {
        return Err(Problem::unsupported_media_type(
            "with AUTH=off, a POST takes Content-Type: application/json, also without a body",
        ));
    }
    Ok(())
}

/// Whether `host:port` is a loopback address, or `localhost`, with our port.
fn is_ours(authority: &str, request: &HttpRequest) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let Some(connection) = request.conn_data::<Rc<Control>>() else { return false };
    let port = authority.port_u16().unwrap_or(if connection.is_secure { 443 } else { 80 });
    is_loopback(authority.host()) && port == connection.local_address.port()
}

/// Whether only this machine can reach it. A name other than `localhost` may resolve to any address.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_host_is_an_address_or_localhost() {
        for host in ["127.0.0.1", "127.1.2.3", "[::1]", "localhost", "LocalHost"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "10.0.0.1", "localhost.example", "127.0.0.1.example", "[::]", "0.0.0.0"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
