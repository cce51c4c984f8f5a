//! Writes the messages of all sensors in batches. `actor` collects a batch while earlier ones are
//! written, `policy` decides when the next starts, `delivery` writes one until it is committed; `budget`
//! limits stored rejections, `recent` recognizes messages that were sent twice.

mod actor;
mod budget;
mod delivery;
mod policy;
mod protocol;
mod recent;

pub use actor::WriterActor;
pub use delivery::{Commit, Reports};
pub use protocol::{Acknowledged, Deleted, Duplicates, Write};

/// `DATABASE_WRITERS`, `BATCH_…`, `REJECTIONS_…`
#[derive(Clone, Debug)]
pub struct Config {
    /// `DATABASE_WRITERS`
    pub connections: u32,
    /// `BATCH_MAX_ITEMS`
    pub batch_items: usize,
    /// `REJECTIONS_PER_SENSOR_HOUR`
    pub rejections_per_sensor_hour: u32,
}

#[cfg(test)]
mod tests;
