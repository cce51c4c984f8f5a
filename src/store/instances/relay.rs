//! Events that one instance passes to the others, in batches by sequence number. Written by the instance that committed
//! them, read by the others. A batch is there once, however often it is written; one that is missing shows as a gap.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_postgres::types::{Json, Type};
use uuid::Uuid;

use crate::domain::{Event, EventKind, SensorIdentifier, Severity, Step, Timestamp};
use crate::store::columns::Parameters;
use crate::store::connections::connector::Connector;
use crate::store::connections::pooled_client::PooledClient;
use crate::store::{Config, Store, StoreError};

/// Batches of up to a megabyte read at once; the next read continues.
const READ_LIMIT: i64 = 20;

/// For connecting and listening, and for an answer.
const LISTENER_TIMEOUT: Duration = Duration::from_secs(2);

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

/// As it is stored; times in microseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
enum StoredEvent {
    Measurement {
        at: i64,
        received_at: i64,
        timed_at_receipt: bool,
        revision: Option<i32>,
        value: String,
    },
    LogMessage {
        at: i64,
        received_at: i64,
        timed_at_receipt: bool,
        revision: Option<i32>,
        severity: String,
        subject: Box<str>,
        details: Option<Box<str>>,
    },
    Heartbeat {
        at: i64,
        received_at: i64,
        timed_at_receipt: bool,
        revision: Option<i32>,
        success: bool,
    },
    Configuration {
        revision: i32,
        step: String,
    },
    Deleted,
}

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
        let stored: Vec<_> = events.iter().map(|it| (it.sensor.0, stored(&it.what))).collect();
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
            let stored: Json<Vec<(Uuid, StoredEvent)>> = row.try_get(2)?;
            let events = stored.0.into_iter().filter_map(|(sensor, stored)| {
                // A step of a later release is none of ours.
                Some(Event { sensor: SensorIdentifier(sensor), what: event(stored)? })
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

fn stored(what: &EventKind) -> StoredEvent {
    match what {
        EventKind::Measurement { timestamp, received_at, timed_at_receipt, revision, value } => {
            StoredEvent::Measurement {
                at: timestamp.unix_microseconds(),
                received_at: received_at.unix_microseconds(),
                timed_at_receipt: *timed_at_receipt,
                revision: *revision,
                value: String::from_utf8_lossy(value).into_owned(),
            }
        }
        EventKind::LogMessage {
            timestamp,
            received_at,
            timed_at_receipt,
            revision,
            severity,
            subject,
            details,
        } => StoredEvent::LogMessage {
            at: timestamp.unix_microseconds(),
            received_at: received_at.unix_microseconds(),
            timed_at_receipt: *timed_at_receipt,
            revision: *revision,
            severity: severity.name().to_owned(),
            subject: subject.clone(),
            details: details.clone(),
        },
        EventKind::Heartbeat { timestamp, received_at, timed_at_receipt, revision, success } => {
            StoredEvent::Heartbeat {
                at: timestamp.unix_microseconds(),
                received_at: received_at.unix_microseconds(),
                timed_at_receipt: *timed_at_receipt,
                revision: *revision,
                success: *success,
            }
        }
        EventKind::Configuration { revision, step } => {
            StoredEvent::Configuration { revision: *revision, step: step.name().to_owned() }
        }
        EventKind::Deleted => StoredEvent::Deleted,
    }
}

fn event(stored: StoredEvent) -> Option<EventKind> {
    let time = Timestamp::from_unix_microseconds;
    Some(match stored {
        StoredEvent::Measurement { at, received_at, timed_at_receipt, revision, value } => {
            EventKind::Measurement {
                timestamp: time(at),
                received_at: time(received_at),
                timed_at_receipt,
                revision,
                value: value.into(),
            }
        }
        StoredEvent::LogMessage {
            at,
            received_at,
            timed_at_receipt,
            revision,
            severity,
            subject,
            details,
        } => EventKind::LogMessage {
            timestamp: time(at),
            received_at: time(received_at),
            timed_at_receipt,
            revision,
            severity: Severity::ALL.into_iter().find(|it| it.name() == severity)?,
            subject,
            details,
        },
        StoredEvent::Heartbeat { at, received_at, timed_at_receipt, revision, success } => {
            EventKind::Heartbeat {
                timestamp: time(at),
                received_at: time(received_at),
                timed_at_receipt,
                revision,
                success,
            }
        }
        StoredEvent::Configuration { revision, step } => EventKind::Configuration {
            revision,
            step: Step::ALL.into_iter().find(|it| it.name() == step)?,
        },
        StoredEvent::Deleted => EventKind::Deleted,
    })
}

/// A LISTEN connection: notifies when another instance may have written something.
#[derive(Debug)]
pub struct InstanceListener {
    connector: Connector,
    changed: Arc<Notify>,
    client: Option<PooledClient>,
}

impl InstanceListener {
    /// Call [`Self::listen`] next.
    pub fn new(config: &Config) -> Self {
        let changed = Arc::new(Notify::new());
        let connector =
            Connector::new(config, "tributary-instances").notifying(Arc::clone(&changed));
        Self { connector, changed, client: None }
    }

    /// Whether it would be notified.
    pub fn is_listening(&self) -> bool {
        self.client.as_ref().is_some_and(|client| !client.is_closed())
    }

    /// Connects, and listens.
    ///
    /// # Errors
    /// When the database is unavailable, or does not answer in time.
    pub async fn listen(&mut self) -> Result<(), StoreError> {
        self.client = None;
        let listening = async {
            let client = self.connector.connect().await?;
            client.set_abandoned(true);
            client.batch_execute("listen tributary_instances").await?;
            Ok::<_, StoreError>(client)
        };
        self.client = Some(in_time(listening).await?);
        Ok(())
    }

    /// Closes a connection that does not answer, or whose server has become read-only: neither notifies of anything.
    ///
    /// # Errors
    /// When it was closed.
    pub async fn check(&mut self) -> Result<(), StoreError> {
        let Some(client) = self.client.take() else { return Ok(()) };
        client.health_check("", LISTENER_TIMEOUT).await?;
        self.client = Some(client);
        Ok(())
    }

    /// Returns when something may have changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let outcome = tokio::time::timeout(LISTENER_TIMEOUT, work).await;
    outcome.unwrap_or(Err(StoreError::Silence { waited: LISTENER_TIMEOUT }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_the_same_after_storing() {
        let time = Timestamp::from_unix_microseconds(1_795_883_642_000_001);
        for what in [
            EventKind::Measurement {
                timestamp: time,
                received_at: time,
                timed_at_receipt: true,
                revision: None,
                value: r#"{"a":"ä"}"#.into(),
            },
            EventKind::LogMessage {
                timestamp: time,
                received_at: time,
                timed_at_receipt: true,
                revision: Some(3),
                severity: Severity::Warning,
                subject: "s".into(),
                details: Some("d".into()),
            },
            EventKind::Heartbeat {
                timestamp: time,
                received_at: time,
                timed_at_receipt: true,
                revision: Some(1),
                success: false,
            },
            EventKind::Configuration { revision: 7, step: Step::Failed },
            EventKind::Deleted,
        ] {
            let text = serde_json::to_string(&stored(&what)).unwrap();
            assert_eq!(event(serde_json::from_str(&text).unwrap()), Some(what), "{text}");
        }
    }
}
