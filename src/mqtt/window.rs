//! What the inbound loop remembers of the messages that it has received and that are not settled:
//! a queue in the order of arrival. Pure.
//!
//! Invariant: an acknowledgement leaves only when every message that arrived before it on its
//! connection has been acknowledged, so PUBACKs leave in the order of the PUBLISHes
//! [MQTT-4.6.0-2]. Messages of an earlier connection keep their place, so that they are counted
//! and bounded, and are acknowledged no more: the broker delivers them again.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use crate::domain::{Kind, Timestamp};

/// One message on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// To be acknowledged under this Packet Identifier; none for QoS 0.
    pub(super) packet_id: Option<NonZeroU16>,
    /// Whose account it is on.
    pub(super) kind: Option<Kind>,
    /// How many items it holds.
    pub(super) items: u32,
    /// How much memory it holds.
    pub(super) bytes: usize,
    /// When it was read.
    pub(super) received_at: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    OnItsWay,
    Settled,
    Lost,
}

/// The messages in flight, bounded in number and in bytes.
#[derive(Debug)]
pub(super) struct Window {
    entries: VecDeque<(Entry, State)>,
    /// The sequence number of the first entry.
    first: u64,
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
}

impl Window {
    pub(super) const fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { entries: VecDeque::new(), first: 0, bytes: 0, max_messages, max_bytes }
    }

    /// The sequence number of the message that is admitted next.
    pub(super) fn next_sequence(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn admit(&mut self, entry: Entry) {
        self.bytes += entry.bytes;
        self.entries.push_back((entry, State::OnItsWay));
    }

    /// One more message may go beyond the bound in bytes by its own size, and no further.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.max_messages || self.bytes >= self.max_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The memory that its messages hold.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the message at the front was read.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.entries.front().map(|(entry, _)| entry.received_at)
    }

    /// The message is in the database.
    pub(super) fn settle(&mut self, sequence: u64) -> Option<Entry> {
        self.end(sequence, State::Settled)
    }

    /// The message will never be settled under this place.
    pub(super) fn lose(&mut self, sequence: u64) -> Option<Entry> {
        self.end(sequence, State::Lost)
    }

    fn end(&mut self, sequence: u64, how: State) -> Option<Entry> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        let (entry, state) = self.entries.get_mut(index)?;
        if *state != State::OnItsWay {
            return None;
        }
        *state = how;
        Some(*entry)
    }

    /// Takes the next message off the front whose turn it is; its Packet Identifier, if it has one,
    /// is to be acknowledged. A lost one stops those behind it until the connection is given up.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        let (entry, state) = *self.entries.front()?;
        match (state, entry.packet_id) {
            (State::OnItsWay, _) | (State::Lost, Some(_)) => None,
            (State::Settled, _) | (State::Lost, None) => {
                self.bytes -= entry.bytes;
                self.entries.pop_front();
                self.first += 1;
                Some(entry)
            }
        }
    }

    /// Nothing more is acknowledged on this connection: the next message is lost.
    pub(super) fn is_blocked(&self) -> bool {
        matches!(self.entries.front(), Some((entry, State::Lost)) if entry.packet_id.is_some())
    }

    /// The connection is gone, and with it the right to acknowledge.
    pub(super) fn detach(&mut self) {
        for (entry, _) in &mut self.entries {
            entry.packet_id = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(packet_id: u16) -> Entry {
        let received_at = Timestamp::default();
        Entry {
            packet_id: NonZeroU16::new(packet_id),
            kind: None,
            items: 1,
            bytes: 10,
            received_at,
        }
    }

    fn acknowledged(window: &mut Window) -> Vec<u16> {
        std::iter::from_fn(|| window.pop())
            .filter_map(|it| it.packet_id)
            .map(NonZeroU16::get)
            .collect()
    }

    #[test]
    fn pubacks_leave_in_the_order_of_arrival() {
        let mut window = Window::new(10, 1_000);
        for id in 1..=3 {
            window.admit(entry(id));
        }
        assert!(window.settle(1).is_some());
        assert_eq!(acknowledged(&mut window), [0; 0]);
        assert!(window.settle(0).is_some());
        assert_eq!(acknowledged(&mut window), [1, 2]);
        assert!(window.settle(0).is_none(), "a place is settled once");
        assert!(window.settle(2).is_some());
        assert_eq!(acknowledged(&mut window), [3]);
        assert!(window.is_empty());
    }

    #[test]
    fn a_lost_message_stops_the_acknowledgements_behind_it() {
        let mut window = Window::new(10, 1_000);
        for id in 1..=2 {
            window.admit(entry(id));
        }
        window.lose(0);
        window.settle(1);
        assert!(window.is_blocked());
        assert_eq!(acknowledged(&mut window), [0; 0]);
        window.detach();
        assert_eq!(acknowledged(&mut window), [0; 0]);
        assert!(window.is_empty());
    }

    #[test]
    fn an_earlier_connection_is_counted_and_not_acknowledged() {
        let mut window = Window::new(2, 1_000);
        window.admit(entry(1));
        window.detach();
        window.admit(entry(1));
        assert!(window.is_full());
        window.settle(1);
        assert_eq!(acknowledged(&mut window), [0; 0], "the older one is still on its way");
        window.settle(0);
        assert_eq!(acknowledged(&mut window), [1]);
    }

    #[test]
    fn is_bounded_in_messages_and_in_bytes() {
        let mut window = Window::new(3, 20);
        window.admit(entry(1));
        assert!(!window.is_full());
        window.admit(entry(2));
        assert!(window.is_full(), "20 bytes");
    }

    proptest! {
        /// Whatever is settled, lost and cut off in whatever order: no Packet Identifier is
        /// acknowledged that was not settled on the present connection, and none out of order.
        #[test]
        fn only_what_is_settled_is_acknowledged(
            steps in proptest::collection::vec((0..5u8, 0..30u64), 0..200),
        ) {
            let mut window = Window::new(1_000, 1_000_000);
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
                        window.detach();
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
