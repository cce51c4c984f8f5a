//! Connections without a TLS handshake delay no other client, and are closed.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use socket2::{Domain, Socket, Type};
use std::io::{Read as _, Write as _};
use tributary::tls::{self, ClientOptions};

use crate::support::broker::Broker;
use crate::support::certificates::{Authority, Files};
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

/// Connects from this loopback address.
fn connect(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

#[actix_rt::test]
async fn six_hundred_connections_without_a_handshake_delay_no_client_and_are_closed() {
    let files = Files::new();
    let pair = Authority::new("ours").server(&["127.0.0.1"]);
    let certificate = files.write("http.pem", &pair.certificate);
    let key = files.write("http.key", &pair.key);
    let settings = [
        ("HTTP_CERTIFICATE_FILE", certificate.as_str()),
        ("HTTP_KEY_FILE", key.as_str()),
        ("HTTP_WORKERS", "1"),
    ];
    let service = Service::start(&database().await, Broker::shared().await, &settings).await;
    let address: SocketAddr = service.url().replace("https://", "").parse().unwrap();
    let options = ClientOptions {
        authority: None,
        check_name: false,
        identity: None,
        protocol: Some("http/1.1"),
    };
    let tls = tls::Client::new(options).unwrap().configuration();

    let local: IpAddr = [127, 0, 0, 1].into();
    let silent: Vec<_> = (0..600).map(|_| connect(local, address)).collect();
    // From the same and from another address.
    for from in [local, [127, 0, 0, 2].into()] {
        let start = Instant::now();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let session = ClientConnection::new(tls.clone(), name).unwrap();
        let mut connection = StreamOwned::new(session, connect(from, address));
        connection.sock.set_read_timeout(Some(TIMEOUT)).unwrap();
        connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n").unwrap();
        let mut answer = [0; 15];
        connection.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        assert!(start.elapsed() < Duration::from_secs(1), "{from}: {:?}", start.elapsed());
    }
    for socket in &silent {
        socket.set_nonblocking(true).unwrap();
    }
    eventually(TIMEOUT, async || {
        let is_open = |mut socket: &TcpStream| {
            let read = socket.read(&mut [0; 1]);
            read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        };
        match silent.iter().filter(|socket| is_open(socket)).count() {
            0 => Ok(()),
            open => Err(open),
        }
    })
    .await;
}
