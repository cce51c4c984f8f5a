//! Locks on the hot tables, and a table's columns. Used by whatever creates or drops partitions or chunks.
//! A strong lock is waited for at most 1 s, because a session that waits for one makes all later ones wait.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::store::StoreError;

/// A session that waits for a strong lock makes all later ones wait.
pub(in crate::store) const LOCK_TIMEOUT: &str = "set local lock_timeout = '1s'";

/// One session at a time creates or drops partitions.
pub(in crate::store) const PARTITIONS_LOCK: &str =
    "select pg_advisory_xact_lock(hashtextextended('tributary partitions', 0))";

/// Begins a transaction that creates or drops partitions, for [`in_transaction`]. `settings` end with a semicolon.
pub(in crate::store) async fn begin(
    client: &Client,
    locked_at_most: Duration,
    settings: &str,
) -> Result<(), tokio_postgres::Error> {
    let timeout = locked_at_most.as_millis();
    let begin = format!(
        "begin; set local statement_timeout = {timeout}; {LOCK_TIMEOUT}; {settings}{PARTITIONS_LOCK}"
    );
    client.batch_execute(&begin).await
}

/// False if another session holds it, or another process has already dropped or renamed the table.
pub(in crate::store) fn got_lock(
    outcome: Result<(), tokio_postgres::Error>,
) -> Result<bool, StoreError> {
    let later = [Some(&SqlState::LOCK_NOT_AVAILABLE), Some(&SqlState::UNDEFINED_TABLE)];
    match outcome {
        Err(error) if later.contains(&error.code()) => Ok(false),
        outcome => Ok(outcome.map(|()| true)?),
    }
}

/// Commits the transaction that `work` has begun, or rolls it back if `work` fails.
pub(in crate::store) async fn in_transaction(
    client: &Client,
    work: impl Future<Output = Result<(), tokio_postgres::Error>>,
) -> Result<(), tokio_postgres::Error> {
    let outcome = match work.await {
        Ok(()) => client.batch_execute("commit").await,
        failed => failed,
    };
    if outcome.is_err() && !client.is_closed() {
        client.batch_execute("rollback").await?;
    }
    outcome
}

/// All columns but those that PostgreSQL makes itself.
pub(in crate::store) async fn stored_columns(
    client: &Client,
    table: &str,
) -> Result<String, tokio_postgres::Error> {
    const COLUMNS: &str = "\
select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attgenerated = ''";
    client.query_typed_one(COLUMNS, &[(&table, Type::TEXT)]).await?.try_get(0)
}
