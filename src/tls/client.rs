//! The client side of TLS, for connections to the broker and to PostgreSQL. Built from the settings, used for
//! each connection.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::files::{
    FileError, FilePurpose, authorities, certificates, private_key, system_authorities,
};
use super::provider;
use super::renewed::Renewed;
use super::verify::AnyName;

/// The trusted certificate authorities.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authority {
    /// The system's trusted roots.
    System,
    /// The certificates in this file.
    File(PathBuf),
}

/// The client certificate, for a server that requests one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientIdentity {
    /// The certificate and its intermediates, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// How a server is verified, and the client certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientOptions {
    /// `None` accepts any certificate: the connection is encrypted, but the server is not authenticated.
    pub authority: Option<Authority>,
    /// Whether the certificate must match the host name.
    pub check_name: bool,
    /// `None`: no client certificate is sent.
    pub identity: Option<ClientIdentity>,
    /// The ALPN protocol to offer, if any.
    pub protocol: Option<&'static str>,
}

/// A client for any number of connections.
#[derive(Clone, Debug)]
pub struct Client(Arc<Renewed<ClientConfig>>);

impl Client {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn new(options: ClientOptions) -> Result<Self, FileError> {
        let mut files = Vec::new();
        if let Some(Authority::File(file)) = &options.authority {
            files.push(file.clone());
        }
        if let Some(ClientIdentity { certificate, key }) = &options.identity {
            files.extend([certificate.clone(), key.clone()]);
        }
        let renewed = Renewed::new(files, move || configuration(&options))?;
        Ok(Self(Arc::new(renewed)))
    }

    /// The configuration for the next handshake.
    pub fn configuration(&self) -> Arc<ClientConfig> {
        self.0.current()
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
        Some(ClientIdentity { certificate, key }) => builder
            .with_client_auth_cert(
                certificates(FilePurpose::Certificate, certificate)?,
                private_key(key)?,
            )
            .map_err(|error| super::server::key_pair_error(certificate, key, &error))?,
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
