//! The load generator that `tributary simulate` and `tributary bench` share: a [`Fleet`] of sensors publishes over a
//! few MQTT connections at QoS 1. It promises that every item in the account was handed to the broker, and that
//! the totals say what the broker answered.
//!
//! ```text
//! Fleet → Sensors (invented or series, its configurations) → Publisher → window, pace → connection → broker
//! ```

mod account;
mod fleet;
mod http;
mod pace;
mod progress;
mod publisher;
mod sensors;

pub(crate) use account::{Account, Message};
pub(crate) use fleet::Fleet;
pub(crate) use http::{HttpClient, Ledgers};
pub(crate) use pace::Rate;
pub(crate) use progress::{count, progress};
pub(crate) use publisher::{BrokerEvent, PublisherConnection, Stop, Totals, latencies, record};
pub(crate) use sensors::{Content, Copies, Invention, Series, Unseen};
