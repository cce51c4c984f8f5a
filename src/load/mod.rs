//! The load generator that `tributary simulate` and `tributary bench` share. Each describes its load as
//! [`Source`]s; the publisher sends them at QoS 1 and keeps the account of what it sent. It promises that
//! every item in the account was handed to the broker, and that the totals say what the broker answered.
//!
//! ```text
//! Source (simulate: sensors, bench: numbered messages) → publisher → window, pace → connection → broker
//! ```

mod account;
mod connection;
mod http;
mod pace;
mod payload;
mod progress;
mod publisher;
mod window;

pub(crate) use account::{Account, Sent};
pub(crate) use connection::Connection;
pub(crate) use http::HttpClient;
pub(crate) use pace::{Pace, Rate, share_of, whole_messages};
pub(crate) use payload::{UnixSeconds, heartbeat, log_message, measurement, measurements};
pub(crate) use progress::{Progress, count};
pub(crate) use publisher::{
    Message, Plan, Publisher, Source, Stop, Timing, Totals, latencies, record,
};
pub(crate) use window::Limit;
