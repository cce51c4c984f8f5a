//! What the writer calls: one transaction per batch of messages, from COPY to COMMIT.

pub(super) mod acknowledge;
pub(super) mod commit;
pub(super) mod copy;
pub(super) mod duplicates;
pub(super) mod events;
pub(super) mod isolate;
pub(super) mod rejections;
pub(super) mod replays;
pub(super) mod insert;
pub(super) mod journal;
pub(super) mod writer_connection;
