//! The byte stream of a connection, with TLS as `sslmode` says, which a [`Cutter`] can close from
//! outside. Passed to the driver as its TLS connector, by `connector.rs`. A stream that was cut returns
//! an error, which ends the driver's task for the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::ssl::{Ssl, SslMode};

/// Length and code of an SSLRequest (PostgreSQL's protocol, section 55.7).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

type RustlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Closes one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Cutter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_cut: AtomicBool,
    driver: AtomicWaker,
}

impl Cutter {
    /// Closes the stream, also in the middle of a request.
    pub(super) fn cut(&self) {
        self.0.is_cut.store(true, Ordering::Release);
        self.0.driver.wake();
    }

    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        self.0.driver.register(context.waker());
        if self.0.is_cut.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "request abandoned"));
        }
        Ok(())
    }
}

/// Negotiates the stream of one connection.
#[derive(Clone)]
pub(super) struct Negotiation {
    pub(super) ssl: Ssl,
    /// Whether TLS begins without an SSLRequest (`sslnegotiation=direct`).
    pub(super) is_direct: bool,
    pub(super) cutter: Cutter,
}

pub(super) struct HostNegotiation {
    negotiation: Negotiation,
    host: String,
}

impl MakeTlsConnect<Socket> for Negotiation {
    type Stream = CuttableStream;
    type TlsConnect = HostNegotiation;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<HostNegotiation> {
        Ok(HostNegotiation { negotiation: self.clone(), host: host.to_owned() })
    }
}

impl TlsConnect<Socket> for HostNegotiation {
    type Stream = CuttableStream;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<CuttableStream>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let Self { negotiation, host } = self;
            let inner = negotiation.start(socket, &host).await?;
            Ok(CuttableStream { inner, cutter: negotiation.cutter })
        })
    }
}

impl Negotiation {
    async fn start(&self, mut socket: Socket, host: &str) -> io::Result<Transport> {
        let Some(client) = &self.ssl.client else { return Ok(Transport::Plain(socket)) };
        if !self.is_direct {
            socket.write_all(&SSL_REQUEST).await?;
            let has_tls = socket.read_u8().await? == b'S';
            if !has_tls && self.ssl.mode == SslMode::Prefer {
                return Ok(Transport::Plain(socket));
            }
            if !has_tls {
                return Err(io::Error::other("server does not support TLS"));
            }
        }
        let mut tls = MakeRustlsConnect::new((*client.configuration()).clone());
        let tls = MakeTlsConnect::<Socket>::make_tls_connect(&mut tls, host);
        let connect = tls.map_err(io::Error::other)?;
        Ok(Transport::Tls(Box::new(connect.connect(socket).await?)))
    }
}

enum Transport {
    Plain(Socket),
    Tls(Box<RustlsStream>),
}

/// A stream that a [`Cutter`] can end.
pub(super) struct CuttableStream {
    inner: Transport,
    cutter: Cutter,
}

impl TlsStream for CuttableStream {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.inner {
            Transport::Plain(_) => ChannelBinding::none(),
            Transport::Tls(stream) => stream.channel_binding(),
        }
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.cutter.check(context)?;
        match &mut self.inner {
            Transport::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.cutter.check(context)?;
        match &mut self.inner {
            Transport::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Transport::Tls(stream) => Pin::new(&mut **stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cutter.check(context)?;
        match &mut self.inner {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(context),
            Transport::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.cutter.check(context)?;
        match &mut self.inner {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Transport::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
        }
    }
}
