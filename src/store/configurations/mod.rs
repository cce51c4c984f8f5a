//! Configurations: their revisions, for the API, and the outbox of those to be published.

pub(super) mod outbox;
pub(super) mod revisions;
pub(super) mod state;
