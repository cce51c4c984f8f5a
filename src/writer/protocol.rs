//! The writer's messages: those that it receives from the sensors' actors, and those that it sends to
//! their supervisor. Settled tokens go to the inbound loop through a channel.

use actix::Message;

use crate::domain::{SensorIdentifier, Uplink};
use crate::store::Acknowledgement;

/// To the writer: store these messages.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Write(pub Vec<Box<Uplink>>);

/// To the writer, from itself: the messages that were in the mailbox before it have been collected.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct StartBatches;

/// From the writer: acknowledgements that are committed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Acknowledged(pub Vec<Acknowledgement>);

/// From the writer: duplicate items, by sensor.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Duplicates(pub Vec<(SensorIdentifier, u64)>);

/// From the writer and the API: these sensors are deleted.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Deleted(pub Vec<SensorIdentifier>);
