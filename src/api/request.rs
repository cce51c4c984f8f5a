//! The middleware for the request's identifier, its span in the log, and the form of errors. Wrapped around the
//! application by `bind`; only `measure` and `write_guard` are further out. Each response carries the identifier and
//! the headers that keep browsers from guessing; each error is a problem document that names it; the cause of a failure
//! is logged once.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage};
use tracing::{Span, debug, error, error_span, field, warn};
use tracing_actix_web::RootSpanBuilder;
use uuid::Uuid;

use super::problem::Problem;
use crate::store::StoreError;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// For responses that are not pages: a browser that displays one loads and runs nothing.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// Longer identifiers of clients are replaced.
const MAX_LENGTH: usize = 128;

/// The client's identifier if it is safe to log, else a generated one.
#[derive(Clone, Debug)]
struct RequestIdentifier(String);

impl RequestIdentifier {
    fn of(request: &ServiceRequest) -> Self {
        let given = request.headers().get(HEADER).and_then(|value| value.to_str().ok());
        match given.filter(|text| is_safe_to_log(text)) {
            Some(text) => Self(text.to_owned()),
            None => Self(Uuid::new_v4().to_string()),
        }
    }
}

fn is_safe_to_log(text: &str) -> bool {
    (1..=MAX_LENGTH).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte))
}

pub(super) async fn identify(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let RequestIdentifier(identifier) = RequestIdentifier::of(&request);
    request.extensions_mut().insert(RequestIdentifier(identifier.clone()));
    let mut response = render(next.call(request).await?.map_into_boxed_body(), &identifier);
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if !headers.contains_key(CONTENT_SECURITY_POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    }
    if let Ok(value) = HeaderValue::from_str(&identifier) {
        response.headers_mut().insert(HEADER, value);
    }
    Ok(response)
}

/// Turns every error into a problem document, whatever its source.
fn render(response: ServiceResponse<BoxBody>, identifier: &str) -> ServiceResponse<BoxBody> {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let rendered = match problem_of(&response) {
        Some(problem) => problem.response(Some(identifier)),
        None => Problem::of_status(status).response(Some(identifier)),
    };
    // Without them a browser hides the problem from the calling page.
    let of_cors: Vec<(HeaderName, HeaderValue)> = response
        .headers()
        .iter()
        .filter(|(name, _)| **name == VARY || name.as_str().starts_with("access-control-"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let mut response = response.into_response(rendered);
    of_cors.into_iter().for_each(|(name, value)| response.headers_mut().append(name, value));
    response
}

fn problem_of<B>(response: &ServiceResponse<B>) -> Option<&Problem> {
    response.response().error().and_then(|error| error.as_error())
}

/// The span of a request, without its parameters and its body.
#[derive(Debug)]
pub(super) struct RequestSpan;

impl RootSpanBuilder for RequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let extensions = request.extensions();
        let identifier = extensions.get::<RequestIdentifier>().map_or("", |known| &known.0);
        // At the highest level, so that lines of any level carry the identifier.
        error_span!(
            "request",
            method = %request.method(),
            path = request.path(),
            request_id = identifier,
            status = field::Empty,
        )
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        match outcome {
            Ok(response) => {
                span.record("status", response.status().as_u16());
                match problem_of(response).and_then(Problem::cause) {
                    Some(cause) => log(cause),
                    None => debug!("request answered"),
                }
            }
            Err(error) => error!(%error, "request failed before it reached its handler"),
        }
    }
}

fn log(cause: &(dyn std::error::Error + 'static)) {
    match cause.downcast_ref::<StoreError>() {
        Some(error) if error.is_timeout() => warn!(cause = %error, "a read took too long"),
        Some(error) if error.is_unavailable() => warn!(cause = %error, "database unavailable"),
        _ => error!(%cause, "request failed"),
    }
}
