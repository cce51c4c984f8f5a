//! Bearer tokens: made, listed, revoked. For admins, each within the caller's own scope. Promises
//! that a token's text is in one answer only, and that a revoked one is refused from then on.

use actix_web::http::header::{CACHE_CONTROL, LOCATION};
use actix_web::web;
use actix_web::{HttpRequest, HttpResponse, Responder};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Context;
use super::body::{Body, Members, needed};
use super::caller::Caller;
use super::gate::Gate;
use super::name::{NAME_EXPECTED, usable_name};
use super::page::{Listing, NoParameters, Parameters, listing};
use super::path::path_uuid;
use super::problem::{Kind, Problem};
use super::routes::{Access, Routes};
use crate::domain::{NetworkIdentifier, Role, Scope, Timestamp, Token};
use crate::store::{AccessError, NewToken, TokenRow};

const ROLE_EXPECTED: &str = "viewer, operator or admin";
const NETWORK_EXPECTED: &str = "the identifier of a network, or null for all";

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::ADMIN, __path_list, list);
    routes.add(Access::ADMIN, __path_create, create);
    routes.add(Access::ADMIN, __path_one, one);
    routes.add(Access::ADMIN, __path_revoke, revoke);
}

/// A token, without its text.
#[derive(Serialize, ToSchema)]
pub(super) struct TokenItem {
    identifier: Uuid,
    name: String,
    role: Role,
    /// The one network in which the role holds; null for all.
    #[schema(value_type = Option<Uuid>)]
    network: Option<NetworkIdentifier>,
    creation_timestamp: jiff::Timestamp,
    /// Null never expires.
    expiry_timestamp: Option<jiff::Timestamp>,
    /// Within a minute.
    last_used_timestamp: Option<jiff::Timestamp>,
}

/// A new token. Its text is shown this once.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedToken {
    #[serde(flatten)]
    item: TokenItem,
    #[schema(example = "trb_47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU")]
    token: String,
}

/// A token to be made.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the body, which is read member by member")]
pub(super) struct NewTokenBody {
    /// Unique among tokens.
    #[schema(min_length = 1, max_length = 200, example = "dashboard")]
    name: String,
    role: Role,
    /// The one network in which the role holds; null for all, as far as the caller's own goes.
    network: Option<Uuid>,
    /// In the future; null never expires.
    expiry_timestamp: Option<jiff::Timestamp>,
}

impl From<TokenRow> for TokenItem {
    fn from(row: TokenRow) -> Self {
        Self {
            identifier: row.identifier,
            name: row.name,
            role: row.role,
            network: row.scope.network(),
            creation_timestamp: row.created_at.to_jiff(),
            expiry_timestamp: row.expires_at.map(Timestamp::to_jiff),
            last_used_timestamp: row.last_used_at.map(Timestamp::to_jiff),
        }
    }
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::NameTaken => {
                Self::new(Kind::NameTaken, "another one has the name").at("/name".into())
            }
            AccessError::NoSuchNetwork => Problem::no_such_network(),
            AccessError::NotEmpty => {
                Self::new(Kind::NetworkNotEmpty, "it holds sensors; delete or move them first")
            }
            AccessError::Store(error) => error.into(),
        }
    }
}

fn not_found() -> Problem {
    Problem::new(Kind::TokenNotFound, "no token has the identifier in the path")
}

/// The `role` of what is to be made or changed.
pub(super) fn take_role(members: &mut Members<'_>) -> Result<Option<Role>, Problem> {
    members.take_as("role", ROLE_EXPECTED, |it: String| it.parse().ok())
}

/// The `network` of what is to be made: the caller's own, where it has one and nothing is said.
pub(super) fn take_scope(members: &mut Members<'_>, own: Scope) -> Result<Scope, Problem> {
    let network = members.take_nullable_as("network", NETWORK_EXPECTED, |it: String| {
        NetworkIdentifier::parse(&it)
    })?;
    match network.flatten() {
        None => Ok(own),
        Some(network) if own.covers(network) => Ok(Scope::Network(network)),
        Some(_) => Err(Problem::no_such_network()),
    }
}

/// Makes a token. Its text is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "access", operation_id = "create_token",
    request_body = NewTokenBody,
    responses(
        (status = 201, description = "The token, with its text", body = CreatedToken),
        (status = 409, description = "Another token has the name"),
        (status = 422, description = "A member of the body is not usable"),
    ),
)]
pub(super) async fn create(
    context: web::Data<Context>,
    caller: Caller,
    _: NoParameters,
    body: Body,
) -> Result<impl Responder, Problem> {
    let own = caller.scope();
    let mut members = body.members()?;
    let name = members.take_as("name", NAME_EXPECTED, usable_name)?;
    let role = take_role(&mut members)?;
    let scope = take_scope(&mut members, own)?;
    let expires_at = members.take_nullable_as(
        "expiry_timestamp",
        "a moment in the future, as in 2030-01-01T00:00:00Z",
        |it: String| {
            let moment = it.parse::<jiff::Timestamp>().ok()?;
            (moment > jiff::Timestamp::now()).then(|| Timestamp::from(moment))
        },
    )?;
    members.finish()?;
    let token = Token::random();
    let new = NewToken {
        name: needed(name, "/name")?,
        digest: token.digest(),
        role: needed(role, "/role")?,
        scope,
        expires_at: expires_at.flatten(),
        user: None,
    };
    let identifier = context.store.create_token(&new).await?;
    let row = context.store.token(own, identifier).await?.ok_or_else(not_found)?;
    Ok(HttpResponse::Created()
        .insert_header((LOCATION, format!("/api/v1/tokens/{identifier}")))
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(CreatedToken { item: row.into(), token: token.reveal().to_owned() }))
}

/// The tokens of the caller's scope, by identifier; sessions are left out.
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "access", operation_id = "list_tokens",
    params(
        ("limit" = Option<u32>, Query, description = "Items of a page"),
        ("cursor" = Option<String>, Query, description = "What the last page gave as next"),
    ),
    responses((status = 200, description = "A page of tokens", body = Listing<TokenItem>)),
)]
pub(super) async fn list(
    context: web::Data<Context>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let scope = caller.scope();
    let page = parameters.page::<Uuid>()?;
    parameters.finish()?;
    let rows = context.store.list_tokens(scope, &page).await?;
    Ok(listing(rows, &page, |row| row.identifier, TokenItem::from))
}

/// One token, without its text.
#[utoipa::path(
    get, path = "/api/v1/tokens/{token}", tag = "access", operation_id = "read_token",
    params(("token" = Uuid, Path, description = "Its identifier")),
    responses(
        (status = 200, description = "The token, without its text", body = TokenItem),
        (status = 404, description = "There is no such token"),
    ),
)]
pub(super) async fn one(
    context: web::Data<Context>,
    caller: Caller,
    request: HttpRequest,
    _: NoParameters,
) -> Result<impl Responder, Problem> {
    let scope = caller.scope();
    let identifier = path_uuid(&request, "token", Kind::TokenNotFound)?;
    let row = context.store.token(scope, identifier).await?.ok_or_else(not_found)?;
    Ok(HttpResponse::Ok().json(TokenItem::from(row)))
}

/// Revokes a token, at once.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{token}", tag = "access", operation_id = "revoke_token",
    params(("token" = Uuid, Path, description = "Its identifier")),
    responses(
        (status = 204, description = "It is refused from now on"),
        (status = 404, description = "There is no such token"),
    ),
)]
pub(super) async fn revoke(
    context: web::Data<Context>,
    gate: web::Data<Gate>,
    caller: Caller,
    request: HttpRequest,
    _: NoParameters,
) -> Result<impl Responder, Problem> {
    let scope = caller.scope();
    let identifier = path_uuid(&request, "token", Kind::TokenNotFound)?;
    let revoked = context.store.revoke_token(scope, identifier).await?;
    gate.forget(identifier);
    if revoked { Ok(HttpResponse::NoContent()) } else { Err(not_found()) }
}
