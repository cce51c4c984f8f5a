//! What a connection has said and the broker has not acknowledged, in order. Pure: the line asks it
//! for packet identifiers, for what to send next, and for what to send again after a reconnect.

use std::collections::VecDeque;
use std::num::NonZeroU16;

/// How much may be un-acknowledged on one connection: enough to hide the broker's answer time at
/// 100,000 messages a second, little enough to be said again after a reconnect.
pub(super) const MAX_MESSAGES: usize = 1_000;
/// With large messages the bytes bound it first.
pub(super) const MAX_BYTES: usize = 4 << 20;

/// The packet identifiers there are [MQTT-2.2.1-3].
const IDENTIFIERS: u64 = u16::MAX as u64;

/// Un-acknowledged messages, the first said at the front.
#[derive(Debug)]
pub(super) struct Window<T> {
    entries: VecDeque<Entry<T>>,
    /// How many messages left at the front; tells the front's identifier.
    left: u64,
    /// How many of the entries, from the front, have been sent on this connection.
    sent: usize,
    bytes: usize,
    /// What the broker takes un-acknowledged [MQTT-3.3.4-9].
    receive_maximum: usize,
}

#[derive(Debug)]
struct Entry<T> {
    message: T,
    size_bytes: usize,
    acknowledged: bool,
}

impl<T> Window<T> {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), left: 0, sent: 0, bytes: 0, receive_maximum: 0 }
    }

    /// On a new connection everything goes out again. How much that is.
    pub(super) fn restart(&mut self, receive_maximum: NonZeroU16) -> usize {
        self.receive_maximum = usize::from(receive_maximum.get());
        self.entries.retain(|entry| !entry.acknowledged);
        self.bytes = self.entries.iter().map(|entry| entry.size_bytes).sum();
        std::mem::take(&mut self.sent).min(self.entries.len())
    }

    /// How many more messages fit.
    pub(super) fn room(&self) -> usize {
        if self.bytes >= MAX_BYTES {
            return 0;
        }
        self.capacity().saturating_sub(self.entries.len())
    }

    /// How many messages fit in all.
    pub(super) fn capacity(&self) -> usize {
        MAX_MESSAGES.min(self.receive_maximum)
    }

    /// Takes a message; it goes out by [`Self::next`]. Room is the caller's to ask for: the
    /// heartbeat that acknowledges a configuration is said in any case, one for each that came.
    pub(super) fn push(&mut self, message: T, size_bytes: usize) {
        self.bytes += size_bytes;
        self.entries.push_back(Entry { message, size_bytes, acknowledged: false });
    }

    /// The next message to send, and the identifier that it goes out with.
    pub(super) fn next(&mut self) -> Option<(NonZeroU16, &T)> {
        if self.sent >= self.receive_maximum {
            return None;
        }
        let entry = self.entries.get(self.sent)?;
        let identifier = identifier(self.left + self.sent as u64);
        self.sent += 1;
        Some((identifier, &entry.message))
    }

    /// The broker has it. None where nothing of that identifier is under way.
    pub(super) fn acknowledge(&mut self, packet_identifier: NonZeroU16) -> Option<&T> {
        let front = u64::from(identifier(self.left).get());
        let ahead = (u64::from(packet_identifier.get()) + IDENTIFIERS - front) % IDENTIFIERS;
        let index = usize::try_from(ahead).ok().filter(|index| *index < self.sent)?;
        let entry = self.entries.get_mut(index).filter(|entry| !entry.acknowledged)?;
        entry.acknowledged = true;
        Some(&self.entries[index].message)
    }

    /// Drops what has been acknowledged at the front. Called after a run of acknowledgements.
    pub(super) fn shrink(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.acknowledged) {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry.size_bytes;
                self.left += 1;
                self.sent -= 1;
            }
        }
    }

    /// How many messages the broker has not acknowledged.
    pub(super) fn len(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.acknowledged).count()
    }

    /// Whether the broker has everything.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn identifier(number: u64) -> NonZeroU16 {
    let identifier = u16::try_from(number % IDENTIFIERS + 1).expect("1 to 65535");
    NonZeroU16::new(identifier).expect("1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(receive_maximum: u16) -> Window<u32> {
        let mut window = Window::new();
        window.restart(NonZeroU16::new(receive_maximum).unwrap());
        window
    }

    fn send_all(window: &mut Window<u32>) -> Vec<(u16, u32)> {
        let mut sent = Vec::new();
        while let Some((identifier, message)) = window.next() {
            sent.push((identifier.get(), *message));
        }
        sent
    }

    #[test]
    fn never_more_than_the_broker_takes() {
        let mut window = window(3);
        assert_eq!((window.room(), window.capacity()), (3, 3));
        for message in 0..5 {
            window.push(message, 1);
        }
        assert_eq!(window.room(), 0);
        assert_eq!(send_all(&mut window), [(1, 0), (2, 1), (3, 2)]);
        assert_eq!(window.acknowledge(NonZeroU16::new(1).unwrap()), Some(&0));
        window.shrink();
        assert_eq!(send_all(&mut window), [(4, 3)]);
    }

    #[test]
    fn large_messages_are_bounded_by_their_bytes() {
        let mut window = window(100);
        window.push(0, MAX_BYTES);
        assert_eq!(window.room(), 0);
    }

    #[test]
    fn what_was_not_acknowledged_goes_out_again() {
        let mut window = window(10);
        for message in 0..4 {
            window.push(message, 1);
        }
        send_all(&mut window);
        // Out of order: the second is acknowledged before the first.
        assert_eq!(window.acknowledge(NonZeroU16::new(2).unwrap()), Some(&1));
        window.shrink();
        assert_eq!(window.restart(NonZeroU16::new(10).unwrap()), 3);
        let again: Vec<u32> =
            send_all(&mut window).into_iter().map(|(_, message)| message).collect();
        assert_eq!(again, [0, 2, 3]);
    }

    #[test]
    fn an_identifier_that_is_not_under_way_acknowledges_nothing() {
        let mut window = window(10);
        window.push(0, 1);
        assert_eq!(window.acknowledge(NonZeroU16::new(1).unwrap()), None);
        send_all(&mut window);
        assert_eq!(window.acknowledge(NonZeroU16::new(9).unwrap()), None);
        assert_eq!(window.acknowledge(NonZeroU16::new(1).unwrap()), Some(&0));
        assert_eq!(window.acknowledge(NonZeroU16::new(1).unwrap()), None);
    }

    proptest! {
        /// Past the last identifier too, each message is acknowledged by its own.
        #[test]
        fn every_acknowledgement_finds_its_message(batches in prop::collection::vec(1u32..1_000, 1..200)) {
            let mut window = window(u16::MAX);
            let mut next = 0;
            for batch in batches {
                for _ in 0..batch.min(u32::try_from(window.room()).unwrap()) {
                    window.push(next, 1);
                    next += 1;
                }
                for (identifier, message) in send_all(&mut window) {
                    let identifier = NonZeroU16::new(identifier).unwrap();
                    prop_assert_eq!(window.acknowledge(identifier), Some(&message));
                }
                window.shrink();
                prop_assert!(window.is_empty());
            }
        }
    }
}
