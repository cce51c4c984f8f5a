//! Brokers that cannot be used, or that close the connection: the log and `/readyz` give the reason in one sentence,
//! for the connection of ingest and for that of publishing.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream as BlockingStream};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::support::broker::Broker;
use crate::support::certificates::Files;
use crate::support::scripted::{ScriptedAnswer, ScriptedBroker};
use crate::support::service::{HOSTS_FILE, Service, database};
use crate::support::wait::{TIMEOUT, eventually};

/// Answers each packet with what `answer` returns: `None` closes the connection, an empty slice sends nothing.
pub(crate) fn fake_broker(answer: fn(first_byte: u8) -> Option<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream, answer));
        }
    });
    url
}

/// Reads packets with a Remaining Length of one or two bytes.
fn serve(mut stream: BlockingStream, answer: fn(u8) -> Option<&'static [u8]>) -> Option<()> {
    loop {
        let mut header = [0; 2];
        stream.read_exact(&mut header).ok()?;
        let mut length = usize::from(header[1] & 0x7f);
        if header[1] & 0x80 != 0 {
            let mut second = [0];
            stream.read_exact(&mut second).ok()?;
            length += usize::from(second[0]) << 7;
        }
        stream.read_exact(&mut vec![0; length]).ok()?;
        stream.write_all(answer(header[0])?).ok()?;
    }
}

/// Waits until `/readyz` and the log contain `sentence` for both connections.
async fn assert_reported(url: &str, sentence: &str) {
    let database = database().await;
    let broker = Broker::shared().await;
    let service = Service::start_unready(&database, broker, &[("MQTT_URL", url)]);
    eventually(TIMEOUT, async || {
        let (status, answer) = service.get("/readyz").await?;
        let missing = answer["missing"].to_string();
        let log = service.log();
        let is_logged = |part: &str| {
            log.lines().any(|line| {
                line.contains(&format!("no connection for {part}")) && line.contains(sentence)
            })
        };
        match status == 503 && missing.matches(sentence).count() == 2 {
            true if is_logged("ingest") && is_logged("publishing") => Ok(()),
            _ => Err(format!("{status}: {answer}\n{log}")),
        }
    })
    .await;
}

const NEEDS_MQTT_5: &str = "Tributary needs a broker that speaks MQTT 5";

#[actix_rt::test]
async fn a_broker_that_closes_an_mqtt_5_connection_is_reported() {
    assert_reported(&fake_broker(|_| None), &format!("before CONNACK; {NEEDS_MQTT_5}")).await;
}

#[actix_rt::test]
async fn a_broker_that_answers_with_an_mqtt_3_connack_is_reported() {
    // Unacceptable protocol version, and Connection accepted.
    assert_reported(&fake_broker(|_| Some(&[0x20, 2, 0, 1])), NEEDS_MQTT_5).await;
    assert_reported(&fake_broker(|_| Some(&[0x20, 2, 0, 0])), NEEDS_MQTT_5).await;
}

#[actix_rt::test]
async fn a_broker_that_sends_no_connack_is_reported() {
    let silent = fake_broker(|_| Some(&[]));
    assert_reported(&silent, &format!("no CONNACK within 10 s; {NEEDS_MQTT_5}")).await;
}

#[actix_rt::test]
async fn the_reason_of_a_disconnect_by_the_broker_is_reported() {
    // CONNACK, then DISCONNECT: Server busy, "maintenance".
    let disconnecting =
        fake_broker(|_| Some(b"\x20\x03\x00\x00\x00\xe0\x10\x89\x0e\x1f\x00\x0bmaintenance"));
    assert_reported(&disconnecting, "the broker ended the session: ServerBusy (maintenance)").await;
}

#[actix_rt::test]
async fn a_broker_with_a_shorter_session_expiry_is_reported() {
    // Session Expiry Interval 300 s, the default of ejabberd.
    let scripted = ScriptedBroker::start(&[0x11, 0, 0, 1, 0x2c], |_| ScriptedAnswer::Puback(0));
    let database = database().await;
    let broker = Broker::shared().await;
    let service = Service::start(&database, broker, &[("MQTT_URL", scripted.url())]).await;
    let log = service.log();
    let warned = log.lines().any(|line| {
        line.contains("keeps our session for less than MQTT_SESSION_EXPIRY_DAYS")
            && line.contains("granted_secs=300 asked_secs=604800")
    });
    assert!(warned, "{log}");
}

#[actix_rt::test]
async fn a_broker_with_qos_0_only_is_reported() {
    // Maximum QoS 0.
    let scripted = ScriptedBroker::start(&[0x24, 0], |_| ScriptedAnswer::Puback(0));
    let database = database().await;
    let broker = Broker::shared().await;
    let service = Service::start_unready(&database, broker, &[("MQTT_URL", scripted.url())]);
    let sentence = "the broker takes QoS 0 only (Maximum QoS is 0)";
    eventually(TIMEOUT, async || match service.get("/readyz").await? {
        (503, answer)
            if answer.to_string().contains(sentence) && service.log().contains(sentence) =>
        {
            Ok(())
        }
        answer => Err(format!("{answer:?}\n{}", service.log())),
    })
    .await;
}

/// On both connections; each address gets a share of the connect timeout. Needs a mount namespace, for a host name
/// with two addresses.
#[actix_rt::test]
async fn an_address_that_drops_packets_is_skipped() {
    let allowed = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine allows no mount namespace (unshare --map-root-user)");
        return;
    }
    let broker = Broker::shared().await;
    // `getaddrinfo` returns 127.0.0.1 first, because it is also the source address.
    let (_sockets, port) = blackhole();
    let forwarder = tokio::net::TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let authority = broker.url().rsplit(['/', '@']).next().unwrap().to_owned();
    actix_rt::spawn(async move {
        while let Ok((mut client, _)) = forwarder.accept().await {
            let authority = authority.clone();
            actix_rt::spawn(async move {
                let mut server = TcpStream::connect(&authority).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    let files = Files::new();
    let hosts = files.write("hosts", "127.0.0.1 localhost several.test\n127.0.0.2 several.test\n");
    let url = format!("mqtt://several.test:{port}");
    let database = database().await;
    let settings = [("MQTT_URL", url.as_str()), (HOSTS_FILE, hosts.as_str())];
    let started_at = Instant::now();
    let service = Service::start(&database, broker, &settings).await;
    // The first address takes half of the connect timeout of 6 s.
    assert!(started_at.elapsed() >= Duration::from_secs(3), "it was not the first");
    let log = service.log();
    let is_logged = |sentence: &str| log.lines().any(|line| line.contains(sentence));
    assert!(is_logged("connected for ingest") && is_logged("connected for publishing"), "{log}");
    assert!(!is_logged("no connection for"), "a connection failed before: {log}");
}

/// A listener whose backlog is full, so that it answers no SYN.
fn blackhole() -> (Vec<socket2::Socket>, u16) {
    let socket =
        || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let listener = socket();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut sockets = vec![listener];
    for _ in 0..8 {
        let filler = socket();
        filler.set_nonblocking(true).unwrap();
        drop(filler.connect(&address));
        sockets.push(filler);
    }
    (sockets, address.as_socket().unwrap().port())
}
