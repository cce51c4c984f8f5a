//! The row of each instance, which says that it is alive and what it does. Written and read by the task that knows the
//! others, and read by the API. The database's clock says who is alive.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tokio_postgres::types::{Json, Type};
use uuid::Uuid;

use crate::domain::{FlowSnapshot, LedgerSnapshot, SensorIdentifier, Timestamp};
use crate::store::columns::Parameters;
use crate::store::{Store, StoreError};

/// By instance, the version of its watched sensors that is known.
pub type KnownVersions = BTreeMap<Uuid, i64>;

/// One instance.
#[derive(Clone, Debug)]
pub struct InstanceRow {
    /// Of this process: a restart is another instance.
    pub identifier: Uuid,
    /// `MQTT_CLIENT_ID`
    pub client_id: String,
    /// The host's name.
    pub host: String,
    /// Of the program.
    pub version: String,
    /// When the process began.
    pub started_at: Timestamp,
    /// When the row was written.
    pub heartbeat_at: Timestamp,
    /// Whether the row is recent.
    pub is_alive: bool,
    /// Whether it leads.
    pub is_leader: bool,
    /// Its ledger then.
    pub ledger: LedgerSnapshot,
    /// Its window and queue then.
    pub flow: FlowSnapshot,
    /// Sensors with an open stream there.
    pub watched: Vec<SensorIdentifier>,
    /// Counts the changes of `watched`.
    pub watch_version: i64,
    /// What it knows of the others.
    pub known_versions: KnownVersions,
    /// `MQTT_TOPIC_PREFIX`; empty where an earlier release has written the row.
    pub topic_prefix: String,
    /// Host and port of `MQTT_URL`; may be empty, too.
    pub broker: String,
}

impl InstanceRow {
    /// Whether it serves other topics, or another broker.
    pub fn differs_from(&self, topic_prefix: &str, broker: &str) -> bool {
        let differs = |its: &str, other: &str| !its.is_empty() && its != other;
        differs(&self.topic_prefix, topic_prefix) || differs(&self.broker, broker)
    }
}

/// The row may be lost with the server. So its COMMIT waits for no disk and no standby: without its row, an instance
/// receives no messages, and counts as dead.
const WRITE: &str = "\
with written as (
    insert into instance (identifier, client_id, host, version, start_timestamp, heartbeat_timestamp, is_leader,
        ledger, flow, watched_sensors, watch_version, heard, topic_prefix, broker)
    values ($1, $2, $3, $4, $5, now(), $6, $7, $8, $9, $10, $11, $12, $13)
    on conflict (identifier) do update set
        heartbeat_timestamp = excluded.heartbeat_timestamp, is_leader = excluded.is_leader,
        ledger = excluded.ledger, flow = excluded.flow, watched_sensors = excluded.watched_sensors,
        watch_version = excluded.watch_version, heard = excluded.heard
    returning identifier
)
select set_config('synchronous_commit', 'off', true), case when $14 then pg_notify('tributary_instances', '') end
from written";

/// Of those that died, the row is kept for ten minutes.
const READ: &str = "\
select identifier, client_id, host, version, start_timestamp, heartbeat_timestamp,
       heartbeat_timestamp > now() - interval '10 seconds', is_leader, ledger, flow,
       watched_sensors, watch_version, heard, topic_prefix, broker
from instance
where heartbeat_timestamp > now() - interval '10 minutes'
order by client_id, start_timestamp";

const DELETE: &str = "\
with deleted as (delete from instance where identifier = $1 returning identifier)
select set_config('synchronous_commit', 'off', true), pg_notify('tributary_instances', '') from deleted";

const PRUNE: &str =
    "delete from instance where heartbeat_timestamp < now() - interval '10 minutes'";

impl Store {
    /// Writes the row of this instance; `announces` wakes the others.
    pub async fn write_instance(
        &self,
        row: &InstanceRow,
        announces: bool,
    ) -> Result<(), StoreError> {
        let parameters: Parameters<'_> = &[
            (&row.identifier, Type::UUID),
            (&row.client_id, Type::TEXT),
            (&row.host, Type::TEXT),
            (&row.version, Type::TEXT),
            (&row.started_at, Type::TIMESTAMPTZ),
            (&row.is_leader, Type::BOOL),
            (&Json(&row.ledger), Type::JSONB),
            (&Json(&row.flow), Type::JSONB),
            (&row.watched, Type::UUID_ARRAY),
            (&row.watch_version, Type::INT8),
            (&Json(&row.known_versions), Type::JSONB),
            (&row.topic_prefix, Type::TEXT),
            (&row.broker, Type::TEXT),
            (&announces, Type::BOOL),
        ];
        self.rows(WRITE, parameters).await.map(drop)
    }

    /// The instances that are alive, and those that died within ten minutes.
    pub async fn instances(&self) -> Result<Vec<InstanceRow>, StoreError> {
        let rows = self.rows(READ, &[]).await?;
        Ok(rows.iter().map(instance).collect::<Result<_, _>>()?)
    }

    /// Deletes the row of an instance that ends.
    pub async fn delete_instance(&self, identifier: Uuid) -> Result<(), StoreError> {
        self.rows(DELETE, &[(&identifier, Type::UUID)]).await.map(drop)
    }

    /// Deletes the rows of those that died.
    pub async fn prune_instances(&self) -> Result<(), StoreError> {
        self.execute(PRUNE, &[]).await.map(drop)
    }
}

fn instance(row: &Row) -> Result<InstanceRow, tokio_postgres::Error> {
    Ok(InstanceRow {
        identifier: row.try_get(0)?,
        client_id: row.try_get(1)?,
        host: row.try_get(2)?,
        version: row.try_get(3)?,
        started_at: row.try_get(4)?,
        heartbeat_at: row.try_get(5)?,
        is_alive: row.try_get(6)?,
        is_leader: row.try_get(7)?,
        ledger: row.try_get::<_, Json<_>>(8)?.0,
        flow: row.try_get::<_, Json<_>>(9)?.0,
        watched: row.try_get(10)?,
        watch_version: row.try_get(11)?,
        known_versions: row.try_get::<_, Json<_>>(12)?.0,
        topic_prefix: row.try_get(13)?,
        broker: row.try_get(14)?,
    })
}
