//! Sensors: creation, change, deletion and look-ups.

pub(super) mod changes;
pub(super) mod deletion;
pub(super) mod lookups;
