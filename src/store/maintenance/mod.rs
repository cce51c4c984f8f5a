//! Background work: partitions, retention, activity counts, bundles, the sizes of the tables.

pub(super) mod activity;
pub(super) mod benchmark;
pub(super) mod bundles;
pub(super) mod census;
pub(super) mod clock;
pub(super) mod fold;
pub(super) mod housekeeping;
pub(super) mod log_index;
pub(super) mod partitions;
