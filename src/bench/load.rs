//! The loads that the benchmark publishes. Used by the scenarios, which change single parameters; the test bed sets the
//! topics. The sensors are the same in each run.

use xxhash_rust::xxh3::xxh3_128;

use crate::domain::SensorIdentifier;
use crate::load::{Content, Fleet, Invention, Rate};
use crate::wire::Topics;

/// The sensors of most scenarios.
pub(super) const SENSORS: usize = 1_000;

/// Messages of this many measurements, as fast as the broker accepts them.
pub(super) fn backlog(messages: u64, sensor_count: usize, items: u32) -> Fleet {
    let content = Content::Invented(Invention::of_measurements(items));
    Fleet { limit: Some(messages), ..Fleet::new(sensors(sensor_count), Topics::new(""), content) }
}

/// Over several connections: a broker that takes one packet of each in turn is faster then.
pub(super) fn live(messages: u64, items: u32, rate: Rate) -> Fleet {
    Fleet { rate, connections: 8, window: 250, ..backlog(messages, SENSORS, items) }
}

/// Their identifiers are distributed as random ones are.
pub(super) fn sensors(count: usize) -> Vec<SensorIdentifier> {
    let sensor = |number: usize| {
        let bytes = xxh3_128(&(number as u64).to_le_bytes()).to_be_bytes();
        SensorIdentifier(uuid::Builder::from_random_bytes(bytes).into_uuid())
    };
    (0..count).map(sensor).collect()
}
