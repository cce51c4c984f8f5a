//! A TCP proxy between the service and one of its servers, for network faults: closed, half-open, stalled and refused
//! connections, and a refused login. Used by `run` and the faults. It never changes a byte.

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::puback_check::{ConnectionTap, PubackCheck};
use crate::support::ports::free_port;

const BUFFER_BYTES: usize = 64 << 10;

/// What happens to a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Listener {
    #[default]
    Open,
    /// The port refuses connections.
    Closed,
    /// CONNECT is answered with Not authorized, [MQTT-3.2.2-7].
    NotAuthorized,
}

/// What happens to the bytes. Connections are numbered from 1.
#[derive(Clone, Copy, Debug, Default)]
struct Conditions {
    listener: Listener,
    /// Connections up to this one are closed.
    closed_up_to: u64,
    /// Connections up to this one are half-open: bytes are dropped.
    dropping_up_to: u64,
    /// No byte is forwarded.
    stalled: bool,
    /// No byte from the service is forwarded.
    upstream_held: bool,
}

/// Dropping a proxy closes all connections.
pub(crate) struct Proxy {
    port: u16,
    conditions: watch::Sender<Conditions>,
    connections: Rc<Cell<u64>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) fn start(upstream: u16, puback_check: Option<Rc<PubackCheck>>) -> Self {
        let port = free_port();
        let (conditions, seen) = watch::channel(Conditions::default());
        let connections = Rc::new(Cell::new(0));
        let accepting =
            actix_rt::spawn(accept((port, upstream), seen, Rc::clone(&connections), puback_check));
        Self { port, conditions, connections, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The number of connections so far.
    pub(crate) fn connection_count(&self) -> u64 {
        self.connections.get()
    }

    pub(crate) fn set_listener(&self, listener: Listener) {
        self.conditions.send_modify(|conditions| conditions.listener = listener);
    }

    /// Closes all connections.
    pub(crate) fn close_all(&self) {
        let current = self.connections.get();
        self.conditions.send_modify(|conditions| conditions.closed_up_to = current);
    }

    /// All current connections stay open, and their bytes are dropped.
    pub(crate) fn drop_bytes(&self) {
        let current = self.connections.get();
        self.conditions.send_modify(|conditions| conditions.dropping_up_to = current);
    }

    pub(crate) fn stall(&self, stalled: bool) {
        self.conditions.send_modify(|conditions| conditions.stalled = stalled);
    }

    /// Holds the bytes from the service.
    pub(crate) fn hold_upstream(&self, upstream_held: bool) {
        self.conditions.send_modify(|conditions| conditions.upstream_held = upstream_held);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.close_all();
    }
}

async fn accept(
    (port, upstream): (u16, u16),
    mut conditions: watch::Receiver<Conditions>,
    connections: Rc<Cell<u64>>,
    puback_check: Option<Rc<PubackCheck>>,
) {
    let seen = conditions.clone();
    loop {
        // While the proxy is closed, nothing listens on the port.
        if conditions.wait_for(|conditions| conditions.listener != Listener::Closed).await.is_err()
        {
            return;
        }
        let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await else {
            tokio::task::yield_now().await;
            continue;
        };
        loop {
            tokio::select! {
                closed = conditions.wait_for(|conditions| conditions.listener == Listener::Closed) => {
                    if closed.is_err() { return }
                    break;
                }
                accepted = listener.accept() => {
                    let Ok((service, _)) = accepted else { continue };
                    if seen.borrow().listener == Listener::NotAuthorized {
                        actix_rt::spawn(refuse(service));
                        continue;
                    }
                    connections.set(connections.get() + 1);
                    let number = connections.get();
                    actix_rt::spawn(connect(service, upstream, number, seen.clone(), puback_check.clone()));
                }
            }
        }
    }
}

async fn refuse(mut service: TcpStream) {
    let mut connect = [0; 1024];
    // CONNACK: no session, reason 0x87, no properties.
    let not_authorized = [0x20, 0x03, 0x00, 0x87, 0x00];
    if service.read(&mut connect).await.is_ok() {
        drop(service.write_all(&not_authorized).await);
    }
}

async fn connect(
    service: TcpStream,
    upstream: u16,
    number: u64,
    conditions: watch::Receiver<Conditions>,
    puback_check: Option<Rc<PubackCheck>>,
) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await else { return };
    drop((service.set_nodelay(true), server.set_nodelay(true)));
    let tap = puback_check.map(|puback_check| RefCell::new(ConnectionTap::new(puback_check)));
    let (service_out, service_in) = service.into_split();
    let (server_out, server_in) = server.into_split();
    let up = pump(service_out, server_in, (number, true), conditions.clone(), tap.as_ref());
    let down = pump(server_out, service_in, (number, false), conditions, tap.as_ref());
    // If one direction ends, so does the other.
    tokio::select! { () = up => {} () = down => {} }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (number, upwards): (u64, bool),
    mut conditions: watch::Receiver<Conditions>,
    tap: Option<&RefCell<ConnectionTap>>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let now = *conditions.borrow_and_update();
        if now.closed_up_to >= number {
            return;
        }
        if now.stalled || (now.upstream_held && upwards) {
            if conditions.changed().await.is_err() {
                return;
            }
            continue;
        }
        let length = tokio::select! {
            changed = conditions.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            },
        };
        if now.dropping_up_to >= number {
            continue;
        }
        if let Some(tap) = tap {
            let verification = tap.borrow_mut().observe(&buffer[..length], upwards);
            if let Some(verification) = verification {
                verification.run().await;
            }
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
