//! `sslmode` and its neighbours in DATABASE_URL, as PostgreSQL's own clients (libpq) mean them. The
//! driver knows half of the modes and none of the files, so they are taken out of the text here and
//! the rest is left to it. Called by the settings. No error here holds a value, which could be a
//! password in the wrong place.

use std::str::FromStr;

use tokio_postgres::config::Host;

use crate::tls::{Authority, Client, ClientOptions, FileError, Identity};

/// PostgreSQL 17 wants it named where the negotiation is direct; older ones do not look.
const PROTOCOL: &str = "postgresql";

/// How much of TLS there must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SslMode {
    /// None.
    Disable,
    /// Where the server has it and it comes about; else none.
    Prefer,
    /// Encrypted, to whomever; where `sslrootcert` is given, the same as `verify-ca`.
    Require,
    /// And the certificate is signed by `sslrootcert`.
    VerifyCa,
    /// And it is for the host that we connect to.
    VerifyFull,
}

impl SslMode {
    /// As `sslmode` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl FromStr for SslMode {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let modes = [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];
        modes.into_iter().find(|mode| mode.name() == text).ok_or(UrlError::Mode)
    }
}

/// Why DATABASE_URL cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    /// The driver's own opinion.
    #[error("{0}")]
    Driver(String),
    /// Another mode.
    #[error("sslmode takes disable, prefer, require, verify-ca or verify-full")]
    Mode,
    /// Nobody to be checked by.
    #[error("sslmode={0} needs sslrootcert: a file of certificates, or system")]
    NoAuthority(&'static str),
    /// The whole world signs for any name.
    #[error("sslrootcert=system goes with sslmode=verify-full only: sslmode={0} checks no name")]
    WeakSystem(&'static str),
    /// One without the other.
    #[error("{0} is given without {1}")]
    Alone(&'static str, &'static str),
    /// A quote, a backslash or a `%` that leads nowhere.
    #[error("it is malformed near {0}")]
    Malformed(String),
    /// A file.
    #[error("{parameter}: {problem}")]
    File {
        /// Which of ours names it.
        parameter: &'static str,
        /// What is wrong with it.
        problem: FileError,
    },
}

/// TLS on the way to PostgreSQL.
#[derive(Clone, Debug)]
pub struct Ssl {
    /// How much of it.
    pub mode: SslMode,
    pub(super) client: Option<Client>,
}

/// Reads a connection string, of either form: the driver's part of it, and TLS.
///
/// # Errors
/// When it is malformed, contradicts itself, or names a file that cannot be used.
pub fn read_url(text: &str) -> Result<(tokio_postgres::Config, Ssl), UrlError> {
    let mut parameters = Parameters::default();
    let rest = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        parameters.take_from_url(text)?
    } else {
        parameters.take_from_pairs(text)?
    };
    let mut postgres = tokio_postgres::Config::from_str(&rest).map_err(|error| {
        let source = std::error::Error::source(&error);
        UrlError::Driver(source.map_or_else(|| error.to_string(), ToString::to_string))
    })?;
    let ssl = parameters.settle(&postgres)?;
    postgres.ssl_mode(match ssl.mode {
        SslMode::Disable => tokio_postgres::config::SslMode::Disable,
        SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            tokio_postgres::config::SslMode::Require
        }
    });
    Ok((postgres, ssl))
}

/// What may be shown of a server: all but the password.
#[must_use]
pub fn describe(postgres: &tokio_postgres::Config, ssl: &Ssl) -> String {
    let host = |host: &Host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    };
    let hosts: Vec<String> = postgres.get_hosts().iter().map(host).collect();
    let ports: Vec<String> = postgres.get_ports().iter().map(ToString::to_string).collect();
    let mut parts = vec![format!("host={}", hosts.join(","))];
    if !ports.is_empty() {
        parts.push(format!("port={}", ports.join(",")));
    }
    parts.extend(postgres.get_dbname().map(|name| format!("dbname={name}")));
    parts.extend(postgres.get_user().map(|name| format!("user={name}")));
    parts.push(format!("sslmode={}", ssl.mode.name()));
    parts.join(" ")
}

/// The same connection string without the password, for a command line, which all can read.
///
/// # Errors
/// When it is malformed.
pub fn without_password(text: &str) -> Result<String, UrlError> {
    let Some((scheme, rest)) = text.split_once("://") else {
        let mut kept = String::new();
        for (name, value) in pairs(text)?.into_iter().filter(|(name, _)| name != "password") {
            kept.push_str(&pair(&name, &value));
        }
        return Ok(kept);
    };
    let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
    let base = match base.split_once('@') {
        Some((user, place)) => format!("{}@{place}", user.split(':').next().unwrap_or_default()),
        None => base.to_owned(),
    };
    let kept: Vec<&str> =
        query.split('&').filter(|it| !it.is_empty() && !it.starts_with("password=")).collect();
    let separator = if kept.is_empty() { "" } else { "?" };
    Ok(format!("{scheme}://{base}{separator}{}", kept.join("&")))
}

/// A server that is nowhere, for one who wants to read on after a URL that cannot be used.
#[must_use]
pub fn nowhere() -> (tokio_postgres::Config, Ssl) {
    (tokio_postgres::Config::new(), Ssl { mode: SslMode::Disable, client: None })
}

/// What the driver does not know.
#[derive(Debug, Default)]
struct Parameters {
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Parameters {
    /// Whether it was one of ours. The last of two equal names counts, and an empty value is none.
    fn take(&mut self, name: &str, value: String) -> bool {
        let place = match name {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.root,
            "sslcert" => &mut self.certificate,
            "sslkey" => &mut self.key,
            _ => return false,
        };
        *place = Some(value).filter(|value| !value.is_empty());
        true
    }

    /// `postgres://…?name=value&…`; returns what is left.
    fn take_from_url(&mut self, text: &str) -> Result<String, UrlError> {
        let Some((base, query)) = text.split_once('?') else { return Ok(text.to_owned()) };
        let mut kept = Vec::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_encoding::percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| UrlError::Malformed(name.to_owned()))?;
            if !self.take(name, value.into_owned()) {
                kept.push(pair);
            }
        }
        let separator = if kept.is_empty() { "" } else { "?" };
        Ok(format!("{base}{separator}{}", kept.join("&")))
    }

    /// `name=value name='another value'`; returns what is left.
    fn take_from_pairs(&mut self, text: &str) -> Result<String, UrlError> {
        let mut kept = String::new();
        for (name, value) in pairs(text)? {
            if !self.take(&name, value.clone()) {
                kept.push_str(&pair(&name, &value));
            }
        }
        Ok(kept)
    }

    fn settle(self, postgres: &tokio_postgres::Config) -> Result<Ssl, UrlError> {
        let authority = self.root.map(|root| match root.as_str() {
            "system" => Authority::System,
            _ => Authority::File(root.into()),
        });
        let system = authority == Some(Authority::System);
        let mode = match &self.mode {
            Some(mode) => mode.parse()?,
            None if system => SslMode::VerifyFull,
            None => SslMode::Prefer,
        };
        let identity = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => {
                Some(Identity { certificate: certificate.into(), key: key.into() })
            }
            (None, None) => None,
            (Some(_), None) => return Err(UrlError::Alone("sslcert", "sslkey")),
            (None, Some(_)) => return Err(UrlError::Alone("sslkey", "sslcert")),
        };
        if system && mode != SslMode::VerifyFull {
            return Err(UrlError::WeakSystem(mode.name()));
        }
        if matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) && authority.is_none() {
            return Err(UrlError::NoAuthority(mode.name()));
        }
        // A socket of this machine needs no TLS, and has none: there the mode does not count.
        let hosts = postgres.get_hosts();
        let local = !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Unix(_)));
        if local || mode == SslMode::Disable {
            return Ok(Ssl { mode: SslMode::Disable, client: None });
        }
        let options = ClientOptions {
            authority,
            check_name: mode == SslMode::VerifyFull,
            identity,
            protocol: Some(PROTOCOL),
        };
        let client = Client::new(options).map_err(|problem| {
            let parameter = match problem.role {
                crate::tls::Role::Authority => "sslrootcert",
                crate::tls::Role::Certificate => "sslcert",
                crate::tls::Role::Key => "sslkey",
            };
            UrlError::File { parameter, problem }
        })?;
        Ok(Ssl { mode, client: Some(client) })
    }
}

/// The pairs of a connection string, unquoted.
fn pairs(text: &str) -> Result<Vec<(String, String)>, UrlError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let place = || UrlError::Malformed(format!("its parameter {}", pairs.len() + 1));
        let (name, after) = rest.split_once('=').ok_or_else(place)?;
        let (value, after) = value(after.trim_start()).ok_or_else(place)?;
        pairs.push((name.trim().to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// A pair as it stands in a connection string.
fn pair(name: &str, value: &str) -> String {
    format!("{name}='{}' ", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The value at the beginning of the text, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next()?.1),
            '\'' if quoted => return Some((value, &text[at + 1..])),
            space if !quoted && space.is_whitespace() => return Some((value, &text[at..])),
            other => value.push(other),
        }
    }
    (!quoted).then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(text: &str) -> Result<SslMode, UrlError> {
        read_url(text).map(|(_, ssl)| ssl.mode)
    }

    #[test]
    fn the_mode_is_read_from_either_form() {
        assert_eq!(mode("postgres://u:p@h/d"), Ok(SslMode::Prefer));
        assert_eq!(mode("postgresql://h?sslmode=disable&connect_timeout=3"), Ok(SslMode::Disable));
        assert_eq!(mode("host=h sslmode='require' user=u"), Ok(SslMode::Require));
        assert_eq!(mode("host=/run/postgresql sslmode=require"), Ok(SslMode::Disable));
        assert_eq!(mode("postgres://h?sslmode=require&sslmode="), Ok(SslMode::Prefer));
    }

    #[test]
    fn the_rest_is_the_driver_s() {
        let (postgres, _) =
            read_url("postgres://u:p%40@a:1,b:2/d?sslmode=require&application_name=x").unwrap();
        assert_eq!(postgres.get_password(), Some(&b"p@"[..]));
        assert_eq!(
            (postgres.get_ports(), postgres.get_application_name()),
            (&[1, 2][..], Some("x"))
        );
        assert_eq!(postgres.get_ssl_mode(), tokio_postgres::config::SslMode::Require);
        let (postgres, _) =
            read_url(r"host = h password='it\'s \\ here' sslmode=disable dbname=a\ b").unwrap();
        assert_eq!(postgres.get_password(), Some(&br"it's \ here"[..]));
        assert_eq!(postgres.get_dbname(), Some("a b"));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for (text, error) in [
            ("postgres://h?sslmode=allow", UrlError::Mode),
            ("postgres://h?sslmode=verify-full", UrlError::NoAuthority("verify-full")),
            ("host=h sslmode=verify-ca", UrlError::NoAuthority("verify-ca")),
            ("host=h sslmode=require sslrootcert=system", UrlError::WeakSystem("require")),
            ("host=h sslcert=/a", UrlError::Alone("sslcert", "sslkey")),
            ("host=h password='s3cret", UrlError::Malformed("its parameter 2".into())),
            ("h", UrlError::Malformed("its parameter 1".into())),
        ] {
            assert_eq!(mode(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_command_line_gets_no_password() {
        for (text, expected) in [
            (
                "postgres://u:p%40@h:1,g:2/d?sslmode=require",
                "postgres://u@h:1,g:2/d?sslmode=require",
            ),
            ("postgres://h/d?password=p", "postgres://h/d"),
            (r"host=h password='a b' user=o\'x", r"host='h' user='o\'x' "),
        ] {
            assert_eq!(without_password(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = mode("postgres://h?sslmode=require&sslrootcert=/no/such.pem").unwrap_err();
        let said = error.to_string();
        assert!(said.starts_with("sslrootcert: /no/such.pem cannot be read: No such"), "{said}");
    }
}
