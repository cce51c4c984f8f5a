//! A TCP proxy between the service and one of its servers, for the faults of a network: closed, half-open and stalled
//! connections, refused ones, and a login that is refused. Promises that no byte is changed.

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::watcher::{Tap, Watcher};
use crate::support::ports::free_port;

const BUFFER_BYTES: usize = 64 << 10;

/// What becomes of a new connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Door {
    #[default]
    Open,
    /// Nobody listens.
    Shut,
    /// CONNECT is answered with Not authorized, [MQTT-3.2.2-7].
    NotAuthorized,
}

/// What becomes of the bytes. Connections are numbered from 1.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    door: Door,
    /// Connections up to this one are closed.
    cut: u64,
    /// Connections up to this one are half-open: bytes vanish.
    swallowed: u64,
    /// No byte goes on.
    stalled: bool,
    /// No byte goes on from the service.
    held_back: bool,
}

/// A proxy; it ends with its owner.
pub(crate) struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    connections: Rc<Cell<u64>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) fn start(upstream: u16, watcher: Option<Rc<Watcher>>) -> Self {
        let port = free_port();
        let (weather, seen) = watch::channel(Weather::default());
        let connections = Rc::new(Cell::new(0));
        let accepting =
            actix_rt::spawn(accept((port, upstream), seen, Rc::clone(&connections), watcher));
        Self { port, weather, connections, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many there have been.
    pub(crate) fn connection_count(&self) -> u64 {
        self.connections.get()
    }

    pub(crate) fn set_door(&self, door: Door) {
        self.weather.send_modify(|weather| weather.door = door);
    }

    /// Closes all connections.
    pub(crate) fn cut(&self) {
        let present = self.connections.get();
        self.weather.send_modify(|weather| weather.cut = present);
    }

    /// All present connections stay open, and nothing passes any more.
    pub(crate) fn swallow(&self) {
        let present = self.connections.get();
        self.weather.send_modify(|weather| weather.swallowed = present);
    }

    pub(crate) fn stall(&self, stalled: bool) {
        self.weather.send_modify(|weather| weather.stalled = stalled);
    }

    /// Keeps back what the service says.
    pub(crate) fn hold_back(&self, held_back: bool) {
        self.weather.send_modify(|weather| weather.held_back = held_back);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(
    (port, upstream): (u16, u16),
    mut weather: watch::Receiver<Weather>,
    connections: Rc<Cell<u64>>,
    watcher: Option<Rc<Watcher>>,
) {
    let seen = weather.clone();
    loop {
        // A shut door is a port on which nobody listens.
        if weather.wait_for(|weather| weather.door != Door::Shut).await.is_err() {
            return;
        }
        let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await else {
            tokio::task::yield_now().await;
            continue;
        };
        loop {
            tokio::select! {
                shut = weather.wait_for(|weather| weather.door == Door::Shut) => {
                    if shut.is_err() { return }
                    break;
                }
                accepted = listener.accept() => {
                    let Ok((service, _)) = accepted else { continue };
                    if seen.borrow().door == Door::NotAuthorized {
                        actix_rt::spawn(refuse(service));
                        continue;
                    }
                    connections.set(connections.get() + 1);
                    let number = connections.get();
                    actix_rt::spawn(connect(service, upstream, number, seen.clone(), watcher.clone()));
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
    weather: watch::Receiver<Weather>,
    watcher: Option<Rc<Watcher>>,
) {
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await else { return };
    drop((service.set_nodelay(true), server.set_nodelay(true)));
    let tap = watcher.map(|watcher| RefCell::new(Tap::new(watcher)));
    let (service_out, service_in) = service.into_split();
    let (server_out, server_in) = server.into_split();
    let up = pump(service_out, server_in, (number, true), weather.clone(), tap.as_ref());
    let down = pump(server_out, service_in, (number, false), weather, tap.as_ref());
    // The end of one direction is the end of both.
    tokio::select! { () = up => {} () = down => {} }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (number, upwards): (u64, bool),
    mut weather: watch::Receiver<Weather>,
    tap: Option<&RefCell<Tap>>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let now = *weather.borrow_and_update();
        if now.cut >= number {
            return;
        }
        if now.stalled || (now.held_back && upwards) {
            if weather.changed().await.is_err() {
                return;
            }
            continue;
        }
        let length = tokio::select! {
            changed = weather.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(length) => length,
            },
        };
        if now.swallowed >= number {
            continue;
        }
        if let Some(tap) = tap {
            let question = tap.borrow_mut().hear(&buffer[..length], upwards);
            if let Some(question) = question {
                question.ask().await;
            }
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
