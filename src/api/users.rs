//! Users, who sign in with a password: created, listed, changed, deleted. For admins, each within
//! the caller's own scope. Promises that a password is never shown, and that a change ends the
//! user's sessions.

use actix_web::http::header::LOCATION;
use actix_web::web;
use actix_web::{HttpRequest, HttpResponse, Responder};
use secrecy::SecretString;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::body::{Body, Members, needed};
use super::caller::Caller;
use super::gate::Gate;
use super::name::{NAME_EXPECTED, usable_name};
use super::page::{DEFAULT_LIMIT, Listing, NoParameters, Parameters, listing_in};
use super::path::path_uuid;
use super::problem::{Kind, Problem};
use super::routes::{Access, Routes};
use super::tokens::{take_role, take_scope};
use super::{Context, cursor};
use crate::domain::{NetworkIdentifier, Role, Scope, hash_password, is_usable_password};
use crate::store::{NewUser, UserChange, UserRow};

const PASSWORD_EXPECTED: &str = "a string of 12 to 200 characters";

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::ADMIN, __path_list, list);
    routes.add(Access::ADMIN, __path_create, create);
    routes.add(Access::ADMIN, __path_one, one);
    routes.add(Access::ADMIN, __path_change, change);
    routes.add(Access::ADMIN, __path_delete, delete);
}

/// A user.
#[derive(Serialize, ToSchema)]
pub(super) struct UserItem {
    identifier: Uuid,
    name: String,
    role: Role,
    /// The one network in which the role holds; null for all.
    #[schema(value_type = Option<Uuid>)]
    network: Option<NetworkIdentifier>,
    creation_timestamp: jiff::Timestamp,
}

/// A user to be created.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the body, which is read member by member")]
pub(super) struct NewUserBody {
    /// Unique among users.
    #[schema(min_length = 1, max_length = 200, example = "ada")]
    name: String,
    #[schema(format = Password, min_length = 12, max_length = 200)]
    password: String,
    role: Role,
    /// The one network in which the role holds; null for all, as far as the caller's own goes.
    network: Option<Uuid>,
}

/// What is to be changed about a user; what is not named stays.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the body, which is read member by member")]
pub(super) struct UserChangeBody {
    #[schema(format = Password, min_length = 12, max_length = 200)]
    #[schema(nullable = false)]
    password: Option<String>,
    #[schema(nullable = false)]
    role: Option<Role>,
    /// The one network in which the role holds; null for all, as far as the caller's own goes.
    network: Option<Uuid>,
}

impl From<UserRow> for UserItem {
    fn from(row: UserRow) -> Self {
        Self {
            identifier: row.identifier,
            name: row.name,
            role: row.role,
            network: row.scope.network(),
            creation_timestamp: row.created_at.to_jiff(),
        }
    }
}

fn not_found() -> Problem {
    Problem::new(Kind::UserNotFound, "no user has the identifier in the path")
}

fn take_password(members: &mut Members<'_>) -> Result<Option<SecretString>, Problem> {
    members.take_as("password", PASSWORD_EXPECTED, |it: String| {
        is_usable_password(&it).then(|| SecretString::from(it))
    })
}

/// Slow on purpose, so not on a thread that serves.
async fn hashed(password: SecretString) -> Result<String, Problem> {
    web::block(move || hash_password(&password)).await.map_err(Problem::internal)
}

/// Creates a user.
#[utoipa::path(
    post, path = "/api/v1/users", tag = "access", operation_id = "create_user",
    request_body = NewUserBody,
    responses(
        (status = 201, description = "The user", body = UserItem),
        (status = 409, description = "Another user has the name"),
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
    let password = take_password(&mut members)?;
    let role = take_role(&mut members)?;
    let scope = take_scope(&mut members, own)?;
    members.finish()?;
    let (name, role) = (needed(name, "/name")?, needed(role, "/role")?);
    let password_hash = hashed(needed(password, "/password")?).await?;
    let new = NewUser { name, password_hash, role, scope };
    let identifier = context.store.create_user(&new).await?;
    let row = context.store.user(own, identifier).await?.ok_or_else(not_found)?;
    let location = format!("/api/v1/users/{identifier}");
    Ok(HttpResponse::Created().insert_header((LOCATION, location)).json(UserItem::from(row)))
}

/// The users of the caller's scope, by identifier.
#[utoipa::path(
    get, path = "/api/v1/users", tag = "access", operation_id = "list_users",
    params(
        ("limit" = Option<u32>, Query, description = "Items of a page"),
        ("cursor" = Option<String>, Query, description = "What the last page gave as next"),
    ),
    responses((status = 200, description = "A page of users", body = Listing<UserItem>)),
)]
pub(super) async fn list(
    context: web::Data<Context>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let scope = caller.scope();
    let page = parameters.page_in::<Uuid>(cursor::USERS, DEFAULT_LIMIT)?;
    parameters.finish()?;
    let rows = context.store.list_users(scope, &page).await?;
    Ok(listing_in(cursor::USERS, rows, &page, (|row: &UserRow| row.identifier, UserItem::from)))
}

/// One user.
#[utoipa::path(
    get, path = "/api/v1/users/{user}", tag = "access", operation_id = "read_user",
    params(("user" = Uuid, Path, description = "The identifier")),
    responses(
        (status = 200, description = "The user", body = UserItem),
        (status = 404, description = "There is no such user"),
    ),
)]
pub(super) async fn one(
    context: web::Data<Context>,
    caller: Caller,
    request: HttpRequest,
    _: NoParameters,
) -> Result<impl Responder, Problem> {
    let scope = caller.scope();
    let identifier = path_uuid(&request, "user", Kind::UserNotFound)?;
    let row = context.store.user(scope, identifier).await?.ok_or_else(not_found)?;
    Ok(HttpResponse::Ok().json(UserItem::from(row)))
}

/// Changes password, role or network of a user, and ends the user's sessions.
#[utoipa::path(
    patch, path = "/api/v1/users/{user}", tag = "access", operation_id = "change_user",
    params(("user" = Uuid, Path, description = "The identifier")),
    request_body = UserChangeBody,
    responses(
        (status = 200, description = "The user", body = UserItem),
        (status = 404, description = "There is no such user"),
        (status = 422, description = "A member of the body is not usable"),
    ),
)]
pub(super) async fn change(
    context: web::Data<Context>,
    gate: web::Data<Gate>,
    caller: Caller,
    request: HttpRequest,
    _: NoParameters,
    body: Body,
) -> Result<impl Responder, Problem> {
    let own = caller.scope();
    let identifier = path_uuid(&request, "user", Kind::UserNotFound)?;
    let mut members = body.members()?;
    let password = take_password(&mut members)?;
    let role = take_role(&mut members)?;
    let network = members.take_nullable_as(
        "network",
        "the identifier of a network, or null",
        |it: String| NetworkIdentifier::parse(&it),
    )?;
    members.finish()?;
    let scope = network.map(Scope::of);
    if scope.is_some_and(|scope| own != Scope::All && scope != own) {
        return Err(Problem::no_such_network());
    }
    let password_hash = match password {
        Some(password) => Some(hashed(password).await?),
        None => None,
    };
    let change = UserChange { password_hash, role, scope };
    let row = context.store.change_user(own, identifier, &change).await?;
    gate.forget_all();
    Ok(HttpResponse::Ok().json(UserItem::from(row.ok_or_else(not_found)?)))
}

/// Deletes a user, and ends the user's sessions.
#[utoipa::path(
    delete, path = "/api/v1/users/{user}", tag = "access", operation_id = "delete_user",
    params(("user" = Uuid, Path, description = "The identifier")),
    responses(
        (status = 204, description = "The user is gone"),
        (status = 404, description = "There is no such user"),
    ),
)]
pub(super) async fn delete(
    context: web::Data<Context>,
    gate: web::Data<Gate>,
    caller: Caller,
    request: HttpRequest,
    _: NoParameters,
) -> Result<impl Responder, Problem> {
    let scope = caller.scope();
    let identifier = path_uuid(&request, "user", Kind::UserNotFound)?;
    let deleted = context.store.delete_user(scope, identifier).await?;
    gate.forget_all();
    if deleted { Ok(HttpResponse::NoContent()) } else { Err(not_found()) }
}
