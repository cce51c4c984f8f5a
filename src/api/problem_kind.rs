//! The kinds of problems that the API answers with. Used by `problem.rs`. Promises a `type` that
//! never changes, because clients compare it, and the status that the standard gives it.

use actix_web::http::StatusCode;
use utoipa::openapi::RefOr;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

macro_rules! problems {
    ($($(#[$doc:meta])+ $variant:ident = $status:ident, $type:literal, $title:literal;)+) => {
        /// The kinds of problems. Their types are stable: clients compare them.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum Kind { $($(#[$doc])+ $variant,)+ }

        impl Kind {
            /// Every kind.
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
    /// The request is not HTTP as it should be.
    BadRequest = BAD_REQUEST, "bad-request", "The request cannot be read";
    /// The body is not JSON.
    InvalidJson = BAD_REQUEST, "invalid-json", "The body is not JSON";
    /// A query parameter is unknown, doubled or malformed.
    InvalidParameter = BAD_REQUEST, "invalid-parameter", "A query parameter is not usable";
    /// A header is malformed.
    InvalidHeader = BAD_REQUEST, "invalid-header", "A header is not usable";
    /// Nobody has said who calls, or in vain.
    Unauthenticated = UNAUTHORIZED, "unauthenticated", "A valid token is missing";
    /// Nobody has this name and this password.
    SignInFailed = UNAUTHORIZED, "sign-in-failed", "Name and password do not fit";
    /// The caller may not do this.
    Forbidden = FORBIDDEN, "forbidden", "The caller may not do this";
    /// Nothing is at this path.
    RouteNotFound = NOT_FOUND, "route-not-found", "There is nothing at this path";
    /// No sensor has this identifier.
    SensorNotFound = NOT_FOUND, "sensor-not-found", "There is no such sensor";
    /// The sensor has not measured anything yet.
    MeasurementNotFound =
        NOT_FOUND, "measurement-not-found", "There is no such measurement";
    /// The sensor has no configuration of this revision.
    ConfigurationNotFound =
        NOT_FOUND, "configuration-not-found", "There is no such configuration";
    /// No network has this identifier.
    NetworkNotFound = NOT_FOUND, "network-not-found", "There is no such network";
    /// No token has this identifier.
    TokenNotFound = NOT_FOUND, "token-not-found", "There is no such token";
    /// No user has this identifier.
    UserNotFound = NOT_FOUND, "user-not-found", "There is no such user";
    /// `Accept-Encoding` excludes every coding that is served.
    NotAcceptable = NOT_ACCEPTABLE, "not-acceptable", "Nothing that is accepted is served here";
    /// The body did not come in time.
    RequestTimeout = REQUEST_TIMEOUT, "request-timeout", "The request did not come in time";
    /// The path is known, the method is not.
    MethodNotAllowed = METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed here";
    /// Another one has the name.
    NameTaken = CONFLICT, "name-taken", "The name is taken";
    /// A sensor has the identifier.
    IdentifierTaken = CONFLICT, "identifier-taken", "The identifier is taken";
    /// Only the newest configuration can be published again.
    NotNewest = CONFLICT, "not-newest", "A newer configuration has taken its place";
    /// The network holds sensors.
    NetworkNotEmpty = CONFLICT, "network-not-empty", "The network is not empty";
    /// The body is larger than the API takes.
    PayloadTooLarge = PAYLOAD_TOO_LARGE, "payload-too-large", "The body is too large";
    /// The body is announced as something else than JSON.
    UnsupportedMediaType =
        UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body's media type is not supported";
    /// The body is JSON, and a member of it is unknown, missing, doubled or of another type.
    InvalidMember = UNPROCESSABLE_ENTITY, "invalid-member", "A member of the body is not usable";
    /// A configuration is no unnested object that the database can hold.
    InvalidConfiguration =
        UNPROCESSABLE_ENTITY, "invalid-configuration", "The configuration is not usable";
    /// The key was used for another body.
    IdempotencyKeyReused =
        UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The key belongs to another request";
    /// The caller asks too often.
    TooManyRequests = TOO_MANY_REQUESTS, "too-many-requests", "There are too many requests";
    /// A defect of ours.
    Internal = INTERNAL_SERVER_ERROR, "internal", "Something went wrong here";
    /// The database is away.
    DatabaseUnavailable =
        SERVICE_UNAVAILABLE, "database-unavailable", "The database cannot be reached";
    /// The request took us too long.
    Timeout = SERVICE_UNAVAILABLE, "timeout", "The request took too long";
    /// As many streams are open as may be.
    TooManyStreams = SERVICE_UNAVAILABLE, "too-many-streams", "Too many streams are open";
    /// The read takes longer than one may.
    ReadTimeout = SERVICE_UNAVAILABLE, "read-timeout", "The read takes too long";
    /// As many do the same as may.
    Busy = SERVICE_UNAVAILABLE, "busy", "Too many do the same at once";
    /// The rows of a deleted sensor are in the way.
    PurgeUnderWay =
        SERVICE_UNAVAILABLE, "purge-under-way", "The identifier cannot be used again yet";
    /// Others replay, or this replay takes long.
    ReplayUnderWay = SERVICE_UNAVAILABLE, "replay-under-way", "A replay is under way";
    /// The service cannot do its work at present.
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
