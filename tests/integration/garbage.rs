//! Bytes that are not HTTP, as scanners send them to every open port. The service answers or closes the
//! connection, and logs no error unless `LOG_FILTER` includes `actix_http`.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use crate::support::broker::Broker;
use crate::support::certificates::{Authority, Files};
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

/// Sends these bytes, and returns when the service has closed the connection.
fn send(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    // Both fail if the service closes the connection early.
    let sent = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let timed_out =
        read.as_ref().err().is_some_and(|it| it.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "the connection is still open: {sent:?}, {answer:?}");
}

fn garbage() -> Vec<Vec<u8>> {
    let long = vec![b'a'; 1 << 20];
    vec![
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03no handshake".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n\x01\x02\x03\r\n\r\n".to_vec(),
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        [b"GET /", &long[..], b" HTTP/1.1\r\n\r\n"].concat(),
        long,
    ]
}

fn errors(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains("ERROR")).collect()
}

#[actix_rt::test]
async fn garbage_is_not_logged_as_an_error() {
    let authority = Authority::new("ours");
    let (files, pair) = (Files::new(), authority.server(&["127.0.0.1"]));
    let certificate = files.write("http.pem", &pair.certificate);
    let key = files.write("http.key", &pair.key);
    let tls = [("HTTP_CERTIFICATE_FILE", certificate.as_str()), ("HTTP_KEY_FILE", key.as_str())];
    for settings in [&[][..], &tls] {
        let database = database().await;
        let service = Service::start(&database, Broker::shared().await, settings).await;
        let url = service.url();
        let (_, address) = url.split_once("://").unwrap();
        for bytes in garbage() {
            send(address, &bytes);
        }
        let log = service.log();
        assert!(errors(&log).is_empty(), "{log}");
        assert!(log.contains("tributary started"), "{log}");
    }
}

#[actix_rt::test]
async fn garbage_is_logged_if_the_filter_includes_actix_http() {
    let database = database().await;
    let settings = [("LOG_FILTER", "info,actix_http=error")];
    let service = Service::start(&database, Broker::shared().await, &settings).await;
    let url = service.url();
    send(url.trim_start_matches("http://"), b"GET / HTTP/9.9\r\n\r\n");
    eventually(TIMEOUT, async || match service.log() {
        log if errors(&log).is_empty() => Err(log),
        _ => Ok(()),
    })
    .await;
}
