//! Lists and reads sensors. Called by the API. A list's key remains valid after inserts; the state of the
//! newest configuration is computed by one statement for lists and single sensors.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row};
use utoipa::ToSchema;

use crate::domain::{NetworkIdentifier, Scope, SensorIdentifier, Timestamp};
use crate::store::columns::{Parameters, containing, raw_json};
use crate::store::{ConfigurationState, Page, Store, StoreError};

#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = SensorItem)]
#[expect(missing_docs, reason = "the members of the answer")]
pub struct Sensor {
    #[schema(value_type = Uuid)]
    pub identifier: SensorIdentifier,
    #[schema(value_type = Uuid)]
    pub network: NetworkIdentifier,
    pub name: String,
    /// Not sent to the sensor.
    #[schema(value_type = Object)]
    pub metadata: Box<RawValue>,
    pub creation_timestamp: jiff::Timestamp,
    /// When its last message was received; updated every few seconds.
    pub last_seen_timestamp: Option<jiff::Timestamp>,
    pub newest_revision: Option<i32>,
    pub configuration_state: ConfigurationState,
    pub last_acknowledged_revision: Option<i32>,
}

/// Conditions that a listed sensor fulfils.
#[derive(Clone, Debug)]
pub struct SensorFilter {
    /// The networks that the caller may see.
    pub scope: Scope,
    /// Its network.
    pub network: Option<NetworkIdentifier>,
    /// Its name.
    pub name: Option<String>,
    /// Its name contains this text, ignoring case.
    pub part_of_name: Option<String>,
    /// It has sent no message since this time.
    pub silent_since: Option<Timestamp>,
    /// The state of its newest configuration.
    pub state: Option<ConfigurationState>,
}

/// The order of a list of sensors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SensorOrder {
    /// By name.
    Name,
    /// Sensors that have never sent a message first, then the least recently seen.
    LastSeen,
    /// The most recently seen first.
    LastSeenDescending,
}

/// The last sensor of a page, after which the list continues.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SensorKey {
    /// Ordered by name.
    Name(String, SensorIdentifier),
    /// Ordered by last seen; the epoch for a sensor that has never sent a message.
    LastSeen(Timestamp, SensorIdentifier),
}

impl SensorKey {
    /// Whether it is a key of this order.
    pub const fn suits(&self, order: SensorOrder) -> bool {
        matches!(
            (self, order),
            (Self::Name(..), SensorOrder::Name)
                | (Self::LastSeen(..), SensorOrder::LastSeen | SensorOrder::LastSeenDescending)
        )
    }
}

impl Sensor {
    /// The key after which a list in this order continues.
    pub fn key(&self, order: SensorOrder) -> SensorKey {
        match order {
            SensorOrder::Name => SensorKey::Name(self.name.clone(), self.identifier),
            SensorOrder::LastSeen | SensorOrder::LastSeenDescending => {
                let last_seen = self.last_seen_timestamp.map(Timestamp::from);
                SensorKey::LastSeen(last_seen.unwrap_or_default(), self.identifier)
            }
        }
    }
}

/// A published configuration is stale if its sensor has sent a message more than five minutes after its publication.
macro_rules! is_stale {
    () => {
        "n.state = 'published' and s.last_seen_timestamp > n.publication_timestamp + interval '5 minutes'"
    };
}

pub(super) const IS_STALE: &str = is_stale!();

const STATE: &str = concat!(
    "case when ",
    is_stale!(),
    " then 'stale' else coalesce(n.state, 'none') end as configuration_state"
);

/// The newest configuration of the sensor `s`, as `n`.
pub(super) const NEWEST: &str =
    "left join configuration n on n.sensor_identifier = s.identifier and n.is_newest";

/// Read from an index, unlike a comparison with [`STATE`].
const fn has_state(state: ConfigurationState) -> &'static str {
    match state {
        ConfigurationState::None => "and n.state is null",
        ConfigurationState::Pending => "and n.state = 'pending'",
        ConfigurationState::Published => {
            concat!("and n.state = 'published' and (", is_stale!(), ") is not true")
        }
        ConfigurationState::Acknowledged => "and n.state = 'acknowledged'",
        ConfigurationState::Failed => "and n.state = 'failed'",
        ConfigurationState::Stale => concat!("and ", is_stale!()),
    }
}

/// Parameters: the caller's network, network, name, silent since, pattern of the name, the key's identifier,
/// its other part, limit; each but the limit may be null.
const FILTER: &str = "\
where ($1::uuid is null or network_identifier = $1)
  and ($2::uuid is null or network_identifier = $2)
  and ($3::text is null or name = $3)
  and ($4::timestamptz is null or last_seen_timestamp is null or last_seen_timestamp < $4)
  and ($5::text is null or name ilike $5)";

const AFTER_NAME: &str = "and ($6::uuid is null or (name, identifier) > ($7::text, $6))";

const AFTER_LAST_SEEN: &str = "\
and ($6::uuid is null or (coalesce(last_seen_timestamp, 'epoch'), identifier) > ($7::timestamptz, $6))";

const BEFORE_LAST_SEEN: &str = "\
and ($6::uuid is null or (coalesce(last_seen_timestamp, 'epoch'), identifier) < ($7::timestamptz, $6))";

/// Sensors with the state of their configuration; `sensors` is a table or a subquery.
fn with_state(sensors: &str) -> String {
    format!("select s.*, n.revision as newest_revision, {STATE} from {sensors} s {NEWEST}")
}

/// All columns of the sensors that [`with_state`] gives.
fn select(sensors: &str) -> String {
    format!(
        "\
select s.identifier, s.network_identifier, s.name, s.metadata::text, s.creation_timestamp,
       s.last_seen_timestamp, s.newest_revision, s.configuration_state,
       a.revision as last_acknowledged_revision
from ({sensors}) s
left join lateral (
    select c.revision from configuration c
    where c.sensor_identifier = s.identifier and c.acknowledgement_timestamp is not null
    order by c.revision desc limit 1
) a on true "
    )
}

/// The page is chosen before configurations are looked up: PostgreSQL would look up those of all sensors
/// first, to sort them. Only where the state is asked for, each is needed.
fn list(order: SensorOrder, state: Option<ConfigurationState>) -> String {
    let (after, sorted) = match order {
        SensorOrder::Name => (AFTER_NAME, "order by name, identifier"),
        SensorOrder::LastSeen => {
            (AFTER_LAST_SEEN, "order by coalesce(last_seen_timestamp, 'epoch'), identifier")
        }
        SensorOrder::LastSeenDescending => (
            BEFORE_LAST_SEEN,
            "order by coalesce(last_seen_timestamp, 'epoch') desc, identifier desc",
        ),
    };
    let page = match state {
        Some(state) => {
            let (sensors, has_state) = (with_state("sensor"), has_state(state));
            format!("{sensors} {FILTER} {has_state} {after} {sorted} limit $8")
        }
        None => with_state(&format!("(select * from sensor {FILTER} {after} {sorted} limit $8)")),
    };
    format!("{}{sorted}", select(&page))
}

impl Store {
    /// Sensors in an order, one more than the page holds if there are more.
    pub async fn list_sensors(
        &self,
        page: &Page<SensorKey>,
        filter: &SensorFilter,
        order: SensorOrder,
    ) -> Result<Vec<Sensor>, StoreError> {
        let limit = page.row_count();
        let part_of_name = filter.part_of_name.as_deref().map(containing);
        let (mut after, mut name, mut last_seen) = (None, None, None);
        match &page.after {
            None => {}
            Some(SensorKey::Name(key, sensor)) => (after, name) = (Some(*sensor), Some(key)),
            Some(SensorKey::LastSeen(key, sensor)) => {
                (after, last_seen) = (Some(*sensor), Some(*key));
            }
        }
        let key: (&(dyn ToSql + Sync), Type) = match order {
            SensorOrder::Name => (&name, Type::TEXT),
            SensorOrder::LastSeen | SensorOrder::LastSeenDescending => {
                (&last_seen, Type::TIMESTAMPTZ)
            }
        };
        let parameters: Parameters<'_> = &[
            (&filter.scope, Type::UUID),
            (&filter.network, Type::UUID),
            (&filter.name, Type::TEXT),
            (&filter.silent_since, Type::TIMESTAMPTZ),
            (&part_of_name, Type::TEXT),
            (&after, Type::UUID),
            key,
            (&limit, Type::INT8),
        ];
        self.list(&list(order, filter.state), parameters, sensor).await
    }

    /// One sensor.
    pub async fn sensor(&self, identifier: SensorIdentifier) -> Result<Option<Sensor>, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            Ok(select_one(&**connection, identifier).await?)
        })
        .await
    }
}

pub(in crate::store) async fn select_one<C: GenericClient>(
    client: &C,
    identifier: SensorIdentifier,
) -> Result<Option<Sensor>, tokio_postgres::Error> {
    let parameters: Parameters<'_> = &[(&identifier, Type::UUID)];
    let one = with_state("(select * from sensor where identifier = $1)");
    let rows = client.query_typed(&select(&one), parameters).await?;
    rows.first().map(sensor).transpose()
}

fn sensor(row: &Row) -> Result<Sensor, tokio_postgres::Error> {
    Ok(Sensor {
        identifier: row.try_get("identifier")?,
        network: row.try_get("network_identifier")?,
        name: row.try_get("name")?,
        metadata: raw_json(row.try_get("metadata")?),
        creation_timestamp: row.try_get("creation_timestamp")?,
        last_seen_timestamp: row.try_get("last_seen_timestamp")?,
        newest_revision: row.try_get("newest_revision")?,
        configuration_state: row.try_get("configuration_state")?,
        last_acknowledged_revision: row.try_get("last_acknowledged_revision")?,
    })
}
