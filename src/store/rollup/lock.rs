//! The lock of whatever changes `sensor_hour`. Taken by folds, recounts, rebuilds, retention and deletions before they
//! lock rows, so that there is no deadlock. Ingest never takes it.

/// The number of the advisory lock.
pub(in crate::store) const ROLLUP_LOCK: i64 = 0x7472_6963;

/// Parameter: the lock's number.
pub(in crate::store) const LOCK: &str = "select pg_advisory_xact_lock($1)";
