//! Closes the connections of clients that read their response too slowly or not at all, over HTTP/1 and HTTP/2. The
//! outermost middleware: it counts the bytes that are sent. Time in which the response waits for the service does
//! not count.
//!
//! The kernel cannot do this: a client may acknowledge every packet and keep the HTTP/2 window closed, or read a
//! few bytes before each timeout.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use actix_rt::task::JoinHandle;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Version;
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, web};
use tracing::info;

use super::Config;
use super::connection::Control;

/// Bytes handed to the server at a time; that it asks for more shows that they were read. A smaller HTTP/1 response
/// is written at once, into buffers that exist anyway.
const PIECE_BYTES: usize = 32 << 10;

/// Checks per write timeout.
const CHECKS_PER_TIMEOUT: u32 = 8;

/// The minimum rate at which a client must read.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriteLimits {
    /// `HTTP_WRITE_TIMEOUT_SECS`: the longest time without reading anything.
    pub(super) timeout: Duration,
    /// `HTTP_MIN_BYTES_PER_SEC`, on average over the same time.
    pub(super) min_bytes_per_sec: u64,
}

/// How fast a client reads a response.
#[derive(Clone, Copy, Debug, Default)]
struct ReadPace {
    /// Since when the client has had unread bytes; `None` without unread bytes.
    since: Option<Instant>,
    /// The same, but not before the current average began.
    counted_from: Option<Instant>,
    /// The earlier time with unread bytes in the current average.
    waited: Duration,
    /// Bytes handed to the client in the current average.
    bytes: u64,
}

impl ReadPace {
    /// The server took `bytes` of the response.
    fn hand(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes as u64;
        (self.since, self.counted_from) = (Some(now), Some(now));
    }

    /// The server has taken everything that is ready.
    fn taken(&mut self, now: Instant) {
        self.since = None;
        if let Some(counted_from) = self.counted_from.take() {
            self.waited += now - counted_from;
        }
    }

    /// Whether the client reads too slowly. Begins a new average when one is complete.
    fn is_too_slow(&mut self, now: Instant, limits: WriteLimits) -> bool {
        let (Some(since), Some(counted_from)) = (self.since, self.counted_from) else {
            return false;
        };
        let waited = self.waited + (now - counted_from);
        if now - since >= limits.timeout {
            return true;
        }
        if waited < limits.timeout {
            return false;
        }
        let least = limits.timeout.as_secs_f64() * limits.min_bytes_per_sec as f64;
        let is_too_slow = (self.bytes as f64) < least;
        (self.counted_from, self.waited, self.bytes) = (Some(now), Duration::ZERO, 0);
        is_too_slow
    }
}

/// Wraps the body of each response.
pub(super) async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<GuardedBody>, Error> {
    let control = request.request().conn_data::<Rc<Control>>().cloned();
    let limits = request.app_data::<web::Data<Config>>().map(|config| WriteLimits {
        timeout: Duration::from_secs(config.write_timeout_secs),
        min_bytes_per_sec: config.min_bytes_per_sec,
    });
    let is_http2 = request.version() == Version::HTTP_2;
    let response = next.call(request).await?.map_into_boxed_body();
    Ok(response.map_body(|_, body| {
        let is_small = match body.size() {
            BodySize::None | BodySize::Sized(0) => true,
            BodySize::Sized(bytes) => bytes <= PIECE_BYTES as u64 && !is_http2,
            BodySize::Stream => false,
        };
        let watch = limits.zip(control).filter(|_| !is_small);
        let watch = watch.map(|(limits, control)| PaceWatch::begin(control, limits));
        GuardedBody { body, rest: Bytes::new(), watch }
    }))
}

/// A body that is handed out in small pieces.
pub(super) struct GuardedBody {
    body: BoxBody,
    /// Of the last chunk of `body`.
    rest: Bytes,
    watch: Option<PaceWatch>,
}

impl MessageBody for GuardedBody {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = &mut *self;
        let Some(watch) = &this.watch else { return Pin::new(&mut this.body).poll_next(context) };
        watch.update(|pace, now| pace.taken(now));
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_next(context)) {
                Some(Ok(chunk)) => this.rest = chunk,
                other => return Poll::Ready(other),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        watch.update(|pace, now| pace.hand(piece.len(), now));
        Poll::Ready(Some(Ok(piece)))
    }
}

/// Ends with the body.
struct PaceWatch {
    pace: Rc<Cell<ReadPace>>,
    checking: JoinHandle<()>,
}

impl PaceWatch {
    fn begin(control: Rc<Control>, limits: WriteLimits) -> Self {
        let mut pace = ReadPace::default();
        pace.hand(0, Instant::now());
        let pace = Rc::new(Cell::new(pace));
        let checking = actix_rt::spawn(check_pace(Rc::downgrade(&pace), control, limits));
        Self { pace, checking }
    }

    fn update(&self, change: impl FnOnce(&mut ReadPace, Instant)) {
        let mut pace = self.pace.get();
        change(&mut pace, Instant::now());
        self.pace.set(pace);
    }
}

impl Drop for PaceWatch {
    fn drop(&mut self) {
        self.checking.abort();
    }
}

async fn check_pace(pace: Weak<Cell<ReadPace>>, control: Rc<Control>, limits: WriteLimits) {
    loop {
        tokio::time::sleep(limits.timeout / CHECKS_PER_TIMEOUT).await;
        let Some(pace) = pace.upgrade() else { return };
        let mut now = pace.get();
        let is_too_slow = now.is_too_slow(Instant::now(), limits);
        pace.set(now);
        if is_too_slow {
            let WriteLimits { timeout, min_bytes_per_sec } = limits;
            let timeout_secs = timeout.as_secs();
            info!(
                timeout_secs,
                min_bytes_per_sec, "closed the connection of a client that reads too slowly"
            );
            return control.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: WriteLimits =
        WriteLimits { timeout: Duration::from_secs(60), min_bytes_per_sec: 1_000 };

    /// Takes `bytes` every `every_secs` seconds; returns when it is cut off, within ten minutes.
    fn disconnected_after(bytes: usize, every_secs: u64, waits_for_us_secs: u64) -> Option<u64> {
        let start = Instant::now();
        let (mut pace, mut second) = (ReadPace::default(), 0);
        while second < 600 {
            let at = |second| start + Duration::from_secs(second);
            pace.taken(at(second));
            second += waits_for_us_secs;
            pace.hand(bytes, at(second));
            for _ in 0..every_secs {
                second += 1;
                if pace.is_too_slow(at(second), LIMITS) {
                    return Some(second);
                }
            }
        }
        None
    }

    #[test]
    fn a_client_that_reads_nothing_or_too_little_is_disconnected() {
        assert_eq!(disconnected_after(1 << 20, 1_000, 0), Some(60), "nothing after the first");
        assert_eq!(disconnected_after(4_000, 5, 0), Some(60), "800 bytes a second");
        assert_eq!(disconnected_after(6_000, 5, 0), None, "1,200 bytes a second");
        assert_eq!(disconnected_after(10, 1, 59), None, "it waits for us");
    }
}
