//! Networks, which hold sensors: created, listed, renamed, deleted. Whoever is at home in one sees
//! that one and no other. Promises that one that holds sensors stays.

use actix_web::http::header::LOCATION;
use actix_web::web;
use actix_web::{HttpRequest, HttpResponse, Responder};
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::body::{Body, needed};
use super::caller::Caller;
use super::gate::Gate;
use super::name::{NAME_EXPECTED, usable_name};
use super::page::{Listing, NoParameters, Parameters, listing};
use super::path::path_uuid;
use super::problem::{Kind, Problem};
use super::routes::{Access, Routes};
use crate::domain::{NetworkIdentifier, Scope};
use crate::store::Network;

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
    routes.add(Access::ADMIN_OF_ALL, __path_create, create);
    routes.add(Access::VIEWER, __path_one, one);
    routes.add(Access::ADMIN, __path_rename, rename);
    routes.add(Access::ADMIN_OF_ALL, __path_delete, delete);
}

/// A network.
#[derive(Serialize, ToSchema)]
pub(super) struct NetworkItem {
    #[schema(value_type = Uuid)]
    identifier: NetworkIdentifier,
    name: String,
    creation_timestamp: jiff::Timestamp,
    /// How many sensors it holds.
    sensor_count: i64,
}

/// What is said of a network.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the body, which is read member by member")]
pub(super) struct NetworkBody {
    /// Unique among networks.
    #[schema(min_length = 1, max_length = 200, example = "north field")]
    name: String,
}

impl From<Network> for NetworkItem {
    fn from(network: Network) -> Self {
        Self {
            identifier: network.identifier,
            name: network.name,
            creation_timestamp: network.created_at.to_jiff(),
            sensor_count: network.sensor_count,
        }
    }
}

pub(super) fn not_found() -> Problem {
    Problem::new(Kind::NetworkNotFound, "no network has the identifier in the path")
}

/// The network in the path, if it lies within the scope.
pub(super) fn network_in(
    request: &HttpRequest,
    scope: Scope,
) -> Result<NetworkIdentifier, Problem> {
    let network = NetworkIdentifier(path_uuid(request, "network", Kind::NetworkNotFound)?);
    if scope.covers(network) { Ok(network) } else { Err(not_found()) }
}

fn read_name(body: &Body) -> Result<String, Problem> {
    let mut members = body.members()?;
    let name = members.take_as("name", NAME_EXPECTED, usable_name)?;
    members.finish()?;
    needed(name, "/name")
}

/// Creates a network.
#[utoipa::path(
    post, path = "/api/v1/networks", tag = "networks", operation_id = "create_network",
    request_body = NetworkBody,
    responses(
        (status = 201, description = "The network", body = NetworkItem),
        (status = 409, description = "Another network has the name"),
        (status = 422, description = "A member of the body is not usable"),
    ),
)]
pub(super) async fn create(
    context: web::Data<Context>,
    _: NoParameters,
    body: Body,
) -> Result<impl Responder, Problem> {
    let name = read_name(&body)?;
    let network = context.store.create_network(NetworkIdentifier::random(), &name).await?;
    let item = NetworkItem::from(network.ok_or_else(not_found)?);
    let location = format!("/api/v1/networks/{}", item.identifier);
    Ok(HttpResponse::Created().insert_header((LOCATION, location)).json(item))
}

/// The networks that the caller may see, by name.
#[utoipa::path(
    get, path = "/api/v1/networks", tag = "networks", operation_id = "list_networks",
    params(
        ("limit" = Option<u32>, Query, description = "Items of a page"),
        ("cursor" = Option<String>, Query, description = "What the last page gave as next"),
    ),
    responses((status = 200, description = "A page of networks", body = Listing<NetworkItem>)),
)]
pub(super) async fn list(
    context: web::Data<Context>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let scope = caller.scope();
    let page = parameters.page::<String>()?;
    parameters.finish()?;
    let networks = context.store.list_networks(scope, &page).await?;
    Ok(listing(networks, &page, |network| network.name.clone(), NetworkItem::from))
}

/// One network.
#[utoipa::path(
    get, path = "/api/v1/networks/{network}", tag = "networks", operation_id = "read_network",
    params(("network" = Uuid, Path, description = "Its identifier")),
    responses(
        (status = 200, description = "The network", body = NetworkItem),
        (status = 404, description = "There is no such network"),
    ),
)]
pub(super) async fn one(
    context: web::Data<Context>,
    caller: Caller,
    request: HttpRequest,
    _: NoParameters,
) -> Result<impl Responder, Problem> {
    let identifier = network_in(&request, caller.scope())?;
    let network = context.store.network(identifier).await?.ok_or_else(not_found)?;
    Ok(HttpResponse::Ok().json(NetworkItem::from(network)))
}

/// Gives a network another name.
#[utoipa::path(
    patch, path = "/api/v1/networks/{network}", tag = "networks", operation_id = "rename_network",
    params(("network" = Uuid, Path, description = "Its identifier")),
    request_body = NetworkBody,
    responses(
        (status = 200, description = "The network", body = NetworkItem),
        (status = 404, description = "There is no such network"),
        (status = 409, description = "Another network has the name"),
        (status = 422, description = "A member of the body is not usable"),
    ),
)]
pub(super) async fn rename(
    context: web::Data<Context>,
    caller: Caller,
    request: HttpRequest,
    _: NoParameters,
    body: Body,
) -> Result<impl Responder, Problem> {
    let identifier = network_in(&request, caller.scope())?;
    let name = read_name(&body)?;
    let network = context.store.rename_network(identifier, &name).await?;
    Ok(HttpResponse::Ok().json(NetworkItem::from(network.ok_or_else(not_found)?)))
}

/// Deletes an empty network, and the tokens and users that were for it alone. The default network stays.
#[utoipa::path(
    delete, path = "/api/v1/networks/{network}", tag = "networks", operation_id = "delete_network",
    params(("network" = Uuid, Path, description = "Its identifier")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such network"),
        (status = 409, description = "It holds sensors, or is the default network"),
    ),
)]
pub(super) async fn delete(
    context: web::Data<Context>,
    gate: web::Data<Gate>,
    caller: Caller,
    request: HttpRequest,
    _: NoParameters,
) -> Result<impl Responder, Problem> {
    let identifier = network_in(&request, caller.scope())?;
    if identifier == NetworkIdentifier::DEFAULT {
        let detail = "the default network takes the sensors of which nobody says where they belong";
        return Err(Problem::new(Kind::NetworkNotEmpty, detail));
    }
    let deleted = context.store.delete_network(identifier).await?;
    gate.forget_all();
    if deleted { Ok(HttpResponse::NoContent()) } else { Err(not_found()) }
}
