//! Applies the migrations, which are part of the binary: the common steps, and those of the database's engine. Called by
//! `migrate` and, with `MIGRATE_ON_START`, by the service. A released migration is never edited.
//!
//! Steps are numbered 1 to 1000 if they are common, from 1001 for TimescaleDB, and from 2001 for Citus. A common step
//! that changes a hot table must work on every engine, before and after the engine's own steps.

use clap::ValueEnum as _;
use refinery_core::{Migration, Runner};
use tokio_postgres::Client;

use super::connections::connector::Connector;
use super::connections::refuse_transaction_pooling;
use super::engines::recorded::{EngineName, recorded};
use super::{Config, StoreError};
use crate::domain::Kind;

/// Name and text of each file in `migrations`, listed by the build script.
const STEPS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

const MIGRATION_LOCK: &str = "select pg_advisory_lock(hashtextextended('tributary migrations', 0))";

/// Read by the steps of the engines. Parameters: partition interval, number of shards.
const SETTINGS: &str = "\
select set_config('tributary.partition_days', $1, false), set_config('tributary.citus_shards', $2, false)";

/// Applies the missing migrations, under a lock, so that one process does so at a time. Returns their
/// names.
/// A migration that fails is rolled back.
pub async fn migrate(config: &Config) -> Result<Vec<String>, StoreError> {
    migrate_to(config, None).await
}

/// The same for an engine; none keeps the recorded one, which is PostgreSQL in a new database.
pub async fn migrate_to(
    config: &Config,
    engine: Option<EngineName>,
) -> Result<Vec<String>, StoreError> {
    refuse_transaction_pooling(config).await?;
    let connector = Connector::new(config, "tributary-migrate");
    let mut client = connector.connect().await?;
    let encoding: String = client.query_one("show server_encoding", &[]).await?.get(0);
    if encoding != "UTF8" {
        return Err(StoreError::Encoding(encoding));
    }
    client.batch_execute(MIGRATION_LOCK).await?;
    let earlier = recorded_or_default(&client).await?;
    let engine = engine.unwrap_or(earlier);
    if engine != earlier {
        check_engine_change(&client, earlier).await?;
    }
    // A connection of its own: PostgreSQL closes it if the extension's library is not preloaded.
    engine.install_extension(&*connector.connect().await?).await?;
    let shards = config.citus_shards.to_string();
    client.query_one(SETTINGS, &[&config.partition_days.to_string(), &shards]).await?;
    let report = Runner::new(&steps(engine)?).run_async(&mut *client).await?;
    Ok(report.applied_migrations().iter().map(name).collect())
}

/// The engine that is recorded in the database, whose extension is there.
pub async fn engine_of(config: &Config) -> Result<EngineName, StoreError> {
    let client = Connector::new(config, "tributary-check").connect().await?;
    let engine = recorded(&client).await?;
    engine.check_extension(&client).await?;
    Ok(engine)
}

async fn recorded_or_default(client: &Client) -> Result<EngineName, StoreError> {
    match recorded(client).await {
        Err(error) if error.lacks_tables() => Ok(EngineName::Postgres),
        engine => engine,
    }
}

/// A database keeps its engine: the steps of the engines move no rows.
async fn check_engine_change(client: &Client, earlier: EngineName) -> Result<(), StoreError> {
    if earlier != EngineName::Postgres {
        return Err(StoreError::EngineChosen(earlier.name()));
    }
    for table in Kind::ALL.map(Kind::name) {
        let has_rows = format!("select exists (select 1 from {table})");
        match client.query_typed_one(&has_rows, &[]).await.map_err(StoreError::from) {
            Err(error) if error.lacks_tables() => {}
            has_rows => {
                if has_rows?.try_get(0)? {
                    return Err(StoreError::NotEmpty(table));
                }
            }
        }
    }
    Ok(())
}

/// The common steps and those of the engine. All count as unversioned (U, not V) for refinery, so that it applies them
/// also if a step with a higher number has been applied.
fn steps(engine: EngineName) -> Result<Vec<Migration>, refinery_core::Error> {
    let steps =
        STEPS.iter().map(|(name, text)| Migration::unapplied(&name.replacen('V', "U", 1), text));
    let is_needed = |step: &Migration| {
        let owner =
            EngineName::value_variants().iter().find(|it| it.steps().contains(&step.version()));
        owner.is_none_or(|owner| *owner == engine || *owner == EngineName::Postgres)
    };
    steps.filter(|step| step.as_ref().map_or(true, is_needed)).collect()
}

/// As its file is named.
fn name(step: &Migration) -> String {
    format!("V{}__{}", step.version(), step.name())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_engine_has_the_common_steps_and_its_own() {
        let versions = |engine| -> BTreeSet<i32> {
            let steps = steps(engine).unwrap();
            let versions: BTreeSet<_> = steps.iter().map(Migration::version).collect();
            assert_eq!(versions.len(), steps.len(), "a number is used twice");
            versions
        };
        let common = versions(EngineName::Postgres);
        assert!(common.iter().all(|version| *version <= 1_000), "{common:?}");
        for engine in EngineName::value_variants() {
            let own: Vec<i32> = versions(*engine).difference(&common).copied().collect();
            assert_eq!(own.is_empty(), *engine == EngineName::Postgres, "{own:?}");
            assert!(own.iter().all(|version| engine.steps().contains(version)), "{own:?}");
        }
    }
}
