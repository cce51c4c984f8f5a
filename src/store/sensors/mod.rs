//! Sensors, as the API changes them and the registry looks them up.

pub(super) mod changes;
pub(super) mod deletion;
pub(super) mod lookups;
