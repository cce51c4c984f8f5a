//! Applies the migrations, which are part of the binary. Called by `migrate` and, with
//! `MIGRATE_ON_START`, by the service. A released migration is never edited.

use super::connections::connector::Connector;
use super::connections::refuse_transaction_pooling;
use super::{Config, StoreError};

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// Applies the missing migrations, under a lock, so that one process does so at a time. Returns their
/// names.
///
/// # Errors
/// When the database is unavailable or does not use UTF8, or a migration fails, which is rolled back.
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
