//! The engine that a database was migrated for, and its extension. Read by each writer's connection, the readers' pool
//! and the start of the service; recorded by the engine's own migrations. It never changes once the hot tables hold rows.

use std::ops::RangeInclusive;

use clap::ValueEnum;
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::citus::Citus;
use super::engine::Engine;
use super::postgres::Postgres;
use super::timescaledb::TimescaleDb;
use crate::store::StoreError;

/// PostgreSQL alone, or with one of two extensions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum EngineName {
    /// PostgreSQL without an extension: its own partitions.
    #[default]
    Postgres,
    /// The extension TimescaleDB: hypertables, which it compresses.
    #[value(name = "timescaledb")]
    TimescaleDb,
    /// The extension Citus: shards on several machines.
    Citus,
}

impl EngineName {
    /// As it is recorded, and the name of its extension.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::TimescaleDb => "timescaledb",
            Self::Citus => "citus",
        }
    }

    /// The numbers of its own migrations; those of PostgreSQL are common.
    pub(in crate::store) const fn steps(self) -> RangeInclusive<i32> {
        match self {
            Self::Postgres => 1..=1_000,
            Self::TimescaleDb => 1_001..=2_000,
            Self::Citus => 2_001..=3_000,
        }
    }

    pub(in crate::store) fn engine(self) -> &'static dyn Engine {
        match self {
            Self::Postgres => &Postgres,
            Self::TimescaleDb => &TimescaleDb,
            Self::Citus => &Citus,
        }
    }

    /// The oldest version of the extension with all that is used; none if there is no extension.
    const fn minimum(self) -> Option<(u32, u32)> {
        match self {
            Self::Postgres => None,
            Self::TimescaleDb => Some((2, 20)),
            Self::Citus => Some((13, 0)),
        }
    }

    /// Installs the extension if it is missing, and checks its version.
    pub(in crate::store) async fn install_extension(
        self,
        client: &Client,
    ) -> Result<(), StoreError> {
        if self.minimum().is_some() {
            let create = format!("create extension if not exists {}", self.name());
            if let Err(error) = client.batch_execute(&create).await {
                let error = StoreError::from(error);
                // A standby or a lost connection says nothing about the extension.
                if error.is_read_only() || error.sqlstate().is_none() {
                    return Err(error);
                }
                return Err(StoreError::Extension { name: self.name(), reason: error.to_string() });
            }
        }
        self.check_extension(client).await
    }

    /// Checks that the extension is there, in a version that is new enough.
    pub(in crate::store) async fn check_extension(self, client: &Client) -> Result<(), StoreError> {
        let (name, Some(minimum)) = (self.name(), self.minimum()) else { return Ok(()) };
        let row = client.query_typed_opt(EXTENSION, &[(&name, Type::TEXT)]).await?;
        let refuse = |reason| Err(StoreError::Extension { name, reason });
        let Some(row) = row else { return refuse("it is not installed in the database".into()) };
        let version: String = row.try_get(0)?;
        if is_at_least(&version, minimum) {
            // Locks and temporary tables belong to one node; the tables that are not distributed are on this one.
            if self == Self::Citus && !client.query_typed_one(COORDINATOR, &[]).await?.try_get(0)? {
                return refuse("DATABASE_URL leads to a worker, and not to the coordinator".into());
            }
            return Ok(());
        }
        let (major, minor) = minimum;
        refuse(format!("its version is {version}, and {major}.{minor} or later is needed"))
    }
}

const EXTENSION: &str = "select extversion from pg_extension where extname = $1";

/// Also on a single node, which `citus_is_coordinator()` does not count before it has a table.
const COORDINATOR: &str = "select groupid = 0 from pg_dist_local_group";

const RECORDED: &str = "select name from engine";

/// `13.2-1` and `2.28.3` begin with two numbers.
fn is_at_least(version: &str, minimum: (u32, u32)) -> bool {
    let mut numbers =
        version.split(|it: char| !it.is_ascii_digit()).map(|it| it.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= minimum
}

/// The engine of this database.
///
/// # Errors
/// When the migrations have not been applied, or a newer version has recorded an engine that this one does not know.
pub(in crate::store) async fn recorded(client: &Client) -> Result<EngineName, StoreError> {
    let row = client.query_typed_one(RECORDED, &[]).await?;
    let name: String = row.try_get(0)?;
    let known = EngineName::value_variants().iter().find(|it| it.name() == name);
    known.copied().ok_or(StoreError::UnknownEngine(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_at_least("2.20.0", (2, 20)));
        assert!(is_at_least("13.2-1", (13, 0)));
        assert!(is_at_least("3.0.0-dev", (2, 20)));
        assert!(!is_at_least("2.9.3", (2, 20)));
        assert!(!is_at_least("", (2, 20)));
    }
}
