//! Configurations: their revisions, as the API writes and reads them, and the outbox of what goes down.

pub(super) mod outbox;
pub(super) mod revisions;
pub(super) mod state;
