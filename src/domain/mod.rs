//! The values that flow through Tributary: what a sensor says, the batch it becomes, the receipt
//! that travels with it, and the ledger that accounts for it. Pure: no I/O, no clock but
//! [`Timestamp::now`], and nothing of this crate is imported here.

mod access;
mod backoff;
mod batch;
mod flow;
mod faults;
mod health;
mod identifier;
mod ledger;
mod news;
mod origin;
mod password;
mod receipt;
mod rejection;
mod timestamp;
mod token;
mod uplink;

pub use access::{NetworkIdentifier, Role, Scope};
pub use backoff::{failures_after, is_contested, pause, standoff};
pub use batch::{Batch, Place, Rows};
pub use faults::{Faults, Spot};
pub use flow::{Flow, FlowSnapshot};
pub use health::{Condition, Health, Part};
pub use identifier::SensorIdentifier;
pub use ledger::{Arrivals, Ledger, LedgerEntry, LedgerSnapshot, Tally, ledger_names};
pub use news::{Audience, News, Step, Tidings};
pub use origin::{Origin, Span};
pub use password::{hash_password, is_password, is_usable_password};
pub use receipt::{Lost, Receipt, ReceiptBook};
pub use rejection::{Reason, Rejection, RejectionDigest};
pub use timestamp::Timestamp;
pub use token::{Token, TokenDigest};
pub use uplink::{
    Heartbeat, Items, Kind, LogMessage, Measurement, Severity, Uplink, content_digest,
};
