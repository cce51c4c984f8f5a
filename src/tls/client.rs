//! Our side of a handshake, for the connections that we make. Made by the settings, used at each
//! connect.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::files::{FileError, Role, authorities, certificates, private_key, system_authorities};
use super::provider;
use super::renewed::Renewed;
use super::verify::AnyName;

/// Who may sign the other side's certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authority {
    /// Whomever this machine trusts.
    System,
    /// The certificates of this file.
    File(PathBuf),
}

/// Our own certificate, for a server that asks for one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The certificate, and those that lead to its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What is asked of the other side, and what we show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientOptions {
    /// None takes any certificate: the connection is encrypted, to whomever.
    pub authority: Option<Authority>,
    /// Whether the certificate must be for the name that we connected to.
    pub check_name: bool,
    /// None shows nothing.
    pub identity: Option<Identity>,
    /// The protocol to name in the handshake, where it has a name there.
    pub protocol: Option<&'static str>,
}

/// A client, for as many connections as are made.
#[derive(Clone, Debug)]
pub struct Client(Arc<Renewed<Arc<ClientConfig>>>);

impl Client {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn new(options: ClientOptions) -> Result<Self, FileError> {
        let mut files = Vec::new();
        if let Some(Authority::File(file)) = &options.authority {
            files.push(file.clone());
        }
        if let Some(Identity { certificate, key }) = &options.identity {
            files.extend([certificate.clone(), key.clone()]);
        }
        let renewed = Renewed::new(files, move || configuration(&options).map(Arc::new))?;
        Ok(Self(Arc::new(renewed)))
    }

    /// For the next handshake.
    #[must_use]
    pub fn configuration(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.current())
    }
}

fn configuration(options: &ClientOptions) -> Result<ClientConfig, FileError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has the suites of TLS 1.2 and 1.3");
    let builder = match &options.authority {
        Some(authority) if options.check_name => builder.with_root_certificates(roots(authority)?),
        authority => {
            let roots = authority.as_ref().map(roots).transpose()?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName::new(roots)))
        }
    };
    let mut configuration = match &options.identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => builder
            .with_client_auth_cert(certificates(Role::Certificate, certificate)?, private_key(key)?)
            .map_err(|error| super::server::unfit(certificate, key, &error))?,
    };
    configuration.alpn_protocols = options.protocol.iter().map(|name| (*name).into()).collect();
    Ok(configuration)
}

fn roots(authority: &Authority) -> Result<RootCertStore, FileError> {
    match authority {
        Authority::System => system_authorities(),
        Authority::File(file) => authorities(file),
    }
}
