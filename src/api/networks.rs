//! Networks, which hold sensors: created, listed, renamed, deleted. A caller of one network sees only that one. A
//! network that holds sensors cannot be deleted.

use std::convert::identity;

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use utoipa::ToSchema;

use super::Context;
use super::access::Access;
use super::answer::{created, deleted, found};
use super::body::Json;
use super::caller::Caller;
use super::fields::Name;
use super::page::{Listing, PageQuery, listing};
use super::path::{NetworkPath, Path};
use super::problem::{Kind, Problem};
use super::query::Query;
use super::routes::Routes;
use super::token_cache::TokenCache;
use crate::domain::NetworkIdentifier;
use crate::store::Network;

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
    routes.add(Access::ADMIN_OF_ALL, __path_create, create).fails_with(&[Kind::NameTaken]);
    routes.add(Access::VIEWER, __path_one, one);
    routes.add(Access::ADMIN_OF_ALL, __path_rename, rename).fails_with(&[Kind::NameTaken]);
    routes.add(Access::ADMIN_OF_ALL, __path_delete, delete).fails_with(&[Kind::NetworkNotEmpty]);
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NetworkBody {
    /// Unique among networks.
    #[schema(inline, example = "north field")]
    name: Name,
}

/// Creates a network.
#[utoipa::path(
    post, path = "/api/v1/networks", tag = "networks", operation_id = "create_network",
    responses(
        (status = 201, description = "The network", body = Network),
        (status = 409, description = "Another network has the name"),
    ),
)]
async fn create(
    context: web::Data<Context>,
    Json(body): Json<NetworkBody>,
) -> Result<HttpResponse, Problem> {
    let network = context.store.create_network(NetworkIdentifier::random(), &body.name.0).await?;
    let network = network.ok_or_else(|| Problem::not_found(Kind::NetworkNotFound))?;
    let location = format!("/api/v1/networks/{}", network.identifier);
    Ok(created(location, network))
}

/// The networks that the caller may see, by name.
#[utoipa::path(
    get, path = "/api/v1/networks", tag = "networks", operation_id = "list_networks",
    responses((status = 200, description = "A page of networks", body = Listing<Network>)),
)]
async fn list(
    context: web::Data<Context>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Result<HttpResponse, Problem> {
    let page = query.page::<String>()?;
    let networks = context.store.list_networks(caller.scope, &page).await?;
    Ok(listing(networks, &page, |network| network.name.clone(), identity))
}

/// One network.
#[utoipa::path(
    get, path = "/api/v1/networks/{network}", tag = "networks", operation_id = "read_network",
    responses((status = 200, description = "The network", body = Network)),
)]
async fn one(
    context: web::Data<Context>,
    Path(path): Path<NetworkPath>,
) -> Result<HttpResponse, Problem> {
    let network = context.store.network(path.network()).await?;
    found(network, Kind::NetworkNotFound)
}

/// Gives a network another name.
#[utoipa::path(
    patch, path = "/api/v1/networks/{network}", tag = "networks", operation_id = "rename_network",
    responses(
        (status = 200, description = "The network", body = Network),
        (status = 409, description = "Another network has the name"),
    ),
)]
async fn rename(
    context: web::Data<Context>,
    Path(path): Path<NetworkPath>,
    Json(body): Json<NetworkBody>,
) -> Result<HttpResponse, Problem> {
    let network = context.store.rename_network(path.network(), &body.name.0).await?;
    found(network, Kind::NetworkNotFound)
}

/// Deletes an empty network, and the tokens and users that were for it alone. The default network stays.
#[utoipa::path(
    delete, path = "/api/v1/networks/{network}", tag = "networks", operation_id = "delete_network",
    responses(
        (status = 204, description = "It is deleted"),
        (status = 409, description = "It holds sensors, or is the default network"),
    ),
)]
async fn delete(
    context: web::Data<Context>,
    tokens: web::Data<TokenCache>,
    Path(path): Path<NetworkPath>,
) -> Result<HttpResponse, Problem> {
    if path.network() == NetworkIdentifier::DEFAULT {
        let detail = "the default network takes sensors that are created without a network";
        return Err(Problem::new(Kind::NetworkNotEmpty, detail));
    }
    let existed = context.store.delete_network(path.network()).await?;
    tokens.forget_all();
    deleted(existed, Kind::NetworkNotFound)
}
