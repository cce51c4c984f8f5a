//! The messages that were received and not yet acknowledged, in the order of arrival. Kept by the inbound
//! loop; pure. Invariant: PUBACKs leave in the order of the PUBLISHes on the connection [MQTT-4.6.0-2];
//! messages of an earlier connection are counted and bounded, but never acknowledged, and a connection is not read
//! before they have left: a redelivery is not decided on while its first delivery is still being committed.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use crate::domain::{Kind, Timestamp};

/// One message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct WindowEntry {
    /// None for QoS 0, and after the connection has ended.
    pub(super) packet_id: Option<NonZeroU16>,
    /// As in the ledger.
    pub(super) kind: Option<Kind>,
    /// As in the ledger.
    pub(super) items: u32,
    /// Memory.
    pub(super) bytes: usize,
    /// By our clock.
    pub(super) received_at: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum EntryState {
    InFlight,
    Settled,
    Lost,
}

/// Bounded in messages and in bytes.
#[derive(Debug)]
pub(super) struct InboundWindow {
    entries: VecDeque<(WindowEntry, EntryState)>,
    /// The sequence number of `entries[0]`.
    first: u64,
    /// The sequence number of the first message of the present connection.
    first_of_connection: u64,
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
}

impl InboundWindow {
    pub(super) const fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            first_of_connection: 0,
            bytes: 0,
            max_messages,
            max_bytes,
        }
    }

    /// Of the message that is admitted next.
    pub(super) fn next_sequence(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn admit(&mut self, entry: WindowEntry) {
        self.bytes += entry.bytes;
        self.entries.push_back((entry, EntryState::InFlight));
    }

    /// Whether another message may be read. The last message admitted may exceed the limit in bytes by its own size.
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < self.max_messages
            && self.bytes < self.max_bytes
            && self.first >= self.first_of_connection
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first message was received.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.entries.front().map(|(entry, _)| entry.received_at)
    }

    /// Committed. None if the message was settled or lost before.
    pub(super) fn settle(&mut self, sequence: u64) -> Option<WindowEntry> {
        self.end(sequence, EntryState::Settled)
    }

    /// Will not be committed: its token was dropped.
    pub(super) fn lose(&mut self, sequence: u64) -> Option<WindowEntry> {
        self.end(sequence, EntryState::Lost)
    }

    fn end(&mut self, sequence: u64, state: EntryState) -> Option<WindowEntry> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let (entry, entry_state) = self.entries.get_mut(index)?;
        if *entry_state != EntryState::InFlight {
            return None;
        }
        *entry_state = state;
        Some(*entry)
    }

    /// Removes the first message if it may be acknowledged, under its Packet Identifier if it has one. A
    /// lost message blocks those behind it until the connection is closed.
    pub(super) fn pop(&mut self) -> Option<WindowEntry> {
        let (entry, state) = *self.entries.front()?;
        match (state, entry.packet_id) {
            (EntryState::InFlight, _) | (EntryState::Lost, Some(_)) => None,
            (EntryState::Settled, _) | (EntryState::Lost, None) => {
                self.bytes -= entry.bytes;
                self.entries.pop_front();
                self.first += 1;
                Some(entry)
            }
        }
    }

    /// The first message is lost, so nothing more can be acknowledged on this connection.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self.entries.front(), Some((entry, EntryState::Lost)) if entry.packet_id.is_some())
    }

    /// The connection has ended: none of its messages may be acknowledged any more.
    pub(super) fn connection_ended(&mut self) {
        for (entry, _) in &mut self.entries {
            entry.packet_id = None;
        }
        self.first_of_connection = self.next_sequence();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(packet_id: u16) -> WindowEntry {
        let received_at = Timestamp::default();
        WindowEntry {
            packet_id: NonZeroU16::new(packet_id),
            kind: None,
            items: 1,
            bytes: 10,
            received_at,
        }
    }

    fn acknowledged(window: &mut InboundWindow) -> Vec<u16> {
        std::iter::from_fn(|| window.pop())
            .filter_map(|it| it.packet_id)
            .map(NonZeroU16::get)
            .collect()
    }

    #[test]
    fn pubacks_are_sent_in_the_order_of_arrival() {
        let mut window = InboundWindow::new(10, 1_000);
        for id in 1..=3 {
            window.admit(entry(id));
        }
        assert!(window.settle(1).is_some());
        assert_eq!(acknowledged(&mut window), [0; 0]);
        assert!(window.settle(0).is_some());
        assert_eq!(acknowledged(&mut window), [1, 2]);
        assert!(window.settle(0).is_none(), "settled once");
        assert!(window.settle(2).is_some());
        assert_eq!(acknowledged(&mut window), [3]);
        assert!(window.is_empty());
    }

    #[test]
    fn a_lost_message_stops_the_acknowledgements_behind_it() {
        let mut window = InboundWindow::new(10, 1_000);
        for id in 1..=2 {
            window.admit(entry(id));
        }
        window.lose(0);
        window.settle(1);
        assert!(window.is_blocked());
        assert_eq!(acknowledged(&mut window), [0; 0]);
        window.connection_ended();
        assert_eq!(acknowledged(&mut window), [0; 0]);
        assert!(window.is_empty());
    }

    #[test]
    fn an_earlier_connection_is_counted_and_not_acknowledged() {
        let mut window = InboundWindow::new(2, 1_000);
        window.admit(entry(1));
        window.connection_ended();
        assert!(!window.has_room(), "the older one is still in flight");
        window.settle(0);
        assert_eq!(acknowledged(&mut window), [0; 0]);
        assert!(window.has_room());
        window.admit(entry(1));
        window.settle(1);
        assert_eq!(acknowledged(&mut window), [1]);
    }

    #[test]
    fn is_bounded_in_messages_and_in_bytes() {
        let mut window = InboundWindow::new(3, 20);
        window.admit(entry(1));
        assert!(window.has_room());
        window.admit(entry(2));
        assert!(!window.has_room(), "20 bytes");
    }

    proptest! {
        /// In any order of settled and lost messages and connections: only what was settled on the present
        /// connection is acknowledged, and in order.
        #[test]
        fn only_what_is_settled_is_acknowledged(
            steps in proptest::collection::vec((0..5u8, 0..30u64), 0..200),
        ) {
            let mut window = InboundWindow::new(1_000, 1_000_000);
            let (mut admitted, mut connection, mut ended) = (Vec::new(), 0, Vec::new());
            let mut last = None;
            for (step, which) in steps {
                match step {
                    0 | 1 => {
                        let sequence = window.next_sequence();
                        prop_assert_eq!(sequence, admitted.len() as u64);
                        window.admit(entry(sequence as u16 + 1));
                        admitted.push(connection);
                        ended.push(None);
                    }
                    2 | 3 if (which as usize) < admitted.len() => {
                        let lost = step == 3 && which % 5 == 0;
                        let outcome = if lost { window.lose(which) } else { window.settle(which) };
                        if outcome.is_some() {
                            prop_assert_eq!(ended[which as usize], None);
                            ended[which as usize] = Some(!lost);
                        }
                    }
                    4 if which == 0 => {
                        window.connection_ended();
                        connection += 1;
                    }
                    _ => {}
                }
                for id in acknowledged(&mut window) {
                    let sequence = id as usize - 1;
                    prop_assert_eq!(ended[sequence], Some(true));
                    prop_assert_eq!(admitted[sequence], connection);
                    prop_assert!(last < Some(sequence));
                    last = Some(sequence);
                }
            }
        }
    }
}
