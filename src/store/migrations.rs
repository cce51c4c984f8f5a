//! Brings the tables up to date. The migrations are part of the binary; one that was released is
//! never edited.

use super::connect::{CONNECT_PATIENCE, Connector, in_time};
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
    let connector = Connector::new(config, "tributary-migrate");
    let (mut client, driver) = in_time(CONNECT_PATIENCE, connector.open()).await?;
    let encoding: String = client.query_one("show server_encoding", &[]).await?.get(0);
    if encoding != "UTF8" {
        return Err(StoreError::Encoding(encoding));
    }
    client
        .batch_execute("select pg_advisory_lock(hashtextextended('tributary migrations', 0))")
        .await?;
    let report = embedded::migrations::runner().run_async(&mut client).await?;
    drop(client);
    // The connection ends with its client; what it has to say then concerns nobody.
    drop(driver.await);
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}
