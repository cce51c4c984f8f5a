//! The settings: the only file that reads the environment. Called once, by `main`. Each module owns its `Config`,
//! which is filled in here; `.env.example` has the defaults; a missing, malformed or contradictory setting is
//! refused with one sentence.

mod broker;
mod database;
mod duration;
mod env_file;
mod error;
mod http;
mod inspection;
mod settings;

use secrecy::SecretString;

use broker::MQTT_URL;
use database::DATABASE_URL;
pub use duration::parse_duration;
pub use env_file::{EnvFile, load_env_file};
pub use error::ConfigError;
use error::HIDDEN;
pub use inspection::Inspection;
use settings::SettingsReader;

use crate::sensor::UnknownSensor;
use crate::{api, mqtt, sensor, store, streams, telemetry, wire, writer};

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
    /// `STREAM_…`
    pub streams: streams::Config,
    /// `LOG_…`, `OTEL_…`
    pub telemetry: telemetry::Config,
    /// `MIGRATE_ON_START`: bring the tables up to date before anything else.
    pub migrate_on_start: bool,
    /// The name of this host.
    pub host: String,
    /// `tributary drain`: from the start on.
    pub drain: bool,
    /// `SHUTDOWN_GRACE_SECS`: how long messages in flight may take to finish.
    pub shutdown_grace_secs: u64,
}

/// The environment of this process, as [`Config::read`] wants it.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The URL of the service's API, for the commands that call it: `http://HTTP_ADDR`, or `https://` with a certificate.
pub fn default_api_url() -> String {
    let set = |name| environment(name).filter(|value| !value.is_empty());
    let scheme = if set("HTTP_CERTIFICATE_FILE").is_some() { "https" } else { "http" };
    let address = set("HTTP_ADDR").unwrap_or_else(|| api::Config::DEFAULT_ADDRESS.into());
    format!("{scheme}://{address}")
}

/// `API_TOKEN`, for the commands that call the API.
///
/// # Errors
/// When its file cannot be read.
pub fn api_token() -> Result<Option<SecretString>, ConfigError> {
    SettingsReader::strict(&environment).secret(("API_TOKEN", "API_TOKEN_FILE"), |_| HIDDEN.into())
}

impl Config {
    /// Reads every setting by name.
    ///
    /// # Errors
    /// At the first variable that is missing, malformed or contradicts another.
    pub fn read(environment: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::assemble(&SettingsReader::strict(&environment))
    }

    /// The same, to drain the session of this client id and end. Its API is at a free port.
    ///
    /// # Errors
    /// When the instances have no group: nobody else would receive what is published afterwards.
    pub fn draining(mut self) -> Result<Self, ConfigError> {
        if self.mqtt.shared_group.is_none() {
            let problem = "drain takes MQTT_SHARED_GROUP: without a group nobody else receives what is published afterwards";
            return Err(ConfigError::Contradiction(problem.into()));
        }
        self.http.address = "127.0.0.1:0".into();
        Ok(Self { drain: true, migrate_on_start: false, ..self })
    }

    fn assemble(settings: &SettingsReader<'_>) -> Result<Self, ConfigError> {
        let store = settings.store()?;
        let config = Self {
            mqtt: settings.mqtt()?,
            limits: settings.limits()?,
            sensor: sensor::Config {
                unknown: settings.one_of_two(
                    "UNKNOWN_SENSOR",
                    [("reject", UnknownSensor::Reject), ("register", UnknownSensor::Register)],
                )?,
                idle_secs: settings.number("SENSOR_IDLE_SECS", 900, 1..=86_400)?,
                republish_secs: settings.number("CONFIGURATION_REPUBLISH_SECS", 60, 1..=86_400)?,
                future_tolerance_secs: store.future_tolerance_secs,
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
            http: settings.http()?,
            streams: settings.streams()?,
            store,
            telemetry: telemetry::Config {
                filter: settings.checked("LOG_FILTER", "info", telemetry::check_filter)?,
                format: settings.one_of_two(
                    "LOG_FORMAT",
                    [("text", telemetry::Format::Text), ("json", telemetry::Format::Json)],
                )?,
                export: settings
                    .endpoint("OTEL_EXPORTER_OTLP_ENDPOINT", telemetry::check_export)?,
                service_name: settings.text("OTEL_SERVICE_NAME", "tributary"),
            },
            host: broker::host_name(),
            drain: false,
            migrate_on_start: settings.flag("MIGRATE_ON_START", false)?,
            shutdown_grace_secs: settings.number("SHUTDOWN_GRACE_SECS", 30, 1..=3_600)?,
        };
        config.contradictions().or_else(|problem| settings.refuse(problem, ()))?;
        Ok(config)
    }

    fn contradictions(&self) -> Result<(), ConfigError> {
        if self.limits.payload_bytes > self.mqtt.window_bytes {
            return Err(ConfigError::Contradiction(format!(
                "MAX_PAYLOAD_BYTES={} is more than WINDOW_BYTES={}: one message would not fit the window",
                self.limits.payload_bytes, self.mqtt.window_bytes
            )));
        }
        let address = &self.http.address;
        let host = address.rsplit_once(':').map_or(&**address, |(host, _port)| host);
        if !self.http.access.required && !api::is_loopback(host) {
            return Err(ConfigError::Contradiction(format!(
                "AUTH=off lets everyone in, and HTTP_ADDR={address} can be reached from outside: \
                 use AUTH=on, or a loopback address"
            )));
        }
        if !self.http.access.required && self.http.cors_origins.iter().any(|it| it == "*") {
            return Err(ConfigError::Contradiction(
                "AUTH=off lets everyone in, and CORS_ORIGINS=* every web page: \
                 use AUTH=on, or name the origins"
                    .into(),
            ));
        }
        Ok(())
    }
}

/// Only what `migrate` and the like need.
///
/// # Errors
/// When a variable that begins with `DATABASE_` is missing or malformed.
pub fn read_store(
    environment: impl Fn(&str) -> Option<String>,
) -> Result<store::Config, ConfigError> {
    SettingsReader::strict(&environment).store()
}

/// Only what a client of the broker needs.
///
/// # Errors
/// When a variable that begins with `MQTT_` is missing or malformed.
pub fn read_mqtt(
    environment: impl Fn(&str) -> Option<String>,
) -> Result<mqtt::Config, ConfigError> {
    SettingsReader::strict(&environment).mqtt()
}

/// What a client of the broker needs that decodes messages.
///
/// # Errors
/// When a variable that begins with `MQTT_` is missing or malformed, or a limit is malformed.
pub fn read_listen(
    environment: impl Fn(&str) -> Option<String>,
) -> Result<(mqtt::Config, wire::Limits), ConfigError> {
    let settings = SettingsReader::strict(&environment);
    Ok((settings.mqtt()?, settings.limits()?))
}

/// The faults that a test asks for in `TRIBUTARY_FAULTS`. A release build does not ask.
///
/// # Errors
/// When the variable cannot be understood.
pub fn read_faults(
    environment: impl Fn(&str) -> Option<String>,
) -> Result<crate::domain::Faults, ConfigError> {
    let value = environment("TRIBUTARY_FAULTS").filter(|_| cfg!(debug_assertions));
    let Some(value) = value else { return Ok(crate::domain::Faults::default()) };
    let name = "TRIBUTARY_FAULTS";
    value.parse().map_err(|problem| ConfigError::Invalid { name, value, problem })
}

/// The settings of `tributary bench`. CPU time is read of the processes that are given.
#[derive(Clone, Debug)]
pub struct BenchServers {
    /// `DATABASE_URL`, to be passed on with another database.
    pub database_url: secrecy::SecretString,
    /// `MQTT_URL`, to be passed on.
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
    let settings = SettingsReader::strict(&environment);
    let pid = |name| settings.number(name, 0, 0..=u32::MAX).map(|pid| (pid > 0).then_some(pid));
    Ok(BenchServers {
        store: settings.store()?,
        mqtt: settings.mqtt()?,
        database_url: settings.required(DATABASE_URL, |_| HIDDEN.into())?,
        mqtt_url: settings.required(MQTT_URL, |_| HIDDEN.into())?,
        postgres_pid: pid("TRIBUTARY_BENCH_POSTGRES_PID")?,
        broker_pid: pid("TRIBUTARY_BENCH_BROKER_PID")?,
    })
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
    fn the_urls_of_database_and_broker_suffice() {
        let config = read(&[]).unwrap();
        assert_eq!(config.mqtt.client_id, "tributary");
        assert!(!config.migrate_on_start);
    }

    #[test]
    fn a_missing_url_is_named_in_one_sentence() {
        let error = read(&[("MQTT_URL", " ")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "MQTT_URL is not set; see .env.example for what it should hold"
        );
    }

    #[test]
    fn contradictory_settings_are_refused_by_name() {
        for (name, value, says) in [
            ("HTTP_WORKERS", "0", "a whole number from 1 to 256"),
            ("HTTP_WORKERS", "many", "a whole number from 1 to 256"),
            ("MIGRATE_ON_START", "perhaps", "true or false"),
            ("AUTH", "perhaps", "on or off"),
            ("HTTP_ADDR", "localhost", "host:port"),
            ("HTTP_ADDR", "127.0.0.1:99999", "host:port"),
            ("HTTP_ADDR", ":8080", "host:port"),
            ("LOG_FILTER", "info,,=x=y", "LOG_FILTER"),
            ("UNKNOWN_SENSOR", "ignore", "reject or register"),
            ("CORS_ORIGINS", "example.org", "https://example.org:8443"),
            ("CORS_ORIGINS", "*, https://example.org/", "https://example.org:8443"),
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
    fn a_shared_group_needs_a_client_id_per_instance() {
        let group = ("MQTT_SHARED_GROUP", "farm");
        let error = read(&[group]).unwrap_err().to_string();
        assert!(error.contains("tributary-{hostname}"), "{error}");
        let config = read(&[group, ("MQTT_CLIENT_ID", "t-{hostname}")]).unwrap();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(config.mqtt.client_id, format!("t-{}", host.trim()));
        assert_eq!(config.mqtt.shared_group.as_deref(), Some("farm"));
        for (name, value) in [("MQTT_SHARED_GROUP", "a/b"), ("DRAIN_ON_STOP", "true")] {
            assert!(read(&[(name, value)]).unwrap_err().to_string().contains("MQTT_SHARED_GROUP"));
        }
        assert!(read(&[]).unwrap().draining().is_err());
    }

    #[test]
    fn without_authentication_only_loopback_is_served() {
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
            // A name that stands for no address is refused anyway.
            let is_known = address != "localhost.example:8080";
            let outcome = read(&[("AUTH", "on"), ("HTTP_ADDR", address)]);
            assert!(outcome.is_ok() || !is_known, "{address}");
        }
        assert!(read(&[]).unwrap().http.access.required, "by default");
        let any_page = ("CORS_ORIGINS", "*");
        assert!(read(&[("AUTH", "on"), any_page]).is_ok());
        assert!(read(&[("AUTH", "off"), any_page]).is_err());
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
        let looked_up = std::cell::RefCell::new(std::collections::BTreeSet::new());
        let loaded = Config::read(|name| {
            looked_up.borrow_mut().insert(name.to_owned());
            example.get(name).cloned()
        })
        .unwrap();
        let listed: std::collections::BTreeSet<String> = example.keys().cloned().collect();
        assert_eq!(listed, looked_up.into_inner());

        let servers_only = Config::read(|name| {
            example.get(name).filter(|_| ["DATABASE_URL", "MQTT_URL"].contains(&name)).cloned()
        })
        .unwrap();
        assert_eq!(format!("{loaded:?}"), format!("{servers_only:?}"));
    }
}
