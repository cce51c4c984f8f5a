//! Tributary receives the messages of sensors over MQTT, stores them in PostgreSQL by COPY, each item
//! exactly once, and publishes the sensors' configurations.
//!
//! ```text
//! sensors ─MQTT→ broker ─PUBLISH→ inbound → SensorActor → WriterActor → COPY … COMMIT → PostgreSQL
//!                       ←PUBACK───────────←─────────────←──────────────── Committed ┘
//! HTTP → api → configuration (the row is the outbox) → outbox → outbound ─retained PUBLISH→ broker → sensor
//! ```
//!
//! # A measurement going up
//! 1. The inbound loop ([`mqtt`]) receives a PUBLISH and issues a [`domain::AckToken`] for it, its
//!    position in the window.
//! 2. [`wire`] decodes it into an [`domain::Uplink`]: the items that can be stored, and rejections.
//! 3. The router ([`sensor`]) sends it to the actor of its sensor, which updates its state and passes it
//!    on to the writer.
//! 4. The [`writer`] collects a batch while earlier ones are being written.
//! 5. [`store`] writes the batch in one transaction: measurements, log messages and heartbeats by
//!    COPY, acknowledgements of configurations, rejections.
//! 6. COMMIT returns, and a [`store::Committed`] carries the batch's tokens to the inbound loop.
//! 7. The loop settles them in its window and sends PUBACKs in the order of arrival.
//!
//! # A configuration going down
//! 1. A POST ([`api`]) commits a row with the sensor's next revision, then notifies the sensor's actor
//!    through the supervisor, and wakes the outbox ([`sensor`]).
//! 2. The outbox reads the rows that are not published yet, records that they are about to be sent, and passes them to
//!    the publisher.
//! 3. The publisher ([`mqtt`]) sends a retained PUBLISH; after the broker's PUBACK the outbox sets
//!    `publication_timestamp`.
//! 4. The sensor applies the configuration and sends a heartbeat, which goes up and acknowledges the
//!    revision.
//!
//! # A replayed rejection
//! 1. A POST ([`api`]) requests the replay of a page of rejections from the replayer ([`replay`]).
//! 2. Each becomes a message again and goes up from step 2 on, with an acknowledgement token that the
//!    replayer issued.
//! 3. The transaction that stores its items deletes its row of `rejection`.
//!
//! # Invariants
//! Invariant: a PUBACK with Success is made from a [`store::Committed`], whose one constructor is
//! private to `store::ingest::commit` and called after COMMIT returned.
//!
//! Invariant: nothing acknowledges in `Drop`. Dropping a message withholds its PUBACK, and the broker
//! delivers it again.
//!
//! Invariant: received = committed + duplicate + rejected + in flight, in items, per kind, at every
//! moment ([`domain::Ledger`]).
//!
//! Invariant: every queue has a bound, documented at its constant. Sensors have none: `UNKNOWN_SENSOR=register` relies on
//! the broker to refuse those that it does not know.

pub mod config;
pub mod telemetry;
pub mod tls;

pub mod app;

pub mod domain;
pub mod tasks;
pub mod wire;

pub mod mqtt;
pub mod replay;
pub mod sensor;
pub mod writer;
pub mod store;

pub mod streams;
pub mod instances;

pub mod api;
pub mod metrics;
pub mod probes;

mod load;

pub mod simulate;

pub mod listen;

pub mod bench;

pub mod cli;
