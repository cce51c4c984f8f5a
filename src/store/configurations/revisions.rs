//! Creates and reads configurations; `outbox` publishes them, and the commit records their
//! acknowledgement. Called by the API. A sensor's revisions are 1, 2, 3, … without a gap, also if several are created
//! concurrently; an idempotency key creates one revision.

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row, Transaction};
use utoipa::ToSchema;

use super::state::ConfigurationState;
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::columns::{Parameters, raw_json};
use crate::store::sensors::lookups::LOCK_SENSOR;
use crate::store::{Page, SensorError, Store, StoreError};

#[derive(Clone, Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the members of the answer")]
pub struct Configuration {
    /// Its number: 1, 2, 3, …
    pub revision: i32,
    /// An object; nested only with NESTED_VALUES=store.
    #[schema(value_type = Object, example = json!({ "interval_secs": 60 }))]
    pub configuration: Box<RawValue>,
    /// The first heartbeat of a revision decides between `acknowledged` and `failed`.
    pub state: ConfigurationState,
    /// When it was committed.
    pub creation_timestamp: jiff::Timestamp,
    /// When the broker acknowledged it. The heartbeat of a fast sensor may be received some milliseconds earlier.
    pub publication_timestamp: Option<jiff::Timestamp>,
    /// When the sensor acknowledged it, by the sensor's clock.
    pub acknowledgement_timestamp: Option<jiff::Timestamp>,
    /// The same, by the service's clock.
    pub acknowledgement_receipt_timestamp: Option<jiff::Timestamp>,
    /// Whether the sensor applied it, by its first heartbeat of this revision; later heartbeats do not change it.
    pub success: Option<bool>,
    /// Why the last attempt to publish it failed; it is retried with increasing delays.
    pub problem: Option<String>,
}

/// Identifies a repeated request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Idempotency {
    /// Chosen by the client, for this sensor.
    pub key: String,
    /// SHA-256 of the body.
    pub body_digest: [u8; 32],
}

/// The outcome of a request to create a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Creation {
    /// This revision was created.
    Created(i32),
    /// This revision was created earlier with the same key.
    Repeated(i32),
    /// The key was used earlier with another body.
    OtherBody,
}

/// Parameters: sensor, key, hours.
const REPEATED: &str = "\
select revision, body_digest from idempotency_key
where sensor_identifier = $1 and key = $2
  and creation_timestamp > now() - make_interval(hours => $3)";

/// Parameters: sensor, key, digest, revision.
const REMEMBER: &str = "\
insert into idempotency_key (sensor_identifier, key, body_digest, revision)
values ($1, $2, $3, $4)
on conflict (sensor_identifier, key) do update
set body_digest = excluded.body_digest, revision = excluded.revision, creation_timestamp = now()";

/// Parameters: now, hours.
const DELETE_KEYS: &str = "\
delete from idempotency_key where creation_timestamp <= $1 - make_interval(hours => $2)";

const INSERT_NEXT: &str = "\
with superseded as (
    update configuration set is_newest = false where sensor_identifier = $1 and is_newest
    returning revision
)
insert into configuration (sensor_identifier, revision, value)
select $1, coalesce((select revision from superseded), 0) + 1, $2::text::jsonb
returning revision";

/// Parameters: sensor, revision, or null for the newest.
const ONE: &str = "\
select revision, value::text, creation_timestamp, publication_timestamp,
       acknowledgement_timestamp, acknowledgement_receipt_timestamp, success, problem, state
from configuration
where sensor_identifier = $1 and ($2::integer is null or revision = $2)
order by revision desc
limit 1";

/// Parameters: sensor, revision after which to continue or null, limit.
const LIST: &str = "\
select revision, value::text, creation_timestamp, publication_timestamp,
       acknowledgement_timestamp, acknowledgement_receipt_timestamp, success, problem, state
from configuration
where sensor_identifier = $1 and ($2::integer is null or revision < $2)
order by revision desc
limit $3";

impl Store {
    /// Commits the next revision of a sensor, unless the request is a repetition; none if the sensor does
    /// not exist.
    pub async fn create_configuration(
        &self,
        sensor: SensorIdentifier,
        value: &str,
        idempotency: Option<&Idempotency>,
    ) -> Result<Option<Creation>, SensorError> {
        self.within(async {
            let mut connection = self.connection().await?;
            let transaction = connection.transaction().await?;
            let locked = transaction.query_typed_opt(LOCK_SENSOR, &[(&sensor, Type::UUID)]).await?;
            if locked.is_none() {
                return Ok(None);
            }
            // The sensor's row lock serializes creations: the snapshots of the statements below include
            // the revision and the key of the previous holder.
            if let Some(idempotency) = idempotency
                && let Some(before) = self.repeated(&transaction, sensor, idempotency).await?
            {
                return Ok(Some(before));
            }
            let created = transaction
                .query_typed_one(INSERT_NEXT, &[(&sensor, Type::UUID), (&value, Type::TEXT)])
                .await?;
            let revision: i32 = created.try_get(0)?;
            if let Some(Idempotency { key, body_digest }) = idempotency {
                let remembered: Parameters<'_> = &[
                    (&sensor, Type::UUID),
                    (key, Type::TEXT),
                    (&body_digest.as_slice(), Type::BYTEA),
                    (&revision, Type::INT4),
                ];
                transaction.query_typed(REMEMBER, remembered).await?;
            }
            transaction.commit().await?;
            Ok(Some(Creation::Created(revision)))
        })
        .await
    }

    /// Deletes expired keys.
    pub(in crate::store) async fn delete_old_keys(
        &self,
        client: &Client,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let parameters: Parameters<'_> =
            &[(&now, Type::TIMESTAMPTZ), (&self.idempotency_hours, Type::INT4)];
        client.execute_typed(DELETE_KEYS, parameters).await?;
        Ok(())
    }

    async fn repeated(
        &self,
        transaction: &Transaction<'_>,
        sensor: SensorIdentifier,
        Idempotency { key, body_digest }: &Idempotency,
    ) -> Result<Option<Creation>, tokio_postgres::Error> {
        let parameters: Parameters<'_> =
            &[(&sensor, Type::UUID), (key, Type::TEXT), (&self.idempotency_hours, Type::INT4)];
        let Some(row) = transaction.query_typed_opt(REPEATED, parameters).await? else {
            return Ok(None);
        };
        let is_same = row.try_get::<_, &[u8]>(1)? == body_digest.as_slice();
        Ok(Some(if is_same { Creation::Repeated(row.try_get(0)?) } else { Creation::OtherBody }))
    }

    /// One configuration of a sensor, or its newest; the outer none if the sensor does not exist.
    pub async fn configuration(
        &self,
        sensor: SensorIdentifier,
        revision: Option<i32>,
    ) -> Result<Option<Option<Configuration>>, StoreError> {
        let parameters: Parameters<'_> = &[(&sensor, Type::UUID), (&revision, Type::INT4)];
        let rows = self.rows_of_sensor(sensor, ONE, parameters, configuration).await?;
        Ok(rows.map(|rows| rows.into_iter().next()))
    }

    /// The configurations of a sensor, newest first, one more than the page holds if there are more;
    /// none if the sensor does not exist.
    pub async fn list_configurations(
        &self,
        sensor: SensorIdentifier,
        page: &Page<i32>,
    ) -> Result<Option<Vec<Configuration>>, StoreError> {
        let limit = page.row_count();
        let parameters: Parameters<'_> =
            &[(&sensor, Type::UUID), (&page.after, Type::INT4), (&limit, Type::INT8)];
        self.rows_of_sensor(sensor, LIST, parameters, configuration).await
    }
}

fn configuration(row: &Row) -> Result<Configuration, tokio_postgres::Error> {
    Ok(Configuration {
        revision: row.try_get(0)?,
        configuration: raw_json(row.try_get(1)?),
        state: row.try_get(8)?,
        creation_timestamp: row.try_get(2)?,
        publication_timestamp: row.try_get(3)?,
        acknowledgement_timestamp: row.try_get(4)?,
        acknowledgement_receipt_timestamp: row.try_get(5)?,
        success: row.try_get(6)?,
        problem: row.try_get(7)?,
    })
}
