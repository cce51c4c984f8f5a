//! The settings of the database. `config.rs` assembles them with the others.

use std::sync::Arc;

use secrecy::ExposeSecret as _;

use super::error::{ConfigError, HIDDEN};
use super::settings::{SecretNames, SettingsReader, malformed, two_passwords};
use crate::{store, wire};

pub(super) const DATABASE_URL: SecretNames = ("DATABASE_URL", "DATABASE_URL_FILE");
const DATABASE_PASSWORD: SecretNames = ("DATABASE_PASSWORD", "DATABASE_PASSWORD_FILE");

impl SettingsReader<'_> {
    pub(super) fn store(&self) -> Result<store::Config, ConfigError> {
        let (mut postgres, ssl) = self.database()?;
        if let Some(password) = self.secret(DATABASE_PASSWORD, |_| HIDDEN.into())? {
            if postgres.get_password().is_some() {
                self.refuse(two_passwords(DATABASE_PASSWORD.0, DATABASE_URL.0), ())?;
            }
            postgres.password(password.expose_secret());
        }
        Ok(store::Config {
            postgres,
            ssl,
            last_good_address: Arc::default(),
            readers: self.number("DATABASE_READERS", 4, 1..=256)?,
            read_timeout_secs: self.number("DATABASE_READ_TIMEOUT_SECS", 10, 1..=3_600)?,
            receipt_times: self.timestamp_missing()? == wire::TimestampMissing::Receipt,
            exports: self.number("EXPORTS_AT_ONCE", 2, 1..=64)?,
            idempotency_hours: self.number("IDEMPOTENCY_HOURS", 24, 1..=8_760)?,
            statement_timeout_secs: self.number(
                "DATABASE_STATEMENT_TIMEOUT_SECS",
                60,
                1..=3_600,
            )?,
            future_tolerance_secs: self.number("FUTURE_TOLERANCE_SECS", 21_600, 0..=31_622_400)?,
            partition_days: self.number("PARTITION_INTERVAL_DAYS", 7, 1..=366)?,
            partition_past_days: self.number("PARTITION_PAST_DAYS", 366, 1..=3_660)?,
            citus_shards: self.number("CITUS_SHARDS", 8, 1..=1_024)?,
            compress_after_days: self.retention("COMPRESS_AFTER_DAYS", 14)?,
            log_message_retention_days: self.retention("RETENTION_LOG_MESSAGE_DAYS", 120)?,
            measurement_retention_days: self.retention("RETENTION_MEASUREMENT_DAYS", 0)?,
            heartbeat_retention_days: self.retention("RETENTION_HEARTBEAT_DAYS", 120)?,
            rollup_retention_days: self.retention("RETENTION_ROLLUP_DAYS", 0)?,
        })
    }

    fn database(&self) -> Result<(tokio_postgres::Config, store::Ssl), ConfigError> {
        let shown = |url: &str| {
            store::read_url(url)
                .map_or_else(|_| HIDDEN.into(), |(postgres, ssl)| store::describe(&postgres, &ssl))
        };
        let url = self.required(DATABASE_URL, shown)?;
        store::read_url(url.expose_secret()).or_else(|problem| {
            self.refuse(malformed(DATABASE_URL.0, &problem), store::placeholder())
        })
    }

    fn retention(&self, name: &'static str, default: u32) -> Result<Option<u32>, ConfigError> {
        let days = self.number(name, default, 0..=36_600)?;
        Ok((days > 0).then_some(days))
    }
}
