//! Certificates and keys in PEM files. Called when a setting names one, and again when it changes.
//! Promises that an error names the file and says what is wrong with it.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What a file is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It says who may sign the other side's certificate.
    Authority,
    /// Our certificate, and those that lead to its authority.
    Certificate,
    /// Its private key.
    Key,
}

/// Why a file cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{} {problem}", file.display())]
pub struct FileError {
    /// What it is for.
    pub role: Role,
    /// Which one.
    pub file: PathBuf,
    /// What is wrong with it, as the end of a sentence.
    pub problem: String,
}

impl FileError {
    pub(super) fn new(role: Role, file: &Path, problem: impl Into<String>) -> Self {
        Self { role, file: file.to_owned(), problem: problem.into() }
    }
}

/// Whoever signs for the other side: the certificates of a file.
pub(super) fn authorities(file: &Path) -> Result<RootCertStore, FileError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(Role::Authority, file)? {
        store.add(certificate).map_err(|error| {
            let problem = format!("holds a certificate that cannot be an authority's: {error}");
            FileError::new(Role::Authority, file, problem)
        })?;
    }
    Ok(store)
}

/// Whomever this machine trusts.
pub(super) fn system_authorities() -> Result<RootCertStore, FileError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(found.certs);
    if usable == 0 {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        let problem = format!("hold no certificate{why}; install ca-certificates or name a file");
        let system = Path::new("the system's trusted roots");
        return Err(FileError::new(Role::Authority, system, problem));
    }
    Ok(store)
}

/// All certificates of a file, which holds one at least.
pub(super) fn certificates(
    role: Role,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(role, file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(FileError::new(role, file, "holds no certificate in PEM form"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(FileError::new(role, file, format!("is no proper PEM: {error}"))),
    }
}

/// The first private key of a file.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let text = read(Role::Key, file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let encrypted = text.windows(b"ENCRYPTED".len()).any(|word| word == b"ENCRYPTED");
        let problem = if encrypted {
            "holds a key under a passphrase, which nobody is there to type; write it without one"
        } else {
            "holds no private key in PEM form"
        };
        FileError::new(Role::Key, file, problem)
    })
}

fn read(role: Role, file: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(file)
        .map_err(|error| FileError::new(role, file, format!("cannot be read: {error}")))
}
