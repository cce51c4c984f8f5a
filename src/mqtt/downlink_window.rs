//! The downlinks for the broker: those to be sent, and those without PUBACK. Used by `outbound`. Pure.
//! Promises that of several downlinks in flight when a connection ends, only the one that is in flight alone the
//! next time is blamed, and that one missing PUBACK does not delay the others.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use crate::sensor::{Downlink, Refusal};

/// A PUBLISH without PUBACK for this long is given up. A broker normally answers within milliseconds.
pub(super) const PUBACK_DEADLINE: Duration = Duration::from_secs(5);

/// Most in flight, whatever the broker's Receive Maximum: 64 KB each.
const MAX_IN_FLIGHT: usize = 1_000;

struct SentPublish {
    packet_id: NonZeroU16,
    sent_at: Instant,
    /// None: given up. Its Packet Identifier stays in use [MQTT-2.2.1-3].
    downlink: Option<Downlink>,
}

/// The downlinks on their way.
pub(super) struct DownlinkWindow {
    waiting: VecDeque<Downlink>,
    in_flight: VecDeque<SentPublish>,
    /// The broker's Receive Maximum.
    most: usize,
    /// Grows by one with each PUBACK, from 1 after a connection ended with several in flight.
    limit: usize,
    last_id: u16,
}

impl DownlinkWindow {
    pub(super) fn new() -> Self {
        let (waiting, in_flight) = (VecDeque::new(), VecDeque::new());
        Self { waiting, in_flight, most: MAX_IN_FLIGHT, limit: MAX_IN_FLIGHT, last_id: 0 }
    }

    pub(super) fn connected(&mut self, receive_maximum: NonZeroU16) {
        self.most = usize::from(receive_maximum.get()).min(MAX_IN_FLIGHT);
    }

    /// Whether another downlink can be sent at once.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.can_send()
    }

    pub(super) fn push(&mut self, downlink: Downlink) {
        self.waiting.push_back(downlink);
    }

    /// The next to be sent; those that the outbox waits for no more are dropped.
    pub(super) fn next(&mut self) -> Option<Downlink> {
        while self.can_send() {
            let downlink = self.waiting.pop_front()?;
            if !downlink.published.is_closed() {
                return Some(downlink);
            }
        }
        None
    }

    /// A Packet Identifier that is not in use.
    pub(super) fn packet_id(&mut self) -> NonZeroU16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = NonZeroU16::new(self.last_id)
                && self.in_flight.iter().all(|it| it.packet_id != id)
            {
                return id;
            }
        }
    }

    pub(super) fn sent(&mut self, packet_id: NonZeroU16, downlink: Downlink, sent_at: Instant) {
        self.in_flight.push_back(SentPublish { packet_id, sent_at, downlink: Some(downlink) });
    }

    /// The downlink of a PUBACK; none if it was given up.
    pub(super) fn acknowledged(&mut self, packet_id: NonZeroU16) -> Option<Downlink> {
        let position = self.in_flight.iter().position(|it| it.packet_id == packet_id)?;
        self.limit = self.limit.saturating_add(1).min(MAX_IN_FLIGHT);
        self.in_flight.remove(position)?.downlink
    }

    /// When the next is to be given up.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let oldest = self.in_flight.iter().find(|it| it.downlink.is_some())?;
        Some(oldest.sent_at + PUBACK_DEADLINE)
    }

    /// Removes those whose deadline has passed.
    pub(super) fn give_up(&mut self, now: Instant) -> Vec<Downlink> {
        let late = |it: &&mut SentPublish| it.sent_at + PUBACK_DEADLINE <= now;
        self.in_flight.iter_mut().filter(late).filter_map(|it| it.downlink.take()).collect()
    }

    /// Nothing can be sent, because of what was given up: only another connection helps.
    pub(super) fn is_stuck(&self) -> bool {
        !self.can_send() && self.in_flight.iter().all(|it| it.downlink.is_none())
    }

    /// The connection ended with some in flight: one that was alone is refused, several are sent one at a time
    /// on the next connection. Returns whether there were any.
    pub(super) fn connection_ended(&mut self, end: &str) -> bool {
        let mut suspects: Vec<_> = self.in_flight.drain(..).filter_map(|it| it.downlink).collect();
        if suspects.is_empty() {
            return false;
        }
        self.limit = 1;
        if suspects.len() == 1 {
            for suspect in suspects.drain(..) {
                let problem =
                    format!("the connection ended when this configuration was sent: {end}");
                suspect.published.send(Err(Refusal { cause: "closed", problem })).ok();
            }
        }
        for suspect in suspects.into_iter().rev() {
            self.waiting.push_front(suspect);
        }
        true
    }

    fn can_send(&self) -> bool {
        // What was given up counts for the broker's bound, not for ours.
        let live = self.in_flight.iter().filter(|it| it.downlink.is_some()).count();
        self.in_flight.len() < self.most && live < self.limit
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::domain::SensorIdentifier;

    type Answer = oneshot::Receiver<Result<(), Refusal>>;

    fn downlink() -> (Downlink, Answer) {
        let (published, answer) = oneshot::channel();
        let sensor = SensorIdentifier::random();
        (Downlink { sensor, configuration: None, published }, answer)
    }

    fn send_all(window: &mut DownlinkWindow, now: Instant) -> Vec<NonZeroU16> {
        let mut sent = Vec::new();
        while let Some(downlink) = window.next() {
            let id = window.packet_id();
            window.sent(id, downlink, now);
            sent.push(id);
        }
        sent
    }

    #[test]
    fn only_the_publish_that_ends_the_connection_alone_is_blamed() {
        let (mut window, now) = (DownlinkWindow::new(), Instant::now());
        let mut answers = Vec::new();
        for _ in 0..3 {
            let (downlink, answer) = downlink();
            window.push(downlink);
            answers.push(answer);
        }
        assert_eq!(send_all(&mut window, now).len(), 3);
        assert!(window.connection_ended("closed"));
        assert!(answers[0].try_recv().is_err(), "three were in flight");
        assert_eq!(send_all(&mut window, now).len(), 1);
        assert!(window.connection_ended("closed"));
        assert_eq!(answers[0].try_recv().unwrap().unwrap_err().cause, "closed");
        let second = send_all(&mut window, now);
        assert_eq!(second.len(), 1);
        assert!(window.acknowledged(second[0]).is_some());
        assert_eq!(send_all(&mut window, now).len(), 1);
        assert!(answers[1].try_recv().is_err());
    }

    #[test]
    fn an_abandoned_publish_keeps_its_identifier_and_is_not_awaited() {
        let (mut window, now) = (DownlinkWindow::new(), Instant::now());
        window.connected(NonZeroU16::new(2).unwrap());
        let (first, _answer) = downlink();
        window.push(first);
        let id = send_all(&mut window, now)[0];
        assert!(window.give_up(now).is_empty());
        assert_eq!(window.give_up(now + PUBACK_DEADLINE).len(), 1);
        assert!(window.has_room() && !window.is_stuck());
        window.last_id = 0;
        assert_ne!(window.packet_id(), id);
        assert!(window.acknowledged(id).is_none());
    }
}
