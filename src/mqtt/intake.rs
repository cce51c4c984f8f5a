//! The packets that the inbound loop receives: each PUBLISH gets a position in the window and an ack
//! token, is decoded, and is routed to its sensor's actor. Called once per read. The ledger counts every
//! message of a read before any of them can be settled.

use std::num::NonZeroU16;

use ntex_mqtt::v5::codec;
use tracing::{debug, error, warn};

use super::drain::refused_unsubscription;
use super::inbound::{Inbound, InboundHandles};
use super::publish_assembly::{PublishAssembly, ReceivedPublish};
use super::session::{FORMER, LEAVING, Session, SessionEnd, disconnect_reason};
use super::window::WindowEntry;
use crate::domain::{KindCounts, Part, RawMessage, Reason, Task, Timestamp, Uplink};

/// Packets processed before the loop looks at settled batches.
const PACKETS_PER_READ: usize = 500;

/// A message that has made an actor panic this often is rejected.
const MAX_ACTOR_FAILURES: u8 = 2;

/// A source of packets: a session, or a test's broker.
pub(super) trait PacketSource {
    /// The next packet in the read buffer; none if it holds no complete one.
    fn next(&mut self) -> Result<Option<codec::Decoded>, SessionEnd>;

    /// The incomplete PUBLISH.
    fn assembly(&mut self) -> &mut PublishAssembly;

    /// The broker has granted the subscriptions.
    fn set_subscribed(&mut self) -> Result<(), SessionEnd>;

    /// PINGRESP, or UNSUBACK.
    fn answered(&mut self, _answer: &codec::Packet) -> Result<(), SessionEnd> {
        Ok(())
    }
}

impl PacketSource for Session {
    fn next(&mut self) -> Result<Option<codec::Decoded>, SessionEnd> {
        self.io.decode(&self.codec).map_err(|error| SessionEnd::Failed(error.to_string()))
    }

    fn assembly(&mut self) -> &mut PublishAssembly {
        &mut self.assembly
    }

    fn set_subscribed(&mut self) -> Result<(), SessionEnd> {
        self.subscribed = true;
        let former = std::mem::take(&mut self.former_filters);
        if former.is_empty() { Ok(()) } else { self.unsubscribe(FORMER, &former) }
    }

    fn answered(&mut self, answer: &codec::Packet) -> Result<(), SessionEnd> {
        match answer {
            codec::Packet::PingResponse => self.ping_answers += 1,
            codec::Packet::UnsubscribeAck(answer) if answer.packet_id == LEAVING => {
                match refused_unsubscription(answer) {
                    Some(problem) => return Err(SessionEnd::Failed(problem)),
                    None => self.left = true,
                }
            }
            codec::Packet::UnsubscribeAck(answer) => match refused_unsubscription(answer) {
                Some(problem) => warn!("former subscriptions remain: {problem}"),
                None => {
                    self.left_former = true;
                    debug!("left former subscriptions");
                }
            },
            _ => {}
        }
        Ok(())
    }
}

/// Received by one read.
#[derive(Default)]
struct ReadCounts {
    arrivals: KindCounts,
    messages: KindCounts,
    bytes: u64,
}

impl Inbound {
    /// Processes the first packet of a read and those behind it in the buffer.
    pub(super) fn read<E: std::fmt::Display>(
        &mut self,
        session: &mut Session,
        first: Result<Option<codec::Decoded>, E>,
    ) -> Result<(), SessionEnd> {
        session.received_since_ping = true;
        self.handles.tasks.faults().at(Task::Ingest);
        let packet = match first {
            Ok(Some(packet)) => packet,
            Ok(None) => return Err(SessionEnd::Closed),
            Err(error) => return Err(SessionEnd::Failed(error.to_string())),
        };
        self.receive_all(session, packet)
    }

    /// See [`Self::read`].
    pub(super) fn receive_all(
        &mut self,
        packets: &mut impl PacketSource,
        mut packet: codec::Decoded,
    ) -> Result<(), SessionEnd> {
        let received_at = Timestamp::now();
        let mut read = ReadCounts::default();
        let mut outcome;
        let mut taken = 0;
        loop {
            outcome = self.handle_packet(packets, packet, received_at, &mut read);
            taken += 1;
            // Checked before the next is decoded: a decoded packet must be processed.
            if outcome.is_err() || taken == PACKETS_PER_READ || !self.window.has_room() {
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
        // None of these can have been settled before: that happens on this thread.
        let InboundHandles { ledger, metrics, .. } = &self.handles;
        ledger.receive(read.arrivals);
        metrics.received(read.messages, read.bytes);
        outcome
    }

    fn handle_packet(
        &mut self,
        packets: &mut impl PacketSource,
        packet: codec::Decoded,
        received_at: Timestamp,
        read: &mut ReadCounts,
    ) -> Result<(), SessionEnd> {
        match packet {
            codec::Decoded::Publish(publish, payload, _) => {
                if let Some(message) = packets.assembly().begin(publish, &payload) {
                    self.receive(message, received_at, read);
                }
                Ok(())
            }
            codec::Decoded::PayloadChunk(chunk, last) => {
                if let Some(message) = packets.assembly().add(&chunk, last) {
                    self.receive(message, received_at, read);
                }
                Ok(())
            }
            codec::Decoded::Packet(
                answer @ (codec::Packet::PingResponse | codec::Packet::UnsubscribeAck(_)),
                _,
            ) => packets.answered(&answer),
            codec::Decoded::Packet(codec::Packet::SubscribeAck(answer), _) => {
                Session::check_granted(&answer, &self.filters())?;
                packets.set_subscribed()?;
                self.handles.health.up(Part::Ingest);
                debug!("subscribed");
                Ok(())
            }
            codec::Decoded::Packet(codec::Packet::Disconnect(disconnect), _) => {
                Err(match disconnect.reason_code {
                    codec::DisconnectReasonCode::SessionTakenOver => SessionEnd::TakenOver,
                    _ => SessionEnd::Disconnected(disconnect_reason(&disconnect)),
                })
            }
            codec::Decoded::Packet(other, _) => {
                Err(SessionEnd::Failed(format!("unexpected packet: {other:?}")))
            }
        }
    }

    /// One PUBLISH: a position in the window, an ack token, and on to its actor.
    fn receive(&mut self, publish: ReceivedPublish, received_at: Timestamp, read: &mut ReadCounts) {
        let ReceivedPublish { publish, payload, oversized } = publish;
        // RETAIN is set only on what a new subscription is sent first [MQTT-3.3.1-13].
        let received_at = self.receipt_clock.received_at(received_at);
        let mut message = match publish.retain {
            true => RawMessage::retained(&publish.topic, &payload, received_at),
            false => RawMessage::new(&publish.topic, &payload, received_at, publish.dup),
        };
        message.redelivered = publish.dup;
        message.delivered_once = publish.packet_id.is_none() && !publish.retain;
        let ack_token = self.ack_tokens.issue(self.window.next_sequence());
        let mut uplink = match oversized {
            None => self.decoder.decode(message, ack_token),
            Some(oversized) => self.decoder.refuse(message, oversized, ack_token),
        };
        if uplink.message.delivered_once {
            self.receipt_clock.reserve(received_at, uplink.item_count());
        }
        let quarantined = publish.dup && self.quarantine(&mut uplink, publish.packet_id);
        let entry = WindowEntry {
            packet_id: publish.packet_id,
            kind: uplink.kind,
            items: uplink.item_count(),
            bytes: uplink.size_bytes(),
            received_at,
        };
        self.window.admit(entry);
        read.arrivals.add(entry.kind, entry.items);
        read.messages.add(entry.kind, 1);
        read.bytes += uplink.message.size_bytes() as u64;
        if quarantined { self.router.bypass_actor(uplink) } else { self.router.route(uplink) }
    }

    /// Rejects a message that has made its actor panic twice; it then bypasses the actor.
    fn quarantine(&self, uplink: &mut Uplink, packet_id: Option<NonZeroU16>) -> bool {
        let failures = packet_id.and_then(|id| self.actor_failures.get(&id)).copied().unwrap_or(0);
        let quarantined = failures >= MAX_ACTOR_FAILURES;
        if quarantined {
            error!(sensor = ?uplink.sensor, "a message made its sensor's actor panic twice; recorded as rejected");
            uplink.reject(
                Reason::ActorFailed,
                format!("the message made its sensor's actor panic {failures} times"),
            );
        }
        quarantined
    }
}
