//! HTTPS: the certificate of the server, its renewal while connections are open, and invalid files.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tributary::tls::{self, Authority as Trusted, ClientOptions};

use crate::support::broker::Broker;
use crate::support::certificates::{Authority, Files, Pair};
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

/// A TLS connection and the certificate of its server.
struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl Connection {
    fn open(url: &str, tls: &tls::Client, name: &'static str) -> Result<Self, String> {
        let tcp = TcpStream::connect(url.trim_start_matches("https://")).unwrap();
        tcp.set_read_timeout(Some(TIMEOUT)).unwrap();
        let name = ServerName::try_from(name).unwrap();
        let session = ClientConnection::new(tls.configuration(), name).unwrap();
        let mut connection = Self(StreamOwned::new(session, tcp));
        let handshake = connection.0.conn.complete_io(&mut connection.0.sock);
        handshake.map_err(|error| tls::handshake_reason(&error).unwrap_or(error.to_string()))?;
        Ok(connection)
    }

    /// Sends one request, and returns the status line; the connection stays open.
    fn get_status(&mut self) -> String {
        self.0.write_all(b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let mut chunk = [0; 1024];
            let count = self.0.read(&mut chunk).unwrap();
            assert!(count > 0, "the connection was closed");
            answer.extend_from_slice(&chunk[..count]);
        }
        String::from_utf8_lossy(&answer).lines().next().unwrap().to_owned()
    }

    fn server_certificate(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

fn certificate(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
}

fn trusting(file: &str) -> tls::Client {
    let options = ClientOptions {
        authority: Some(Trusted::File(file.into())),
        check_name: true,
        identity: None,
        protocol: Some("http/1.1"),
    };
    tls::Client::new(options).unwrap()
}

#[actix_rt::test]
async fn a_renewed_certificate_is_used_for_new_connections_and_open_ones_continue() {
    let ours = Authority::new("ours");
    let files = Files::new();
    let authority = files.write("ours.pem", ours.certificate());
    let first = ours.server(&["127.0.0.1"]);
    let settings = [
        ("HTTP_CERTIFICATE_FILE", files.write("http.pem", &first.certificate)),
        ("HTTP_KEY_FILE", files.write("http.key", &first.key)),
    ];
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let database = database().await;
    let service = Service::start(&database, Broker::shared().await, &settings).await;
    let url = service.url();
    let tls = trusting(&authority);
    let open = || Connection::open(&url, &tls, "127.0.0.1").unwrap();

    let mut early = open();
    assert_eq!(early.get_status(), "HTTP/1.1 200 OK");
    assert_eq!(early.server_certificate(), certificate(&first));
    let refusal = Connection::open(&url, &tls, "another.example").map(drop).unwrap_err();
    assert!(refusal.contains("for 127.0.0.1, not for another.example"), "{refusal}");

    // A new certificate without its key is not used, and is logged.
    let second = ours.server(&["127.0.0.1", "localhost"]);
    files.write("http.pem", &second.certificate);
    eventually(TIMEOUT, async || {
        assert_eq!(open().server_certificate(), certificate(&first));
        let log = service.log();
        let warning = "the old certificates stay in use";
        if log.contains(warning) && log.contains("http.key does not belong to") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;

    files.write("http.key", &second.key);
    eventually(TIMEOUT, async || {
        let found = open().server_certificate();
        if found == certificate(&second) { Ok(()) } else { Err("the old certificate") }
    })
    .await;
    assert_eq!(early.get_status(), "HTTP/1.1 200 OK");
    assert_eq!(early.server_certificate(), certificate(&first));

    // Plain HTTP fails.
    let plain = awc::Client::default().get(url.replace("https", "http") + "/healthz").send().await;
    assert!(plain.is_err(), "{plain:?}");
}

#[actix_rt::test]
async fn invalid_certificate_files_prevent_the_start_with_one_line_of_error() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let files = Files::new();
    let (pair, other) = (ours.server(&["localhost"]), others.server(&["localhost"]));
    let certificate = files.write("http.pem", &pair.certificate);
    let key = files.write("other.key", &other.key);
    let empty = files.write("empty.pem", "");
    for (settings, expected) in [
        (
            vec![("HTTP_CERTIFICATE_FILE", certificate.as_str()), ("HTTP_KEY_FILE", &key)],
            format!("HTTP_KEY_FILE: {key} does not belong to the certificate {certificate}"),
        ),
        (
            vec![("HTTP_CERTIFICATE_FILE", &empty), ("HTTP_KEY_FILE", &key)],
            format!("HTTP_CERTIFICATE_FILE: {empty} contains no certificate in PEM format"),
        ),
        (
            vec![("HTTP_CERTIFICATE_FILE", &certificate), ("HTTP_KEY_FILE", &empty)],
            format!("HTTP_KEY_FILE: {empty} contains no private key in PEM format"),
        ),
        (
            vec![("HTTP_KEY_FILE", &key)],
            "HTTP_KEY_FILE is set without HTTP_CERTIFICATE_FILE".into(),
        ),
    ] {
        let run = Command::new(env!("CARGO_BIN_EXE_tributary"))
            .arg("serve")
            .env_clear()
            .env("DATABASE_URL", "postgres://localhost/nowhere")
            .env("MQTT_URL", "mqtt://localhost")
            .envs(settings)
            .current_dir(files.directory())
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&run.stderr);
        assert!(!run.status.success());
        assert_eq!((stderr.lines().count(), stderr.contains(&expected)), (1, true), "{stderr}");
    }
}
