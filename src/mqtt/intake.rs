//! What the inbound loop takes in: each PUBLISH gets a position in the window and an ack token, is
//! decoded, and goes off to its sensor's actor. Called once per read, for all that the read brought.

use std::num::NonZeroU16;

use ntex_mqtt::v5::codec;
use tracing::{debug, error};

use super::assembly::{Assembly, Message};
use super::inbound::{Inbound, InboundHandles};
use super::session::{Session, SessionEnd};
use super::window::Entry;
use crate::domain::{FaultPoint, KindCounts, Part, RawMessage, Reason, Timestamp, Uplink};

/// Packets taken in before the loop looks at what was settled.
const READ_AT_ONCE: usize = 500;

/// A message that stops its sensor's actor so often is rejected.
const MAX_ACTOR_FAILURES: u8 = 2;

/// What a read brings in: from a connection, or by a test's script.
pub(super) trait Packets {
    /// The next packet that has been read already; none where nothing more has.
    fn next(&mut self) -> Result<Option<codec::Decoded>, SessionEnd>;

    /// What of a PUBLISH is not complete.
    fn assembly(&mut self) -> &mut Assembly;

    /// The broker has granted the subscriptions.
    fn is_subscribed(&mut self);
}

impl Packets for Session {
    fn next(&mut self) -> Result<Option<codec::Decoded>, SessionEnd> {
        self.io.decode(&self.codec).map_err(|error| SessionEnd::Failed(error.to_string()))
    }

    fn assembly(&mut self) -> &mut Assembly {
        &mut self.assembly
    }

    fn is_subscribed(&mut self) {
        self.subscribed = true;
    }
}

/// What one read has brought.
#[derive(Default)]
struct Burst {
    arrivals: KindCounts,
    messages: KindCounts,
    bytes: u64,
}

impl Inbound {
    /// Takes in the packet that came, and what else has been read with it.
    pub(super) fn read<E: std::fmt::Debug>(
        &mut self,
        session: &mut Session,
        first: Result<Option<codec::Decoded>, E>,
    ) -> Result<(), SessionEnd> {
        session.heard = true;
        self.handles.faults.at(FaultPoint::Ingest);
        let packet = match first {
            Ok(Some(packet)) => packet,
            Ok(None) => return Err(SessionEnd::Closed),
            Err(error) => return Err(SessionEnd::Failed(format!("{error:?}"))),
        };
        self.take_all(session, packet)
    }

    /// The same, wherever the packets come from.
    pub(super) fn take_all(
        &mut self,
        packets: &mut impl Packets,
        mut packet: codec::Decoded,
    ) -> Result<(), SessionEnd> {
        let received_at = Timestamp::now();
        let mut burst = Burst::default();
        let mut outcome;
        let mut taken = 0;
        loop {
            outcome = self.take(packets, packet, received_at, &mut burst);
            taken += 1;
            // Before the next one is decoded: a packet that is decoded must be taken.
            if outcome.is_err() || taken == READ_AT_ONCE || self.window.is_full() {
                break;
            }
            packet = match packets.next() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(end) => {
                    outcome = Err(end);
                    break;
                }
            };
        }
        // Nothing of the burst can have been settled before: that is heard on this thread.
        let InboundHandles { ledger, metrics, .. } = &self.handles;
        ledger.receive(burst.arrivals);
        metrics.received(burst.messages, burst.bytes);
        outcome
    }

    fn take(
        &mut self,
        packets: &mut impl Packets,
        packet: codec::Decoded,
        received_at: Timestamp,
        burst: &mut Burst,
    ) -> Result<(), SessionEnd> {
        match packet {
            codec::Decoded::Publish(publish, payload, _) => {
                if let Some(message) = packets.assembly().begin(publish, &payload) {
                    self.receive(message, received_at, burst);
                }
                Ok(())
            }
            codec::Decoded::PayloadChunk(chunk, last) => {
                if let Some(message) = packets.assembly().add(&chunk, last) {
                    self.receive(message, received_at, burst);
                }
                Ok(())
            }
            codec::Decoded::Packet(codec::Packet::PingResponse, _) => Ok(()),
            codec::Decoded::Packet(codec::Packet::SubscribeAck(answer), _) => {
                Session::granted(&answer)?;
                packets.is_subscribed();
                self.handles.health.up(Part::Ingest);
                debug!("subscribed");
                Ok(())
            }
            codec::Decoded::Packet(codec::Packet::Disconnect(goodbye), _) => {
                Err(match goodbye.reason_code {
                    codec::DisconnectReasonCode::SessionTakenOver => SessionEnd::TakenOver,
                    reason => SessionEnd::Disconnected(format!("{reason:?}")),
                })
            }
            codec::Decoded::Packet(other, _) => {
                Err(SessionEnd::Failed(format!("unexpected packet: {other:?}")))
            }
        }
    }

    /// One PUBLISH: a position in the window, an ack token, and on to its actor.
    fn receive(&mut self, message: Message, received_at: Timestamp, burst: &mut Burst) {
        let Message { publish, payload, oversized } = message;
        let message = RawMessage::new(&publish.topic, &payload, received_at, publish.dup);
        let ack_token = self.ack_tokens.issue(self.window.next_sequence());
        let mut uplink = match oversized {
            None => self.decoder.decode(message, ack_token),
            Some(oversized) => self.decoder.refuse(message, oversized, ack_token),
        };
        let quarantined = publish.dup && self.quarantine(&mut uplink, publish.packet_id);
        let entry = Entry {
            packet_id: publish.packet_id,
            kind: uplink.kind,
            items: uplink.item_count(),
            bytes: uplink.size_bytes(),
            received_at,
        };
        self.window.admit(entry);
        burst.arrivals.add(entry.kind, entry.items);
        burst.messages.add(entry.kind, 1);
        burst.bytes += uplink.message.size_bytes() as u64;
        if quarantined { self.router.bypass_actor(uplink) } else { self.router.route(uplink) }
    }

    /// A message that has stopped its actor twice goes to the writer by itself, as a rejection.
    fn quarantine(&self, uplink: &mut Uplink, packet_id: Option<NonZeroU16>) -> bool {
        let failures = packet_id.and_then(|id| self.actor_failures.get(&id)).copied().unwrap_or(0);
        let quarantined = failures >= MAX_ACTOR_FAILURES;
        if quarantined {
            error!(sensor = ?uplink.sensor, "a message has stopped its sensor's actor twice; it is rejected");
            uplink.reject(
                Reason::ActorFailed,
                format!("the message stopped its sensor's actor {failures} times"),
            );
        }
        quarantined
    }
}
