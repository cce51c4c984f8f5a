//! The broker of the tests: one session with a queue, packet identifiers, and redelivery after a
//! reconnect. It checks the order of PUBACKs, and that each follows its COMMIT.

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroU16;

use ntex_bytes::Bytes;
use ntex_mqtt::v5::codec;

use super::database::{Tables, topic};
use super::{MAX_MESSAGES, Publication};
use crate::mqtt::intake::PacketSource;
use crate::mqtt::publish_assembly::PublishAssembly;
use crate::mqtt::session::SessionEnd;

/// The session that the broker keeps for us [MQTT-4.4.0-1].
#[derive(Default)]
pub(super) struct Broker {
    pub(super) published: Vec<Publication>,
    pub(super) queue: VecDeque<usize>,
    /// In the order of sending: Packet Identifier, message, whether it was sent on this connection.
    pub(super) in_flight: VecDeque<(NonZeroU16, usize, bool)>,
    pub(super) sent_before: BTreeSet<usize>,
}

impl Broker {
    pub(super) fn publish(&mut self, publication: Publication) {
        self.queue.push_back(self.published.len());
        self.published.push(publication);
    }

    pub(super) fn connection_ended(&mut self) {
        for (_, _, sent) in &mut self.in_flight {
            *sent = false;
        }
    }

    /// Whether it may send now.
    pub(super) fn has_more(&self) -> bool {
        let room = self.in_flight.len() < usize::from(MAX_MESSAGES);
        self.in_flight.iter().any(|(.., sent)| !sent) || (room && !self.queue.is_empty())
    }

    /// The next PUBLISH on this connection, within Receive Maximum.
    pub(super) fn send(&mut self) -> Option<codec::Decoded> {
        if let Some((id, message, sent)) = self.in_flight.iter_mut().find(|(.., sent)| !*sent) {
            *sent = true;
            let (id, message) = (*id, *message);
            return Some(self.packet(id, message));
        }
        if self.in_flight.len() >= usize::from(MAX_MESSAGES) {
            return None;
        }
        let message = self.queue.pop_front()?;
        let free = |id: &NonZeroU16| self.in_flight.iter().all(|(used, ..)| used != id);
        let id =
            (1..).filter_map(NonZeroU16::new).find(free).expect("there are more than in flight");
        self.in_flight.push_back((id, message, true));
        Some(self.packet(id, message))
    }

    fn packet(&mut self, id: NonZeroU16, message: usize) -> codec::Decoded {
        let publication = &self.published[message];
        let publish = codec::Publish {
            dup: !self.sent_before.insert(message),
            packet_id: Some(id),
            topic: topic(publication).into(),
            payload_size: publication.payload.len() as u32,
            ..codec::Publish::default()
        };
        codec::Decoded::Publish(publish, Bytes::copy_from_slice(publication.payload.as_bytes()), 0)
    }

    pub(super) fn acknowledged(&mut self, id: NonZeroU16, tables: &Tables) {
        let (oldest, message, sent) = self.in_flight.pop_front().expect("it is in flight");
        assert!(sent, "it was not sent on this connection");
        assert_eq!(oldest, id, "PUBACKs leave in the order of the PUBLISHes");
        assert!(tables.hold(&self.published[message]), "a PUBACK follows its COMMIT");
    }
}

pub(super) struct BrokerConnection<'a> {
    pub(super) broker: &'a mut Broker,
    pub(super) assembly: PublishAssembly,
}

impl PacketSource for BrokerConnection<'_> {
    fn next(&mut self) -> Result<Option<codec::Decoded>, SessionEnd> {
        Ok(self.broker.send())
    }

    fn assembly(&mut self) -> &mut PublishAssembly {
        &mut self.assembly
    }

    fn set_subscribed(&mut self) -> Result<(), SessionEnd> {
        Ok(())
    }
}
