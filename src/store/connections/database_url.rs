//! Parses DATABASE_URL: a URL, or the `name=value` pairs of libpq. Called by the settings. Invariant: an
//! error contains no text of the URL, which could be the password, and [`describe`] shows only parts
//! that were parsed strictly enough not to contain it.

use std::str::FromStr;

use tokio_postgres::config::Host;

use super::connection_string::{UrlError, is_host, pairs_of_text, pairs_of_url, quoted};
use super::ssl::{Ssl, SslMode, SslParameters};

/// The parameters of the driver, and those of TLS.
const NAMES: &[&str] = &[
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// A name with a higher similarity (of 1) is a misspelling.
const MIN_SIMILARITY: f64 = 0.7;

/// Parses a connection string of either form, into the driver's settings and those of TLS.
pub fn read_url(text: &str) -> Result<(tokio_postgres::Config, Ssl), UrlError> {
    let mut ssl = SslParameters::default();
    let mut driver_text = String::new();
    for (name, value) in parameters(text)? {
        if !ssl.take(name, &value) {
            let value = match (name, value.as_str()) {
                ("target_session_attrs", "any") => value,
                // The driver does not know `primary`. We need a primary that accepts writes.
                ("target_session_attrs", "read-write" | "primary") => "read-write".to_owned(),
                ("target_session_attrs", _) => return Err(UrlError::Session),
                _ => value,
            };
            let pair = quoted(name, &value);
            // Parsed separately, to find out which parameter the driver refuses.
            tokio_postgres::Config::from_str(&pair).map_err(|_| UrlError::Value(name))?;
            driver_text.push_str(&pair);
        }
    }
    let mut postgres =
        tokio_postgres::Config::from_str(&driver_text).expect("the driver has accepted each pair");
    if postgres.get_hosts().is_empty() && postgres.get_hostaddrs().is_empty() {
        return Err(UrlError::NoHost);
    }
    let ssl = ssl.settle(&postgres)?;
    postgres.ssl_mode(match ssl.mode {
        SslMode::Disable => tokio_postgres::config::SslMode::Disable,
        SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            tokio_postgres::config::SslMode::Require
        }
    });
    Ok((postgres, ssl))
}

/// A server's settings without the password.
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

/// The connection string as pairs without the password, for a command line, which every user of the
/// machine can read.
pub fn without_password(text: &str) -> Result<String, UrlError> {
    let kept = parameters(text)?.into_iter().filter(|(name, _)| *name != "password");
    Ok(kept.map(|(name, value)| quoted(name, &value)).collect())
}

/// A placeholder, to continue reading the settings after an invalid URL.
pub fn placeholder() -> (tokio_postgres::Config, Ssl) {
    (tokio_postgres::Config::new(), Ssl::disabled())
}

/// The parameters of either form. As in libpq, the last of two equal names counts, and an empty value
/// counts as missing.
fn parameters(text: &str) -> Result<Vec<(&'static str, String)>, UrlError> {
    let is_quote = |character: char| matches!(character, '"' | '\'' | '`');
    let is_url = |scheme: &str| !scheme.contains(|it: char| it == '=' || it.is_whitespace());
    let url = text.split_once("://").filter(|(scheme, _)| is_url(scheme));
    if text.starts_with(is_quote) || url.is_some() && text.ends_with(is_quote) {
        return Err(UrlError::Quoted);
    }
    let pairs = match url {
        Some((scheme, rest)) if ["postgres", "postgresql"].contains(&&*scheme.to_lowercase()) => {
            pairs_of_url(rest)?
        }
        Some(_) => return Err(UrlError::Scheme),
        None if text.split('=').next().is_some_and(|it| it.contains(['/', '@', ':'])) => {
            return Err(UrlError::Scheme);
        }
        None => pairs_of_text(text)?,
    };
    let mut known: Vec<(&str, String)> = Vec::with_capacity(pairs.len());
    for (name, value) in pairs {
        let unknown = || UrlError::Unknown(most_similar(&name));
        let name = *NAMES.iter().find(|known| **known == name).ok_or_else(unknown)?;
        let merged = value.to_lowercase().replace(' ', "");
        if name != "password" && ["password=", "pwd="].iter().any(|it| merged.contains(it)) {
            return Err(UrlError::Merged);
        }
        if name == "host" && !value.split(',').all(is_host) {
            return Err(UrlError::Host);
        }
        known.retain(|(earlier, _)| *earlier != name);
        known.push((name, value));
    }
    known.retain(|(_, value)| !value.is_empty());
    Ok(known)
}

fn most_similar(name: &str) -> Option<&'static str> {
    let similarity = |known: &str| strsim::normalized_levenshtein(&name.to_lowercase(), known);
    NAMES
        .iter()
        .copied()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
        .filter(|known| similarity(known) > MIN_SIMILARITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SslError;

    fn mode(text: &str) -> Result<SslMode, UrlError> {
        read_url(text).map(|(_, ssl)| ssl.mode)
    }

    #[test]
    fn the_mode_is_read_from_either_form() {
        assert_eq!(mode("postgres://u:p@h/d"), Ok(SslMode::Prefer));
        assert_eq!(mode("POSTGRESQL://h?sslmode=disable&connect_timeout=3"), Ok(SslMode::Disable));
        assert_eq!(mode("host=h sslmode='require' user=u"), Ok(SslMode::Require));
        assert_eq!(mode("host=/run/postgresql sslmode=require"), Ok(SslMode::Disable));
        assert_eq!(mode("postgres://h?sslmode=require&sslmode="), Ok(SslMode::Prefer));
    }

    #[test]
    fn other_parameters_are_passed_to_the_driver() {
        let (postgres, _) = read_url(
            "postgres://u%40v:p%40%2F@a:1,[::1]:2,c/d?sslmode=require&application_name=x%20y",
        )
        .unwrap();
        assert_eq!(postgres.get_password(), Some(&b"p@/"[..]));
        assert_eq!(postgres.get_user(), Some("u@v"));
        assert_eq!(postgres.get_ports(), [1, 2, 5432]);
        assert_eq!(postgres.get_application_name(), Some("x y"));
        assert_eq!(postgres.get_hosts()[1], Host::Tcp("::1".into()));
        assert_eq!(postgres.get_ssl_mode(), tokio_postgres::config::SslMode::Require);
        for socket in ["postgres://%2Frun%2Fpg/d", "postgres:///d?host=/run/pg"] {
            let (postgres, _) = read_url(socket).unwrap();
            assert_eq!(postgres.get_hosts(), [Host::Unix("/run/pg".into())]);
        }
        let (postgres, _) =
            read_url(r"host = h password='it\'s \\ here' sslmode=disable dbname=a\ b").unwrap();
        assert_eq!(postgres.get_password(), Some(&br"it's \ here"[..]));
        assert_eq!(postgres.get_dbname(), Some("a b"));
    }

    #[test]
    fn errors_are_described_in_our_words() {
        let unknown = UrlError::Unknown;
        for (text, error) in [
            ("postgres://h?sslmode=allow", UrlError::Ssl(SslError::Mode)),
            (
                "postgres://h?sslmode=verify-full",
                UrlError::Ssl(SslError::NoAuthority("verify-full")),
            ),
            ("host=h sslmode=verify-ca", UrlError::Ssl(SslError::NoAuthority("verify-ca"))),
            (
                "host=h sslmode=require sslrootcert=system",
                UrlError::Ssl(SslError::WeakSystem("require")),
            ),
            ("host=h sslcert=/a", UrlError::Ssl(SslError::Alone("sslcert", "sslkey"))),
            ("host=h password='s3cret", UrlError::Malformed(2)),
            ("h", UrlError::Malformed(1)),
            ("user=u dbname=d", UrlError::NoHost),
            ("\"postgres://u:s3cret@h/d\"", UrlError::Quoted),
            ("postgres://u:s3cret@h/d'", UrlError::Quoted),
            ("postgresql+asyncpg://u:s3cret@h/d", UrlError::Scheme),
            ("mysql://u:s3cret@h/d", UrlError::Scheme),
            ("u:s3cret@h/d?sslmode=require", UrlError::Scheme),
            ("postgres:/u:s3cret@h/d", UrlError::Scheme),
            ("postgres://u:a@s3cret@h/d", UrlError::Reserved),
            ("postgres://u:1?s3cret@h/d", UrlError::Reserved),
            ("postgres://u:1/s3cret@h/d", UrlError::Reserved),
            ("postgres://u:1#s3cret@h/d", UrlError::Reserved),
            ("postgres://u%3As3cret%40h/d", UrlError::Host),
            ("postgres://u%3As3cret@h/d", UrlError::Reserved),
            ("postgres://u:s3 cret@h/d", UrlError::Whitespace),
            ("postgres://u:s3cret", UrlError::Port),
            ("postgres://h:99999/d", UrlError::Port),
            ("postgres://u:%ff@h/d", UrlError::Encoding),
            ("postgres://h/d%3Fpassword=s3cret", UrlError::Merged),
            ("host=h;user=u;password=s3cret", UrlError::Merged),
            ("host=h;user=s3cret", UrlError::Host),
            ("host=h password=my s3cret user=u", unknown(None)),
            ("postgres://h?pasword=s3cret", unknown(Some("password"))),
            ("postgres://h?connect_timeout=s3cret", UrlError::Value("connect_timeout")),
            ("postgres://h,g?target_session_attrs=prefer-standby", UrlError::Session),
            ("host=h target_session_attrs=read-only", UrlError::Session),
        ] {
            assert_eq!(mode(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_primary_is_one_that_writes() {
        let (postgres, _) = read_url("postgres://a,b?target_session_attrs=primary").unwrap();
        let attributes = postgres.get_target_session_attrs();
        assert_eq!(attributes, tokio_postgres::config::TargetSessionAttrs::ReadWrite);
    }

    #[test]
    fn a_command_line_gets_no_password() {
        for (text, expected) in [
            (
                "postgres://u:p%40@h:1,g:2/d?sslmode=require",
                "user='u' host='h,g' port='1,2' dbname='d' sslmode='require' ",
            ),
            ("postgres://h/d?password=p", "host='h' port='5432' dbname='d' "),
            (r"host=h password='a b' user=o\'x", r"host='h' user='o\'x' "),
        ] {
            assert_eq!(without_password(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_file_that_does_not_exist_is_named() {
        let error = mode("postgres://h?sslmode=require&sslrootcert=/no/such.pem").unwrap_err();
        let sentence = error.to_string();
        let expected = "sslrootcert: /no/such.pem cannot be read: No such";
        assert!(sentence.starts_with(expected), "{sentence}");
    }
}
