//! What the benchmark publishes, and how fast. Described by the scenarios, published by the test bed, written as rows by
//! the baseline of psql.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_128;

use crate::domain::SensorIdentifier;
use crate::load::{Content, Copies, Fleet, Invention, Rate};
use crate::wire::Topics;

/// The sensors of most scenarios.
pub(super) const SENSORS: usize = 1_000;
const TICK: Duration = Duration::from_millis(1);

#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) messages: u64,
    pub(super) sensors: usize,
    pub(super) invention: Invention,
    pub(super) copies: Copies,
    /// Of all connections together.
    pub(super) rate: Rate,
    /// None until all messages are published.
    pub(super) duration: Option<Duration>,
    pub(super) connections: usize,
    /// Un-acknowledged messages of each connection.
    pub(super) window: usize,
}

impl Load {
    /// As fast as the broker takes it; over one connection, which keeps the order.
    pub(super) fn backlog(messages: u64, sensors: usize, items: u32) -> Self {
        Self {
            messages,
            sensors,
            invention: Invention::of_measurements(items),
            copies: Copies::default(),
            rate: Rate::Unlimited,
            duration: None,
            connections: 1,
            window: 10_000,
        }
    }

    /// From a fleet: a broker that takes one packet of each connection in turn is faster with several.
    pub(super) fn live(messages: u64, items: u32, rate: Rate) -> Self {
        Self { rate, connections: 8, window: 250, ..Self::backlog(messages, SENSORS, items) }
    }

    /// How many messages are published, copies included, give or take one.
    pub(super) fn message_count(&self) -> u64 {
        self.messages + (self.messages as f64 * self.copies.share) as u64
    }

    pub(super) fn fleet(&self, topics: Topics) -> Fleet {
        Fleet {
            identifiers: sensors(self.sensors),
            topics,
            content: Content::Invented(self.invention),
            seed: 1,
            rate: self.rate.clone(),
            limit: Some(self.messages),
            copies: self.copies,
            connections: self.connections,
            window: self.window,
            tick: TICK,
            is_lifelike: false,
        }
    }
}

/// The same sensors in each run, with identifiers distributed as random ones are.
pub(super) fn sensors(count: usize) -> Vec<SensorIdentifier> {
    let sensor = |number: usize| {
        let bytes = xxh3_128(&(number as u64).to_le_bytes()).to_be_bytes();
        SensorIdentifier(uuid::Builder::from_random_bytes(bytes).into_uuid())
    };
    (0..count).map(sensor).collect()
}
