//! What the client takes. Asked before any handler runs, so that a change is not made whose answer
//! nobody reads. Pure but for the middleware. Promises 406 for a client that takes none of what the
//! path serves (RFC 9110, section 12.5.1).

use actix_web::Error;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::ACCEPT;
use actix_web::middleware::Next;

use super::problem::{Kind, Problem};

/// Whoever takes problem documents takes what stands beside them.
const JSON: &[&str] = &["application/json", "application/problem+json"];

/// The middleware.
pub(super) async fn negotiate(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if let Some(offered) = offered(request.path(), request.query_string())
        && !takes_any(&request, offered)
    {
        let detail = match offered {
            EXPORTED => "this path serves text/csv and application/x-ndjson".to_owned(),
            _ => format!("this path serves {}", offered[0]),
        };
        return Ok(request.error_response(Problem::new(Kind::NotAcceptable, detail)));
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// As the one or the other, an export comes; NDJSON has more names than one.
pub(super) const EXPORTED: &[&str] =
    &["text/csv", "application/x-ndjson", "application/ndjson", "application/jsonl"];

/// What a path serves; none where everybody takes it, or the query says what is wanted.
fn offered(path: &str, query: &str) -> Option<&'static [&'static str]> {
    match path {
        "/metrics" => Some(&["text/plain"]),
        "/docs" => None,
        _ if path.starts_with("/docs/") => None,
        _ if path.ends_with("/export") => {
            let is_said = url::form_urlencoded::parse(query.as_bytes()).any(|it| it.0 == "format");
            (!is_said).then_some(EXPORTED)
        }
        _ if path.ends_with("/stream") || path.starts_with("/api/v1/streams/") => {
            Some(&["text/event-stream"])
        }
        _ => Some(JSON),
    }
}

fn takes_any(request: &ServiceRequest, offered: &[&str]) -> bool {
    let mut headers = request.headers().get_all(ACCEPT).peekable();
    if headers.peek().is_none() {
        return true;
    }
    let ranges: Vec<&str> = headers.filter_map(|it| it.to_str().ok()).collect();
    let ranges = ranges.join(",");
    offered.iter().any(|offered| takes(&ranges, offered))
}

/// The most specific range that fits decides.
pub(super) fn takes(accept: &str, offered: &str) -> bool {
    let (family, _) = offered.split_once('/').unwrap_or((offered, ""));
    let fits = accept.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let specificity = match name.split_once('/')? {
            ("*", "*") => 0,
            (of, "*") if of == family => 1,
            _ if name == offered => 2,
            _ => return None,
        };
        let is_refused = parts
            .filter_map(|parameter| parameter.strip_prefix("q="))
            .any(|weight| weight.parse::<f32>().is_ok_and(|weight| weight <= 0.0));
        Some((specificity, !is_refused))
    });
    fits.max_by_key(|(specificity, _)| *specificity).is_some_and(|(_, is_taken)| is_taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_range_decides() {
        for (accept, taken) in [
            ("*/*", true),
            ("application/json", true),
            ("Application/*;q=0.1", true),
            ("text/html, */*;q=0.1", true),
            ("text/html", false),
            ("text/html,application/xml", false),
            ("*/*, application/json;q=0", false),
            ("*/*;q=0, application/json", true),
            ("application/*;q=0.0, text/*", false),
            ("nonsense", false),
            ("", false),
        ] {
            assert_eq!(takes(accept, "application/json"), taken, "{accept}");
        }
    }

    #[test]
    fn each_path_serves_its_own() {
        assert_eq!(offered("/api/v1/streams/sensors", ""), Some(&["text/event-stream"][..]));
        assert_eq!(offered("/api/v1/sensors/x/stream", ""), Some(&["text/event-stream"][..]));
        let export = "/api/v1/sensors/x/measurements/export";
        assert_eq!(offered(export, "from=1"), Some(EXPORTED));
        assert_eq!(offered(export, "from=1&format=csv"), None);
        assert_eq!(offered("/api/v1/openapi.json", ""), Some(JSON));
        assert_eq!(offered("/docs/index.html", ""), None);
    }
}
