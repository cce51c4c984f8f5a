//! The service closes the connection of a client that reads an answer too slowly, over HTTP/1 and HTTP/2, and frees the
//! resources of that answer. Clients above the minimum rate get the whole answer.

use std::time::Duration;

use h2::client::SendRequest;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tributary::tls::{self, ClientOptions};

use crate::support::broker::Broker;
use crate::support::certificates::{Authority, Files};
use crate::support::postgres::{Database, connect};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

/// More than the socket buffers of both sides hold.
const ROWS: u32 = 60_000;
const ROW_BYTES: u32 = 600;

/// The slow clients read 32 KB/s, far below this minimum rate.
const MIN_BYTES_PER_SEC: (&str, &str) = ("HTTP_MIN_BYTES_PER_SEC", "150000");
const SLOW_READ_BYTES: usize = 16 << 10;
const SLOW_READ_INTERVAL: Duration = Duration::from_millis(500);

const RUNNING: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'tributary-export'";

struct Fixture {
    database: Database,
    service: Service,
    export: String,
    _files: Files,
}

async fn fixture(settings: &[(&str, &str)], is_secure: bool) -> Fixture {
    let files = Files::new();
    let pair = Authority::new("ours").server(&["127.0.0.1"]);
    let certificate = files.write("http.pem", &pair.certificate);
    let key = files.write("http.key", &pair.key);
    let mut all = vec![("HTTP_WRITE_TIMEOUT_SECS", "2"), ("HTTP_WORKERS", "1")];
    if is_secure {
        all.extend([("HTTP_CERTIFICATE_FILE", certificate.as_str()), ("HTTP_KEY_FILE", &key)]);
    }
    all.extend(settings);
    let database = database().await;
    let service = Service::start(&database, Broker::shared().await, &all).await;
    let sensor = service.create_sensor("read").await;
    let client = connect(&database.url).await.unwrap();
    let fill = format!(
        "insert into measurement (sensor_identifier, revision, creation_timestamp, receipt_timestamp, value, digest)
         select '{sensor}', 0, to_timestamp(n), now(),
             jsonb_build_object('text', repeat('x', {ROW_BYTES})), n
         from generate_series(1, {ROWS}) n"
    );
    client.batch_execute(&fill).await.unwrap();
    let export = format!("/api/v1/sensors/{sensor}/measurements/export?format=ndjson");
    Fixture { database, service, export, _files: files }
}

impl Fixture {
    /// An HTTP/2 connection whose streams have this window.
    async fn http2(&self, window: u32) -> SendRequest<&'static [u8]> {
        let options = ClientOptions {
            authority: None,
            check_name: false,
            identity: None,
            protocol: Some("h2"),
        };
        let tls = TlsConnector::from(tls::Client::new(options).unwrap().configuration());
        let address = self.service.url().replace("https://", "");
        let socket = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let socket = tls.connect(name, socket).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let (client, connection) =
            builder.initial_window_size(window).handshake(socket).await.unwrap();
        // Answers each PING.
        actix_rt::spawn(connection);
        client
    }

    async fn get(&self, client: &mut SendRequest<&'static [u8]>, path: &str) -> h2::RecvStream {
        let request = http::Request::get(format!("{}{path}", self.service.url())).body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body()
    }

    async fn assert_no_export_is_running(&self) {
        eventually(TIMEOUT, async || match count(&self.database, RUNNING).await {
            0 => Ok(()),
            running => Err(running),
        })
        .await;
    }
}

#[actix_rt::test]
async fn an_http2_client_with_a_closed_window_is_disconnected() {
    let fixture = fixture(&[], true).await;
    for path in [&*fixture.export, "/api/v1/status"] {
        let mut client = fixture.http2(0).await;
        let mut body = fixture.get(&mut client, path).await;
        let end = tokio::time::timeout(TIMEOUT, body.data()).await;
        assert!(matches!(end, Ok(Some(Err(_)))), "{path}: {end:?}");
    }
    fixture.assert_no_export_is_running().await;
    assert!(fixture.service.log().contains("reads too slowly"), "{}", fixture.service.log());
}

#[actix_rt::test]
async fn a_slow_http2_client_is_disconnected_and_a_fast_one_gets_the_whole_answer() {
    let fixture = fixture(&[MIN_BYTES_PER_SEC], true).await;
    let mut client = fixture.http2(1 << 20).await;
    let mut body = fixture.get(&mut client, &fixture.export).await;
    let mut bytes = 0;
    while let Some(piece) = body.data().await {
        bytes += piece.as_ref().unwrap().len();
        body.flow_control().release_capacity(piece.unwrap().len()).unwrap();
    }
    let all = bytes;
    assert!(all > (ROWS * ROW_BYTES) as usize, "{all} bytes");

    let mut body = fixture.get(&mut fixture.http2(1 << 20).await, &fixture.export).await;
    let mut bytes = 0;
    let read_slowly = async {
        while let Some(piece) = body.data().await {
            let Ok(piece) = piece else { return true };
            bytes += piece.len();
            for part in piece.chunks(SLOW_READ_BYTES) {
                tokio::time::sleep(
                    SLOW_READ_INTERVAL.mul_f64(part.len() as f64 / SLOW_READ_BYTES as f64),
                )
                .await;
                body.flow_control().release_capacity(part.len()).unwrap();
            }
        }
        false
    };
    let is_disconnected = tokio::time::timeout(2 * TIMEOUT, read_slowly).await;
    assert_eq!(is_disconnected, Ok(true), "after {bytes} bytes");
    assert!(bytes < all);
    fixture.assert_no_export_is_running().await;
}

#[actix_rt::test]
async fn a_slow_http1_client_is_disconnected_and_a_fast_one_gets_the_whole_answer() {
    // TCP_USER_TIMEOUT is equal: it must be long enough for the window to open in between.
    let fixture = fixture(&[MIN_BYTES_PER_SEC, ("HTTP_WRITE_TIMEOUT_SECS", "6")], false).await;
    let host = fixture.service.url().replace("http://", "");
    let send_request = async || {
        let socket = TcpSocket::new_v4().unwrap();
        // The client can read what the kernel has received even after the connection is closed.
        socket.set_recv_buffer_size(64 << 10).unwrap();
        let mut socket = socket.connect(host.parse().unwrap()).await.unwrap();
        let request =
            format!("GET {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n", fixture.export);
        socket.write_all(request.as_bytes()).await.unwrap();
        socket
    };
    let mut whole = Vec::new();
    send_request().await.read_to_end(&mut whole).await.unwrap();
    assert!(whole.ends_with(b"\r\n0\r\n\r\n"), "{} bytes", whole.len());

    let (mut slow, mut bytes, mut buffer) = (send_request().await, 0, vec![0; SLOW_READ_BYTES]);
    let read_slowly = async {
        loop {
            match slow.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes += count,
            }
            tokio::time::sleep(SLOW_READ_INTERVAL).await;
        }
    };
    let end = tokio::time::timeout(2 * TIMEOUT, read_slowly).await;
    assert!(end.is_ok() && bytes < whole.len(), "{bytes} bytes");
    fixture.assert_no_export_is_running().await;
}
