//! What the store promises about a server that is frozen, or on a way on which nothing passes any
//! more: played by one that answers a checkout, and then nothing.

use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::domain::{SensorIdentifier, Timestamp};

/// The port of a server that lets everybody in.
async fn silent_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    actix_rt::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            actix_rt::spawn(async move { drop(serve(stream).await) });
        }
    });
    port
}

/// Authentication, and the empty query by which a pool looks whether a connection is good.
async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    const LET_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0";
    const READY: &[u8] = b"Z\0\0\0\x05I";
    const EMPTY: &[u8] = b"I\0\0\0\x04";
    let length = stream.read_u32().await?;
    stream.read_exact(&mut vec![0; length as usize - 4]).await?;
    stream.write_all(&[LET_IN, READY].concat()).await?;
    loop {
        let kind = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body).await?;
        if kind == b'Q' && body == b"\0" {
            stream.write_all(&[EMPTY, READY].concat()).await?;
        }
    }
}

#[actix_rt::test]
async fn what_the_path_and_the_housekeeping_ask_ends_whatever_the_database_does() {
    let url = format!("postgres://x@127.0.0.1:{}/x?sslmode=disable", silent_server().await);
    let mut config =
        crate::config::read_store(|name| (name == "DATABASE_URL").then(|| url.clone())).unwrap();
    config.readers = 20;
    let (store, sensor) = (Store::new(&config), SensorIdentifier::random());
    let (housekeeper, heard) =
        (Housekeeper::new(store.clone(), &config), [(sensor, Timestamp::now())]);
    // So that what is asked waits for its answer, and not for a connection.
    drop(join_all((0..config.readers).map(|_| store.connection())).await);

    type Asked<'a> = LocalBoxFuture<'a, Result<(), StoreError>>;
    macro_rules! asked {
        ($($call:expr),+ $(,)?) => {
            [$((stringify!($call), Box::pin(async { $call.await.map(drop) }) as Asked<'_>)),+]
        };
    }
    let asked = asked![
        store.note_last_seen(&heard),
        store.census(),
        store.fold_activity(),
        store.read_activity(),
        store.prune_activity(),
        store.purge_sensor(sensor),
        store.known_sensors(&[sensor]),
        store.register_sensors(&[sensor]),
        store.unpublished_configurations(None, 1),
        store.newest_configurations(&[sensor]),
        store.record_publications(&[(sensor, 0, heard[0].1)]),
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
