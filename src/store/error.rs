//! Errors of the database, and what the writer does about each: retry, stage or isolate. Used by all who
//! call the store. An error's text says all that its sources say, and contains no secret.

use std::error::Error;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::tls::handshake_reason;

/// An error of the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection was available in time.
    #[error("no database connection within {} ms{}", waited.as_millis(), because(last.as_ref()))]
    PoolTimeout {
        /// The timeout.
        waited: Duration,
        /// Why the last attempt to connect failed, if one did.
        last: Option<ConnectProblem>,
    },
    /// The database did not answer a statement in time.
    #[error("no answer from the database within {} ms", waited.as_millis())]
    Silence {
        /// The timeout.
        waited: Duration,
    },
    /// The host's name could not be resolved.
    #[error("the database's host cannot be resolved: {0}")]
    Lookup(String),
    /// `DATABASE_URL` has no address.
    #[error("DATABASE_URL names no host with an address")]
    NoAddress,
    /// A pooler assigns sessions per transaction.
    #[error(
        "DATABASE_URL leads to a pooler in transaction or statement mode (such as PgBouncer with \
         pool_mode=transaction), which gives each transaction another session; set \
         pool_mode=session, or connect to PostgreSQL itself"
    )]
    TransactionPooling,
    /// The server became read-only, but `target_session_attrs` requires writes.
    #[error("the database server became read-only")]
    ReadOnly,
    /// Committed on the primary, whose wait for a standby was cancelled.
    #[error("no synchronous standby has confirmed the commit (synchronous_standby_names)")]
    Unconfirmed,
    /// PostgreSQL refused, or the connection failed.
    #[error("{}", sentence(.0))]
    Postgres(tokio_postgres::Error),
    /// A COPY was refused for a row that may be stored already, although the SQLSTATE does not show it: Citus.
    #[error("{}", sentence(.0))]
    RefusedCopy(tokio_postgres::Error),
    /// The migrations could not be applied.
    #[error("migration failed: {0}")]
    Migration(#[from] refinery_core::Error),
    /// Rejections contain whatever a sensor sent, so the database must support all of Unicode.
    #[error(
        "the database's encoding is {0}, Tributary needs UTF8: create database … encoding 'UTF8' template template0"
    )]
    Encoding(String),
    /// A newer version has migrated the database.
    #[error("the database was migrated for the engine {0}, which this version does not know")]
    UnknownEngine(String),
    /// The extension of the database's engine is missing or too old.
    #[error("the extension {name} cannot be used: {reason}")]
    Extension {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Another engine was asked for.
    #[error("the database's engine is {0} already; another engine needs a new database")]
    EngineChosen(&'static str),
    /// The engine decides how rows are stored.
    #[error(
        "the table {0} has rows: another engine is chosen only while measurement, log_message and heartbeat are empty"
    )]
    NotEmpty(&'static str),
    /// The limit of concurrent operations of this kind is reached.
    #[error("too many {0} at once")]
    LimitReached(&'static str),
    /// The migrations are being applied.
    #[error("the tables are being brought up to date")]
    Migrating,
    /// For tests without a database.
    #[cfg(test)]
    #[error("pretended: {0:?}")]
    Pretended(Recovery),
}

/// Why an attempt to connect failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectProblem {
    sentence: String,
    handshake: Option<String>,
}

impl ConnectProblem {
    pub(super) fn of(error: &StoreError) -> Self {
        Self { sentence: error.to_string(), handshake: error.handshake_problem() }
    }
}

/// What the writer does after a batch failed to commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recovery {
    /// Retry the batch after a pause, without limit. The PUBACKs wait.
    Retry,
    /// A row is already stored: write the batch through the staging tables.
    Stage,
    /// PostgreSQL refuses a row: isolate its item, and reject only that.
    Isolate,
}

/// The recovery from an error. An item is rejected only for an error about the data itself; an unknown
/// error is retried, because a retry loses nothing.
pub fn recovery(error: &StoreError) -> Recovery {
    match error {
        StoreError::Postgres(error) => error.code().map_or(Recovery::Retry, recovery_for),
        StoreError::RefusedCopy(_) => Recovery::Stage,
        #[cfg(test)]
        StoreError::Pretended(recovery) => *recovery,
        StoreError::PoolTimeout { .. }
        | StoreError::Silence { .. }
        | StoreError::Lookup(_)
        | StoreError::NoAddress
        | StoreError::ReadOnly
        | StoreError::Unconfirmed
        | StoreError::TransactionPooling
        | StoreError::Migration(_)
        | StoreError::Encoding(_)
        | StoreError::UnknownEngine(_)
        | StoreError::Extension { .. }
        | StoreError::EngineChosen(_)
        | StoreError::NotEmpty(_)
        | StoreError::LimitReached(_)
        | StoreError::Migrating => Recovery::Retry,
    }
}

fn recovery_for(state: &SqlState) -> Recovery {
    match state.code().get(..2) {
        _ if *state == SqlState::UNIQUE_VIOLATION => Recovery::Stage,
        // Data exception; integrity constraint violation; WITH CHECK OPTION violation; program
        // limit exceeded; an exception raised by a trigger of the operator.
        Some("22" | "23" | "44" | "54" | "P0") => Recovery::Isolate,
        _ => Recovery::Retry,
    }
}

impl StoreError {
    /// The SQLSTATE, if PostgreSQL reported the error.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres(error) => error.code(),
            _ => None,
        }
    }

    /// Whether the database cannot be used until somebody changes what it runs on: an unsupported pooler is in use, or
    /// the engine's extension is missing or unknown.
    pub const fn is_unusable_setup(&self) -> bool {
        matches!(self, Self::TransactionPooling | Self::Extension { .. } | Self::UnknownEngine(_))
    }

    /// Whether the server does not accept writes.
    pub fn is_read_only(&self) -> bool {
        matches!(self, Self::ReadOnly)
            || self.sqlstate() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// Whether a statement timed out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Silence { .. }) || self.sqlstate() == Some(&SqlState::QUERY_CANCELED)
    }

    /// Whether waiting for a lock timed out.
    pub fn is_locked_out(&self) -> bool {
        self.sqlstate() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Whether tables are missing: the migrations have not been applied.
    pub fn lacks_tables(&self) -> bool {
        let missing = [&SqlState::UNDEFINED_TABLE, &SqlState::UNDEFINED_COLUMN];
        self.sqlstate().is_some_and(|state| missing.contains(&state))
    }

    /// Why the TLS handshake failed, if it did.
    pub fn handshake_problem(&self) -> Option<String> {
        match self {
            Self::Postgres(error) => handshake_reason(error),
            Self::PoolTimeout { last, .. } => last.as_ref()?.handshake.clone(),
            _ => None,
        }
    }

    /// The constraint that was violated, if one was.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => error.as_db_error().and_then(|error| error.constraint()),
            _ => None,
        }
    }

    /// Whether the database is unreachable or cannot be written to now, as opposed to refusing a statement.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::PoolTimeout { .. }
            | Self::Silence { .. }
            | Self::Lookup(_)
            | Self::NoAddress
            | Self::ReadOnly
            | Self::Unconfirmed
            | Self::Migrating => true,
            Self::Migration(error) => postgres_within(error).is_some_and(is_transient),
            #[cfg(test)]
            Self::Pretended(recovery) => *recovery == Recovery::Retry,
            Self::TransactionPooling => false,
            Self::Postgres(error) => is_transient(error),
            Self::Encoding(_)
            | Self::RefusedCopy(_)
            | Self::UnknownEngine(_)
            | Self::Extension { .. }
            | Self::EngineChosen(_)
            | Self::NotEmpty(_)
            | Self::LimitReached(_) => false,
        }
    }
}

fn is_transient(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(is_transient_state)
}

/// Connection exception; insufficient resources; operator intervention; system error, such as a package
/// upgrade under a running server; a standby, or a primary that has become one.
fn is_transient_state(state: &SqlState) -> bool {
    matches!(state.code().get(..2), Some("08" | "53" | "57" | "58"))
        || *state == SqlState::READ_ONLY_SQL_TRANSACTION
}

/// The PostgreSQL error that made a migration fail.
fn postgres_within(error: &refinery_core::Error) -> Option<&tokio_postgres::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(postgres) = error.downcast_ref() {
            return Some(postgres);
        }
        cause = error.source();
    }
    None
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

fn because(last: Option<&ConnectProblem>) -> String {
    last.map(|last| format!("; the last attempt failed: {}", last.sentence)).unwrap_or_default()
}

/// The driver's text is only "db error"; the rest is in its source.
pub(super) fn sentence(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(refusal), _) => {
            format!(
                "{}: {} (SQLSTATE {})",
                refusal.severity(),
                refusal.message(),
                refusal.code().code()
            ) + &what_to_grant(refusal.message())
        }
        (None, Some(source)) => match handshake_reason(error) {
            Some(reason) => format!("the TLS handshake failed: {reason}"),
            None => format!("{error}: {source}"),
        },
        (None, None) => error.to_string(),
    }
}

/// The missing grant, if PostgreSQL's message names it; only English messages do.
fn what_to_grant(refusal: &str) -> String {
    let quoted = refusal.split('"').nth(1).unwrap_or_default();
    let object = |prefix| refusal.strip_prefix(prefix);
    let grant = if let Some(table) = object("permission denied for table ") {
        format!("grant select, insert, update, delete on {table}")
    } else if let Some(schema) = object("permission denied for schema ") {
        format!("grant usage, create on schema {schema}")
    } else if let Some(sequence) = object("permission denied for sequence ") {
        format!("grant usage on sequence {sequence}")
    } else if refusal.starts_with("permission denied to create temporary tables") {
        format!("grant temporary on database {quoted}")
    } else if refusal.starts_with("permission denied for database ") {
        format!("grant connect on database {quoted}")
    } else if let Some(table) = object("must be owner of table ") {
        return format!("; the service's role must be a member of the owner of {table}");
    } else if refusal.starts_with("new row violates row-level security policy") {
        return format!(
            "; create a policy on {quoted} that lets the service's role select and insert all rows"
        );
    } else {
        return String::new();
    };
    format!("; {grant} to the service's role")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_grant_is_named() {
        for (refusal, named) in [
            (
                "permission denied for table measurement",
                "; grant select, insert, update, delete on measurement to the service's role",
            ),
            (
                "permission denied for schema public",
                "; grant usage, create on schema public to the service's role",
            ),
            (
                "permission denied to create temporary tables in database \"d\"",
                "; grant temporary on database d to the service's role",
            ),
            (
                "new row violates row-level security policy for table \"heartbeat\"",
                "; create a policy on heartbeat that lets the service's role select and insert all rows",
            ),
            ("division by zero", ""),
        ] {
            assert_eq!(what_to_grant(refusal), named);
        }
    }

    #[test]
    fn a_server_in_trouble_is_unavailable_and_a_refused_statement_is_not() {
        let is_transient = |state| is_transient_state(&SqlState::from_code(state));
        // Connection failure; disk full; admin shutdown; a library that does not fit the server; read-only.
        for state in ["08006", "53100", "57P01", "58P01", "25006"] {
            assert!(is_transient(state), "{state}");
        }
        for state in ["22003", "23505", "42501", "55P03", "XX000"] {
            assert!(!is_transient(state), "{state}");
        }
    }

    #[test]
    fn each_sqlstate_has_its_recovery() {
        for (state, expected) in [
            ("23505", Recovery::Stage),   // unique violation
            ("22P05", Recovery::Isolate), // untranslatable character
            ("22003", Recovery::Isolate), // numeric value out of range
            ("22P02", Recovery::Isolate), // invalid text representation
            ("22021", Recovery::Isolate), // character not in repertoire
            ("23502", Recovery::Isolate), // not null violation
            ("23514", Recovery::Isolate), // check violation, or no partition
            ("54000", Recovery::Isolate), // program limit exceeded
            ("P0001", Recovery::Isolate), // raised by a trigger
            ("08006", Recovery::Retry),   // connection failure
            ("25006", Recovery::Retry),   // read-only transaction: a failed-over primary
            ("40001", Recovery::Retry),   // serialization failure
            ("40P01", Recovery::Retry),   // deadlock detected
            ("42P01", Recovery::Retry),   // undefined table: not migrated yet
            ("42501", Recovery::Retry),   // insufficient privilege
            ("53100", Recovery::Retry),   // disk full
            ("53300", Recovery::Retry),   // too many connections
            ("55P03", Recovery::Retry),   // lock not available
            ("57014", Recovery::Retry),   // query canceled
            ("57P01", Recovery::Retry),   // admin shutdown
            ("57P03", Recovery::Retry),   // cannot connect now
            ("58030", Recovery::Retry),   // I/O error
            ("XX000", Recovery::Retry),   // internal error
        ] {
            assert_eq!(recovery_for(&SqlState::from_code(state)), expected, "{state}");
        }
        assert_eq!(
            recovery(&StoreError::PoolTimeout { waited: Duration::ZERO, last: None }),
            Recovery::Retry
        );
    }
}
