//! The second way in: what was recorded in `rejection` goes through the pipeline again, as if it had
//! just arrived. `replayer` takes one request after the other, `message` (pure) makes a message of
//! what was kept, `places` (pure) remembers what is on its way.
//!
//! Invariant: a replayed message has an ack token of the replayer's own, so it holds no place in the inbound
//! window and makes no PUBACK. Whatever happens to it on the way, its row is there until the commit
//! that brings its items into the tables.

mod message;
mod places;
mod replayer;

pub use message::NotReplayable;
pub use replayer::{Order, ReplayRequests, Replayer, ReplayerHandles, Replays, Report, Unanswered};
