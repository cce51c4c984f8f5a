//! Users, who sign in with a password: created, listed, changed, deleted by admins, within the caller's scope. A
//! password is never shown; a change ends the user's sessions.

use std::convert::identity;

use actix_web::{HttpResponse, web};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::access::Access;
use super::answer::{created, deleted, found};
use super::body::Json;
use super::caller::Caller;
use super::fields::{Name, Network, Password, not_null};
use super::page::{Listing, PageQuery, listing_in};
use super::path::{Path, UserPath};
use super::problem::{Kind, Problem};
use super::query::Query;
use super::routes::Routes;
use super::token_cache::TokenCache;
use super::tokens::scope_in;
use super::{Context, cursor};
use crate::domain::{Role, Scope, hash_password};
use crate::store::{NewUser, UserChange, UserRow};

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::ADMIN, __path_list, list);
    routes.add(Access::ADMIN, __path_create, create).fails_with(&[Kind::NameTaken]);
    routes.add(Access::ADMIN, __path_one, one);
    routes.add(Access::ADMIN, __path_change, change).fails_with(&[Kind::NameTaken]);
    routes.add(Access::ADMIN, __path_delete, delete);
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewUserBody {
    /// Unique in the network; of users who sign in without naming theirs, unique among these.
    #[schema(inline, example = "ada")]
    name: Name,
    #[schema(inline)]
    password: Password,
    role: Role,
    /// The one network in which the role holds; null for all of the caller's.
    #[schema(inline)]
    network: Option<Network>,
}

/// Members that are left out do not change.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserChangeBody {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(inline, nullable = false)]
    password: Option<Password>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    role: Option<Role>,
    /// The one network in which the role holds; null for all of the caller's.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(inline, value_type = Option<Network>)]
    network: Option<Option<Network>>,
}

/// Slow on purpose, so not on an HTTP worker.
async fn hashed(password: SecretString) -> Result<String, Problem> {
    web::block(move || hash_password(&password)).await.map_err(Problem::internal)
}

/// Creates a user
///
/// Users whom an admin of one network creates name that network when they sign in. So no such admin
/// learns which names there are in other networks.
#[utoipa::path(
    post, path = "/api/v1/users", tag = "access", operation_id = "create_user",
    responses(
        (status = 201, description = "The user", body = UserRow),
        (status = 409, description = "Another user has the name"),
    ),
)]
async fn create(
    context: web::Data<Context>,
    caller: Caller,
    Json(body): Json<NewUserBody>,
) -> Result<HttpResponse, Problem> {
    let scope = scope_in(caller.scope, body.network)?;
    let password_hash = hashed(body.password.0).await?;
    let new = NewUser {
        name: body.name.0,
        password_hash,
        role: body.role,
        scope,
        signs_in_with_network: caller.scope != Scope::All,
    };
    let identifier = context.store.create_user(&new).await?;
    let row = context.store.user(caller.scope, identifier).await?;
    let row = row.ok_or_else(|| Problem::not_found(Kind::UserNotFound))?;
    Ok(created(format!("/api/v1/users/{identifier}"), row))
}

/// The users of the caller's scope, by identifier.
#[utoipa::path(
    get, path = "/api/v1/users", tag = "access", operation_id = "list_users",
    responses((status = 200, description = "A page of users", body = Listing<UserRow>)),
)]
async fn list(
    context: web::Data<Context>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<HttpResponse, Problem> {
    let page = query.page_of::<Uuid>(cursor::USERS)?;
    let rows = context.store.list_users(caller.scope, &page).await?;
    Ok(listing_in(cursor::USERS, rows, &page, (|row: &UserRow| row.identifier, identity)))
}

/// One user.
#[utoipa::path(
    get, path = "/api/v1/users/{user}", tag = "access", operation_id = "read_user",
    responses((status = 200, description = "The user", body = UserRow)),
)]
async fn one(
    context: web::Data<Context>,
    caller: Caller,
    Path(path): Path<UserPath>,
) -> Result<HttpResponse, Problem> {
    let row = context.store.user(caller.scope, path.user.0).await?;
    found(row, Kind::UserNotFound)
}

/// Changes password, role or network of a user, and ends the user's sessions.
#[utoipa::path(
    patch, path = "/api/v1/users/{user}", tag = "access", operation_id = "change_user",
    responses(
        (status = 200, description = "The user", body = UserRow),
        (status = 409, description = "Another user has the name where this one is to go"),
    ),
)]
async fn change(
    context: web::Data<Context>,
    tokens: web::Data<TokenCache>,
    caller: Caller,
    Path(path): Path<UserPath>,
    Json(body): Json<UserChangeBody>,
) -> Result<HttpResponse, Problem> {
    let own = caller.scope;
    let scope = body.network.map(|network| Scope::of(network.map(|network| network.0)));
    if scope.is_some_and(|scope| own != Scope::All && scope != own) {
        return Err(Problem::no_such_network());
    }
    let password_hash = match body.password {
        Some(password) => Some(hashed(password.0).await?),
        None => None,
    };
    let change = UserChange { password_hash, role: body.role, scope };
    let row = context.store.change_user(own, path.user.0, &change).await?;
    tokens.forget_all();
    found(row, Kind::UserNotFound)
}

/// Deletes a user, and ends the user's sessions.
#[utoipa::path(
    delete, path = "/api/v1/users/{user}", tag = "access", operation_id = "delete_user",
    responses((status = 204, description = "The user is deleted")),
)]
async fn delete(
    context: web::Data<Context>,
    tokens: web::Data<TokenCache>,
    caller: Caller,
    Path(path): Path<UserPath>,
) -> Result<HttpResponse, Problem> {
    let existed = context.store.delete_user(caller.scope, path.user.0).await?;
    tokens.forget_all();
    deleted(existed, Kind::UserNotFound)
}
