//! Counts sensors by the state of their newest configuration. Called by the API. The states are computed as in
//! `sensor_list`.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::sensor_list::{IS_STALE, NEWEST};
use crate::domain::{NetworkIdentifier, Scope, Timestamp};
use crate::store::columns::Parameters;
use crate::store::{ConfigurationState, Store, StoreError};

/// The sensors whose newest configuration has one state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateCount {
    /// The state.
    pub state: ConfigurationState,
    /// The number of sensors.
    pub sensors: u64,
    /// The number of those that are silent.
    pub silent: u64,
}

/// States without a sensor are omitted.
pub type StateCounts = Vec<StateCount>;

impl Store {
    /// Counts the sensors of a scope, or of one network in it. A sensor is silent if it has sent no message
    /// since `silent_since`.
    pub async fn summarise_sensors(
        &self,
        scope: Scope,
        network: Option<NetworkIdentifier>,
        silent_since: Timestamp,
    ) -> Result<StateCounts, StoreError> {
        let statement = format!(
            // Grouped by what PostgreSQL expects few values of: otherwise it sorts all sensors.
            "select case when is_stale then 'stale' else coalesce(state, 'none') end, sensors, silent
             from (
                 select n.state, ({IS_STALE}) is true as is_stale, count(*) as sensors,
                     count(*) filter (where last_seen_timestamp is null or last_seen_timestamp < $3) as silent
                 from sensor s
                 {NEWEST}
                 where ($1::uuid is null or s.network_identifier = $1)
                   and ($2::uuid is null or s.network_identifier = $2)
                 group by 1, 2
             ) sensor"
        );
        let parameters: Parameters<'_> =
            &[(&scope, Type::UUID), (&network, Type::UUID), (&silent_since, Type::TIMESTAMPTZ)];
        let count = |row: &Row| {
            Ok(StateCount {
                state: row.try_get(0)?,
                sensors: row.try_get::<_, i64>(1)?.unsigned_abs(),
                silent: row.try_get::<_, i64>(2)?.unsigned_abs(),
            })
        };
        self.list(&statement, parameters, count).await
    }
}
