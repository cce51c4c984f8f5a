//! What several instances share beside the data: the leader's lock, a row for each instance, and the events that they
//! relay to each other.

pub(super) mod leader_lock;
pub(super) mod relay;
pub(super) mod rows;
