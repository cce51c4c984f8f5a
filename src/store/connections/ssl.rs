//! `sslmode` and its neighbours in DATABASE_URL, as PostgreSQL's own clients (libpq) mean them: the
//! driver knows half of the modes and none of the files. Called by `database_url.rs`. Invariant: no
//! error here holds a value but the name of a file.

use std::str::FromStr;

use tokio_postgres::config::Host;

use crate::tls::{Authority, Client, ClientOptions, FileError, Identity, Role};

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
    type Err = SslError;

    fn from_str(text: &str) -> Result<Self, SslError> {
        let modes = [Self::Disable, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];
        modes.into_iter().find(|mode| mode.name() == text).ok_or(SslError::Mode)
    }
}

/// Why the parameters of TLS cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SslError {
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
    /// A file.
    #[error("{parameter}: {problem}")]
    File {
        /// Which parameter names it.
        parameter: &'static str,
        /// What is wrong with it.
        problem: FileError,
    },
}

/// TLS with PostgreSQL.
#[derive(Clone, Debug)]
pub struct Ssl {
    /// How much of it.
    pub mode: SslMode,
    pub(in crate::store) client: Option<Client>,
}

impl Ssl {
    /// No TLS.
    pub(super) const fn disabled() -> Self {
        Self { mode: SslMode::Disable, client: None }
    }
}

/// The parameters that the driver does not know.
#[derive(Debug, Default)]
pub(super) struct SslParameters {
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl SslParameters {
    /// Whether it was one of these.
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
                Some(Identity { certificate: certificate.into(), key: key.into() })
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
        // A socket of this machine needs no TLS, and has none: there the mode does not count.
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
                Role::Authority => "sslrootcert",
                Role::Certificate => "sslcert",
                Role::Key => "sslkey",
            };
            SslError::File { parameter, problem }
        })?;
        Ok(Ssl { mode, client: Some(client) })
    }
}
