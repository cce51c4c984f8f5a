//! Server-sent events, from the commit to the reader: `hub` dispatches events to readers, `queue` buffers those of
//! one reader, `event` formats them, `fleet` keeps the counts of the whole fleet, `model` is their state, and
//! `grants` ends streams. Fed by the writer and the outbox through [`crate::domain::Subscriptions`]; read by the API.
//!
//! Invariant: a reader gets a row only after its COMMIT, and nothing waits for a reader: the stream of one that is
//! too slow is closed, with a last event that says so.

mod event;
mod fleet;
mod grants;
mod hub;
mod model;
mod queue;
#[cfg(test)]
mod tests;

pub(crate) use event::{Configured, Dropped, Opened};
pub use fleet::{FleetStream, NotRead};
pub use grants::check_grants;
pub use hub::{Hub, NoRoom, Reader, StreamGrant};
pub(crate) use model::{FleetChange, FleetSnapshot, SensorCounts};

/// `STREAM_…`
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// `STREAM_MAX_READERS`
    pub max_readers: usize,
    /// `STREAM_KEEP_ALIVE_SECS`
    pub keep_alive_secs: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_readers: 2_000, keep_alive_secs: 15 }
    }
}
