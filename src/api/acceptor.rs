//! Turns an accepted socket into a connection for HTTP, after the TLS handshake if there is one. Called by the
//! server for each socket; no handshake delays another. A handshake has a timeout, and unfinished handshakes are
//! bounded by `handshakes`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_http::Protocol;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::connection::ClientStream;
use super::handshakes::Handshakes;
use super::peer;
use crate::tls;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// HTTP/2 first ([RFC 7301, 3.2] leaves the choice to the server).
const PROTOCOLS: [(&[u8], Protocol); 2] =
    [(b"h2", Protocol::Http2), (b"http/1.1", Protocol::Http1)];

/// What the server expects: the connection, its protocol by ALPN, and the client's address.
pub(super) type Accepted = (ClientStream, Protocol, Option<SocketAddr>);

/// One per listening address.
#[derive(Clone)]
pub(super) struct Acceptor {
    tls: Option<TlsAcceptor>,
    handshakes: Arc<Handshakes>,
    local_address: SocketAddr,
}

impl Acceptor {
    pub(super) fn new(
        tls: Option<&tls::Server>,
        handshakes: Arc<Handshakes>,
        local_address: SocketAddr,
    ) -> Self {
        let tls = tls.map(|tls| {
            let mut configuration = tls.configuration();
            configuration.alpn_protocols = PROTOCOLS.map(|(name, _)| name.to_vec()).into();
            TlsAcceptor::from(Arc::new(configuration))
        });
        Self { tls, handshakes, local_address }
    }

    pub(super) async fn accept(self, socket: TcpStream) -> io::Result<Accepted> {
        let client = socket.peer_addr()?;
        let Some(tls) = self.tls else {
            let connection = ClientStream::plain(socket, self.local_address);
            return Ok((connection, Protocol::Http1, Some(client)));
        };
        let mut handshake = self.handshakes.begin(peer::network(client.ip()));
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(socket)) => {
                outcome.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
            }
            () = handshake.evicted() => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let stream = outcome.inspect_err(|error| debug!(%client, %error, "no TLS handshake"))?;
        let agreed = stream.get_ref().1.alpn_protocol();
        let protocol = PROTOCOLS.iter().find(|(name, _)| Some(*name) == agreed);
        let protocol = protocol.map_or(Protocol::Http1, |(_, protocol)| *protocol);
        Ok((ClientStream::secure(stream, self.local_address), protocol, Some(client)))
    }
}
