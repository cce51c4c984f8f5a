//! Where the broker is, who we are there, and how it is trusted: `mqtt://user:password@host:port`,
//! or `mqtts://` for TLS.

use std::str::FromStr;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::tls;

const DEFAULT_PORT: u16 = 1883;
const DEFAULT_TLS_PORT: u16 = 8883;

/// A parsed `MQTT_URL`. Its `Debug` hides the password.
#[derive(Clone, Debug)]
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

/// Why a broker's URL cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BrokerUrlError {
    /// No URL at all.
    #[error("it is no URL ({0}); it takes mqtt://user:password@host:port")]
    Malformed(url::ParseError),
    /// Another scheme.
    #[error("it takes mqtt://host:port or mqtts://host:port, not {0}://")]
    Scheme(String),
    /// No host.
    #[error("it names no host; it takes mqtt://user:password@host:port")]
    NoHost,
    /// A path or the like, which would be ignored.
    #[error("nothing may follow the port; the topic prefix is MQTT_TOPIC_PREFIX")]
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

    /// The URL without its password, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        let scheme = if self.secure { "mqtts" } else { "mqtt" };
        let user = self.username.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
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
        let url = Url::parse(text).map_err(BrokerUrlError::Malformed)?;
        let secure = match url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            other => return Err(BrokerUrlError::Scheme(other.to_owned())),
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(BrokerUrlError::NoHost)?;
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
            ("broker:1883", "not broker://"),
            ("https://broker", "not https://"),
            ("mqtt://", "no host"),
            ("mqtt://broker/topic", "MQTT_TOPIC_PREFIX"),
            ("localhost", "no URL"),
            ("mqtt://%ff@broker", "UTF-8"),
        ] {
            let error = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
