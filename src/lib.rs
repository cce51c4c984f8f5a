//! Tributary takes what fleets of sensors say over MQTT and puts it into PostgreSQL at the speed of
//! COPY, with nothing lost and nothing twice, and tells those sensors how to be configured.
//!
//! ```text
//! sensors ─MQTT→ broker ─PUBLISH→ inbound → SensorActor → WriterActor → COPY … COMMIT → PostgreSQL
//!                       ←PUBACK───────────←─────────────←──────────────── Committed ┘
//! HTTP → api → configuration (the row is the outbox) → outbox → outbound ─retained PUBLISH→ broker → sensor
//! ```
//!
//! # A measurement going up
//! 1. A PUBLISH reaches the inbound loop ([`mqtt`]), which gives it a place in the window and a
//!    ack token for it.
//! 2. [`wire`] decodes it into an [`domain::Uplink`]: the items that can be stored, and rejections.
//! 3. The registry ([`sensor`]) hands it to the actor of its sensor, which takes note and passes it
//!    on to the writer.
//! 4. The [`writer`] merges what arrived while earlier batches were being written.
//! 5. [`store`] writes the batch in one transaction: measurements, log messages and heartbeats by
//!    COPY, the configurations that they acknowledge, the rejections.
//! 6. COMMIT returns, and makes a [`store::Committed`]: the batch's ack tokens go back to the inbound
//!    loop in one message.
//! 7. The loop marks their places and sends the PUBACKs in the order of arrival.
//!
//! # A configuration going down
//! 1. A POST ([`api`]) commits the row with the sensor's next revision and is answered.
//! 2. The supervisor tells the sensor's actor what is desired now, and wakes the outbox ([`sensor`]).
//! 3. The outbox reads what is not published yet, and hands it down.
//! 4. The publisher ([`mqtt`]) sends a retained PUBLISH; the broker's PUBACK is recorded in the row.
//! 5. The sensor applies it and says so in a heartbeat, which goes up and acknowledges the revision.
//!
//! # A rejection coming again
//! 1. A POST ([`api`]) asks the replayer ([`replay`]) for what was recorded, page by page.
//! 2. What was kept becomes a message again, and takes the way up from step 2 on, with an ack token
//!    that is not the inbound loop's.
//! 3. The transaction that stores its items deletes its row of `rejection`.
//!
//! # Invariants
//! Invariant: a PUBACK with Success is made from a [`store::Committed`], whose one constructor is
//! private to `store::commit` and called after COMMIT returned.
//!
//! Invariant: nothing on the path acknowledges in `Drop`. Dropping anything withholds the PUBACK,
//! and the broker delivers again.
//!
//! Invariant: received = committed + duplicate + rejected + in flight, in items, per kind, at every
//! moment ([`domain::Ledger`]).
//!
//! Invariant: everything that grows has a bound, written where it bounds.

pub mod config;
pub mod telemetry;
pub mod tls;

pub mod app;

pub mod domain;
pub mod wire;

pub mod mqtt;
pub mod replay;
pub mod sensor;
pub mod writer;
pub mod store;

pub mod streams;

pub mod api;
pub mod metrics;
pub mod probes;

mod load;

pub mod simulate;

pub mod bench;

pub mod cli;
