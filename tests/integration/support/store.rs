//! Configuration and batches for tests of the store without the service.

use tributary::domain::{AckTokens, Batch, RawMessage, SensorIdentifier, Timestamp};
use tributary::store;
use tributary::wire::{Decoder, Limits, Topics};

use super::postgres::Database;

/// The settings of a service on this database.
pub(crate) fn config(database: &Database) -> store::Config {
    let settings = |name: &str| (name == "DATABASE_URL").then(|| database.url.clone());
    tributary::config::read_store(settings).unwrap()
}

/// A batch of one message with measurements of a new sensor.
pub(crate) fn batch(measurements: &str) -> Batch {
    batch_of("measurements", measurements)
}

/// A batch of one message of a new sensor on this topic level.
pub(crate) fn batch_of(level: &str, payload: &str) -> Batch {
    batch_from(SensorIdentifier::random(), level, payload)
}

/// A batch of one message of this sensor on this topic level.
pub(crate) fn batch_from(sensor: SensorIdentifier, level: &str, payload: &str) -> Batch {
    let topic = format!("{level}/{sensor}");
    batch_of_message(RawMessage::new(&topic, payload.as_bytes(), Timestamp::now(), false))
}

/// A batch of this message.
pub(crate) fn batch_of_message(message: RawMessage) -> Batch {
    let ack_token = AckTokens::new().0.issue(0);
    Batch::new(vec![Decoder::new(Topics::new(""), Limits::DEFAULT).decode(message, ack_token)])
}
