//! Where the rows of all sensors meet, and are written together.

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
