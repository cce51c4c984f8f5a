//! Events that one instance passes to the others, in batches by sequence number. Written by the instance that committed
//! them, read by the others. A batch is there once, however often it is written; one that is missing shows as a gap.

use std::time::Duration;

use tokio_postgres::types::{Json, Type};
use uuid::Uuid;

use crate::domain::{Event, SensorIdentifier};
use crate::store::columns::Parameters;
use crate::store::connections::listener::Listener;
use crate::store::{Config, Store, StoreError};

/// Batches of up to a megabyte read at once; the next read continues.
const READ_LIMIT: i64 = 20;

/// For connecting and listening, and for an answer.
const LISTENER_TIMEOUT: Duration = Duration::from_secs(2);

const LISTEN: &str = "listen tributary_instances";

const WRITE: &str = "\
with written as (
    insert into relayed_batch (instance_identifier, sequence, events) values ($1, $2, $3)
    on conflict do nothing
)
select pg_notify('tributary_instances', '')";

const READ: &str = "\
select batch.instance_identifier, batch.sequence, batch.events
from unnest($1::uuid[], $2::int8[]) as known (instance_identifier, sequence)
join relayed_batch as batch on batch.instance_identifier = known.instance_identifier
    and batch.sequence > known.sequence
order by batch.instance_identifier, batch.sequence
limit $3";

const LAST: &str =
    "select coalesce(max(sequence), 0) from relayed_batch where instance_identifier = $1";

const PRUNE: &str =
    "delete from relayed_batch where creation_timestamp < now() - interval '1 minute'";

/// What another instance has relayed.
#[derive(Debug)]
pub struct RelayedBatch {
    /// Who.
    pub instance: Uuid,
    /// The number of its batch, without a gap.
    pub sequence: i64,
    /// What it has committed.
    pub events: Vec<Event>,
}

impl Store {
    /// Relays these to the other instances.
    pub async fn relay(
        &self,
        instance: Uuid,
        sequence: i64,
        events: &[Event],
    ) -> Result<(), StoreError> {
        let stored: Vec<_> = events.iter().map(|it| (it.sensor, &it.what)).collect();
        let parameters: Parameters<'_> =
            &[(&instance, Type::UUID), (&sequence, Type::INT8), (&Json(&stored), Type::JSONB)];
        self.rows(WRITE, parameters).await.map(drop)
    }

    /// What these instances have relayed after the batches of these numbers, in order.
    pub async fn relayed(&self, after: &[(Uuid, i64)]) -> Result<Vec<RelayedBatch>, StoreError> {
        let (instances, sequences): (Vec<Uuid>, Vec<i64>) = after.iter().copied().unzip();
        let parameters: Parameters<'_> = &[
            (&instances, Type::UUID_ARRAY),
            (&sequences, Type::INT8_ARRAY),
            (&READ_LIMIT, Type::INT8),
        ];
        let mut batches = Vec::new();
        for row in self.rows(READ, parameters).await? {
            let stored: Json<Vec<(SensorIdentifier, serde_json::Value)>> = row.try_get(2)?;
            let events = stored.0.into_iter().filter_map(|(sensor, what)| {
                // What only a later release knows is none of ours.
                Some(Event { sensor, what: serde_json::from_value(what).ok()? })
            });
            batches.push(RelayedBatch {
                instance: row.try_get(0)?,
                sequence: row.try_get(1)?,
                events: events.collect(),
            });
        }
        Ok(batches)
    }

    /// The number of the last batch of an instance.
    pub async fn last_relayed(&self, instance: Uuid) -> Result<i64, StoreError> {
        let rows = self.rows(LAST, &[(&instance, Type::UUID)]).await?;
        Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
    }

    /// Deletes old batches.
    pub async fn prune_relayed(&self) -> Result<(), StoreError> {
        self.execute(PRUNE, &[]).await.map(drop)
    }
}

impl Listener {
    /// Notifies when another instance may have written something.
    pub fn to_instances(config: &Config) -> Self {
        Self::new(config, "tributary-instances", LISTEN, LISTENER_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use crate::domain::{EventKind, ItemTimes, Severity, Step, Timestamp};

    #[test]
    fn an_event_is_the_same_after_storing() {
        let time = Timestamp::from_unix_microseconds(1_795_883_642_000_001);
        let times = |revision| ItemTimes {
            timestamp: time,
            timed_at_receipt: true,
            received_at: time,
            revision,
        };
        let stored = [
            (
                EventKind::Measurement { times: times(None), value: r#"{"a":"ä"}"#.into() },
                r#"{"Measurement":{"at":1795883642000001,"timed_at_receipt":true,"received_at":1795883642000001,"revision":null,"value":"{\"a\":\"ä\"}"}}"#,
            ),
            (
                EventKind::LogMessage {
                    times: times(Some(3)),
                    severity: Severity::Warning,
                    subject: "s".into(),
                    details: Some("d".into()),
                },
                r#"{"LogMessage":{"at":1795883642000001,"timed_at_receipt":true,"received_at":1795883642000001,"revision":3,"severity":"warning","subject":"s","details":"d"}}"#,
            ),
            (
                EventKind::Heartbeat { times: times(Some(1)), success: false },
                r#"{"Heartbeat":{"at":1795883642000001,"timed_at_receipt":true,"received_at":1795883642000001,"revision":1,"success":false}}"#,
            ),
            (
                EventKind::Configuration { revision: 7, step: Step::Failed },
                r#"{"Configuration":{"revision":7,"step":"failed"}}"#,
            ),
            (EventKind::Deleted, r#""Deleted""#),
        ];
        for (what, text) in stored {
            assert_eq!(serde_json::to_string(&what).unwrap(), text);
            let value = serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(serde_json::from_value::<EventKind>(value).unwrap(), what);
        }
        let later = serde_json::json!({"Configuration": {"revision": 7, "step": "undone"}});
        assert!(serde_json::from_value::<EventKind>(later).is_err(), "a step of a later release");
    }
}
