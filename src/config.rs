//! The settings: the only file that reads the environment. Called once, by `main`. Each module
//! owns its own `Config`; here they get their values, their defaults are in `.env.example`, and
//! what is missing, malformed or contradictory is refused with one sentence.

use std::str::FromStr;

use crate::{api, mqtt, sensor, store, telemetry, wire, writer};

/// All settings of `tributary serve`.
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATABASE_…`, `PARTITION_…`, `RETENTION_…`
    pub store: store::Config,
    /// `MQTT_…`, `WINDOW_BYTES`
    pub mqtt: mqtt::Config,
    /// `MAX_…`
    pub limits: wire::Limits,
    /// `UNKNOWN_SENSOR`, `SENSOR_…`, `CONFIGURATION_…`
    pub sensor: sensor::Config,
    /// `BATCH_…`, `REJECTIONS_…`
    pub writer: writer::Config,
    /// `HTTP_…`
    pub http: api::Config,
    /// `LOG_…`
    pub telemetry: telemetry::Config,
    /// `MIGRATE_ON_START`: bring the tables up to date before anything else.
    pub migrate_on_start: bool,
    /// `SHUTDOWN_GRACE_SECS`: how long messages in flight may take to finish.
    pub shutdown_grace_secs: u64,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A variable without a default is not set.
    #[error("{0} is not set; see .env.example for what it should hold")]
    Missing(&'static str),
    /// A variable holds what it cannot mean.
    #[error("{name}={value:?} is not usable: {problem}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What it holds; hidden where it can hold a password.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two variables contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// The `.env` file cannot be read.
    #[error(".env: {0}")]
    File(String),
}

/// Loads `.env` into the environment, where there is one; what is set already wins.
///
/// # Errors
/// When the file is there and malformed.
pub fn load_env_file() -> Result<(), ConfigError> {
    match dotenvy::dotenv() {
        Ok(_) => Ok(()),
        Err(error) if error.not_found() => Ok(()),
        Err(error) => Err(ConfigError::File(error.to_string())),
    }
}

/// The environment of this process, as [`Config::read`] wants it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Where the service's own API is, for the commands that call it: `http://HTTP_ADDR`.
#[must_use]
pub fn default_api_url() -> String {
    let address = environment("HTTP_ADDR").unwrap_or_else(|| api::Config::DEFAULT_ADDRESS.into());
    format!("http://{address}")
}

/// `API_TOKEN`: what the commands that call the API show it.
#[must_use]
pub fn api_token() -> Option<secrecy::SecretString> {
    environment("API_TOKEN").filter(|token| !token.is_empty()).map(Into::into)
}

impl Config {
    /// Reads every setting by name.
    ///
    /// # Errors
    /// At the first variable that is missing, malformed or contradicts another.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let settings = Settings(&environment);
        let config = Self {
            store: settings.store()?,
            mqtt: settings.mqtt()?,
            limits: wire::Limits {
                payload_bytes: settings.number("MAX_PAYLOAD_BYTES", 1 << 20, 64..=256 << 20)?,
                items_per_message: settings.number(
                    "MAX_ITEMS_PER_MESSAGE",
                    10_000,
                    1..=1_000_000,
                )?,
            },
            sensor: sensor::Config {
                unknown: settings.word("UNKNOWN_SENSOR", sensor::UnknownSensor::Reject)?,
                idle_secs: settings.number("SENSOR_IDLE_SECS", 900, 1..=86_400)?,
                republish_secs: settings.number("CONFIGURATION_REPUBLISH_SECS", 60, 1..=86_400)?,
            },
            writer: writer::Config {
                connections: settings.number("DATABASE_WRITERS", 2, 1..=64)?,
                batch_items: settings.number("BATCH_MAX_ITEMS", 50_000, 1..=1_000_000)?,
                rejections_per_sensor_hour: settings.number(
                    "REJECTIONS_PER_SENSOR_HOUR",
                    1_000,
                    0..=10_000_000,
                )?,
            },
            http: api::Config {
                address: settings.text("HTTP_ADDR", api::Config::DEFAULT_ADDRESS),
                workers: settings.number("HTTP_WORKERS", 1, 1..=256)?,
                access: api::AccessConfig {
                    required: settings.flag("AUTH", true)?,
                    metrics_open: settings.flag("METRICS_OPEN", false)?,
                    docs_open: settings.flag("DOCS_OPEN", true)?,
                    session_hours: settings.number("SESSION_HOURS", 12, 1..=8_784)?,
                    requests_per_second: settings.number(
                        "REQUESTS_PER_SECOND",
                        1_000,
                        1..=1_000_000,
                    )?,
                },
            },
            telemetry: telemetry::Config {
                filter: settings.text("LOG_FILTER", "info"),
                format: settings.word("LOG_FORMAT", telemetry::Format::Text)?,
            },
            migrate_on_start: settings.flag("MIGRATE_ON_START", false)?,
            shutdown_grace_secs: settings.number("SHUTDOWN_GRACE_SECS", 30, 1..=3_600)?,
        };
        config.contradictions()?;
        Ok(config)
    }

    fn contradictions(&self) -> Result<(), ConfigError> {
        if self.limits.payload_bytes > self.mqtt.window_bytes {
            return Err(ConfigError::Contradiction(format!(
                "MAX_PAYLOAD_BYTES={} is more than WINDOW_BYTES={}: one message would not fit the window",
                self.limits.payload_bytes, self.mqtt.window_bytes
            )));
        }
        if !self.http.access.required && !is_loopback(&self.http.address) {
            return Err(ConfigError::Contradiction(format!(
                "AUTH=off lets everyone in, and HTTP_ADDR={} can be reached from outside: \
                 use AUTH=on, or a loopback address",
                self.http.address
            )));
        }
        Ok(())
    }
}

/// Whether only this machine can reach it. A name other than `localhost` may mean any address.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _port)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|it: std::net::IpAddr| it.is_loopback())
}

/// Only what `migrate` and the like need.
///
/// # Errors
/// When a variable that begins with `DATABASE_` is missing or malformed.
pub fn read_store(
    environment: impl Fn(&str) -> Option<String>,
) -> Result<store::Config, ConfigError> {
    Settings(&environment).store()
}

/// Only what a client of the broker needs.
///
/// # Errors
/// When a variable that begins with `MQTT_` is missing or malformed.
pub fn read_mqtt(
    environment: impl Fn(&str) -> Option<String>,
) -> Result<mqtt::Config, ConfigError> {
    Settings(&environment).mqtt()
}

/// What `tributary bench` needs. The process identifiers tell it whose CPU time to read; where one
/// is not set, that figure is not given.
#[derive(Clone, Debug)]
pub struct BenchServers {
    /// `DATABASE_URL`, as it was written, to be handed on with another database in it.
    pub database_url: secrecy::SecretString,
    /// `MQTT_URL`, to be handed on.
    pub mqtt_url: secrecy::SecretString,
    /// `DATABASE_…`
    pub store: store::Config,
    /// `MQTT_…`
    pub mqtt: mqtt::Config,
    /// `TRIBUTARY_BENCH_POSTGRES_PID`: the postmaster.
    pub postgres_pid: Option<u32>,
    /// `TRIBUTARY_BENCH_BROKER_PID`
    pub broker_pid: Option<u32>,
}

/// Reads what `tributary bench` needs.
///
/// # Errors
/// When one of its variables is missing or malformed.
pub fn read_bench(
    environment: impl Fn(&str) -> Option<String>,
) -> Result<BenchServers, ConfigError> {
    let settings = Settings(&environment);
    let pid = |name| settings.number(name, 0, 0..=u32::MAX).map(|pid| (pid > 0).then_some(pid));
    Ok(BenchServers {
        store: settings.store()?,
        mqtt: settings.mqtt()?,
        database_url: settings.required("DATABASE_URL")?.into(),
        mqtt_url: settings.required("MQTT_URL")?.into(),
        postgres_pid: pid("TRIBUTARY_BENCH_POSTGRES_PID")?,
        broker_pid: pid("TRIBUTARY_BENCH_BROKER_PID")?,
    })
}

struct Settings<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Settings<'_> {
    fn store(&self) -> Result<store::Config, ConfigError> {
        let name = "DATABASE_URL";
        let text = self.required(name)?;
        let postgres = tokio_postgres::Config::from_str(&text).map_err(|error| {
            let problem = std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), std::string::ToString::to_string);
            ConfigError::Invalid { name, value: "…".into(), problem }
        })?;
        Ok(store::Config {
            postgres,
            readers: self.number("DATABASE_READERS", 4, 1..=256)?,
            partition_days: self.number("PARTITION_INTERVAL_DAYS", 7, 1..=366)?,
            partition_past_days: self.number("PARTITION_PAST_DAYS", 366, 1..=3_660)?,
            log_message_retention_days: self.retention("RETENTION_LOG_MESSAGE_DAYS", 120)?,
            measurement_retention_days: self.retention("RETENTION_MEASUREMENT_DAYS", 0)?,
            heartbeat_retention_days: self.retention("RETENTION_HEARTBEAT_DAYS", 120)?,
        })
    }

    fn mqtt(&self) -> Result<mqtt::Config, ConfigError> {
        let name = "MQTT_URL";
        let broker = mqtt::BrokerUrl::from_str(&self.required(name)?).map_err(|problem| {
            ConfigError::Invalid { name, value: "…".into(), problem: problem.to_string() }
        })?;
        let name = "MQTT_TOPIC_PREFIX";
        let topic_prefix = self.text(name, "");
        wire::check_prefix(&topic_prefix).map_err(|problem| ConfigError::Invalid {
            name,
            value: topic_prefix.clone(),
            problem: problem.into(),
        })?;
        let client_id = self.text("MQTT_CLIENT_ID", "tributary");
        Ok(mqtt::Config {
            broker,
            client_id,
            topic_prefix,
            receive_maximum: self.number("MQTT_RECEIVE_MAXIMUM", 50_000, 1..=65_534)?,
            session_expiry_days: self.number("MQTT_SESSION_EXPIRY_DAYS", 7, 1..=3_660)?,
            keep_alive_secs: self.number("MQTT_KEEP_ALIVE_SECS", 15, 1..=3_600)?,
            window_bytes: self.number("WINDOW_BYTES", 256 << 20, 1 << 16..=1 << 36)?,
        })
    }

    fn retention(&self, name: &'static str, default: u32) -> Result<Option<u32>, ConfigError> {
        let days = self.number(name, default, 0..=36_600)?;
        Ok((days > 0).then_some(days))
    }

    /// An empty variable counts as not set, so that `NAME=` in a file leaves the default.
    fn optional(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn required(&self, name: &'static str) -> Result<String, ConfigError> {
        self.optional(name).ok_or(ConfigError::Missing(name))
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.optional(name).unwrap_or_else(|| default.to_owned())
    }

    fn number<N>(
        &self,
        name: &'static str,
        default: N,
        range: std::ops::RangeInclusive<N>,
    ) -> Result<N, ConfigError>
    where
        N: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.optional(name) else { return Ok(default) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(ConfigError::Invalid {
                name,
                value: text,
                problem: format!(
                    "it takes a whole number from {} to {}",
                    range.start(),
                    range.end()
                ),
            }),
        }
    }

    fn flag(&self, name: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.optional(name).as_deref() {
            None => Ok(default),
            Some("true" | "on" | "yes" | "1") => Ok(true),
            Some("false" | "off" | "no" | "0") => Ok(false),
            Some(other) => Err(ConfigError::Invalid {
                name,
                value: other.into(),
                problem: "it takes true or false".into(),
            }),
        }
    }

    fn word<W>(&self, name: &'static str, default: W) -> Result<W, ConfigError>
    where
        W: FromStr<Err = String>,
    {
        self.optional(name).map_or(Ok(default), |text| {
            text.parse().map_err(|problem| ConfigError::Invalid { name, value: text, problem })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn read(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut all: HashMap<&str, &str> = HashMap::from([
            ("DATABASE_URL", "postgres://tributary:secret@localhost/tributary"),
            ("MQTT_URL", "mqtt://localhost"),
        ]);
        all.extend(variables.iter().copied());
        Config::read(|name| all.get(name).map(ToString::to_string))
    }

    #[test]
    fn the_two_servers_are_enough() {
        let config = read(&[]).unwrap();
        assert_eq!(config.mqtt.client_id, "tributary");
        assert!(!config.migrate_on_start);
    }

    #[test]
    fn a_missing_server_is_one_sentence() {
        let error = read(&[("MQTT_URL", " ")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "MQTT_URL is not set; see .env.example for what it should hold"
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (name, value, says) in [
            ("HTTP_WORKERS", "0", "a whole number from 1 to 256"),
            ("HTTP_WORKERS", "many", "a whole number from 1 to 256"),
            ("MIGRATE_ON_START", "perhaps", "true or false"),
            ("UNKNOWN_SENSOR", "ignore", "reject or register"),
            ("MQTT_TOPIC_PREFIX", "a/#", "wildcard"),
            ("MQTT_URL", "http://localhost", "mqtt://"),
            ("DATABASE_URL", "postgres://localhost:port/x", "port"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_message_must_fit_the_window() {
        let error = read(&[("WINDOW_BYTES", "65536")]).unwrap_err();
        assert!(matches!(error, ConfigError::Contradiction(_)), "{error}");
    }

    #[test]
    fn nobody_is_let_in_unasked_from_outside() {
        for (address, fine) in [
            ("127.0.0.1:8080", true),
            ("127.1.2.3:0", true),
            ("[::1]:8080", true),
            ("localhost:8080", true),
            ("0.0.0.0:8080", false),
            ("[::]:8080", false),
            ("192.168.1.7:8080", false),
            ("localhost.example:8080", false),
        ] {
            let outcome = read(&[("AUTH", "off"), ("HTTP_ADDR", address)]);
            assert_eq!(outcome.is_ok(), fine, "{address}");
            assert!(read(&[("AUTH", "on"), ("HTTP_ADDR", address)]).is_ok(), "{address}");
        }
        assert!(read(&[]).unwrap().http.access.required, "by default");
    }

    #[test]
    fn no_password_is_printed() {
        let error = read(&[("DATABASE_URL", "postgres://u:secret@h:x/d")]).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        let config = read(&[("MQTT_URL", "mqtt://u:secret@h")]).unwrap();
        assert!(!format!("{config:?}").contains("secret"), "{config:?}");
    }

    /// Every variable of `.env.example` is one that is read, its value loads, and it is the
    /// default; every variable that is read stands there.
    #[test]
    fn the_example_lists_every_variable_with_its_default() {
        let example: HashMap<String, String> =
            dotenvy::from_read_iter(include_str!("../.env.example").as_bytes())
                .collect::<Result<_, _>>()
                .unwrap();
        let asked = std::cell::RefCell::new(std::collections::BTreeSet::new());
        let loaded = Config::read(|name| {
            asked.borrow_mut().insert(name.to_owned());
            example.get(name).cloned()
        })
        .unwrap();
        let listed: std::collections::BTreeSet<String> = example.keys().cloned().collect();
        assert_eq!(listed, asked.into_inner());

        let servers_only = Config::read(|name| {
            example.get(name).filter(|_| ["DATABASE_URL", "MQTT_URL"].contains(&name)).cloned()
        })
        .unwrap();
        assert_eq!(format!("{loaded:?}"), format!("{servers_only:?}"));
    }
}
