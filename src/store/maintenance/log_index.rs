//! Builds the index for text searches in log messages, if the database has the extension pg_trgm. Called by
//! the command line, because the index costs disk space and slows ingest. Ingest continues meanwhile: a lock
//! that stops writers is waited for at most 1 s at a time. New partitions inherit the index. After an
//! interruption the next call continues.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use crate::store::connections::connector::Connector;
use crate::store::engines::locks::LOCK_TIMEOUT;
use crate::store::engines::recorded::{EngineName, recorded};
use crate::store::{Config, StoreError};

/// Whether the index exists on at least some partitions.
pub(in crate::store) const HAS_LOG_INDEX: &str =
    "select to_regclass('log_message_text') is not null";

/// Building it may take hours.
const SESSION: &str = "set statement_timeout = 0; set lock_timeout = 0";

/// Attempts to get a lock, each of 1 s and followed by a pause.
const LOCK_ATTEMPTS: u32 = 120;
const LOCK_PAUSE: Duration = Duration::from_secs(1);

const ONE_AT_A_TIME: &str =
    "select pg_try_advisory_lock(hashtextextended('tributary log index', 0))";

const EXTENSION_SCHEMA: &str = "\
select quote_ident(nspname) from pg_extension join pg_namespace on pg_namespace.oid = extnamespace
where extname = 'pg_trgm'";

/// Partitions without the index, the newest first; the index's name, and whether an index of this name is
/// valid, which it is not after an interrupted build.
const MISSING: &str = "\
select partition.oid::regclass::text, names.index, coalesce(indisvalid, true)
from pg_inherits
join pg_class partition on partition.oid = inhrelid
cross join lateral (select quote_ident(left(relname, 58) || '_text') as index) names
left join pg_index on indexrelid = to_regclass(names.index)
where inhparent = 'log_message'::regclass
  and not exists (
      select from pg_index own join pg_inherits inherited on inherited.inhrelid = own.indexrelid
      where own.indrelid = partition.oid and inherited.inhparent = 'log_message_text'::regclass
  )
order by relname desc";

/// Why the index is not complete.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The extension is not installed in the database.
    #[error(
        "the database has no extension pg_trgm; its owner installs it with: create extension pg_trgm"
    )]
    NoExtension,
    /// The table has no declarative partitions.
    #[error(
        "the engine {0} has no index for searches in log messages; docs/SCALING.md says what to do instead"
    )]
    OtherEngine(&'static str),
    /// Another session builds it.
    #[error("the index is being built by another session already")]
    AlreadyRunning,
    /// Other sessions held a lock for too long.
    #[error("{0} was locked by other sessions for minutes; run the command again")]
    Locked(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Error> for IndexError {
    fn from(error: Error) -> Self {
        Self::Store(error.into())
    }
}

/// Builds the index, partition by partition, and reports each that is done.
/// If it fails, completed partitions keep their index.
pub async fn index_log_messages(
    config: &Config,
    mut done: impl FnMut(&str),
) -> Result<(), IndexError> {
    let client = Connector::new(config, "tributary-index").with_session(SESSION).connect().await?;
    let engine = recorded(&client).await?;
    if engine != EngineName::Postgres {
        return Err(IndexError::OtherEngine(engine.name()));
    }
    let schema = client.query_typed_opt(EXTENSION_SCHEMA, &[]).await?;
    let schema: String = schema.ok_or(IndexError::NoExtension)?.try_get(0)?;
    if !client.query_typed_one(ONE_AT_A_TIME, &[]).await?.try_get::<_, bool>(0)? {
        return Err(IndexError::AlreadyRunning);
    }
    let columns = format!("(subject {schema}.gin_trgm_ops, details {schema}.gin_trgm_ops)");
    // Only on the table, which takes no time; new partitions get the index from it.
    let declare = format!(
        "create index if not exists log_message_text on only log_message using gin {columns}"
    );
    locking(&client, "log_message", &declare).await?;
    for row in client.query_typed(MISSING, &[]).await? {
        let (partition, index): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        if !row.try_get::<_, bool>(2)? {
            client.batch_execute(&format!("drop index concurrently {index}")).await?;
        }
        let build = format!(
            "create index concurrently if not exists {index} on {partition} using gin {columns}"
        );
        match client.batch_execute(&build).await {
            // Retention has dropped the partition.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => continue,
            outcome => outcome?,
        }
        let attach = format!("alter index log_message_text attach partition {index}");
        locking(&client, partition, &attach).await?;
        done(partition);
    }
    Ok(())
}

/// Runs a statement that takes a strong lock briefly.
async fn locking(client: &Client, what: &str, statement: &str) -> Result<(), IndexError> {
    for _ in 0..LOCK_ATTEMPTS {
        let attempt = format!("begin; {LOCK_TIMEOUT}; {statement}; commit");
        match client.batch_execute(&attempt).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                client.batch_execute("rollback").await?;
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            outcome => return Ok(outcome?),
        }
    }
    Err(IndexError::Locked(what.to_owned()))
}
