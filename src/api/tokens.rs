//! Bearer tokens: created, listed, revoked by admins, within the caller's scope. A token's text is in one response
//! only; a revoked token is refused at once.

use std::convert::identity;

use actix_web::http::header::{CACHE_CONTROL, HeaderValue};
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Context;
use super::access::Access;
use super::answer::{created, deleted, found};
use super::body::Json;
use super::caller::Caller;
use super::fields::{Expiry, Name, Network};
use super::page::{Listing, PageQuery, listing};
use super::path::{Path, TokenPath};
use super::problem::{Kind, Problem};
use super::query::Query;
use super::routes::Routes;
use super::token_cache::TokenCache;
use crate::domain::{Role, Scope, Token};
use crate::store::{AccessError, NewToken, TokenRow};

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::ADMIN, __path_list, list);
    routes.add(Access::ADMIN, __path_create, create).fails_with(&[Kind::NameTaken]);
    routes.add(Access::ADMIN, __path_one, one);
    routes.add(Access::ADMIN, __path_revoke, revoke);
}

/// A new token. Its text is shown only here.
#[derive(Serialize, ToSchema)]
pub(super) struct CreatedToken {
    #[serde(flatten)]
    item: TokenRow,
    #[schema(example = "trb_47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU")]
    token: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewTokenBody {
    /// Unique among the tokens of the network, or among those of all networks.
    #[schema(inline, example = "dashboard")]
    name: Name,
    role: Role,
    /// The one network in which the role holds; null for all of the caller's.
    #[schema(inline)]
    network: Option<Network>,
    /// In the future; null: it does not expire.
    #[schema(inline)]
    expiry_timestamp: Option<Expiry>,
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::NameTaken => {
                Self::new(Kind::NameTaken, "the name is taken").at("/name".into())
            }
            AccessError::NoSuchNetwork => Problem::no_such_network(),
            AccessError::NotEmpty => {
                Self::new(Kind::NetworkNotEmpty, "it holds sensors; delete or move them first")
            }
            AccessError::Store(error) => error.into(),
        }
    }
}

/// The scope of a new token or user: by default the caller's own.
pub(super) fn scope_in(own: Scope, network: Option<Network>) -> Result<Scope, Problem> {
    match network {
        None => Ok(own),
        Some(Network(network)) if own.covers(network) => Ok(Scope::Network(network)),
        Some(_) => Err(Problem::no_such_network()),
    }
}

/// Creates a token. Its text is in this response and nowhere else.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "access", operation_id = "create_token",
    responses(
        (status = 201, description = "The token, with its text", body = CreatedToken),
        (status = 409, description = "Another token has the name"),
    ),
)]
async fn create(
    context: web::Data<Context>,
    caller: Caller,
    Json(body): Json<NewTokenBody>,
) -> Result<HttpResponse, Problem> {
    let token = Token::random();
    let new = NewToken {
        name: body.name.0,
        digest: token.digest(),
        role: body.role,
        scope: scope_in(caller.scope, body.network)?,
        expires_at: body.expiry_timestamp.map(|expiry| expiry.0),
        user: None,
    };
    let identifier = context.store.create_token(&new).await?;
    let row = context.store.token(caller.scope, identifier).await?;
    let row = row.ok_or_else(|| Problem::not_found(Kind::TokenNotFound))?;
    let item = CreatedToken { item: row, token: token.reveal().to_owned() };
    let mut answer = created(format!("/api/v1/tokens/{identifier}"), item);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// The tokens of the caller's scope, by identifier; sessions are left out.
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "access", operation_id = "list_tokens",
    responses((status = 200, description = "A page of tokens", body = Listing<TokenRow>)),
)]
async fn list(
    context: web::Data<Context>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<HttpResponse, Problem> {
    let page = query.page::<Uuid>()?;
    let rows = context.store.list_tokens(caller.scope, &page).await?;
    Ok(listing(rows, &page, |row: &TokenRow| row.identifier, identity))
}

/// One token, without its text.
#[utoipa::path(
    get, path = "/api/v1/tokens/{token}", tag = "access", operation_id = "read_token",
    responses((status = 200, description = "The token, without its text", body = TokenRow)),
)]
async fn one(
    context: web::Data<Context>,
    caller: Caller,
    Path(path): Path<TokenPath>,
) -> Result<HttpResponse, Problem> {
    let row = context.store.token(caller.scope, path.token.0).await?;
    found(row, Kind::TokenNotFound)
}

/// Revokes a token at once.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{token}", tag = "access", operation_id = "revoke_token",
    responses((status = 204, description = "It is refused from now on")),
)]
async fn revoke(
    context: web::Data<Context>,
    tokens: web::Data<TokenCache>,
    caller: Caller,
    Path(path): Path<TokenPath>,
) -> Result<HttpResponse, Problem> {
    let existed = context.store.revoke_token(caller.scope, path.token.0).await?;
    tokens.forget(path.token.0);
    deleted(existed, Kind::TokenNotFound)
}
