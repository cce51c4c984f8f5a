//! The settings of the broker, and of what is taken from it. Part of `config.rs`, which says the rest.

use secrecy::ExposeSecret as _;

use super::error::{ConfigError, HIDDEN};
use super::settings::{PLACEHOLDER_URL, SecretNames, SettingsReader, malformed, two_passwords};
use crate::wire::value::NestedValues;
use crate::{mqtt, tls, wire};

pub(super) const MQTT_URL: SecretNames = ("MQTT_URL", "MQTT_URL_FILE");
const MQTT_PASSWORD: SecretNames = ("MQTT_PASSWORD", "MQTT_PASSWORD_FILE");

const DRAIN_NEEDS_GROUP: &str = "DRAIN_ON_STOP=true takes MQTT_SHARED_GROUP: without a group nobody receives what is \
    published after the service has unsubscribed";

/// As `uname -n` prints it; in Kubernetes the name of the pod.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl SettingsReader<'_> {
    pub(super) fn mqtt(&self) -> Result<mqtt::Config, ConfigError> {
        let broker = self.broker()?;
        let check_prefix = |text: &str| wire::check_prefix(text).map_err(Into::into);
        let topic_prefix = self.checked("MQTT_TOPIC_PREFIX", "", check_prefix)?;
        let (client_id, shared_group) = self.session()?;
        let drain_on_stop = self.flag("DRAIN_ON_STOP", false)?;
        if drain_on_stop && shared_group.is_none() {
            self.refuse(ConfigError::Contradiction(DRAIN_NEEDS_GROUP.into()), ())?;
        }
        Ok(mqtt::Config {
            broker,
            client_id,
            shared_group,
            drain_on_stop,
            topic_prefix,
            receive_maximum: self.number("MQTT_RECEIVE_MAXIMUM", 50_000, 1..=65_534)?,
            session_expiry_days: self.number("MQTT_SESSION_EXPIRY_DAYS", 7, 1..=3_660)?,
            keep_alive_secs: self.number("MQTT_KEEP_ALIVE_SECS", 15, 1..=3_600)?,
            window_bytes: self.number("WINDOW_BYTES", 256 << 20, 1 << 16..=1 << 36)?,
        })
    }

    /// The client id, with the host's name filled in, and the group of shared subscriptions.
    fn session(&self) -> Result<(String, Option<String>), ConfigError> {
        let set = self.optional("MQTT_CLIENT_ID", "tributary");
        let check = |text: &str| wire::check_group(text).map_err(Into::into);
        let group = self.checked("MQTT_SHARED_GROUP", "", check)?;
        let group = (!group.is_empty()).then_some(group);
        if group.is_some() && set.is_none() {
            let problem = "MQTT_SHARED_GROUP is set without MQTT_CLIENT_ID; each instance needs a client id of its \
                own that it keeps, such as tributary-{hostname} in a StatefulSet";
            self.refuse(ConfigError::Contradiction(problem.into()), ())?;
        }
        let client_id = set.unwrap_or_else(|| "tributary".into());
        Ok((client_id.replace("{hostname}", &host_name()), group))
    }

    fn broker(&self) -> Result<mqtt::BrokerUrl, ConfigError> {
        let shown = |url: &str| {
            url.parse().map_or_else(|_| HIDDEN.into(), |url: mqtt::BrokerUrl| url.shown())
        };
        let url = self.required(MQTT_URL, shown)?;
        let placeholder = || PLACEHOLDER_URL.parse().expect("it is written in the source");
        let mut broker: mqtt::BrokerUrl = url
            .expose_secret()
            .parse()
            .or_else(|problem| self.refuse(malformed(MQTT_URL.0, &problem), placeholder()))?;
        if let Some(password) = self.secret(MQTT_PASSWORD, |_| HIDDEN.into())? {
            if broker.password().is_some() {
                self.refuse(two_passwords(MQTT_PASSWORD.0, MQTT_URL.0), ())?;
            }
            broker = broker.with_password(password);
        }
        let authority = self.path("MQTT_CA_FILE");
        let identity = self.pair("MQTT_CERTIFICATE_FILE", "MQTT_KEY_FILE")?;
        if broker.secure {
            let options = tls::ClientOptions {
                authority: Some(authority.map_or(tls::Authority::System, tls::Authority::File)),
                check_name: true,
                identity: identity
                    .map(|(certificate, key)| tls::ClientIdentity { certificate, key }),
                protocol: None,
            };
            return match tls::Client::new(options) {
                Ok(tls) => Ok(broker.with_tls(tls)),
                Err(problem) => self.refuse(
                    ConfigError::Unusable {
                        name: match problem.role {
                            tls::FilePurpose::Authority => "MQTT_CA_FILE",
                            tls::FilePurpose::Certificate => "MQTT_CERTIFICATE_FILE",
                            tls::FilePurpose::Key => "MQTT_KEY_FILE",
                        },
                        problem,
                    },
                    broker,
                ),
            };
        }
        if authority.is_some() || identity.is_some() {
            let set = if authority.is_some() { "MQTT_CA_FILE" } else { "MQTT_CERTIFICATE_FILE" };
            let problem =
                format!("{set} is set, but MQTT_URL begins with mqtt://; TLS takes mqtts://");
            self.refuse(ConfigError::Contradiction(problem), ())?;
        }
        Ok(broker)
    }

    pub(super) fn timestamp_missing(&self) -> Result<wire::TimestampMissing, ConfigError> {
        use wire::TimestampMissing::{Receipt, Reject};
        self.one_of_two("TIMESTAMP_MISSING", [("reject", Reject), ("receipt", Receipt)])
    }

    pub(super) fn limits(&self) -> Result<wire::Limits, ConfigError> {
        Ok(wire::Limits {
            payload_bytes: self.number("MAX_PAYLOAD_BYTES", 1 << 20, 64..=256 << 20)?,
            items_per_message: self.number("MAX_ITEMS_PER_MESSAGE", 10_000, 1..=1_000_000)?,
            nested_values: self.one_of_two(
                "NESTED_VALUES",
                [("reject", NestedValues::Reject), ("store", NestedValues::Store)],
            )?,
            timestamp_missing: self.timestamp_missing()?,
        })
    }
}
