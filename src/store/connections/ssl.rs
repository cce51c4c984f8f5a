//! The `ssl…` parameters of DATABASE_URL, with the meaning of libpq: the driver supports half of the
//! modes and none of the files. Called by `database_url.rs`. Invariant: no error contains a value except
//! file names.

use std::str::FromStr;

use tokio_postgres::config::Host;

use crate::tls::{Authority, Client, ClientIdentity, ClientOptions, FileError, FilePurpose};

/// The ALPN protocol that PostgreSQL 17 requires for direct negotiation; older versions ignore it.
const PROTOCOL: &str = "postgresql";

/// The TLS requirements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS if the server supports it and the handshake succeeds; otherwise none.
    Prefer,
    /// TLS with any server; with `sslrootcert`, the same as `verify-ca`.
    Require,
    /// TLS, and the certificate is signed by `sslrootcert`.
    VerifyCa,
    /// As `VerifyCa`, and the certificate is for the host.
    VerifyFull,
}

impl SslMode {
    /// The value of `sslmode`.
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
    type Err = SslError;

    fn from_str(text: &str) -> Result<Self, SslError> {
        let modes = [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];
        modes.into_iter().find(|mode| mode.name() == text).ok_or(SslError::Mode)
    }
}

/// Why the TLS parameters are invalid.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SslError {
    /// An unknown mode.
    #[error("sslmode takes disable, prefer, require, verify-ca or verify-full")]
    Mode,
    /// The mode needs a certificate authority.
    #[error("sslmode={0} needs sslrootcert: a file of certificates, or system")]
    NoAuthority(&'static str),
    /// Public authorities sign certificates for any name, so the name must be checked.
    #[error("sslrootcert=system needs sslmode=verify-full: sslmode={0} does not check the name")]
    WeakSystem(&'static str),
    /// A certificate without a key, or the reverse.
    #[error("{0} needs {1}")]
    Alone(&'static str, &'static str),
    /// A file cannot be used.
    #[error("{parameter}: {problem}")]
    File {
        /// The parameter that names the file.
        parameter: &'static str,
        /// The problem.
        problem: FileError,
    },
}

/// TLS with PostgreSQL.
#[derive(Clone, Debug)]
pub struct Ssl {
    /// The TLS requirements.
    pub mode: SslMode,
    pub(in crate::store) client: Option<Client>,
}

impl Ssl {
    pub(super) const fn disabled() -> Self {
        Self { mode: SslMode::Disable, client: None }
    }
}

/// The parameters that the driver does not support.
#[derive(Debug, Default)]
pub(super) struct SslParameters {
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl SslParameters {
    /// Returns whether it is one of these parameters.
    pub(super) fn take(&mut self, name: &str, value: &str) -> bool {
        let parameter = match name {
            "sslmode" => &mut self.mode,
            "sslrootcert" => &mut self.root,
            "sslcert" => &mut self.certificate,
            "sslkey" => &mut self.key,
            _ => return false,
        };
        *parameter = Some(value.to_owned());
        true
    }

    pub(super) fn settle(self, postgres: &tokio_postgres::Config) -> Result<Ssl, SslError> {
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
                Some(ClientIdentity { certificate: certificate.into(), key: key.into() })
            }
            (None, None) => None,
            (Some(_), None) => return Err(SslError::Alone("sslcert", "sslkey")),
            (None, Some(_)) => return Err(SslError::Alone("sslkey", "sslcert")),
        };
        if system && mode != SslMode::VerifyFull {
            return Err(SslError::WeakSystem(mode.name()));
        }
        if matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) && authority.is_none() {
            return Err(SslError::NoAuthority(mode.name()));
        }
        // Unix sockets have no TLS: the mode does not apply.
        let hosts = postgres.get_hosts();
        let local = !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Unix(_)));
        if local || mode == SslMode::Disable {
            return Ok(Ssl::disabled());
        }
        let options = ClientOptions {
            authority,
            check_name: mode == SslMode::VerifyFull,
            identity,
            protocol: Some(PROTOCOL),
        };
        let client = Client::new(options).map_err(|problem| {
            let parameter = match problem.role {
                FilePurpose::Authority => "sslrootcert",
                FilePurpose::Certificate => "sslcert",
                FilePurpose::Key => "sslkey",
            };
            SslError::File { parameter, problem }
        })?;
        Ok(Ssl { mode, client: Some(client) })
    }
}
