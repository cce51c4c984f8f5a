//! Sensors, as the API lists and reads them. Called by the API. Promises a key that survives inserts,
//! and one state of the newest configuration, whoever asks.

use serde_json::value::RawValue;
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Row};
use uuid::Uuid;

use crate::domain::{NetworkIdentifier, Scope, SensorIdentifier, Timestamp};
use crate::store::columns::{Parameters, raw_json};
use crate::store::{ConfigurationState, Page, Store, StoreError};

/// A sensor, and how its configuration stands.
#[derive(Clone, Debug)]
pub struct Sensor {
    /// Its name on the wire.
    pub identifier: SensorIdentifier,
    /// Where it belongs.
    pub network: NetworkIdentifier,
    /// Its name for people.
    pub name: String,
    /// The user's: a JSON object, as the table prints it.
    pub metadata: Box<RawValue>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its last message reached the service, as far as that has been noted.
    pub last_seen_at: Option<Timestamp>,
    /// The newest revision that there is.
    pub newest_revision: Option<i32>,
    /// How that one stands.
    pub configuration_state: ConfigurationState,
    /// The newest revision that it has acknowledged.
    pub last_acknowledged_revision: Option<i32>,
}

/// Which sensors to list.
#[derive(Clone, Debug)]
pub struct SensorFilter {
    /// Those that the caller may see.
    pub scope: Scope,
    /// Those of one network.
    pub network: Option<NetworkIdentifier>,
    /// Those of this name.
    pub name: Option<String>,
    /// Those of which nothing has been heard since.
    pub silent_since: Option<Timestamp>,
    /// Those whose newest configuration stands so.
    pub state: Option<ConfigurationState>,
}

/// In which order to list sensors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SensorOrder {
    /// By name.
    Name,
    /// The longest silent first, and before them those that were never heard.
    LastSeen,
    /// The last heard first.
    LastSeenDescending,
}

/// Where a list of sensors goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SensorKey {
    /// In the order of names.
    Name(String, SensorIdentifier),
    /// In the order in which they were heard; who was never heard, was at the epoch.
    LastSeen(Timestamp, SensorIdentifier),
}

impl SensorKey {
    /// Whether it is a key of this order.
    #[must_use]
    pub const fn suits(&self, order: SensorOrder) -> bool {
        matches!(
            (self, order),
            (Self::Name(..), SensorOrder::Name)
                | (Self::LastSeen(..), SensorOrder::LastSeen | SensorOrder::LastSeenDescending)
        )
    }
}

impl Sensor {
    /// What a list in this order goes on behind.
    #[must_use]
    pub fn key(&self, order: SensorOrder) -> SensorKey {
        match order {
            SensorOrder::Name => SensorKey::Name(self.name.clone(), self.identifier),
            SensorOrder::LastSeen | SensorOrder::LastSeenDescending => {
                SensorKey::LastSeen(self.last_seen_at.unwrap_or_default(), self.identifier)
            }
        }
    }
}

/// A configuration that the broker has had for five minutes, and whose sensor has spoken since
/// without acknowledging it, is stale: the sensor keeps to an older one.
const SELECT: &str = "\
select * from (
    select s.identifier, s.network_identifier, s.name, s.metadata::text, s.creation_timestamp,
           s.last_seen_timestamp, n.revision as newest_revision,
           a.revision as last_acknowledged_revision,
           case when n.revision is null then 'none'
                when n.acknowledgement_timestamp is not null and not n.success then 'failed'
                when n.acknowledgement_timestamp is not null then 'acknowledged'
                when n.publication_timestamp is null then 'pending'
                when s.last_seen_timestamp > n.publication_timestamp + interval '5 minutes'
                    then 'stale'
                else 'published' end as configuration_state
    from sensor s
    left join lateral (
        select c.revision, c.publication_timestamp, c.acknowledgement_timestamp, c.success
        from configuration c where c.sensor_identifier = s.identifier
        order by c.revision desc limit 1
    ) n on true
    left join lateral (
        select c.revision from configuration c
        where c.sensor_identifier = s.identifier and c.acknowledgement_timestamp is not null
        order by c.revision desc limit 1
    ) a on true
) sensor ";

const ONE: &str = "where identifier = $1";

/// Parameters: the caller's network, network, name, silent since, state, the key's identifier, its
/// other part, limit; each but the last may be null.
const FILTER: &str = "\
where ($1::uuid is null or network_identifier = $1)
  and ($2::uuid is null or network_identifier = $2)
  and ($3::text is null or name = $3)
  and ($4::timestamptz is null or last_seen_timestamp is null or last_seen_timestamp < $4)
  and ($5::text is null or configuration_state = $5)
";

const BY_NAME: &str = "\
  and ($6::uuid is null or (name, identifier) > ($7::text, $6))
order by name, identifier limit $8";

const BY_LAST_SEEN: &str = "\
  and ($6::uuid is null
       or (coalesce(last_seen_timestamp, 'epoch'), identifier) > ($7::timestamptz, $6))
order by coalesce(last_seen_timestamp, 'epoch'), identifier limit $8";

const BY_LAST_SEEN_DESCENDING: &str = "\
  and ($6::uuid is null
       or (coalesce(last_seen_timestamp, 'epoch'), identifier) < ($7::timestamptz, $6))
order by coalesce(last_seen_timestamp, 'epoch') desc, identifier desc limit $8";

impl Store {
    /// Sensors in an order, one more than the page has room for if there are more.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn list_sensors(
        &self,
        page: &Page<SensorKey>,
        filter: &SensorFilter,
        order: SensorOrder,
    ) -> Result<Vec<Sensor>, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            let uuid = |network: Option<NetworkIdentifier>| network.map(|network| network.0);
            let (own, network) = (uuid(filter.scope.network()), uuid(filter.network));
            let silent_since = filter.silent_since.map(Timestamp::to_jiff);
            let state = filter.state.map(ConfigurationState::name);
            let limit = page.row_count();
            let (mut behind, mut name, mut heard) =
                <(Option<Uuid>, Option<&str>, Option<jiff::Timestamp>)>::default();
            match &page.after {
                None => {}
                Some(SensorKey::Name(key, sensor)) => {
                    (behind, name) = (Some(sensor.0), Some(key.as_str()))
                }
                Some(SensorKey::LastSeen(key, sensor)) => {
                    (behind, heard) = (Some(sensor.0), Some(key.to_jiff()));
                }
            }
            let (tail, key): (_, &(dyn tokio_postgres::types::ToSql + Sync)) = match order {
                SensorOrder::Name => (BY_NAME, &name),
                SensorOrder::LastSeen => (BY_LAST_SEEN, &heard),
                SensorOrder::LastSeenDescending => (BY_LAST_SEEN_DESCENDING, &heard),
            };
            let key_type = match order {
                SensorOrder::Name => Type::TEXT,
                SensorOrder::LastSeen | SensorOrder::LastSeenDescending => Type::TIMESTAMPTZ,
            };
            let parameters: Parameters<'_> = &[
                (&own, Type::UUID),
                (&network, Type::UUID),
                (&filter.name, Type::TEXT),
                (&silent_since, Type::TIMESTAMPTZ),
                (&state, Type::TEXT),
                (&behind, Type::UUID),
                (key, key_type),
                (&limit, Type::INT8),
            ];
            let rows =
                connection.query_typed(&format!("{SELECT}{FILTER}{tail}"), parameters).await?;
            Ok(rows.iter().map(sensor).collect::<Result<_, _>>()?)
        })
        .await
    }

    /// One sensor.
    ///
    /// # Errors
    /// When the database is unavailable.
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
    let parameters: Parameters<'_> = &[(&identifier.0, Type::UUID)];
    let rows = client.query_typed(&format!("{SELECT}{ONE}"), parameters).await?;
    rows.first().map(sensor).transpose()
}

fn sensor(row: &Row) -> Result<Sensor, tokio_postgres::Error> {
    let heard: Option<jiff::Timestamp> = row.try_get("last_seen_timestamp")?;
    let state: &str = row.try_get("configuration_state")?;
    Ok(Sensor {
        identifier: SensorIdentifier(row.try_get("identifier")?),
        network: NetworkIdentifier(row.try_get("network_identifier")?),
        name: row.try_get("name")?,
        metadata: raw_json(row.try_get("metadata")?),
        created_at: row.try_get::<_, jiff::Timestamp>("creation_timestamp")?.into(),
        last_seen_at: heard.map(Into::into),
        newest_revision: row.try_get("newest_revision")?,
        configuration_state: state.parse().expect("the statement names no other"),
        last_acknowledged_revision: row.try_get("last_acknowledged_revision")?,
    })
}
