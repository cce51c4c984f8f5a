//! Sessions: a user exchanges name and password for a token that expires or is revoked. A wrong name and a wrong
//! password get the same response, after the same time.

use std::time::Duration;

use actix_web::http::header::{CACHE_CONTROL, LOCATION};
use actix_web::web;
use actix_web::{HttpRequest, HttpResponse, Responder};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Context;
use super::access::Access;
use super::authenticate::CHALLENGE;
use super::body::Json;
use super::caller::Caller;
use super::fields::{GivenName, GivenPassword, Network};
use super::problem::{Kind, Problem};
use super::routes::Routes;
use super::sign_in_checks::SignInChecks;
use super::token_cache::TokenCache;
use crate::domain::{NetworkIdentifier, Role, Scope, Timestamp, Token};
use crate::store::NewToken;

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::Open, __path_open, open).fails_with(&[
        Kind::SignInFailed,
        Kind::TooManyRequests,
        Kind::Busy,
        Kind::DatabaseUnavailable,
        Kind::ReadTimeout,
    ]);
    routes.add(Access::VIEWER, __path_current, current);
    routes.add(Access::VIEWER, __path_end, end);
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Credentials {
    #[schema(inline)]
    name: GivenName,
    #[schema(inline)]
    password: GivenPassword,
    /// The user's network; needed where the user `signs_in_with_network`.
    #[schema(inline)]
    network: Option<Network>,
}

/// A new session. Its token is shown only here.
#[derive(Serialize, ToSchema)]
pub(super) struct OpenedSession {
    /// For the header `Authorization: Bearer …`.
    #[schema(example = "trb_47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU")]
    token: String,
    #[serde(flatten)]
    session: SessionAnswer,
}

/// Who calls.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub(super) struct SessionAnswer {
    /// Of the user, or of the token.
    name: String,
    role: Role,
    /// The one network in which the role holds; null for all.
    #[schema(value_type = Option<Uuid>)]
    network: Option<NetworkIdentifier>,
    /// Null: it does not expire.
    expiry_timestamp: Option<jiff::Timestamp>,
}

/// Signs in: name and password become a token.
#[utoipa::path(
    post, path = "/api/v1/sessions", tag = "access", operation_id = "open_session",
    responses(
        (status = 201, description = "The session, with its token", body = OpenedSession),
        (status = 401, description = "Name, network and password do not fit"),
        (status = 429, description = "This address failed too often, with this name or in all"),
    ),
)]
pub(super) async fn open(
    context: web::Data<Context>,
    tokens: web::Data<TokenCache>,
    checks: web::Data<SignInChecks>,
    request: HttpRequest,
    Json(body): Json<Credentials>,
) -> Result<impl Responder, Problem> {
    let (name, password) = (body.name.0, body.password.0);
    let address = request.peer_addr().map(|address| address.ip());
    let network = body.network.map(|network| network.0);
    let look_up = context.access.user_named(&name, network);
    let found = checks.check((&name, address), password, &context.access, look_up).await?;
    let failed = || {
        tracing::info!(?address, "sign-in failed");
        Problem::sign_in_failed(CHALLENGE)
    };
    let (user, kept) = found.ok_or_else(failed)?;

    let token = Token::random();
    let lasts = Duration::from_secs(u64::from(tokens.config.session_hours) * 3_600);
    let expires_at = Timestamp::now().saturating_add(lasts);
    let new = NewToken {
        name: user.name.clone(),
        digest: token.digest(),
        role: user.role,
        scope: Scope::of(user.network),
        expires_at: Some(expires_at),
        user: Some(user.identifier),
    };
    // None if the user was changed while the password was checked.
    context.access.open_session(&user, &kept, &new).await?.ok_or_else(failed)?;
    tracing::info!(user = %user.identifier, "user signed in");
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, "/api/v1/sessions/current"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(OpenedSession {
            token: token.reveal().to_owned(),
            session: SessionAnswer {
                name: user.name,
                role: user.role,
                network: user.network,
                expiry_timestamp: Some(expires_at.to_jiff()),
            },
        }))
}

/// The caller of this request
#[utoipa::path(
    get, path = "/api/v1/sessions/current", tag = "access", operation_id = "read_session",
    responses((status = 200, description = "Who calls", body = SessionAnswer)),
)]
pub(super) async fn current(caller: Caller) -> Result<impl Responder, Problem> {
    Ok(HttpResponse::Ok().json(SessionAnswer {
        name: caller.name,
        role: caller.role,
        network: caller.scope.network(),
        expiry_timestamp: caller.expires_at.map(Timestamp::to_jiff),
    }))
}

/// Signs out: the session's token is refused from now on.
#[utoipa::path(
    delete, path = "/api/v1/sessions/current", tag = "access", operation_id = "end_session",
    responses(
        (status = 204, description = "The session has ended"),
        (status = 403, description = "The token is no session's; an admin revokes it"),
    ),
)]
pub(super) async fn end(
    context: web::Data<Context>,
    tokens: web::Data<TokenCache>,
    caller: Caller,
) -> Result<impl Responder, Problem> {
    let session = caller.token.filter(|_| caller.is_session()).ok_or_else(|| {
        Problem::forbidden("the token is no session's; an admin revokes it at /api/v1/tokens")
    })?;
    context.access.end_session(session).await?;
    tokens.forget(session);
    Ok(HttpResponse::NoContent())
}
