//! What the writer understands, and what it reports.

use actix::Message;

use crate::domain::{SensorIdentifier, Uplink};
use crate::store::Acknowledgement;

/// Bring these messages into the database. The answer is their settled ack tokens, by way of the
/// inbound loop.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Write(pub Vec<Box<Uplink>>);

/// To the writer, from itself: all that was in the mailbox when it was sent has been taken; begin.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Begin;

/// From the writer: these revisions were acknowledged in a commit.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Acknowledged(pub Vec<Acknowledgement>);

/// From the writer, and from whoever deletes: these sensors are no more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Deleted(pub Vec<SensorIdentifier>);
