//! An HTTP connection, with or without TLS, that can be closed from outside the server, which itself waits for room
//! to write without a limit. Created by `acceptor`, closed by `write_guard`. A closed connection holds neither
//! memory nor a socket.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// The byte stream that the server reads and writes.
pub(super) struct ClientStream {
    socket: Socket,
    control: Rc<Control>,
}

enum Socket {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

/// The connection of a request.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) local_address: SocketAddr,
    pub(super) is_secure: bool,
    is_cut: Cell<bool>,
    /// Wakes the task that serves the connection.
    waker: RefCell<Option<Waker>>,
}

impl Control {
    /// Closes the connection, whatever it is waiting for.
    pub(super) fn abort(&self) {
        self.is_cut.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl ClientStream {
    pub(super) fn plain(socket: TcpStream, local_address: SocketAddr) -> Self {
        Self::new(Socket::Plain(socket), local_address, false)
    }

    pub(super) fn secure(socket: TlsStream<TcpStream>, local_address: SocketAddr) -> Self {
        Self::new(Socket::Secure(Box::new(socket)), local_address, true)
    }

    fn new(socket: Socket, local_address: SocketAddr, is_secure: bool) -> Self {
        let (is_cut, waker) = (Cell::new(false), RefCell::default());
        Self { socket, control: Rc::new(Control { local_address, is_secure, is_cut, waker }) }
    }

    pub(super) fn control(&self) -> Rc<Control> {
        Rc::clone(&self.control)
    }

    /// The socket, or an error if the connection is closed.
    fn open(&mut self, context: &Context<'_>) -> io::Result<Pin<&mut dyn ReadWrite>> {
        if self.control.is_cut.get() {
            let socket = match &self.socket {
                Socket::Plain(socket) => socket,
                Socket::Secure(socket) => socket.get_ref().0,
            };
            // The kernel discards its send buffer, too.
            SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut waker = self.control.waker.borrow_mut();
        if waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Ok(match &mut self.socket {
            Socket::Plain(socket) => Pin::new(socket),
            Socket::Secure(socket) => Pin::new(&mut **socket),
        })
    }
}

trait ReadWrite: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> ReadWrite for T {}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.open(context)?.poll_read(context, buffer)
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.open(context)?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.open(context)?.poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            Socket::Plain(socket) => socket.is_write_vectored(),
            Socket::Secure(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open(context)?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open(context)?.poll_shutdown(context)
    }
}
