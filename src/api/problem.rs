//! Errors of the API as problem documents (RFC 9457). Created by handlers and extractors, rendered by
//! `request.rs`, which knows the request. They have a stable `type` and name the member or parameter at fault;
//! of the database they say only that it is unavailable.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use actix_web::body::BoxBody;
use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT, ALLOW, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::fields::ReasonCode;
pub(super) use super::problem_kind::Kind;
use crate::store::StoreError;

/// The media type of every error.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// A database that was restarted is back after this long.
const RETRY_AFTER_SECS: &str = "2";

const BUSY_RETRY_AFTER_SECS: &str = "10";

#[derive(Debug)]
pub(super) struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    kind: Kind,
    detail: String,
    pointer: Option<String>,
    parameter: Option<String>,
    reason: Option<&'static str>,
    missing: Vec<Missing>,
    header: Option<(HeaderName, Cow<'static, str>)>,
    cause: Option<Box<dyn Error>>,
}

/// A part that must be up for the service to be ready, and is not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(super) struct Missing {
    /// Its name, as in `/api/v1/status`.
    pub(super) part: &'static str,
    pub(super) problem: String,
    #[schema(required = true)]
    pub(super) since: Option<jiff::Timestamp>,
}

/// What went wrong (RFC 9457)
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// Stable: compare this one
    #[schema(value_type = Kind, inline)]
    r#type: &'static str,
    title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// For people
    detail: &'a str,
    /// The member of the body at fault (RFC 6901)
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pointer: Option<&'a str>,
    /// The query parameter at fault
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    parameter: Option<&'a str>,
    /// The code of a flaw, the same as in rejections
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ReasonCode, required = false)]
    reason: Option<&'static str>,
    /// What is not up
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(inline, required = false)]
    missing: &'a [Missing],
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<&'a str>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            detail: detail.into(),
            pointer: None,
            parameter: None,
            reason: None,
            missing: Vec::new(),
            header: None,
            cause: None,
        }))
    }

    /// A member of the body is at fault; `pointer` (RFC 6901) names it.
    pub(super) fn member(pointer: String, detail: impl Into<String>) -> Self {
        Self::new(Kind::InvalidMember, detail).at(pointer)
    }

    /// A query parameter is at fault.
    pub(super) fn parameter(name: &str, detail: impl Into<String>) -> Self {
        Self::new(Kind::InvalidParameter, detail).in_parameter(name)
    }

    /// The resource of the path does not exist, or is outside the caller's network.
    pub(super) fn not_found(kind: Kind) -> Self {
        let what = match kind {
            Kind::NetworkNotFound => "network",
            Kind::TokenNotFound => "token",
            Kind::UserNotFound => "user",
            _ => "sensor",
        };
        Self::new(kind, format!("no {what} has the identifier in the path"))
    }

    pub(super) fn sensor_not_found() -> Self {
        Self::not_found(Kind::SensorNotFound)
    }

    /// The network of the member does not exist, or is not the caller's.
    pub(super) fn no_such_network() -> Self {
        Self::member("/network".into(), "there is no such network")
    }

    pub(super) fn configuration_not_found() -> Self {
        Self::new(Kind::ConfigurationNotFound, "the sensor has no configuration of this revision")
    }

    /// No token, or an invalid one ([RFC 6750, 3]).
    pub(super) fn unauthenticated(detail: &'static str, challenge: &'static str) -> Self {
        Self::new(Kind::Unauthenticated, detail).with_header(WWW_AUTHENTICATE, challenge)
    }

    /// [RFC 6750, 3] requires the challenge here, too.
    pub(super) fn sign_in_failed(challenge: &'static str) -> Self {
        let problem = Self::new(Kind::SignInFailed, "no user has this name and this password");
        problem.with_header(WWW_AUTHENTICATE, challenge)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, detail)
    }

    /// Over the rate limit; `wait` becomes Retry-After.
    pub(super) fn too_many_requests(detail: &'static str, wait: std::time::Duration) -> Self {
        let whole_secs = wait.as_millis().div_ceil(1_000).max(1);
        Self::new(Kind::TooManyRequests, detail).with_header(RETRY_AFTER, whole_secs.to_string())
    }

    /// The path takes only these methods ([RFC 9110, 15.5.6]).
    pub(super) fn method_not_allowed(allowed: String) -> Self {
        let problem = Self::new(Kind::MethodNotAllowed, format!("this path takes {allowed}"));
        problem.with_header(ALLOW, allowed)
    }

    pub(super) fn unsupported_media_type(detail: &str) -> Self {
        Self::new(Kind::UnsupportedMediaType, detail).with_header(ACCEPT, "application/json")
    }

    /// A defect; the client learns only the request's identifier.
    pub(super) fn internal(cause: impl Into<Box<dyn Error>>) -> Self {
        Self::new(Kind::Internal, "the request failed; the log says more under its request_id")
            .caused_by(cause)
    }

    pub(super) fn not_ready(missing: Vec<Missing>) -> Self {
        let names: Vec<_> = missing.iter().map(|missing| missing.part).collect();
        let detail = format!("not up: {}", names.join(", "));
        let mut problem =
            Self::new(Kind::NotReady, detail).with_header(RETRY_AFTER, RETRY_AFTER_SECS);
        problem.0.missing = missing;
        problem
    }

    /// A temporary problem, with Retry-After.
    pub(super) fn later(kind: Kind, detail: &str) -> Self {
        Self::new(kind, detail).with_header(RETRY_AFTER, RETRY_AFTER_SECS)
    }

    /// A response of actix-web's own, by its status.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::new(Kind::RouteNotFound, "nothing is served here"),
            StatusCode::PAYLOAD_TOO_LARGE => Self::payload_too_large("the body is too large"),
            StatusCode::NOT_ACCEPTABLE => {
                Self::new(Kind::NotAcceptable, "no content coding that is accepted is served")
            }
            _ if status.is_client_error() => {
                Self::new(Kind::BadRequest, "the request is not HTTP as it should be")
            }
            _ => Self::internal(format!("answered {status} without a problem")),
        }
    }

    pub(super) fn payload_too_large(detail: impl Into<String>) -> Self {
        Self::new(Kind::PayloadTooLarge, detail)
    }

    /// The query parameter at fault.
    #[must_use]
    pub(super) fn in_parameter(mut self, name: &str) -> Self {
        self.0.parameter = Some(name.to_owned());
        self
    }

    #[must_use]
    pub(super) fn at(mut self, pointer: String) -> Self {
        self.0.pointer = Some(pointer);
        self
    }

    /// The stable code of a flaw, the same as on the way up.
    #[must_use]
    pub(super) fn with_reason(mut self, code: &'static str) -> Self {
        self.0.reason = Some(code);
        self
    }

    /// Adds Retry-After.
    #[must_use]
    pub(super) fn busy(self) -> Self {
        self.with_header(RETRY_AFTER, BUSY_RETRY_AFTER_SECS)
    }

    /// Logged, never sent to the client.
    #[must_use]
    fn caused_by(mut self, cause: impl Into<Box<dyn Error>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    #[must_use]
    fn with_header(mut self, name: HeaderName, value: impl Into<Cow<'static, str>>) -> Self {
        self.0.header = Some((name, value.into()));
        self
    }

    pub(super) fn cause(&self) -> Option<&(dyn Error + 'static)> {
        self.0.cause.as_deref()
    }

    pub(super) fn response(&self, request_id: Option<&str>) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.0.kind.status());
        if let Some((name, value)) = &self.0.header {
            response.insert_header((name.clone(), &**value));
        }
        response.content_type(MEDIA_TYPE).json(self.document(request_id))
    }

    fn document<'a>(&'a self, request_id: Option<&'a str>) -> Document<'a> {
        let Parts { kind, detail, pointer, parameter, reason, missing, .. } = &*self.0;
        Document {
            r#type: kind.type_uri(),
            title: kind.title(),
            status: kind.status().as_u16(),
            detail,
            pointer: pointer.as_deref(),
            parameter: parameter.as_deref(),
            reason: *reason,
            missing,
            request_id,
        }
    }

    /// An example for the document of the API.
    pub(super) fn example(kind: Kind) -> Value {
        let problem = Self::new(kind, "what was wrong, in a sentence");
        let problem = match kind {
            Kind::InvalidParameter => Self::parameter("colour", "unknown parameter"),
            Kind::InvalidMember => Self::member("/colour".into(), "unknown member"),
            Kind::NameTaken => problem.at("/name".into()),
            Kind::IdentifierTaken | Kind::PurgeUnderWay => problem.at("/identifier".into()),
            Kind::InvalidConfiguration => problem.at("/wind".into()).with_reason("nested_value"),
            Kind::NotReady => {
                let problem = "it does not answer".into();
                Self::not_ready(vec![Missing { part: "database", problem, since: None }])
            }
            _ => problem,
        };
        json!(problem.document(Some("81bf7042-e20f-4a97-ac44-c15853e3618f")))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.0.kind.title(), self.0.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.0.kind.status()
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        self.response(None)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_timeout() {
            let detail = "ask for less: a shorter time range, or a text with more matches";
            return Self::new(Kind::ReadTimeout, detail).busy().caused_by(error);
        }
        if let StoreError::LimitReached(what) = error {
            let detail = format!("too many {what} at once, of this caller or of all; try again");
            return Self::new(Kind::Busy, detail).busy();
        }
        if error.is_locked_out() {
            let detail = "another session of the database holds a lock; try again";
            return Self::new(Kind::Busy, detail).busy().caused_by(error);
        }
        if !error.is_unavailable() {
            return Self::internal(error);
        }
        Self::new(
            Kind::DatabaseUnavailable,
            "try again; a change was made completely or not at all",
        )
        .with_header(RETRY_AFTER, RETRY_AFTER_SECS)
        .caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(response: HttpResponse) -> serde_json::Value {
        let bytes = actix_web::body::to_bytes(response.into_body()).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    #[actix_rt::test]
    async fn an_internal_error_does_not_show_its_cause() {
        let response = Problem::internal("select secret from table").response(Some("r-2"));
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!body(response).await.to_string().contains("secret"));
    }
}
