//! Background work: partitions, retention, the sizes of the tables.

pub(super) mod benchmark;
pub(super) mod census;
pub(super) mod clock;
pub(super) mod housekeeping;
pub(super) mod log_index;
pub(super) mod partitions;
