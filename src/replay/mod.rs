//! Sends stored rejections through the pipeline again. `replayer` processes the API's requests one after
//! the other, `message` rebuilds a message from a row of `rejection`.
//! Invariant: a replayed message has a token that the replayer issued, so it occupies no room in the
//! inbound window and causes no PUBACK; its row stays until the transaction that stores its items.

mod message;
mod replayer;

pub use message::NotReplayableCause;
pub use replayer::{
    ReplayError, ReplayReport, ReplayRequest, ReplayRequests, Replayer, ReplayerHandles, Replays,
};
