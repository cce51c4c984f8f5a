//! The actor of one sensor: updates the sensor's state for each message and passes its rows to the
//! writer. The registry starts it and sends it messages. A panic in it loses the message that it
//! was processing and those behind it; the connection is then closed, and the broker delivers again what was not
//! acknowledged.

use std::rc::Rc;

use actix::{Actor, ActorContext as _, Context, Handler, Recipient};

use super::outbox::Republish;
use super::protocol::{GetSnapshot, SensorMessage, Snapshot};
use super::state::{SensorState, Tolerances};
use super::uplink_buffer::UplinkBuffer;
use crate::domain::{Timestamp, Uplink};
use crate::store::KnownSensor;
use crate::tasks::Tasks;

/// What all sensors' actors share.
#[derive(Debug)]
pub(super) struct ActorShared {
    pub(super) buffer: UplinkBuffer,
    pub(super) outbox: Recipient<Republish>,
    pub(super) tolerances: Tolerances,
    pub(super) tasks: Tasks,
}

/// The actor of one sensor.
#[derive(Debug)]
pub(super) struct SensorActor {
    state: SensorState,
    shared: Rc<ActorShared>,
}

impl SensorActor {
    pub(super) fn new(known: &KnownSensor, shared: Rc<ActorShared>) -> Self {
        Self { state: SensorState::new(known, Timestamp::now()), shared }
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the inbound window bounds what is in flight, and a send().await per message costs 49 µs"
    )]
    fn handle_uplink(&mut self, mut uplink: Box<Uplink>) {
        uplink.ack_token.begin_processing();
        self.shared.tasks.faults().at_message(&uplink);
        if self.state.record(&uplink, self.shared.tolerances)
            && let Some(sensor) = uplink.sensor
        {
            self.shared.outbox.do_send(Republish(sensor));
        }
        uplink.ack_token.end_processing();
        self.shared.buffer.push(uplink);
    }
}

impl Actor for SensorActor {
    type Context = Context<Self>;
}

impl Handler<SensorMessage> for SensorActor {
    type Result = ();

    fn handle(&mut self, message: SensorMessage, context: &mut Context<Self>) {
        match message {
            SensorMessage::Uplink(uplink) => self.handle_uplink(uplink),
            SensorMessage::Desired(revision) => self.state.set_desired(revision, Timestamp::now()),
            SensorMessage::Acknowledged { revision, success } => {
                self.state.set_acknowledged(revision, success);
            }
            SensorMessage::Duplicates(items) => self.state.count_duplicates(items),
            SensorMessage::Retire => context.stop(),
        }
    }
}

impl Handler<GetSnapshot> for SensorActor {
    type Result = Option<Snapshot>;

    fn handle(&mut self, _: GetSnapshot, _: &mut Context<Self>) -> Self::Result {
        Some(self.state.snapshot())
    }
}
