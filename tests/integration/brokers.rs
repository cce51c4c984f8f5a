//! Brokers that cannot be used, or that end the connection: one sentence in the log and in `/readyz` says why, for
//! the connection of ingest and for that of publishing.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream as BlockingStream};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::support::broker::Broker;
use crate::support::certificates::Files;
use crate::support::scripted::{ScriptedAnswer, ScriptedBroker};
use crate::support::service::{HOSTS, Service, database};
use crate::support::wait::{TIMEOUT, eventually};

/// Answers each packet as `answer` does; none ends the connection, nothing is silence.
pub(crate) fn server(answer: fn(first_byte: u8) -> Option<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("mqtt://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream, answer));
        }
    });
    url
}

/// Packets of less than 128 bytes, as those before the first PUBLISH are.
fn serve(mut stream: BlockingStream, answer: fn(u8) -> Option<&'static [u8]>) -> Option<()> {
    loop {
        let mut header = [0; 2];
        stream.read_exact(&mut header).ok()?;
        let mut length = usize::from(header[1] & 0x7f);
        if header[1] & 0x80 != 0 {
            let mut more = [0];
            stream.read_exact(&mut more).ok()?;
            length += usize::from(more[0]) << 7;
        }
        stream.read_exact(&mut vec![0; length]).ok()?;
        stream.write_all(answer(header[0])?).ok()?;
    }
}

/// Waits until `/readyz` and the log say this of both connections.
async fn reported(url: &str, sentence: &str) {
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
async fn a_broker_that_speaks_mqtt_3_and_closes_the_connection_is_reported() {
    reported(&server(|_| None), &format!("before CONNACK; {NEEDS_MQTT_5}")).await;
}

#[actix_rt::test]
async fn a_broker_that_answers_as_mqtt_3_does_is_reported() {
    // Unacceptable protocol version, and Connection accepted.
    reported(&server(|_| Some(&[0x20, 2, 0, 1])), NEEDS_MQTT_5).await;
    reported(&server(|_| Some(&[0x20, 2, 0, 0])), NEEDS_MQTT_5).await;
}

#[actix_rt::test]
async fn a_broker_that_does_not_answer_mqtt_5_is_reported() {
    reported(&server(|_| Some(&[])), &format!("no CONNACK within 10 s; {NEEDS_MQTT_5}")).await;
}

#[actix_rt::test]
async fn the_reason_with_which_the_broker_disconnects_is_reported() {
    // CONNACK, and behind it DISCONNECT: Server busy, "maintenance".
    let disconnecting =
        server(|_| Some(b"\x20\x03\x00\x00\x00\xe0\x10\x89\x0e\x1f\x00\x0bmaintenance"));
    reported(&disconnecting, "the broker ended the session: ServerBusy (maintenance)").await;
}

#[actix_rt::test]
async fn a_broker_that_keeps_the_session_for_less_time_is_reported() {
    // Session Expiry Interval 300 s, as ejabberd answers by default.
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
async fn a_broker_that_takes_qos_0_only_is_reported() {
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

/// On both connections, each with a share of the time. Takes a mount namespace, for a name with two addresses.
#[actix_rt::test]
async fn an_address_that_swallows_packets_is_passed_over() {
    let allowed = Command::new("unshare").args(["--map-root-user", "--mount", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("left out: this machine allows no mount namespace (unshare --map-root-user)");
        return;
    }
    let broker = Broker::shared().await;
    // The C library sorts the address from which it would connect first.
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
    let hosts = files.put("hosts", "127.0.0.1 localhost several.test\n127.0.0.2 several.test\n");
    let url = format!("mqtt://several.test:{port}");
    let database = database().await;
    let settings = [("MQTT_URL", url.as_str()), (HOSTS, hosts.as_str())];
    let started_at = Instant::now();
    let service = Service::start(&database, broker, &settings).await;
    // Half of the 6 s that a connection may take went to the first address.
    assert!(started_at.elapsed() >= Duration::from_secs(3), "it was not tried first");
    let log = service.log();
    let is_said = |sentence: &str| log.lines().any(|line| line.contains(sentence));
    assert!(is_said("connected for ingest") && is_said("connected for publishing"), "{log}");
    assert!(!is_said("no connection for"), "neither failed before: {log}");
}

/// Its queue is full: it answers no SYN.
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
