//! The list of sensors: which, and in what order. Promises a page after the other without a gap, in
//! spite of inserts; in the order of last seen, a sensor that speaks meanwhile moves.

use actix_web::{Responder, web};

use super::Context;
use super::caller::Caller;
use super::name::{NAME_EXPECTED, usable_name};
use super::narrow::{MOMENT_EXPECTED, moment};
use super::page::{Listing, Parameters, listing};
use super::problem::Problem;
use super::routes::{Access, Routes};
use super::sensors::SensorItem;
use crate::domain::NetworkIdentifier;
use crate::store::{SensorFilter, SensorKey, SensorOrder};

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_list, list);
}

/// The sensors that the caller may see.
#[utoipa::path(
    get, path = "/api/v1/sensors", tag = "sensors", operation_id = "list_sensors",
    params(
        ("limit" = Option<u32>, Query, description = "Items of a page"),
        ("cursor" = Option<String>, Query, description = "What the last page gave as next"),
        ("network" = Option<Uuid>, Query, description = "Those of one network"),
        ("name" = Option<String>, Query, description = "Those of exactly this name"),
        ("silent_since" = Option<String>, Query,
            description = "Those not heard since, in RFC 3339 or Unix seconds; never heard is silent"),
        ("configuration_state" = Option<crate::store::ConfigurationState>, Query,
            description = "Those whose newest configuration stands so; `stale`: published for more than five \
                minutes when the sensor last spoke, and not acknowledged"),
        ("sort" = Option<String>, Query,
            description = "By name, or by when it was heard: the longest silent first, or last"),
    ),
    responses((status = 200, description = "A page of sensors", body = Listing<SensorItem>)),
)]
pub(super) async fn list(
    context: web::Data<Context>,
    caller: Caller,
    mut parameters: Parameters,
) -> Result<impl Responder, Problem> {
    let scope = caller.scope();
    let page = parameters.page::<SensorKey>()?;
    let order = parameters.take_as("sort", "name, last_seen or -last_seen", order)?;
    let order = order.unwrap_or(SensorOrder::Name);
    let filter = SensorFilter {
        scope,
        network: parameters.take_as(
            "network",
            "a UUID in its hyphenated form",
            NetworkIdentifier::parse,
        )?,
        name: parameters.take_as("name", NAME_EXPECTED, |it| usable_name(it.into()))?,
        silent_since: parameters.take_as("silent_since", MOMENT_EXPECTED, moment)?,
        state: parameters.take_as(
            "configuration_state",
            "none, pending, published, acknowledged, failed or stale",
            |it| it.parse().ok(),
        )?,
    };
    parameters.finish()?;
    if page.after.as_ref().is_some_and(|key| !key.suits(order)) {
        return Err(Problem::parameter("cursor", "it is of a list in another order"));
    }
    let sensors = context.store.list_sensors(&page, &filter, order).await?;
    Ok(listing(sensors, &page, |sensor| sensor.key(order), SensorItem::from))
}

fn order(text: &str) -> Option<SensorOrder> {
    match text {
        "name" => Some(SensorOrder::Name),
        "last_seen" => Some(SensorOrder::LastSeen),
        "-last_seen" => Some(SensorOrder::LastSeenDescending),
        _ => None,
    }
}
