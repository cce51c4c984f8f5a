//! The kinds of problems of the API, each with its status and its `type`, which never changes because clients
//! compare it. Used by `problem.rs`.

use actix_web::http::StatusCode;
use utoipa::openapi::RefOr;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

macro_rules! problems {
    ($($variant:ident = $status:ident, $type:literal, $title:literal;)+) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Kind { $($variant,)+ }

        impl Kind {
            pub(super) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            pub(super) const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)+ }
            }

            pub(super) const fn type_uri(self) -> &'static str {
                match self { $(Self::$variant => concat!("/problems/", $type),)+ }
            }

            pub(super) const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }
        }
    };
}

problems! {
    BadRequest = BAD_REQUEST, "bad-request", "The request cannot be read";
    InvalidJson = BAD_REQUEST, "invalid-json", "The body is not JSON";
    InvalidParameter = BAD_REQUEST, "invalid-parameter", "A query parameter is not usable";
    InvalidHeader = BAD_REQUEST, "invalid-header", "A header is not usable";
    Unauthenticated = UNAUTHORIZED, "unauthenticated", "A valid token is missing";
    SignInFailed = UNAUTHORIZED, "sign-in-failed", "Name and password do not fit";
    Forbidden = FORBIDDEN, "forbidden", "The caller may not do this";
    RouteNotFound = NOT_FOUND, "route-not-found", "There is nothing at this path";
    SensorNotFound = NOT_FOUND, "sensor-not-found", "There is no such sensor";
    MeasurementNotFound =
        NOT_FOUND, "measurement-not-found", "There is no such measurement";
    ConfigurationNotFound =
        NOT_FOUND, "configuration-not-found", "There is no such configuration";
    NetworkNotFound = NOT_FOUND, "network-not-found", "There is no such network";
    TokenNotFound = NOT_FOUND, "token-not-found", "There is no such token";
    UserNotFound = NOT_FOUND, "user-not-found", "There is no such user";
    NotAcceptable = NOT_ACCEPTABLE, "not-acceptable", "Nothing that is accepted is served here";
    RequestTimeout = REQUEST_TIMEOUT, "request-timeout", "The request did not come in time";
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here";
    NameTaken = CONFLICT, "name-taken", "The name is taken";
    IdentifierTaken = CONFLICT, "identifier-taken", "The identifier is taken";
    NotNewest = CONFLICT, "not-newest", "A newer configuration has taken its place";
    NetworkNotEmpty = CONFLICT, "network-not-empty", "The network is not empty";
    PayloadTooLarge = PAYLOAD_TOO_LARGE, "payload-too-large", "The body is too large";
    UnsupportedMediaType =
        UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body's media type is not supported";
    InvalidMember = UNPROCESSABLE_ENTITY, "invalid-member", "A member of the body is not usable";
    InvalidConfiguration =
        UNPROCESSABLE_ENTITY, "invalid-configuration", "The configuration is not usable";
    IdempotencyKeyReused =
        UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The key belongs to another request";
    TooManyRequests = TOO_MANY_REQUESTS, "too-many-requests", "There are too many requests";
    Internal = INTERNAL_SERVER_ERROR, "internal", "Something went wrong here";
    DatabaseUnavailable =
        SERVICE_UNAVAILABLE, "database-unavailable", "The database cannot be reached";
    Timeout = SERVICE_UNAVAILABLE, "timeout", "The request took too long";
    TooManyStreams = SERVICE_UNAVAILABLE, "too-many-streams", "Too many streams are open";
    ReadTimeout = SERVICE_UNAVAILABLE, "read-timeout", "The read takes too long";
    Busy = SERVICE_UNAVAILABLE, "busy", "Too many do the same at once";
    PurgeUnderWay =
        SERVICE_UNAVAILABLE, "purge-under-way", "The identifier cannot be used again yet";
    ReplayUnderWay = SERVICE_UNAVAILABLE, "replay-under-way", "A replay is under way";
    NotReady = SERVICE_UNAVAILABLE, "not-ready", "The service is not ready";
}

impl PartialSchema for Kind {
    fn schema() -> RefOr<Schema> {
        let titles = Self::ALL.iter().map(|kind| (kind.type_uri().to_owned(), kind.title().into()));
        let titles = serde_json::Value::Object(titles.collect());
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(Self::ALL.iter().map(|kind| kind.type_uri())))
            .extensions(Some(ExtensionsBuilder::new().add("x-titles", titles).build()))
            .into()
    }
}

impl ToSchema for Kind {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_unique() {
        let types: std::collections::HashSet<_> = Kind::ALL.iter().map(|k| k.type_uri()).collect();
        assert_eq!(types.len(), Kind::ALL.len());
    }
}
