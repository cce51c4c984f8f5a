//! What a sensor's actor remembers, and when it asks for its configuration to be published again.
//! Called by the actor for each message. Pure.

use std::time::Duration;

use super::protocol::{ReceiptStats, Snapshot};
use crate::domain::{Items, Kind, Timestamp, Uplink};
use crate::store::KnownSensor;

/// What a sensor is allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerances {
    /// `CONFIGURATION_REPUBLISH_SECS`: how long it may take to apply its configuration.
    pub(super) republish: Duration,
    /// `FUTURE_TOLERANCE_SECS`: how far its clock may be ahead of ours.
    pub(super) future: Duration,
}

/// The state of one sensor.
#[derive(Debug)]
pub(super) struct SensorState {
    snapshot: Snapshot,
    /// When the sensor was last given time to apply its configuration: its actor began, the desired
    /// revision changed, or the configuration was published again.
    grace_began_at: Timestamp,
    /// Items, and those of them that are dated after [`CLOCKS_ARE_SET`].
    dated: (u64, u64),
}

/// 2000-01-01. A clock that was never set counts from 1970, or from the start of the device.
const CLOCKS_ARE_SET: Timestamp = Timestamp::from_unix_microseconds(946_684_800_000_000);

impl SensorState {
    /// As the tables have it.
    pub(super) fn new(known: &KnownSensor, now: Timestamp) -> Self {
        Self {
            snapshot: Snapshot {
                last_acknowledged_revision: known.last_acknowledged.map(|(revision, _)| revision),
                last_acknowledged_success: known.last_acknowledged.map(|(_, success)| success),
                desired_revision: known.desired_revision,
                ..Snapshot::default()
            },
            grace_began_at: now,
            dated: (0, 0),
        }
    }

    /// True: the sensor has had `tolerances.republish` and is still behind the desired revision, so its
    /// configuration must be published again.
    pub(super) fn record(&mut self, uplink: &Uplink, tolerances: Tolerances) -> bool {
        if !uplink.message.is_present() {
            return false;
        }
        let received_at = uplink.message.received_at;
        if let Some(kind) = uplink.kind {
            let stats = self.stats(kind);
            stats.messages += 1;
            stats.items += uplink.items.len() as u64;
            stats.last_receipt = Some(received_at);
        }
        let horizon = received_at.saturating_add(tolerances.future);
        self.snapshot.future_items += uplink.items.count_later_than(horizon);
        self.snapshot.rejected_items +=
            uplink.rejections.iter().map(|rejection| u64::from(rejection.item_count)).sum::<u64>();
        let Some(reported) = uplink.items.newest_revision() else { return false };
        self.snapshot.reported_revision = reported;
        self.dated.0 += uplink.items.len() as u64;
        self.dated.1 += uplink.items.count_later_than(CLOCKS_ARE_SET);
        let again = self.is_behind(&uplink.items, reported)
            && received_at >= self.grace_began_at.saturating_add(tolerances.republish);
        if again {
            self.grace_began_at = received_at;
        }
        again
    }

    /// Whether the sensor lacks the desired revision. The number that it reports is not enough: it may be one of its
    /// own. One that it has refused is not forced upon it.
    fn is_behind(&self, items: &Items, reported: Option<i32>) -> bool {
        let Some(desired) = self.snapshot.desired_revision else { return false };
        let acknowledged = self.snapshot.last_acknowledged_revision.is_some_and(|it| it >= desired);
        if acknowledged {
            // A sensor that reports no revision lacks the desired one.
            return self.snapshot.last_acknowledged_success == Some(true)
                && reported < Some(desired);
        }
        let acknowledges = matches!(items, Items::Heartbeats(heartbeats)
            if heartbeats.iter().any(|heartbeat| heartbeat.head.revision == Some(desired)));
        !acknowledges
    }

    pub(super) const fn count_duplicates(&mut self, items: u64) {
        self.snapshot.duplicate_items += items;
    }

    /// A maximum: the messages may arrive in any order.
    pub(super) fn set_desired(&mut self, revision: i32, now: Timestamp) {
        if self.snapshot.desired_revision.is_none_or(|desired| desired < revision) {
            self.snapshot.desired_revision = Some(revision);
            self.grace_began_at = now;
        }
    }

    /// A maximum, like the desired revision.
    pub(super) fn set_acknowledged(&mut self, revision: i32, success: bool) {
        if self.snapshot.last_acknowledged_revision.is_none_or(|last| last <= revision) {
            self.snapshot.last_acknowledged_revision = Some(revision);
            self.snapshot.last_acknowledged_success = Some(success);
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let (items, late) = self.dated;
        let early = items - late;
        let clock = (2 * early > items).then(|| {
            format!(
                "{early} of {items} items are dated before 2000-01-01; is the sensor's clock set?"
            )
        });
        Snapshot { clock, ..self.snapshot.clone() }
    }

    const fn stats(&mut self, kind: Kind) -> &mut ReceiptStats {
        match kind {
            Kind::Measurement => &mut self.snapshot.measurements,
            Kind::LogMessage => &mut self.snapshot.log_messages,
            Kind::Heartbeat => &mut self.snapshot.heartbeats,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        AckTokens, ByteRange, Heartbeat, ItemHead, Measurement, RawMessage, SensorIdentifier,
    };
    use smallvec::smallvec;

    const MINUTE: Tolerances =
        Tolerances { republish: Duration::from_secs(60), future: Duration::from_secs(60) };

    fn second(seconds: i64) -> Timestamp {
        Timestamp::from_unix_microseconds(seconds * 1_000_000)
    }

    fn heartbeat(revision: impl Into<Option<i32>>, at: i64) -> Uplink {
        let (ack_tokens, _lost) = AckTokens::new();
        Uplink {
            sensor: Some(SensorIdentifier::random()),
            kind: Some(Kind::Heartbeat),
            items: Items::Heartbeats(smallvec![Heartbeat {
                head: ItemHead {
                    timestamp: second(at),
                    revision: revision.into(),
                    ..ItemHead::default()
                },
                success: true
            }]),
            rejections: Vec::new(),
            message: RawMessage::new("t", b"", second(at), false),
            ack_token: ack_tokens.issue(0),
        }
    }

    fn state(desired: i32) -> SensorState {
        let known = KnownSensor {
            identifier: SensorIdentifier::random(),
            desired_revision: Some(desired),
            last_acknowledged: None,
        };
        SensorState::new(&known, second(0))
    }

    #[test]
    fn a_sensor_that_lags_gets_its_configuration_again_once_a_minute() {
        let mut state = state(3);
        let republished: Vec<bool> = [1, 59, 60, 61, 119, 120]
            .into_iter()
            .map(|at| state.record(&heartbeat(2, at), MINUTE))
            .collect();
        assert_eq!(republished, [false, false, true, false, false, true]);
        assert!(!state.record(&heartbeat(3, 600), MINUTE), "it acknowledges");
        state.set_acknowledged(3, true);
        assert!(!state.record(&heartbeat(3, 660), MINUTE));
        assert!(state.record(&heartbeat(2, 660), MINUTE), "it has lost it again");
        assert!(state.record(&heartbeat(None, 720), MINUTE), "under none from the server");
        assert_eq!(state.snapshot().reported_revision, None);
    }

    #[test]
    fn a_sensor_that_has_not_acknowledged_is_behind_whatever_it_reports() {
        let mut state = state(3);
        for (reported, at) in [(3, 60), (7, 120), (0, 180)] {
            let mut measurement = heartbeat(reported, at);
            let item = Measurement {
                head: ItemHead {
                    timestamp: second(at),
                    revision: Some(reported),
                    ..ItemHead::default()
                },
                value: ByteRange { start: 0, end: 0 },
            };
            measurement.items = Items::Measurements(smallvec![item]);
            assert!(state.record(&measurement, MINUTE), "{reported}");
        }
        assert!(state.record(&heartbeat(7, 240), MINUTE));
    }

    #[test]
    fn a_refused_revision_is_not_repeated() {
        let mut state = state(3);
        state.set_acknowledged(3, false);
        assert!(!state.record(&heartbeat(2, 600), MINUTE));
        state.set_desired(4, second(600));
        assert!(state.record(&heartbeat(2, 660), MINUTE), "a newer one is another matter");
    }

    #[test]
    fn a_clock_that_was_never_set_is_reported() {
        let mut state = state(0);
        state.record(&heartbeat(0, 7), MINUTE);
        let clock = state.snapshot().clock.unwrap();
        assert!(clock.starts_with("1 of 1 items are dated before 2000-01-01"), "{clock}");
        state.record(&heartbeat(0, 1_795_883_642), MINUTE);
        assert_eq!(state.snapshot().clock, None, "half of them");
    }

    #[test]
    fn a_new_revision_restarts_the_grace_period() {
        let mut state = state(0);
        state.set_desired(1, second(100));
        assert!(!state.record(&heartbeat(0, 159), MINUTE));
        assert!(state.record(&heartbeat(0, 160), MINUTE));
        state.set_desired(0, second(161));
        assert_eq!(state.snapshot().desired_revision, Some(1));
    }

    #[test]
    fn the_last_acknowledged_revision_is_a_maximum() {
        let mut state = state(5);
        state.set_acknowledged(4, false);
        state.set_acknowledged(2, true);
        let snapshot = state.snapshot();
        assert_eq!(snapshot.last_acknowledged_revision, Some(4));
        assert_eq!(snapshot.last_acknowledged_success, Some(false));
    }

    #[test]
    fn a_replayed_or_retained_message_does_not_change_the_state() {
        let mut state = state(3);
        let mut old = heartbeat(1, 500);
        old.message = RawMessage::replayed("t", b"", second(500), 1);
        assert!(!state.record(&old, MINUTE));
        old.message = RawMessage::retained("t", b"", second(500));
        assert!(!state.record(&old, MINUTE));
        let snapshot = state.snapshot();
        assert_eq!((snapshot.reported_revision, snapshot.heartbeats.messages), (None, 0));
    }

    #[test]
    fn counts_messages_and_items() {
        let mut state = state(0);
        state.record(&heartbeat(0, 7), MINUTE);
        state.record(&heartbeat(0, 8), MINUTE);
        let heartbeats = state.snapshot().heartbeats;
        assert_eq!((heartbeats.messages, heartbeats.items), (2, 2));
        assert_eq!(heartbeats.last_receipt, Some(second(8)));
    }

    #[test]
    fn counts_items_from_the_future() {
        let mut state = state(0);
        for (timestamp, received_at) in [(160, 100), (161, 100), (4_070_908_800, 100), (90, 100)] {
            let mut uplink = heartbeat(0, timestamp);
            uplink.message = RawMessage::new("t", b"", second(received_at), false);
            state.record(&uplink, MINUTE);
        }
        assert_eq!(state.snapshot().future_items, 2);
    }
}
