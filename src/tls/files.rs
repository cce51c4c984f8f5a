//! Reads certificates and keys from PEM files. Called for each file that a setting names, and again when the file
//! changes. An error names the file and says what is wrong with it.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// What a file is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FilePurpose {
    /// The trusted certificate authorities.
    Authority,
    /// Our certificate and its intermediates.
    Certificate,
    /// Its private key.
    Key,
}

/// Why a file cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{} {problem}", file.display())]
pub struct FileError {
    /// Its use.
    pub role: FilePurpose,
    /// The file's path.
    pub file: PathBuf,
    /// What is wrong with it: the sentence after the file's path.
    pub problem: String,
}

impl FileError {
    pub(super) fn new(role: FilePurpose, file: &Path, problem: impl Into<String>) -> Self {
        Self { role, file: file.to_owned(), problem: problem.into() }
    }
}

/// The trusted authorities: the certificates in a file.
pub(super) fn authorities(file: &Path) -> Result<RootCertStore, FileError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(FilePurpose::Authority, file)? {
        store.add(certificate).map_err(|error| {
            let problem =
                format!("contains a certificate that cannot be used as an authority: {error}");
            FileError::new(FilePurpose::Authority, file, problem)
        })?;
    }
    Ok(store)
}

/// The system's trusted roots.
pub(super) fn system_authorities() -> Result<RootCertStore, FileError> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(found.certs);
    if usable == 0 {
        let why = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
        let problem =
            format!("contain no certificate{why}; install ca-certificates or name a file");
        let system = Path::new("the system's trusted roots");
        return Err(FileError::new(FilePurpose::Authority, system, problem));
    }
    Ok(store)
}

/// All certificates in a file; at least one.
pub(super) fn certificates(
    role: FilePurpose,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(role, file)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(FileError::new(role, file, "contains no certificate in PEM format"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(FileError::new(role, file, format!("is not valid PEM: {error}"))),
    }
}

/// The first private key in a file.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let text = read(FilePurpose::Key, file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let encrypted = text.windows(b"ENCRYPTED".len()).any(|word| word == b"ENCRYPTED");
        let problem = if encrypted {
            "contains an encrypted private key; decrypt it first, for example with openssl pkey"
        } else {
            "contains no private key in PEM format"
        };
        FileError::new(FilePurpose::Key, file, problem)
    })
}

fn read(role: FilePurpose, file: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(file)
        .map_err(|error| FileError::new(role, file, format!("cannot be read: {error}")))
}
