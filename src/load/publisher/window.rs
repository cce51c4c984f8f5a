//! What one connection has published and the broker has not acknowledged, in order. Pure; the publisher asks
//! it what to send next, and what to send again after a reconnect.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use ntex_bytes::{ByteString, Bytes};
use tokio::time::Instant;

/// Payload bytes that may be un-acknowledged on one connection.
const MAX_PAYLOAD_BYTES: usize = 8 << 20;

/// Un-acknowledged messages, the oldest at the front.
#[derive(Debug)]
pub(crate) struct Window {
    max_messages: usize,
    /// The broker's [MQTT-3.3.4-9].
    receive_maximum: usize,
    entries: VecDeque<UnackedMessage>,
    /// Entries, from the front, that were sent on this connection.
    sent: usize,
    payload_bytes: usize,
    next_id: NonZeroU16,
}

#[derive(Debug)]
struct UnackedMessage {
    id: NonZeroU16,
    sent_at: Option<Instant>,
    topic: ByteString,
    payload: Bytes,
}

impl Window {
    pub(crate) fn new(max_messages: usize) -> Self {
        let (entries, next_id) = (VecDeque::new(), NonZeroU16::MIN);
        Self { max_messages, receive_maximum: 0, entries, sent: 0, payload_bytes: 0, next_id }
    }

    /// On a new connection everything is sent again. Returns how many messages that concerns.
    pub(super) fn restart(&mut self, receive_maximum: NonZeroU16) -> usize {
        self.receive_maximum = receive_maximum.get().into();
        std::mem::take(&mut self.sent)
    }

    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < self.max_messages.min(self.receive_maximum)
            && self.payload_bytes < MAX_PAYLOAD_BYTES
    }

    /// Queues a message for [`Self::next`]. The caller asks for room before, but for heartbeats, of which
    /// there is one for each configuration received.
    pub(super) fn push(&mut self, topic: ByteString, payload: Bytes) {
        self.payload_bytes += payload.len();
        self.entries.push_back(UnackedMessage {
            id: NonZeroU16::MIN,
            sent_at: None,
            topic,
            payload,
        });
    }

    /// The next message to send, with its Packet Identifier.
    pub(super) fn next(&mut self, now: Instant) -> Option<(NonZeroU16, &ByteString, &Bytes)> {
        // An identifier that is still in use is met at the front first [MQTT-2.2.1-4].
        let is_used = self.sent > 0 && self.entries[0].id == self.next_id;
        if self.sent >= self.receive_maximum || is_used {
            return None;
        }
        let entry = self.entries.get_mut(self.sent)?;
        (entry.id, entry.sent_at) = (self.next_id, Some(now));
        self.next_id = self.next_id.checked_add(1).unwrap_or(NonZeroU16::MIN);
        self.sent += 1;
        Some((entry.id, &entry.topic, &entry.payload))
    }

    /// When the message with this identifier was sent, if it is in flight. Brokers mostly acknowledge in
    /// order, so that it is at the front.
    pub(super) fn acknowledge(&mut self, id: NonZeroU16) -> Option<Instant> {
        let position = self.entries.iter().take(self.sent).position(|entry| entry.id == id)?;
        let entry = self.entries.remove(position)?;
        self.payload_bytes -= entry.payload.len();
        self.sent -= 1;
        entry.sent_at
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(receive_maximum: u16, messages: usize) -> Window {
        let mut window = Window::new(60_000);
        window.restart(NonZeroU16::new(receive_maximum).unwrap());
        (0..messages).for_each(|_| window.push("topic".into(), vec![b' '; 10].into()));
        window
    }

    /// Sends what may be sent. The identifiers.
    fn sent(window: &mut Window) -> Vec<u16> {
        std::iter::from_fn(|| window.next(Instant::now()).map(|(id, ..)| id.get())).collect()
    }

    fn acknowledge(window: &mut Window, id: u16) -> bool {
        window.acknowledge(NonZeroU16::new(id).unwrap()).is_some()
    }

    #[test]
    fn in_flight_messages_stay_within_both_limits() {
        let mut window = window(2, 3);
        assert!(!window.has_room());
        assert_eq!(sent(&mut window), [1, 2]);
        assert!(acknowledge(&mut window, 2));
        assert_eq!(sent(&mut window), [3]);
        assert!(acknowledge(&mut window, 1) && window.has_room());
        window.push("topic".into(), vec![b' '; MAX_PAYLOAD_BYTES].into());
        assert!(acknowledge(&mut window, 3) && !window.has_room());
    }

    #[test]
    fn unacknowledged_messages_are_sent_again() {
        let mut window = window(10, 4);
        sent(&mut window);
        assert!(acknowledge(&mut window, 2) && !acknowledge(&mut window, 2));
        assert_eq!(window.restart(NonZeroU16::new(10).unwrap()), 3);
        assert!(!acknowledge(&mut window, 1), "it is not in flight on this connection");
        assert_eq!(sent(&mut window), [5, 6, 7]);
    }

    #[test]
    fn an_identifier_in_use_is_never_used_twice() {
        let mut window = window(u16::MAX, 60_000);
        assert_eq!(sent(&mut window).len(), 60_000);
        (2..=60_000).for_each(|id| assert!(acknowledge(&mut window, id)));
        (0..60_000).for_each(|_| window.push("topic".into(), Bytes::new()));
        assert_eq!(sent(&mut window).len(), usize::from(u16::MAX) - 60_000);
        assert!(acknowledge(&mut window, 1));
        assert_eq!(sent(&mut window)[..2], [1, 2]);
    }
}
