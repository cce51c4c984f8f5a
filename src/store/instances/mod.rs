//! What several instances share beside the data: the leader's lock, a row for each instance, and what they tell each
//! other.

pub(super) mod leader_lock;
pub(super) mod relay;
pub(super) mod rows;
