//! Parses the two forms of a connection string into names and values. Called by `database_url.rs`, which
//! knows the names. Pure. Invariant: an error contains no text of the string, which could be the password.

use percent_encoding::percent_decode_str;
use url::Url;

use super::ssl::SslError;

/// Why DATABASE_URL cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    /// `docker run --env-file` keeps quotes as part of the value.
    #[error("it is enclosed in quotes; remove them")]
    Quoted,
    /// Another scheme, or none.
    #[error(
        "expected postgres://user:password@host:port/database (or postgresql://), without the name of \
         a driver or another database in front, or name=value pairs separated by spaces"
    )]
    Scheme,
    /// A reserved character outside its place.
    #[error(
        "it is ambiguous: a character such as @ / ? # has a special meaning in a URL; in a user name \
         or password, percent-encode it (@ is %40, / is %2F, ? is %3F, # is %23), or set the password \
         as DATABASE_PASSWORD"
    )]
    Reserved,
    /// A space, or the end of a line.
    #[error("it contains a space or a line end; in a URL, write %20")]
    Whitespace,
    /// Bytes that are not UTF-8.
    #[error("a part of it is not UTF-8 after percent-decoding")]
    Encoding,
    /// Not a name, an address or a directory.
    #[error(
        "a host in it is not a name, an address or a socket directory; in a user name or password, \
         percent-encode @ as %40 and : as %3A, or set the password as DATABASE_PASSWORD"
    )]
    Host,
    /// Without a host.
    #[error("it names no host")]
    NoHost,
    /// Not a number from 1 to 65535.
    #[error(
        "a port in it is not a number from 1 to 65535; in a password, percent-encode @ / ? # (as %40, \
         %2F, %3F, %23), or set the password as DATABASE_PASSWORD"
    )]
    Port,
    /// A value that seems to contain a second parameter.
    #[error(
        "a value in it contains another parameter; parameters are separated by spaces, or in a URL by ? \
         and &"
    )]
    Merged,
    /// A parameter without `=`, or a quote that is not closed.
    #[error(
        "its parameter {0} is malformed; expected name=value, or name='value' if it contains spaces"
    )]
    Malformed(usize),
    /// An unknown name, and the known name that is most similar.
    #[error(
        "a parameter in it is not known{}; a password with spaces, ? or & must be in quotes, in a URL \
         percent-encoded, or set as DATABASE_PASSWORD",
        suggestion(*.0)
    )]
    Unknown(Option<&'static str>),
    /// A kind of server that cannot be written to.
    #[error(
        "target_session_attrs takes any, read-write or primary: the service writes, which read-only, \
         standby and prefer-standby do not allow"
    )]
    Session,
    /// A parameter with an invalid value.
    #[error("its parameter {0} has an invalid value")]
    Value(&'static str),
    /// A parameter of TLS.
    #[error(transparent)]
    Ssl(#[from] SslError),
}

fn suggestion(known: Option<&str>) -> String {
    known.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
}

/// What follows `postgres://`, taken apart as RFC 3986 (section 3) says, which is where a character
/// of a password that is not encoded ends up in the wrong part.
pub(super) fn pairs_of_url(rest: &str) -> Result<Vec<(String, String)>, UrlError> {
    if rest.contains(|it: char| it.is_whitespace() || it.is_control()) {
        return Err(UrlError::Whitespace);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let database = path.strip_prefix('/').unwrap_or_default();
    if authority.matches('@').count() > 1
        || authority.contains('#')
        || rest.contains(['@', '#'])
        || database.contains('/')
    {
        return Err(UrlError::Reserved);
    }
    let mut pairs = Vec::new();
    let mut add = |name: &str, value: &str| -> Result<(), UrlError> {
        let value = decoded(value)?;
        // For example if the separators of parameters were percent-encoded, too.
        if !["password", "options"].contains(&name) && value.contains(['?', '&', '=', ';']) {
            return Err(UrlError::Merged);
        }
        pairs.push((name.to_owned(), value));
        Ok(())
    };
    let (credentials, hosts) = authority.split_once('@').unwrap_or(("", authority));
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    if decoded(user)?.contains(':') || decoded(database)?.contains(['@', ':', '/']) {
        return Err(UrlError::Reserved);
    }
    add("user", user)?;
    add("password", password)?;
    if !hosts.is_empty() {
        let (hosts, ports) = hosts_and_ports(hosts)?;
        add("host", &hosts.join(","))?;
        add("port", &ports.join(","))?;
    }
    add("dbname", database)?;
    for parameter in query.split('&').filter(|it| !it.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        add(name, value)?;
    }
    Ok(pairs)
}

/// One or more `host:port`, separated by commas.
fn hosts_and_ports(authority: &str) -> Result<(Vec<String>, Vec<String>), UrlError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for chunk in authority.split(',') {
        if chunk.ends_with(':') {
            return Err(UrlError::Port);
        }
        let url = Url::parse(&format!("postgres://{chunk}")).map_err(|error| match error {
            url::ParseError::InvalidPort => UrlError::Port,
            _ => UrlError::Host,
        })?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(UrlError::Host)?;
        hosts.push(host.trim_start_matches('[').trim_end_matches(']').to_owned());
        ports.push(url.port().unwrap_or(5432).to_string());
    }
    Ok((hosts, ports))
}

pub(super) fn is_host(host: &str) -> bool {
    let is_plain = |it: char| it.is_alphanumeric() || matches!(it, '.' | '-' | '_' | '/' | ':');
    let is_directory = || host.starts_with('/');
    let is_ipv6 = || host.parse::<std::net::Ipv6Addr>().is_ok();
    let is_name = || url::Host::parse(host).is_ok();
    host.chars().all(is_plain) && (is_directory() || is_ipv6() || is_name())
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| UrlError::Encoding)?;
    Ok(decoded.into_owned())
}

/// The pairs of a connection string, unquoted.
pub(super) fn pairs_of_text(text: &str) -> Result<Vec<(String, String)>, UrlError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let malformed = || UrlError::Malformed(pairs.len() + 1);
        let (name, after) = rest.split_once('=').ok_or_else(malformed)?;
        let (value, after) = value(after.trim_start()).ok_or_else(malformed)?;
        pairs.push((name.trim().to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// A pair of a connection string.
pub(super) fn quoted(name: &str, value: &str) -> String {
    format!("{name}='{}' ", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The value at the beginning of the text, and the rest.
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
