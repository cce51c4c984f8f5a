//! Where the broker is, who we are there, and how it is trusted: `mqtt://user:password@host:port`,
//! or `mqtts://` for TLS.

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
    /// 1883 where the URL names none, 8883 with TLS.
    pub port: u16,
    /// Whether it is `mqtts://`.
    pub secure: bool,
    /// None connects anonymously.
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

/// Why a broker's URL cannot be used. Holds no text of it, which could be the password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BrokerUrlError {
    /// `docker run --env-file` keeps quotes as part of the value.
    #[error("it stands in quotes; remove them")]
    Quoted,
    /// No URL at all, or a character that ends the part in which it stands.
    #[error(
        "it cannot be taken apart ({0}); it takes mqtt://user:password@host:port. In a user name or \
         password, percent-encode characters such as / # ? @ (as %2F, %23, %3F, %40), or set the \
         password as MQTT_PASSWORD"
    )]
    Malformed(&'static str),
    /// Another scheme.
    #[error("it takes mqtt://host:port or mqtts://host:port")]
    Scheme,
    /// MQTT inside of HTTP.
    #[error(
        "MQTT over WebSockets (ws://, wss://) is not supported; it takes the broker's TCP listener, \
         mqtt://host:port or mqtts://host:port"
    )]
    WebSockets,
    /// No host.
    #[error("it names no host; it takes mqtt://user:password@host:port")]
    NoHost,
    /// A path or the like, which would be ignored.
    #[error(
        "nothing may follow the port; the topic prefix is MQTT_TOPIC_PREFIX. A password with / # or ? \
         in it is percent-encoded (as %2F, %23, %3F) or set as MQTT_PASSWORD"
    )]
    Trailing,
    /// A `%` that is no escape.
    #[error("the user name or password is no UTF-8 text after percent-decoding")]
    Encoding,
}

impl BrokerUrl {
    /// The password, to be sent and never printed.
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.as_ref().map(ExposeSecret::expose_secret)
    }

    /// The same with this password.
    #[must_use]
    pub fn with_password(self, password: SecretString) -> Self {
        Self { password: Some(password), ..self }
    }

    /// The same, trusted in this way; of use with `mqtts://`.
    #[must_use]
    pub fn with_tls(self, tls: tls::Client) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// How it is trusted.
    pub(super) const fn tls(&self) -> Option<&tls::Client> {
        self.tls.as_ref()
    }

    /// The URL without its password, for people. A user name that could be more than a name, as
    /// when the colon behind it was percent-encoded, is hidden, too.
    #[must_use]
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
    #[must_use]
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
                url::ParseError::InvalidPort => "its port is no number from 1 to 65535",
                _ => "its host is no name or address",
            })
        })?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(BrokerUrlError::NoHost)?;
        if host.contains('%') || url::Host::parse(host).is_err() {
            return Err(BrokerUrlError::Malformed("its host is no name or address"));
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
            // An IPv6 address stands in brackets in a URL, and without them for the resolver.
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
            ("mqtt://", "no host"),
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
