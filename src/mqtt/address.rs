//! The broker's URL, `mqtt://user:password@host:port` or `mqtts://` for TLS, with the certificates to
//! trust. Parsed by `config` and the simulator. Its password is never printed.

use std::fmt;
use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::tls;

const DEFAULT_PORT: u16 = 1883;
const DEFAULT_TLS_PORT: u16 = 8883;

/// A parsed `MQTT_URL`. Its `Debug` hides the password.
#[derive(Clone)]
pub struct BrokerUrl {
    /// Name or address.
    pub host: String,
    /// By default 1883, with TLS 8883.
    pub port: u16,
    /// `mqtts://`
    pub secure: bool,
    /// None: anonymous.
    pub username: Option<String>,
    password: Option<SecretString>,
    tls: Option<tls::Client>,
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "(hidden)");
        let fields = (self.shown(), password, &self.tls);
        formatter.debug_tuple("BrokerUrl").field(&fields).finish()
    }
}

/// Why the URL is refused. Contains no text of it, which could be the password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BrokerUrlError {
    /// `docker run --env-file` keeps quotes as part of the value.
    #[error("remove the quotes around it")]
    Quoted,
    /// Not a URL.
    #[error(
        "not a valid URL ({0}); expected mqtt://user:password@host:port. In a user name or \
         password, percent-encode characters such as / # ? @ (as %2F, %23, %3F, %40), or set the \
         password as MQTT_PASSWORD"
    )]
    Malformed(&'static str),
    /// Another scheme.
    #[error("expected mqtt://host:port or mqtts://host:port")]
    Scheme,
    /// `ws://` or `wss://`.
    #[error(
        "MQTT over WebSockets (ws://, wss://) is not supported; expected the broker's TCP listener, \
         mqtt://host:port or mqtts://host:port"
    )]
    WebSockets,
    /// No host.
    #[error("the host is missing; expected mqtt://user:password@host:port")]
    NoHost,
    /// A path, query or fragment, which would be ignored.
    #[error(
        "nothing may follow the port; a topic prefix is set by MQTT_TOPIC_PREFIX. In a password, \
         percent-encode / # ? (as %2F, %23, %3F), or set it as MQTT_PASSWORD"
    )]
    Trailing,
    /// Percent-encoding that is not UTF-8.
    #[error("the user name or password is not UTF-8 after percent-decoding")]
    Encoding,
}

impl BrokerUrl {
    /// Never to be printed.
    pub fn password(&self) -> Option<&str> {
        self.password.as_ref().map(ExposeSecret::expose_secret)
    }

    /// Replaces the password.
    #[must_use]
    pub fn with_password(self, password: SecretString) -> Self {
        Self { password: Some(password), ..self }
    }

    /// Sets the certificates to trust, for `mqtts://`.
    #[must_use]
    pub fn with_tls(self, tls: tls::Client) -> Self {
        Self { tls: Some(tls), ..self }
    }

    pub(super) const fn tls(&self) -> Option<&tls::Client> {
        self.tls.as_ref()
    }

    /// The URL without its password. A user name with special characters is hidden too: it may contain
    /// the password, if the colon was percent-encoded.
    pub fn shown(&self) -> String {
        let scheme = if self.secure { "mqtts" } else { "mqtt" };
        let is_plain = |user: &str| {
            user.chars().all(|it| it.is_alphanumeric() || matches!(it, '-' | '_' | '.'))
        };
        let user = match self.username.as_deref() {
            None => String::new(),
            Some(user) if is_plain(user) => format!("{user}@"),
            Some(_) => "(hidden)@".into(),
        };
        format!("{scheme}://{user}{}", self.authority())
    }

    /// `host:port`, for logs.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        let is_quote = |character: char| matches!(character, '"' | '\'' | '`');
        if text.starts_with(is_quote) || text.ends_with(is_quote) {
            return Err(BrokerUrlError::Quoted);
        }
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_lowercase());
        let secure = match scheme.as_deref() {
            Some("mqtt") => false,
            Some("mqtts") => true,
            Some("ws" | "wss") => return Err(BrokerUrlError::WebSockets),
            _ => return Err(BrokerUrlError::Scheme),
        };
        let url = Url::parse(text).map_err(|error| {
            BrokerUrlError::Malformed(match error {
                url::ParseError::InvalidPort => "the port is not a number from 1 to 65535",
                _ => "the host is not a name or an address",
            })
        })?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(BrokerUrlError::NoHost)?;
        if host.contains('%') || url::Host::parse(host).is_err() {
            return Err(BrokerUrlError::Malformed("the host is not a name or an address"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(BrokerUrlError::Trailing);
        }
        let decoded = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8()
                .map(std::borrow::Cow::into_owned)
                .map_err(|_| BrokerUrlError::Encoding)
        };
        let username = match url.username() {
            "" => None,
            name => Some(decoded(name)?),
        };
        let password = url.password().map(decoded).transpose()?.map(SecretString::from);
        Ok(Self {
            // The resolver wants an IPv6 address without the brackets of the URL.
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(if secure { DEFAULT_TLS_PORT } else { DEFAULT_PORT }),
            secure,
            username,
            password,
            tls: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_part() {
        let url: BrokerUrl = "mqtt://fleet:p%40ss@broker.example:1884".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port), ("broker.example", 1884));
        assert_eq!((url.username.as_deref(), url.password()), (Some("fleet"), Some("p@ss")));
        assert!(!format!("{url:?}").contains("p@ss"));

        let url: BrokerUrl = "mqtt://[::1]".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port, url.secure), ("::1", 1883, false));
        assert_eq!(url.username, None);

        let url: BrokerUrl = "mqtts://fleet:p%40ss@broker.example".parse().unwrap();
        assert_eq!((url.port, url.secure), (8883, true));
        assert_eq!(url.shown(), "mqtts://fleet@broker.example:8883");
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, says) in [
            ("broker:1883", "mqtt://host:port"),
            ("https://s3cret", "mqtt://host:port"),
            ("localhost", "mqtt://host:port"),
            ("'mqtt://u:s3cret@broker'", "quotes"),
            ("ws://broker:9001", "WebSockets"),
            ("WSS://u:s3cret@broker/mqtt", "not supported"),
            ("mqtt://", "host is missing"),
            ("mqtt://broker/topic", "MQTT_TOPIC_PREFIX"),
            ("mqtt://u:1/s3cret@broker", "MQTT_PASSWORD"),
            ("mqtt://u:s3cret/x@broker", "percent-encode characters such as / # ? @"),
            ("mqtt://u:s3cret#x@broker", "MQTT_PASSWORD"),
            ("mqtt://u:s3cret?x@broker", "MQTT_PASSWORD"),
            ("mqtt://u%3As3cret%40broker", "MQTT_PASSWORD"),
            ("mqtt://%ff@broker", "UTF-8"),
        ] {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("s3cret"), "{text}: {error}");
        }
        let url: BrokerUrl = "MQTT://u%3As3cret@broker".parse().unwrap();
        assert_eq!(url.shown(), "mqtt://(hidden)@broker:1883");
        assert!(!format!("{url:?}").contains("s3cret"), "{url:?}");
    }
}
