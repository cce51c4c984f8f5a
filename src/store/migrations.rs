//! Brings the tables up to date. The migrations are part of the binary; one that was released is
//! never edited.

use super::connections::connector::Connector;
use super::connections::refuse_transaction_pooling;
use super::{Config, StoreError};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Applies what is missing, under a lock, so that two processes do not do it at once. Returns the
/// names of what was applied.
///
/// # Errors
/// When the database is unavailable, does not use UTF8, or a migration fails; that one is rolled back.
pub async fn migrate(config: &Config) -> Result<Vec<String>, StoreError> {
    refuse_transaction_pooling(config).await?;
    let connector = Connector::new(config, "tributary-migrate");
    let mut client = connector.connect().await?;
    let encoding: String = client.query_one("show server_encoding", &[]).await?.get(0);
    if encoding != "UTF8" {
        return Err(StoreError::Encoding(encoding));
    }
    client
        .batch_execute("select pg_advisory_lock(hashtextextended('tributary migrations', 0))")
        .await?;
    let report = embedded::migrations::runner().run_async(&mut *client).await?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}
