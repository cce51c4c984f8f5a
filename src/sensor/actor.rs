//! One sensor: hears its messages, remembers what it last said, and passes its rows on to the
//! writer. The registry starts it and gives it its messages; it knows nobody but its ways out.

use std::rc::Rc;

use actix::{Actor, ActorContext as _, Context, Handler, MessageResult, Recipient};

use super::funnel::Funnel;
use super::protocol::{Acknowledge, Desire, Hear, Look, Retire};
use super::state::SensorState;
use super::{Faults, Republish};
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::KnownSensor;

/// What all sensors' actors share: their ways out, and their setting.
#[derive(Debug)]
pub(super) struct Ways {
    /// Up.
    pub(super) up: Funnel,
    /// Down.
    pub(super) outbox: Recipient<Republish>,
    /// `CONFIGURATION_REPUBLISH_SECS`
    pub(super) republish_secs: u64,
    /// None in production.
    pub(super) faults: Faults,
}

/// The actor of one sensor.
#[derive(Debug)]
pub(super) struct SensorActor {
    identifier: SensorIdentifier,
    state: SensorState,
    ways: Rc<Ways>,
}

impl SensorActor {
    pub(super) fn new(known: &KnownSensor, ways: Rc<Ways>) -> Self {
        let state = SensorState::new(known, Timestamp::now());
        Self { identifier: known.identifier, state, ways }
    }
}

impl Actor for SensorActor {
    type Context = Context<Self>;
}

impl Handler<Hear> for SensorActor {
    type Result = ();

    #[expect(
        clippy::disallowed_methods,
        reason = "the inbound window bounds what is in flight, and a send().await per message costs 49 µs"
    )]
    fn handle(&mut self, Hear(mut uplink): Hear, _: &mut Context<Self>) {
        uplink.ack_token.begin_processing();
        self.ways.faults.strike_message(&uplink);
        if self.state.hear(&uplink, self.ways.republish_secs) {
            self.ways.outbox.do_send(Republish(self.identifier));
        }
        uplink.ack_token.end_processing();
        self.ways.up.pass(uplink);
    }
}

impl Handler<Desire> for SensorActor {
    type Result = ();

    fn handle(&mut self, Desire(revision): Desire, _: &mut Context<Self>) {
        self.state.desire(revision, Timestamp::now());
    }
}

impl Handler<Acknowledge> for SensorActor {
    type Result = ();

    fn handle(&mut self, message: Acknowledge, _: &mut Context<Self>) {
        self.state.acknowledge(message.revision, message.success);
    }
}

impl Handler<Look> for SensorActor {
    type Result = MessageResult<Look>;

    fn handle(&mut self, Look: Look, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.state.snapshot())
    }
}

impl Handler<Retire> for SensorActor {
    type Result = ();

    /// The registry has let go of it before: this is the last message in the mailbox.
    fn handle(&mut self, Retire: Retire, context: &mut Context<Self>) {
        context.stop();
    }
}
