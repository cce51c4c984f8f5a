//! The messages of all benchmarks: measurements of many sensors, as the broker delivers them. Every item
//! has a new timestamp, so that no two items of a process are equal.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};

use tributary::domain::{AckTokens, RawMessage, SensorIdentifier, Timestamp, Uplink};
use tributary::wire::{Decoder, Limits, Topics};
use uuid::Uuid;

const MICROSECONDS_PER_ITEM: i64 = 50;

/// As in a batch.
type Boxed = Vec<Box<Uplink>>;

/// Generates messages, and decodes them.
pub(crate) struct Messages {
    decoder: Decoder,
    ack_tokens: AckTokens,
    pub(crate) sensors: Vec<SensorIdentifier>,
    next_timestamp: AtomicI64,
}

impl Messages {
    pub(crate) fn of(sensors: u128) -> Self {
        let limits =
            Limits { payload_bytes: 1 << 20, items_per_message: 10_000, ..Limits::DEFAULT };
        // The receiver of lost tokens is not needed.
        let (ack_tokens, _lost) = AckTokens::new();
        // Distributed like random identifiers.
        let sensor = |number: u128| {
            Uuid::from_u128((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_0c4b_a1d7_6e2b))
        };
        Self {
            decoder: Decoder::new(Topics::new(""), limits),
            ack_tokens,
            sensors: (0..sensors).map(|it| SensorIdentifier(sensor(it))).collect(),
            next_timestamp: AtomicI64::new(Timestamp::now().unix_microseconds() - 3_600_000_000),
        }
    }

    /// The message with this number and this many items.
    pub(crate) fn message(&self, number: usize, items: usize) -> RawMessage {
        let sensor = self.sensors[number % self.sensors.len()];
        let mut payload = String::from(r#"{"measurements":["#);
        for item in 0..items {
            let timestamp = self.next_timestamp.fetch_add(MICROSECONDS_PER_ITEM, Ordering::Relaxed);
            let (seconds, rest) = (timestamp / 1_000_000, timestamp % 1_000_000);
            let separator = if item > 0 { "," } else { "" };
            write!(
                payload,
                r#"{separator}{{"revision":1,"timestamp":{seconds}.{rest:06},"value":{{"temperature":21.53,"humidity":47}}}}"#
            )
            .expect("writing to a String succeeds");
        }
        payload.push_str("]}");
        let may_be_stored = false;
        let topic = format!("measurements/{sensor}");
        RawMessage::new(&topic, payload.as_bytes(), Timestamp::now(), may_be_stored)
    }

    pub(crate) fn decode(&self, message: RawMessage) -> Box<Uplink> {
        self.decoder.decode(message, self.ack_tokens.issue(0))
    }

    /// `count` messages of `items` items each.
    pub(crate) fn uplinks(&self, count: usize, items: usize) -> Boxed {
        (0..count).map(|number| self.decode(self.message(number, items))).collect()
    }
}
