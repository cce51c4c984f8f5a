//! The settings of HTTP and of its streams. `config.rs` assembles them with the others.

use super::error::ConfigError;
use super::settings::SettingsReader;
use crate::{api, streams, tls};

impl SettingsReader<'_> {
    pub(super) fn http(&self) -> Result<api::Config, ConfigError> {
        Ok(api::Config {
            address: self.checked("HTTP_ADDR", api::Config::DEFAULT_ADDRESS, api::check_address)?,
            workers: self.number("HTTP_WORKERS", 1, 1..=256)?,
            tls: self.http_tls()?,
            max_body_bytes: self.number("HTTP_MAX_BODY_BYTES", 1 << 20, 1_024..=64 << 20)?,
            write_timeout_secs: self.number("HTTP_WRITE_TIMEOUT_SECS", 60, 1..=3_600)?,
            min_bytes_per_sec: self.number("HTTP_MIN_BYTES_PER_SEC", 16 << 10, 0..=1 << 30)?,
            timeout_secs: self.number("HTTP_TIMEOUT_SECS", 30, 1..=3_600)?,
            cors_origins: self.origins()?,
            dashboard: self.switch("DASHBOARD", true)?,
            access: api::AccessConfig {
                required: self.switch("AUTH", true)?,
                metrics_open: self.flag("METRICS_OPEN", false)?,
                docs_open: self.flag("DOCS_OPEN", true)?,
                session_hours: self.number("SESSION_HOURS", 12, 1..=8_784)?,
                requests_per_second: self.number("REQUESTS_PER_SECOND", 1_000, 1..=1_000_000)?,
            },
        })
    }

    fn http_tls(&self) -> Result<Option<tls::Server>, ConfigError> {
        let names = ("HTTP_CERTIFICATE_FILE", "HTTP_KEY_FILE");
        let Some((certificate, key)) = self.pair(names.0, names.1)? else { return Ok(None) };
        tls::Server::new(certificate, key).map(Some).or_else(|problem| {
            let name = if problem.role == tls::FilePurpose::Key { names.1 } else { names.0 };
            self.refuse(ConfigError::Unusable { name, problem }, None)
        })
    }

    fn origins(&self) -> Result<Vec<String>, ConfigError> {
        let name = "CORS_ORIGINS";
        let text = self.text(name, "");
        let origins = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let is_origin = |text: &str| {
            url::Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text)
        };
        origins
            .map(|origin| match origin {
                _ if origin == "*" || is_origin(origin) => Ok(origin.to_owned()),
                _ => self.refuse(
                    ConfigError::Invalid {
                        name,
                        value: origin.into(),
                        problem: "it takes origins, as in https://example.org:8443, or *".into(),
                    },
                    origin.to_owned(),
                ),
            })
            .collect()
    }

    pub(super) fn streams(&self) -> Result<streams::Config, ConfigError> {
        let streams::Config { max_readers, keep_alive_secs } = streams::Config::default();
        Ok(streams::Config {
            max_readers: self.number("STREAM_MAX_READERS", max_readers, 1..=100_000)?,
            keep_alive_secs: self.number("STREAM_KEEP_ALIVE_SECS", keep_alive_secs, 1..=3_600)?,
        })
    }
}
