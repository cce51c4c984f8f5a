//! The TCP stream of the inbound connection, driven by ntex' I/O. Opened by `connect`. While idle it wakes
//! the thread per packet; under steady load it is taken off tokio's reactor and read every few
//! milliseconds, as `read_pacing` decides, because a wake-up per packet costs ten times the work on it.
//!
//! The reactor's epoll is edge-triggered: a socket on it wakes the thread for every packet, even while
//! nothing reads. So reading and writing use two handles, each on the reactor only while it waits.

use std::any::{Any, TypeId};
use std::future::poll_fn;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::rc::Rc;
use std::task::{Poll, ready};

use ntex_io::{Handle, IoContext, IoStream, IoTaskStatus, Readiness, types};
use tokio::net::TcpStream as OnReactor;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::read_pacing::ReadPacer;
use crate::domain::Task;
use crate::tasks::Tasks;

/// Maximum read.
const READ_BYTES: usize = 64 << 10;

/// Maximum buffers per write.
const SLICES: usize = 16;

/// A connected socket.
pub(super) struct Stream(TcpStream, DelayedReads);

/// What the reading of a socket uses.
#[derive(Clone, Debug, Default)]
pub struct DelayedReads {
    /// Notified when all that was read is acknowledged: what comes next was waiting for that.
    pub all_acknowledged: Rc<Notify>,
    /// Runs what reads and writes.
    pub tasks: Tasks,
}

impl Stream {
    pub(super) fn new(socket: TcpStream, delayed: DelayedReads) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self(socket, delayed))
    }
}

impl IoStream for Stream {
    fn start(self, context: IoContext) -> Box<dyn Handle> {
        let Self(socket, delayed) = self;
        let tasks = delayed.tasks.clone();
        match socket.try_clone() {
            Ok(reading) => spawn(&tasks, context.clone(), async move |context| {
                read(reading, context, delayed).await;
            }),
            Err(error) => context.stop(Some(error)),
        }
        let socket = Rc::new(socket);
        let writing = Rc::clone(&socket);
        spawn(&tasks, context, async move |context| write(writing, context).await);
        Box::new(Writing(socket))
    }
}

/// A panic ends the connection, which is made again.
fn spawn(tasks: &Tasks, context: IoContext, work: impl AsyncFnOnce(IoContext) + 'static) {
    let tasks = tasks.clone();
    actix_rt::spawn(async move {
        if let Err(panic) = tasks.watch(Task::BrokerSocket, work(context.clone())).await {
            context.stop(Some(io::Error::other(panic)));
        }
    });
}

/// Answers ntex outside of the two tasks.
struct Writing(Rc<TcpStream>);

impl Handle for Writing {
    fn query(&self, id: TypeId) -> Option<Box<dyn Any>> {
        let address = self.0.peer_addr().ok()?;
        (id == TypeId::of::<types::PeerAddr>()).then(|| Box::new(types::PeerAddr(address)) as _)
    }

    /// Writes without waking the write task, which learns of a rest or an error by the status.
    fn write(&self, context: &IoContext) {
        write_out(&self.0, context);
    }

    fn notify(&self, _: &IoContext) {}
}

/// The outcome of a read.
enum ReadOutcome {
    /// Bytes read, perhaps none; the socket is empty.
    Complete(usize),
    /// Bytes read; ntex wants no more for now.
    Partial(usize),
    Ended,
}

async fn read(mut socket: TcpStream, context: IoContext, delayed: DelayedReads) {
    let DelayedReads { all_acknowledged, tasks } = delayed;
    let mut buffer = vec![0; READ_BYTES];
    let mut pacer = ReadPacer::default();
    loop {
        let on_reactor = match OnReactor::from_std(socket) {
            Ok(on_reactor) => on_reactor,
            Err(error) => return context.stop(Some(error)),
        };
        if !read_on_reactor(&on_reactor, &context, &mut buffer, &mut pacer).await {
            return;
        }
        tasks.faults().at(Task::BrokerSocket);
        socket = match on_reactor.into_std() {
            Ok(off_reactor) => off_reactor,
            Err(error) => return context.stop(Some(error)),
        };
        while let Some(next) = pacer.next_read_at() {
            // The task that processes what was read runs first.
            yield_now().await;
            tokio::select! {
                () = sleep_until(next) => {}
                () = all_acknowledged.notified() => {}
            }
            let readiness = poll_fn(|task| context.poll_read_ready(task)).await;
            if !matches!(readiness, Readiness::Ready) {
                return;
            }
            match read_available(|part| socket.read(part), &context, &mut buffer) {
                ReadOutcome::Complete(bytes) => pacer.complete_read(bytes, Instant::now()),
                ReadOutcome::Partial(bytes) => pacer.partial_read(bytes),
                ReadOutcome::Ended => return,
            }
        }
    }
}

/// Reads when the reactor says so, until reads follow in quick succession. False: the connection ended.
async fn read_on_reactor(
    socket: &OnReactor,
    context: &IoContext,
    buffer: &mut [u8],
    pacer: &mut ReadPacer,
) -> bool {
    while pacer.next_read_at().is_none() {
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
        match read_available(|part| socket.try_read(part), context, buffer) {
            ReadOutcome::Complete(bytes) => pacer.complete_read(bytes, Instant::now()),
            ReadOutcome::Partial(bytes) => pacer.partial_read(bytes),
            ReadOutcome::Ended => return false,
        }
    }
    true
}

/// Reads until the socket is empty. A read that does not fill the buffer was the last.
fn read_available(
    mut read: impl FnMut(&mut [u8]) -> io::Result<usize>,
    context: &IoContext,
    buffer: &mut [u8],
) -> ReadOutcome {
    let mut total = 0;
    loop {
        let count = match read(buffer) {
            Ok(0) => {
                context.stop(None);
                return ReadOutcome::Ended;
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return ReadOutcome::Complete(total);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                context.stop(Some(error));
                return ReadOutcome::Ended;
            }
        };
        total += count;
        let mut unread = context.get_read_buf();
        unread.extend_from_slice(&buffer[..count]);
        match context.update_read_status(unread, Ok(count)) {
            IoTaskStatus::Io if count < buffer.len() => return ReadOutcome::Complete(total),
            IoTaskStatus::Io => {}
            IoTaskStatus::Pause => return ReadOutcome::Partial(total),
            IoTaskStatus::Stop => return ReadOutcome::Ended,
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

/// Writes the rest, until the connection is shut down.
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

/// Writes as much as the socket takes.
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
