//! Sensors (placeholder until the API brings them).
pub(super) const DELETION_LOCK: i64 = 0x7472_6962;
