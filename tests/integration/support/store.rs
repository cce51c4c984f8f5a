//! The store alone, without the service around it.

use tributary::domain::{Batch, Origin, ReceiptBook, SensorIdentifier, Timestamp};
use tributary::store;
use tributary::wire::{Decoder, Limits, Topics};

use super::postgres::Database;

/// The settings of a service on this database.
pub(crate) fn config(database: &Database) -> store::Config {
    let settings = |name: &str| (name == "DATABASE_URL").then(|| database.url.clone());
    tributary::config::read_store(settings).unwrap()
}

/// What some new sensor measured, as it goes to the writer.
pub(crate) fn batch(measurements: &str) -> Batch {
    let limits = Limits { payload_bytes: 1 << 20, items_per_message: 10_000 };
    let topic = format!("measurements/{}", SensorIdentifier::random());
    let origin = Origin::new(&topic, measurements.as_bytes(), Timestamp::now(), false);
    let receipt = ReceiptBook::new().0.write(0);
    Batch::new(vec![Decoder::new(Topics::new(""), limits).decode(origin, receipt)])
}
