//! The values that flow through Tributary: what a sensor says, the batch it becomes, the receipt
//! that travels with it, and the ledger that accounts for it. Pure: no I/O, no clock but
//! [`Timestamp::now`], and nothing of this crate is imported here.

mod backoff;
mod batch;
mod flow;
mod health;
mod identifier;
mod ledger;
mod news;
mod receipt;
mod rejection;
mod timestamp;
mod uplink;

pub use backoff::{failures_after, pause};
pub use batch::{Batch, Place, Rows};
pub use flow::{Flow, FlowSnapshot};
pub use health::{Condition, Health, Part};
pub use identifier::SensorIdentifier;
pub use ledger::{Arrivals, Ledger, LedgerEntry, LedgerSnapshot, Tally};
pub use news::{Audience, News, Step, Tidings};
pub use receipt::{Lost, Receipt, ReceiptBook};
pub use rejection::{Reason, Rejection, RejectionDigest};
pub use timestamp::Timestamp;
pub use uplink::{
    Heartbeat, Items, Kind, LogMessage, Measurement, Origin, Severity, Span, Uplink, content_digest,
};
