//! The store with a server that stops responding, or a network path that drops everything, and what it sends
//! to one that responds: played by a server that answers what the test chooses.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connections::reader::Planning;
use super::*;
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::sensors::lookups::SENSOR_EXISTS;

/// A server that accepts every login.
struct Server {
    port: u16,
    /// The statements that it received, in order.
    received: Rc<RefCell<Vec<String>>>,
    /// The number of connections.
    open: watch::Receiver<usize>,
}

/// What it answers.
#[derive(Clone, Copy, PartialEq)]
enum Answers {
    /// Only the empty query, the health check.
    HealthChecks,
    /// Everything, with no rows.
    Everything,
}

impl Server {
    async fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Rc::<RefCell<Vec<String>>>::default();
        let (statements, (count, open)) = (Rc::clone(&received), watch::channel(0));
        actix_rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (statements, count) = (Rc::clone(&statements), count.clone());
                actix_rt::spawn(async move {
                    count.send_modify(|count| *count += 1);
                    drop(serve(stream, answers, &statements).await);
                    count.send_modify(|count| *count -= 1);
                });
            }
        });
        Self { port, received, open }
    }

    fn config(&self) -> Config {
        let url = format!("postgres://x@127.0.0.1:{}/x?sslmode=disable", self.port);
        crate::config::read_store(|name| (name == "DATABASE_URL").then(|| url.clone())).unwrap()
    }
}

/// The messages of PostgreSQL's protocol are a letter, a length that counts itself, and a body.
async fn serve(
    mut stream: TcpStream,
    answers: Answers,
    received: &RefCell<Vec<String>>,
) -> std::io::Result<()> {
    const SESSION: &[u8] = b"set tcp_keepalives_idle";
    const LET_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    const READY: &[u8] = b"Z\0\0\0\x05I";
    const EMPTY: &[u8] = b"I\0\0\0\x04";
    const DONE: &[u8] = b"C\0\0\0\x08SET\0";
    const PARSED: &[u8] = b"1\0\0\0\x04";
    const ONE_UUID_AND_NO_COLUMN: &[u8] = b"t\0\0\0\x0a\0\x01\0\0\x0b\x86n\0\0\0\x04";
    const BOUND: &[u8] = b"2\0\0\0\x04";
    let length = stream.read_u32().await?;
    stream.read_exact(&mut vec![0; length as usize - 4]).await?;
    stream.write_all(&[LET_IN, READY].concat()).await?;
    loop {
        let kind = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).await?;
        let text = || String::from_utf8_lossy(&body).trim_end_matches('\0').to_owned();
        match kind {
            b'Q' if body.starts_with(SESSION) => {}
            b'Q' => received.borrow_mut().push(text()),
            b'E' => received.borrow_mut().push("execute".to_owned()),
            _ => {}
        }
        let answer = match (answers, kind) {
            (_, b'Q') if body == b"\0" => [EMPTY, READY].concat(),
            (_, b'Q') if body.starts_with(SESSION) => [DONE, READY].concat(),
            (Answers::HealthChecks, _) => continue,
            (Answers::Everything, b'Q') => [DONE, READY].concat(),
            (Answers::Everything, b'P') => PARSED.to_vec(),
            (Answers::Everything, b'D') => ONE_UUID_AND_NO_COLUMN.to_vec(),
            (Answers::Everything, b'B') => BOUND.to_vec(),
            (Answers::Everything, b'E') => DONE.to_vec(),
            (Answers::Everything, b'S') => READY.to_vec(),
            _ => continue,
        };
        stream.write_all(&answer).await?;
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// While the connection stayed open, PostgreSQL would keep uncommitted rows and locks.
#[actix_rt::test]
async fn an_abandoned_connection_is_closed() {
    let mut server = Server::start(Answers::HealthChecks).await;
    let store = Store::new(&server.config());
    for timeout in [Duration::from_millis(50), Duration::from_secs(60)] {
        let reader = store.unchecked_connection(soon()).await.unwrap();
        assert_eq!(*server.open.borrow_and_update(), 1);
        let proof = reader.health_check(Planning::Once, soon());
        let outcome = tokio::time::timeout(timeout, proof).await;
        assert!(matches!(outcome, Err(_) | Ok(Err(_))), "{outcome:?}");
        assert!(reader.is_lost(), "after {timeout:?}");
        drop(reader);

        let cut = server.open.wait_for(|open| *open == 0);
        tokio::time::timeout(Duration::from_secs(10), cut).await.expect("it is cut").unwrap();
    }
}

/// Only pages use a generic plan: other statements have no time range in their text.
#[actix_rt::test]
async fn planning_is_sent_only_when_it_changes() {
    let server = Server::start(Answers::Everything).await;
    let store = Store::new(&server.config());
    let sensor = SensorIdentifier::random();
    let page = async || {
        let reader = store.unchecked_connection(soon()).await.unwrap();
        let identifier: super::columns::Parameters<'_> =
            &[(&sensor, tokio_postgres::types::Type::UUID)];
        let asked = tokio::join!(
            biased;
            reader.health_check(Planning::Once, soon()),
            reader.query_prepared(SENSOR_EXISTS, identifier),
        );
        assert!(matches!(&asked, (Ok(()), Ok(rows)) if rows.is_empty()), "{asked:?}");
    };
    let received = || server.received.take();

    page().await;
    assert_eq!(received(), ["set plan_cache_mode = force_generic_plan", "execute"]);
    page().await;
    assert_eq!(received(), ["", "execute"], "it was said");
    drop(store.connection().await.unwrap());
    assert_eq!(received(), ["reset plan_cache_mode"], "the look whether it is there says it too");
    drop(store.connection().await.unwrap());
    assert_eq!(received(), [""]);
    page().await;
    assert_eq!(received(), ["set plan_cache_mode = force_generic_plan", "execute"]);
}

#[actix_rt::test]
async fn requests_of_ingest_and_housekeeping_end_whatever_the_database_does() {
    let mut config = Server::start(Answers::HealthChecks).await.config();
    config.readers = 20;
    let (store, sensor) = (Store::new(&config), SensorIdentifier::random());
    let (housekeeper, seen) =
        (Housekeeper::new(store.clone(), &config), [(sensor, Timestamp::now())]);
    // So that each call waits for an answer, and not for a connection.
    drop(join_all((0..config.readers).map(|_| store.connection())).await);

    type Asked<'a> = LocalBoxFuture<'a, Result<(), StoreError>>;
    macro_rules! asked {
        ($($call:expr),+ $(,)?) => {
            [$((stringify!($call), Box::pin(async { $call.await.map(drop) }) as Asked<'_>)),+]
        };
    }
    let asked = asked![
        store.update_last_seen(&seen),
        store.census(),
        store.fold_activity(),
        store.read_activity(),
        store.recount(crate::domain::Timestamp::now()),
        store.purge_sensor(sensor),
        store.known_sensors(&[sensor]),
        store.register_sensors(&[sensor]),
        store.unpublished_configurations(None, 1),
        store.newest_configurations(&[sensor]),
        store.record_publications(&[(sensor, 0, seen[0].1)]),
        store.uncleared_sensors(None, 1),
        store.record_clearances(&[sensor]),
        housekeeper.round(),
    ];
    let forever = Duration::from_secs(20);
    join_all(asked.map(|(call, answered)| async move {
        let outcome = tokio::time::timeout(forever, answered).await;
        assert!(matches!(outcome, Ok(Err(StoreError::Silence { .. }))), "{call}: {outcome:?}");
    }))
    .await;
}
