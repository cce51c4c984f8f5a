//! Authorities and certificates for one test. Called by the tests of TLS. Guarantees that no other program trusts these
//! authorities, and that the files are deleted after the test.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::ports::free_port;

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The certificate of a test server, and the client certificates that it requires.
#[derive(Clone)]
pub(crate) struct ServerTls {
    pub(crate) pair: Pair,
    /// The authority of the client certificates that the server requires; without it, it requires none.
    pub(crate) client_authority: Option<String>,
}

impl ServerTls {
    /// A server that requires no client certificate.
    pub(crate) fn new(pair: Pair) -> Self {
        Self { pair, client_authority: None }
    }

    /// The variables that the start scripts of the servers read.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("TLS_CERTIFICATE", self.pair.certificate.clone()),
            ("TLS_KEY", self.pair.key.clone()),
        ];
        variables.extend(self.client_authority.iter().map(|it| ("TLS_AUTHORITY", it.clone())));
        variables
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("ring generates keys");
        Self(CertifiedIssuer::self_signed(params, key).expect("the authority signs itself"))
    }

    /// The certificate of the authority.
    pub(crate) fn certificate(&self) -> String {
        self.0.pem()
    }

    /// A certificate for a server with these names and addresses.
    pub(crate) fn server(&self, names: &[&str]) -> Pair {
        self.sign(params(names, "server", ExtendedKeyUsagePurpose::ServerAuth))
    }

    /// The same, but expired on 2020-01-01.
    pub(crate) fn expired_server(&self, names: &[&str]) -> Pair {
        let mut params = params(names, "server", ExtendedKeyUsagePurpose::ServerAuth);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(params)
    }

    /// A certificate for a client with this name.
    pub(crate) fn client(&self, name: &str) -> Pair {
        self.sign(params(&[], name, ExtendedKeyUsagePurpose::ClientAuth))
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("ring generates keys");
        let certificate = params.signed_by(&key, &self.0).expect("the authority signs it");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn params(names: &[&str], common_name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("the names and addresses are valid");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![usage];
    params
}

/// Files of a test that the service reads.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new() -> Self {
        let name = format!("tributary-files-{}-{}", std::process::id(), free_port());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).expect("the name is unique");
        Self(directory)
    }

    /// Writes a file atomically, as a renewal of a certificate should, with mode 0600; returns its path.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let (draft, path) = (self.0.join(format!("{name}.draft")), self.0.join(name));
        let private =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(&draft);
        private
            .expect("the directory exists")
            .write_all(text.as_ref())
            .expect("the disk has space");
        std::fs::rename(draft, &path).expect("the directory is writable");
        path.to_str().expect("the path is ASCII").to_owned()
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.0
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}
