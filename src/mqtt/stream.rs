//! The TCP connection that ingests, as ntex's io drives it, paced as a network card is: idle, it
//! wakes us for each packet; under a steady stream it is taken off the reactor and looked at every
//! few milliseconds. Waking for each packet costs ten times the work on it (docs/BENCHMARKS.md).
//!
//! ntex's own stream stays on the reactor, whose epoll is edge-triggered: each packet that arrives
//! would wake the thread, even while nobody reads. So is the handle here that is written: it goes on
//! the reactor only while the socket takes no more.

use std::any::{Any, TypeId};
use std::future::poll_fn;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::rc::Rc;
use std::task::{Poll, ready};

use ntex_io::{Handle, IoContext, IoStream, IoTaskStatus, Readiness, types};
use tokio::net::TcpStream as OnReactor;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::gather::Gather;

/// Read at once at the most.
const READ_BYTES: usize = 64 << 10;

/// Buffers given to one write at the most.
const SLICES: usize = 16;

/// A connected socket.
pub(super) struct Stream(TcpStream);

impl Stream {
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self(socket))
    }
}

impl IoStream for Stream {
    fn start(self, context: IoContext) -> Box<dyn Handle> {
        match self.0.try_clone() {
            Ok(reading) => drop(actix_rt::spawn(read(reading, context.clone()))),
            Err(error) => context.stop(Some(error)),
        }
        let socket = Rc::new(self.0);
        actix_rt::spawn(write(Rc::clone(&socket), context));
        Box::new(Writing(socket))
    }
}

/// What is asked of the connection from outside its two tasks.
struct Writing(Rc<TcpStream>);

impl Handle for Writing {
    fn query(&self, id: TypeId) -> Option<Box<dyn Any>> {
        let address = self.0.peer_addr().ok()?;
        (id == TypeId::of::<types::PeerAddr>()).then(|| Box::new(types::PeerAddr(address)) as _)
    }

    /// Spares the write task a wake-up; what is left, or failed, comes to it by the status.
    fn write(&self, context: &IoContext) {
        write_out(&self.0, context);
    }

    fn notify(&self, _: &IoContext) {}
}

/// How a reading came to its end.
enum Taken {
    /// So many bytes, or none; for now there are no more.
    All(usize),
    /// So many, and perhaps there are more; what is read is to be taken first.
    Some(usize),
    /// The connection has ended.
    Ended,
}

async fn read(mut socket: TcpStream, context: IoContext) {
    let mut buffer = vec![0; READ_BYTES];
    let mut gather = Gather::default();
    loop {
        let on_reactor = match OnReactor::from_std(socket) {
            Ok(on_reactor) => on_reactor,
            Err(error) => return context.stop(Some(error)),
        };
        if !read_as_it_comes(&on_reactor, &context, &mut buffer, &mut gather).await {
            return;
        }
        socket = match on_reactor.into_std() {
            Ok(off_reactor) => off_reactor,
            Err(error) => return context.stop(Some(error)),
        };
        while let Some(next) = gather.next_reading() {
            // What was read has its turn, however soon that is.
            yield_now().await;
            sleep_until(next).await;
            let is_wanted = poll_fn(|task| context.poll_read_ready(task)).await;
            if !matches!(is_wanted, Readiness::Ready) {
                return;
            }
            match take(|part| socket.read(part), &context, &mut buffer) {
                Taken::All(bytes) => gather.has_all(bytes, Instant::now()),
                Taken::Some(bytes) => gather.has_some(bytes),
                Taken::Ended => return,
            }
        }
    }
}

/// Reads packets as they come, until they come in quick succession. False: the connection has ended.
async fn read_as_it_comes(
    socket: &OnReactor,
    context: &IoContext,
    buffer: &mut [u8],
    gather: &mut Gather,
) -> bool {
    while gather.next_reading().is_none() {
        let readable = poll_fn(|task| match ready!(context.poll_read_ready(task)) {
            Readiness::Ready => socket.poll_read_ready(task).map(Some),
            Readiness::Shutdown | Readiness::Terminate => Poll::Ready(None),
        });
        match readable.await {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                context.stop(Some(error));
                return false;
            }
            None => return false,
        }
        match take(|part| socket.try_read(part), context, buffer) {
            Taken::All(bytes) => gather.has_all(bytes, Instant::now()),
            Taken::Some(bytes) => gather.has_some(bytes),
            Taken::Ended => return false,
        }
    }
    true
}

/// Hands over what there is to read. A read that does not fill the buffer was the last.
fn take(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    context: &IoContext,
    buffer: &mut [u8],
) -> Taken {
    let mut taken = 0;
    loop {
        let count = match read(buffer) {
            Ok(0) => {
                context.stop(None);
                return Taken::Ended;
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Taken::All(taken);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                context.stop(Some(error));
                return Taken::Ended;
            }
        };
        taken += count;
        let mut unread = context.get_read_buf();
        unread.extend_from_slice(&buffer[..count]);
        match context.update_read_status(unread, Ok(count)) {
            IoTaskStatus::Io if count < buffer.len() => return Taken::All(taken),
            IoTaskStatus::Io => {}
            IoTaskStatus::Pause => return Taken::Some(taken),
            IoTaskStatus::Stop => return Taken::Ended,
        }
    }
}

async fn write(socket: Rc<TcpStream>, context: IoContext) {
    let outcome = match write_until_shutdown(&socket, &context).await {
        Ok(Readiness::Shutdown) => flush(&socket, &context, true).await,
        Ok(_) => flush(&socket, &context, false).await,
        Err(error) => Err(error),
    };
    if !context.is_stopped() {
        context.stop(outcome.err());
    }
}

async fn write_until_shutdown(socket: &TcpStream, context: &IoContext) -> io::Result<Readiness> {
    let mut full: Option<OnReactor> = None;
    loop {
        let readiness = poll_fn(|task| {
            let readiness = ready!(context.poll_write_ready(task));
            if matches!(readiness, Readiness::Ready) {
                if let Some(waiting) = &full {
                    ready!(waiting.poll_write_ready(task))?;
                    full = None;
                }
                if matches!(write_out(socket, context), IoTaskStatus::Pause) {
                    return Poll::Pending;
                }
            }
            Poll::Ready(Ok::<_, io::Error>(readiness))
        })
        .await?;
        if !matches!(readiness, Readiness::Ready) || context.is_stopped() {
            return Ok(readiness);
        }
        full = Some(OnReactor::from_std(socket.try_clone()?)?);
    }
}

/// Writes what is left, until the connection is shut down.
async fn flush(socket: &TcpStream, context: &IoContext, whole: bool) -> io::Result<()> {
    while !context.is_stopped() && !matches!(write_out(socket, context), IoTaskStatus::Stop) {
        let full = OnReactor::from_std(socket.try_clone()?)?;
        let is_shut = poll_fn(|task| {
            if context.shutdown(whole, task).is_ready() {
                return Poll::Ready(Ok(true));
            }
            if context.with_write_buf(|waiting| waiting.is_empty()) {
                return Poll::Pending;
            }
            full.poll_write_ready(task).map_ok(|()| false)
        });
        if is_shut.await? {
            break;
        }
    }
    Ok(())
}

/// Writes what the socket takes.
fn write_out(mut socket: &TcpStream, context: &IoContext) -> IoTaskStatus {
    let written = context.with_write_buf(|waiting| {
        let slices: Vec<IoSlice<'_>> =
            waiting.iter().filter(|it| !it.is_empty()).take(SLICES).map(IoSlice::new).collect();
        if slices.is_empty() {
            return Ok(false);
        }
        let written = socket.write_vectored(&slices);
        drop(slices);
        match written {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                waiting.advance_to(count);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    });
    context.update_write_status(written)
}
