//! The values that pass through the pipeline: messages, items, batches, rejections, acknowledgement
//! tokens, and the ledger that counts them. Used by every other module. No I/O. Clocks:
//! [`Timestamp::now`], and deadlines in `leadership` and `event`. No import from the rest of the crate.

mod access;
mod ack_token;
mod backoff;
mod batch;
mod byte_queue;
mod elements;
mod faults;
mod flow;
mod health;
mod identifier;
mod item;
mod leadership;
mod ledger;
mod event;
mod password;
mod raw_message;
mod rejection;
mod scan;
mod timestamp;
mod token;
mod uplink;

pub use access::{NetworkIdentifier, Role, Scope};
pub use ack_token::{AckToken, AckTokens, LostToken};
pub use backoff::{failures_after, is_contested, long_pause, pause, refusal_pause, standoff};
pub use batch::{Batch, RowRef, Rows};
pub use byte_queue::{ByteQueue, Held};
pub use elements::{ObjectMembers, elements, trim_payload};
pub use event::{Event, EventKind, ItemTimes, Step, Subscriptions};
pub use faults::{Faults, Task};
pub use flow::{Flow, FlowSnapshot};
pub use health::{Condition, Health, Part};
pub use identifier::SensorIdentifier;
pub use item::{
    Heartbeat, ItemHead, Items, Kind, LogMessage, Measurement, Severity, content_digest,
};
pub use leadership::Leadership;
pub use ledger::{
    KindCounts, LEDGER_ENTRY_COUNT, Ledger, LedgerEntry, LedgerSnapshot, Tally, ledger_names,
};
pub use password::{hash_password, is_password, is_usable_password};
pub use raw_message::{ByteRange, RawMessage};
pub use rejection::{Reason, Rejection, RejectionDigest};
pub use scan::malformed_value;
pub use timestamp::Timestamp;
pub use token::{Token, TokenDigest};
pub use uplink::Uplink;
