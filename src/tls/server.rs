//! The server side of TLS, for HTTP. Built from the settings, called by the HTTP server at each handshake. A
//! renewed certificate is used for new connections; existing ones are not affected.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, ServerConfig};

use super::files::{FileError, FilePurpose, certificates, private_key};
use super::provider;
use super::renewed::Renewed;

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Server(Arc<Renewed<CertifiedKey>>);

impl Server {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be used, or the key does not belong to the certificate.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Result<Self, FileError> {
        let files = vec![certificate.clone(), key.clone()];
        let load = move || certified_key(&certificate, &key);
        Ok(Self(Arc::new(Renewed::new(files, load)?)))
    }

    /// The configuration for the next handshake.
    pub fn configuration(&self) -> ServerConfig {
        ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("ring has the suites of TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(self.0.clone())
    }
}

impl ResolvesServerCert for Renewed<CertifiedKey> {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

fn certified_key(certificate: &Path, key: &Path) -> Result<CertifiedKey, FileError> {
    let chain = certificates(FilePurpose::Certificate, certificate)?;
    CertifiedKey::from_der(chain, private_key(key)?, &provider())
        .map_err(|error| key_pair_error(certificate, key, &error))
}

/// Why a certificate and a key cannot be used together.
pub(super) fn key_pair_error(certificate: &Path, key: &Path, error: &Error) -> FileError {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let problem = format!("does not belong to the certificate {}", certificate.display());
            FileError::new(FilePurpose::Key, key, problem)
        }
        Error::InvalidCertificate(_) => {
            let problem = format!("contains a certificate that cannot be used: {error}");
            FileError::new(FilePurpose::Certificate, certificate, problem)
        }
        _ => FileError::new(
            FilePurpose::Key,
            key,
            format!("contains a key that cannot be used: {error}"),
        ),
    }
}
