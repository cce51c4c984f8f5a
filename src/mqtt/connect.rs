//! Connects to the broker with MQTT 5. Called by the inbound loop, the outbound publisher and the
//! simulated fleet. Returns a connection on which CONNACK was received, or the reason, within 10 s.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::Duration;

use ntex_io::{Io, IoBoxed, IoConfig};
use ntex_mqtt::MqttServiceConfig;
use ntex_mqtt::v5::client::{Client, MqttConnector};
use ntex_mqtt::v5::{codec, error::ClientError};
use ntex_net::Reactor as _;
use ntex_net::connect::{Connect, ConnectError};
use ntex_service::cfg::SharedCfg;
use ntex_service::{Pipeline, ServiceFactory, fn_service};
use ntex_tls::rustls::TlsClientFilter;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::BrokerUrl;
use super::session::reason;
use super::stream::{DelayedReads, Stream};
use crate::tls::{self, handshake_reason};

/// How long TCP connect, TLS and CONNACK may take together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long TCP connect may take, over all addresses of the host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);

const NEEDS_MQTT_5: &str = "Tributary needs a broker that speaks MQTT 5; one that speaks only MQTT 3.1.1 answers like this";

/// Maximum read. ntex' default of 16 KiB costs a wake-up per hundred small messages of a backlog.
const READ_BUFFER_BYTES: usize = 128 << 10;
const READ_BUFFER_LOW_BYTES: usize = 4 << 10;

/// Fields of the CONNECT, and how the connection is read.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Client Identifier.
    pub client_id: String,
    /// Clean Start.
    pub clean_start: bool,
    /// Session Expiry Interval.
    pub session_expiry_secs: u32,
    /// Receive Maximum; none means 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Keep Alive.
    pub keep_alive_secs: u16,
    /// Under steady load, read every few milliseconds instead of per packet.
    pub delay_reads: Option<DelayedReads>,
}

/// Why the connection was not made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// TCP, or the broker closed the connection.
    #[error(transparent)]
    Io(io::Error),
    /// A certificate is not trusted, or the port does not use TLS.
    #[error("the TLS handshake failed: {0}")]
    Tls(String),
    /// No CONNACK in time.
    #[error("no CONNACK within {} s; {NEEDS_MQTT_5}", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    /// CONNACK with an error code.
    #[error("refused: {0}")]
    Refused(String),
    /// The answer is not MQTT 5.
    #[error("the answer to CONNECT is not MQTT 5 ({0}); {NEEDS_MQTT_5}")]
    Protocol(String),
}

impl From<io::Error> for ConnectFailure {
    /// With TLS 1.3 the handshake completes before the server checks our certificate: its refusal is an
    /// error of a later read.
    fn from(error: io::Error) -> Self {
        handshake_reason(&error).map_or(Self::Io(error), Self::Tls)
    }
}

/// Uses a connector of ours on tokio, because ntex's own requires ntex's runtime.
pub async fn connect(
    broker: &BrokerUrl,
    options: &ConnectOptions,
) -> Result<Client, ConnectFailure> {
    match timeout(HANDSHAKE_TIMEOUT, handshake(broker, options)).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(ConnectFailure::Timeout),
    }
}

async fn handshake(broker: &BrokerUrl, options: &ConnectOptions) -> Result<Client, ConnectFailure> {
    let configuration: SharedCfg = SharedCfg::new("tributary")
        .add(IoConfig::new().set_read_buf(READ_BUFFER_BYTES, READ_BUFFER_LOW_BYTES, 4))
        .add(MqttServiceConfig::new())
        .into();
    let io = open(broker, options, configuration.clone()).await?;
    // The connector is an Fn, but gets one stream.
    let io = Rc::new(Cell::new(Some(io)));
    let connected = fn_service(move |_: Connect<String>| {
        let io = io.take();
        async move { io.ok_or(ConnectError::Unresolved) }
    });
    let connector = MqttConnector::<String, _>::new()
        .connector(connected)
        .create(configuration)
        .await
        .map_err(|_| ConnectFailure::Protocol("the connector cannot be created".into()))?;
    let request =
        ntex_mqtt::v5::client::Connect::with(broker.authority(), connect_packet(broker, options));
    Pipeline::new(connector).call(request).await.map_err(connect_failure)
}

/// The first that answers. Each gets an equal share of the time that is left, so that one which swallows packets does
/// not take the time of the others.
async fn connect_in_turn(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host's name has no address");
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        last = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => io::Error::new(error.kind(), format!("{address}: {error}")),
            Err(_elapsed) => {
                let sentence = format!("{address}: no answer within {} ms", share.as_millis());
                io::Error::new(io::ErrorKind::TimedOut, sentence)
            }
        };
    }
    Err(last)
}

/// TCP, and TLS for `mqtts://`.
async fn open(
    broker: &BrokerUrl,
    options: &ConnectOptions,
    configuration: SharedCfg,
) -> Result<IoBoxed, ConnectFailure> {
    let addresses = tokio::net::lookup_host((broker.host.as_str(), broker.port)).await?;
    let stream = connect_in_turn(addresses.collect()).await?.into_std()?;
    let io = match &options.delay_reads {
        Some(delayed) => Io::new(Stream::new(stream, delayed.clone())?, configuration),
        None => ntex_net::tokio::Reactor.from_tcp_stream(stream, configuration)?,
    };
    if !broker.secure {
        return Ok(io.into());
    }
    let tls = broker
        .tls()
        .map(tls::Client::configuration)
        .ok_or_else(|| ConnectFailure::Tls("no trusted certificates are configured".into()))?;
    let name = ServerName::try_from(broker.host.clone()).map_err(|_| {
        ConnectFailure::Tls(format!("{} is not a valid server name for TLS", broker.host))
    })?;
    let handle = io.get_ref();
    let outcome = TlsClientFilter::create(io, tls, name).await;
    outcome.map(IoBoxed::from).map_err(|error| {
        // ntex reports only a disconnect and keeps the reason.
        let reason = handle.send_buf().err().unwrap_or(error);
        match reason.kind() {
            io::ErrorKind::NotConnected
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::UnexpectedEof => ConnectFailure::Tls(
                "the server closed the connection; does it speak TLS on this port?".into(),
            ),
            _ => reason.into(),
        }
    })
}

fn connect_packet(broker: &BrokerUrl, options: &ConnectOptions) -> codec::Connect {
    codec::Connect {
        clean_start: options.clean_start,
        keep_alive: options.keep_alive_secs,
        session_expiry_interval_secs: options.session_expiry_secs,
        receive_max: options.receive_maximum,
        client_id: options.client_id.as_str().into(),
        username: broker.username.as_deref().map(Into::into),
        password: broker
            .password()
            .map(|password| ntex_bytes::Bytes::copy_from_slice(password.as_bytes())),
        ..codec::Connect::default()
    }
}

fn connect_failure(error: ClientError<Box<codec::ConnectAck>>) -> ConnectFailure {
    match error {
        ClientError::Ack(refusal) => {
            let text = refusal.reason_string.as_ref();
            ConnectFailure::Refused(reason(refusal.reason_code, text))
        }
        ClientError::Disconnected(Some(error)) => error.into(),
        ClientError::Disconnected(None) => ConnectFailure::Io(io::Error::new(
            io::ErrorKind::ConnectionReset,
            format!("the broker closed the connection before CONNACK; {NEEDS_MQTT_5}"),
        )),
        ClientError::HandshakeTimeout => ConnectFailure::Timeout,
        other => ConnectFailure::Protocol(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its queue is full: it answers no SYN.
    fn blackhole() -> (Vec<socket2::Socket>, SocketAddr) {
        let listener =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut sockets = vec![listener];
        for _ in 0..8 {
            let filler =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            drop(filler.connect(&address));
            sockets.push(filler);
        }
        (sockets, address.as_socket().unwrap())
    }

    #[actix_rt::test]
    async fn an_address_that_drops_packets_leaves_time_for_the_next() {
        let (_sockets, blackholed) = blackhole();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        let refused: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let started_at = Instant::now();
        let stream = connect_in_turn(vec![refused, blackholed, good]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let elapsed = started_at.elapsed();
        assert!(elapsed >= CONNECT_TIMEOUT / 2 && elapsed < CONNECT_TIMEOUT, "{elapsed:?}");
        let error = connect_in_turn(vec![blackholed, refused]).await.unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:1: "), "{error}");
    }
}
