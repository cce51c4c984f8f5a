//! A TCP proxy between the service and a database. Used by tests of half-open connections: it can stop forwarding while
//! the connections stay open. It changes no byte.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::postgres::Database;

/// A proxy on a free port of loopback; it ends with the runtime of its test.
pub(crate) struct TcpProxy {
    frozen: watch::Sender<bool>,
}

impl TcpProxy {
    /// Starts a proxy to this database, and puts the proxy's address into the database's URL. Only the first
    /// `first_bytes` bytes that a client sends on the first connection are forwarded.
    pub(crate) async fn start_in_front_of(database: &mut Database, first_bytes: usize) -> Self {
        let mut url: url::Url = database.url.parse().unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        database.url = url.into();
        let (frozen, watched) = watch::channel(false);
        actix_rt::spawn(async move {
            let mut bytes = first_bytes;
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.unwrap();
                actix_rt::spawn(connect(client, server, watched.clone(), bytes));
                bytes = usize::MAX;
            }
        });
        Self { frozen }
    }

    /// Stops forwarding, or continues it.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }
}

/// Forwards in both directions until one of them closes.
async fn connect(
    client: TcpStream,
    server: TcpStream,
    frozen: watch::Receiver<bool>,
    bytes: usize,
) {
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    tokio::select! {
        () = forward(client_reads, server_writes, frozen.clone(), bytes) => {}
        () = forward(server_reads, client_writes, frozen, usize::MAX) => {}
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut frozen: watch::Receiver<bool>,
    mut rest: usize,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let forwarded = count.min(rest);
        rest -= forwarded;
        if frozen.wait_for(|frozen| !frozen).await.is_err()
            || to.write_all(&bytes[..forwarded]).await.is_err()
        {
            return;
        }
    }
}
