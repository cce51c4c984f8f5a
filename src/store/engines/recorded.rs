//! The engine that a database was migrated for. Read by each writer's connection and by the readers' pool, written by
//! the migrations. It never changes once the hot tables hold rows.

use clap::ValueEnum as _;
use tokio_postgres::Client;

use super::engine::Engine;
use super::postgres::Postgres;
use crate::store::StoreError;

/// PostgreSQL alone, or with one of two extensions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum EngineName {
    /// Declarative partitions.
    #[default]
    Postgres,
}

impl EngineName {
    /// As it is recorded.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
        }
    }

    pub(in crate::store) fn engine(self) -> &'static dyn Engine {
        match self {
            Self::Postgres => &Postgres,
        }
    }
}

const RECORDED: &str = "select name from engine";

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
