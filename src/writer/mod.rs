//! Where the rows of all sensors meet and are written together. `actor` collects what arrives while
//! earlier batches are being written, `delivery` brings one batch into the database whatever it
//! takes, `policy` decides when to start and how long to wait, `budget` bounds a flood, `recent`
//! knows again what came lately.

mod actor;
mod budget;
mod delivery;
mod policy;
mod protocol;
mod recent;

pub use actor::WriterActor;
pub use delivery::{Commit, Reports};
pub use protocol::{Acknowledged, Deleted, Write};

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
