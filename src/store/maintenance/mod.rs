//! What runs beside ingest: partitions, retention, counts of activity, bundles, the census of the tables.

pub(super) mod activity;
pub(super) mod benchmark;
pub(super) mod bundles;
pub(super) mod census;
pub(super) mod clock;
pub(super) mod fold;
pub(super) mod housekeeping;
pub(super) mod new_partition;
pub(super) mod partitions;
pub(super) mod retention;
