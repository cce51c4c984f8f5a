//! `GET /sensors/summary`: how many sensors there are, by the state of their newest configuration, and how
//! many of them are silent. Called by the dashboard. Promises the states and the scope that the list of
//! sensors has.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Context;
use super::access::Access;
use super::caller::Caller;
use super::fields::{Identifier, Time};
use super::problem::Problem;
use super::query::Query;
use super::routes::Routes;
use crate::domain::{NetworkIdentifier, Scope, Timestamp};
use crate::store::{self, ConfigurationState};

/// A sensor without a message for this long is silent, unless the query says otherwise.
const SILENCE: Duration = Duration::from_secs(3_600);

/// Counts are given again for so long.
const MAX_AGE: Duration = Duration::from_secs(5);

pub(super) fn routes(routes: &mut Routes) {
    routes.add(Access::VIEWER, __path_summarise, summarise);
}

/// What is counted.
#[derive(Clone, Copy, PartialEq)]
struct SummaryQueryKey {
    scope: Scope,
    network: Option<NetworkIdentifier>,
    silent_since: Timestamp,
}

/// The latest counts: all dashboards send the same query, and counting 100,000 sensors takes most of a second. One
/// query is counted at a time; equal queries that arrive meanwhile get its result.
#[derive(Default)]
pub(super) struct SummaryCache(Mutex<Vec<(SummaryQueryKey, Instant, store::StateCounts)>>);

impl SummaryCache {
    async fn counts(
        &self,
        context: &Context,
        holder: Option<Uuid>,
        key: SummaryQueryKey,
    ) -> Result<store::StateCounts, Problem> {
        let mut recent = self.0.lock().await;
        recent.retain(|(_, counted_at, _)| counted_at.elapsed() < MAX_AGE);
        if let Some((_, _, counts)) = recent.iter().find(|(known, ..)| *known == key) {
            return Ok(counts.clone());
        }
        let _turn = context.store.long_read(holder).await?;
        let SummaryQueryKey { scope, network, silent_since } = key;
        let counts = context.store.summarise_sensors(scope, network, silent_since).await?;
        recent.push((key, Instant::now(), counts.clone()));
        Ok(counts)
    }
}

/// How many sensors there are.
#[derive(Serialize, ToSchema)]
pub(super) struct SensorSummary {
    /// All that the caller may see, or those of the network.
    sensors: u64,
    /// Those without a message since `silent_since`, or without any.
    silent: u64,
    silent_since: jiff::Timestamp,
    /// By the state of the newest configuration; each state is there.
    #[schema(value_type = BTreeMap<String, u64>, example = json!({
        "none": 0, "pending": 0, "published": 1, "acknowledged": 18, "failed": 1, "stale": 0
    }))]
    configuration_states: BTreeMap<&'static str, u64>,
}

/// Counts of sensors, by the state of their newest configuration
///
/// And of those that are silent. The list of sensors takes the same conditions. The counts are up to five
/// seconds old.
#[utoipa::path(
    get, path = "/api/v1/sensors/summary", tag = "sensors", operation_id = "summarise_sensors",
    responses((status = 200, description = "The counts", body = SensorSummary)),
)]
async fn summarise(
    context: web::Data<Context>,
    cache: web::Data<SummaryCache>,
    caller: Caller,
    Query(query): Query<SummaryQuery>,
) -> Result<HttpResponse, Problem> {
    let network = query.network.map(|network| NetworkIdentifier(network.0));
    let hour_ago = || Timestamp::now().saturating_sub(SILENCE);
    let silent_since = query.silent_since.map_or_else(hour_ago, |time| time.0);
    let key = SummaryQueryKey { scope: caller.scope, network, silent_since };
    let counts = cache.counts(&context, caller.holder(), key).await?;
    let mut states: BTreeMap<_, _> =
        ConfigurationState::ALL.into_iter().map(|state| (state.name(), 0)).collect();
    states.extend(counts.iter().map(|count| (count.state.name(), count.sensors)));
    Ok(HttpResponse::Ok().json(SensorSummary {
        sensors: counts.iter().map(|count| count.sensors).sum(),
        silent: counts.iter().map(|count| count.silent).sum(),
        silent_since: silent_since.to_jiff(),
        configuration_states: states,
    }))
}

/// Which sensors, and who of them is silent.
#[derive(Debug, Deserialize, IntoParams)]
struct SummaryQuery {
    /// Those of one network
    #[param(inline)]
    network: Option<Identifier>,
    /// Silent is a sensor without a message since: RFC 3339 or Unix seconds; an hour ago, by default
    #[param(inline)]
    silent_since: Option<Time>,
}
