//! How long a request may take, and how deep its body may be nested. Wrapped around each resource by
//! `Routes::register`. Responds in time whatever the handler waits for: 408 where the body does not arrive, 503
//! where the handler takes too long. A change that has begun is completed nevertheless.

use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, web};

use super::caller::Caller;
use super::problem::{Kind, Problem};
use super::{Config, Context};
use crate::domain::Task;

/// No valid body is nested as deep; its parser recurses.
const MAX_DEPTH: usize = 64;

/// A client that needs longer to send a body is disconnected.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Without authentication, a body holds at most a name and a password.
const MAX_ANONYMOUS_BODY_BYTES: usize = 8 << 10;

/// The bytes that the body of this request may have, packed and unpacked.
pub(super) fn max_body_bytes(request: &HttpRequest) -> usize {
    let limit = request.app_data::<web::Data<Config>>().map_or(0, |config| config.max_body_bytes);
    let is_authenticated = request.extensions().contains::<Caller>();
    if is_authenticated { limit } else { limit.min(MAX_ANONYMOUS_BODY_BYTES) }
}

pub(super) async fn with_time_limit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    // A deletion responds when all rows are deleted, perhaps millions.
    let limit = (request.method() != Method::DELETE).then(|| limit(request.request())).flatten();
    let original_request = request.request().clone();
    let answer = answer(request, next);
    let Some(limit) = limit else { return answer.await };
    match tokio::time::timeout(limit, answer).await {
        Ok(answered) => answered,
        Err(_elapsed) => {
            let detail = "the request took too long; a change that it asks for may still be made";
            let problem = Problem::later(Kind::Timeout, detail);
            Ok(ServiceResponse::from_err(problem, original_request))
        }
    }
}

/// 500 where the handler panics, which would cut the connection.
async fn answer(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let original_request = request.request().clone();
    let tasks = request.app_data::<web::Data<Context>>().map(|context| context.tasks.clone());
    let tasks = tasks.unwrap_or_default();
    let work = async {
        tasks.faults().at(Task::Request);
        next.call(request).await
    };
    match tasks.watch(Task::Request, work).await {
        Ok(answered) => Ok(answered?.map_into_boxed_body()),
        Err(panic) => Ok(ServiceResponse::from_err(Problem::internal(panic), original_request)),
    }
}

fn limit(request: &HttpRequest) -> Option<Duration> {
    let config = request.app_data::<web::Data<Config>>()?;
    Some(Duration::from_secs(config.timeout_secs))
}

/// How long a body may take: less than the whole request, so that the error names the right cause.
pub(super) fn body_timeout(request: &HttpRequest) -> Duration {
    limit(request).map_or(BODY_TIMEOUT, |limit| BODY_TIMEOUT.min(limit / 2))
}

/// Whether a JSON text is nested too deep. Invalid JSON is left to the parser.
pub(super) fn is_too_deep(text: &str) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!is_too_deep(&nested(MAX_DEPTH)));
        assert!(is_too_deep(&nested(MAX_DEPTH + 1)));
        assert!(is_too_deep(&"{\"a\":".repeat(MAX_DEPTH + 1)));
        assert!(!is_too_deep(&format!("\"{}\"", "[".repeat(1000))));
        assert!(!is_too_deep(&format!("\"\\\"{}\"", "[".repeat(1000))));
        assert!(!is_too_deep(&"[],".repeat(1000)));
    }
}
