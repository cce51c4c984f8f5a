//! Authorities and certificates, made for one test. Called by the tests of TLS. Promises that nothing
//! here is trusted by anyone who was not told to, and that the files go with the test.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::ports::free_port;

/// Who signs.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// What a server of the tests shows, and whom it asks for a certificate.
#[derive(Clone)]
pub(crate) struct ServerTls {
    pub(crate) pair: Pair,
    /// Whose certificates its clients must have; without it, none is asked for.
    pub(crate) client_authority: Option<String>,
}

impl ServerTls {
    /// Asks its clients for nothing.
    pub(crate) fn showing(pair: Pair) -> Self {
        Self { pair, client_authority: None }
    }

    /// As the scripts that become the servers want them.
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
        let key = KeyPair::generate().expect("ring makes keys");
        Self(CertifiedIssuer::self_signed(params, key).expect("it can sign itself"))
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> String {
        self.0.pem()
    }

    /// For a server of these names and addresses.
    pub(crate) fn server(&self, names: &[&str]) -> Pair {
        self.sign(params(names, "server", ExtendedKeyUsagePurpose::ServerAuth))
    }

    /// The same, of some years ago.
    pub(crate) fn expired_server(&self, names: &[&str]) -> Pair {
        let mut params = params(names, "server", ExtendedKeyUsagePurpose::ServerAuth);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.sign(params)
    }

    /// For a client of this name.
    pub(crate) fn client(&self, name: &str) -> Pair {
        self.sign(params(&[], name, ExtendedKeyUsagePurpose::ClientAuth))
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().expect("ring makes keys");
        let certificate = params.signed_by(&key, &self.0).expect("an authority signs");
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

fn params(names: &[&str], common_name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("names and addresses");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![usage];
    params
}

/// Files of a test, for the service to read.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new() -> Self {
        let name = format!("tributary-files-{}-{}", std::process::id(), free_port());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).expect("nobody else has that name");
        Self(directory)
    }

    /// Writes one, whole or not at all, as whoever renews a certificate should, and for nobody
    /// else to read; returns its path.
    pub(crate) fn put(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let (draft, path) = (self.0.join(format!("{name}.draft")), self.0.join(name));
        let private =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(&draft);
        private.expect("the directory is ours").write_all(text.as_ref()).expect("it is ours");
        std::fs::rename(draft, &path).expect("the directory is ours");
        path.to_str().expect("it is ASCII").to_owned()
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
