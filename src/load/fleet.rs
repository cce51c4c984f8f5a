//! A fleet: sensors spread over connections, what they publish and how fast. Described by `simulate` from its options
//! and by each scenario of `bench`. It promises to publish its limit exactly, unless the time runs out before.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::pace::{Pace, Rate};
use super::publisher::{Publisher, Stop, Totals, Window};
use super::sensors::{Content, Copies, Sensors, Unseen};
use crate::domain::SensorIdentifier;
use crate::mqtt;
use crate::wire::Topics;

#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    pub(crate) identifiers: Vec<SensorIdentifier>,
    pub(crate) topics: Topics,
    pub(crate) content: Content,
    pub(crate) seed: u64,
    /// Of all sensors together.
    pub(crate) rate: Rate,
    /// Messages in total, without copies and heartbeats.
    pub(crate) limit: Option<u64>,
    /// None continues until everything is published.
    pub(crate) duration: Option<Duration>,
    pub(crate) copies: Copies,
    /// Where each measurement is noted when it is published.
    pub(crate) unseen: Option<Unseen>,
    pub(crate) connections: usize,
    /// Un-acknowledged messages of each connection, at most.
    pub(crate) window: usize,
    /// Messages that fall due within this time are written together.
    pub(crate) tick: Duration,
    /// Like real sensors: receives configurations, connects again, and skips messages after a long delay.
    /// Otherwise a lost connection is an error.
    pub(crate) is_realistic: bool,
}

impl Fleet {
    /// Without a limit and as fast as the broker takes it; over one connection, which keeps the order.
    pub(crate) fn new(
        identifiers: Vec<SensorIdentifier>,
        topics: Topics,
        content: Content,
    ) -> Self {
        Self {
            identifiers,
            topics,
            content,
            seed: 1,
            rate: Rate::Unlimited,
            limit: None,
            duration: None,
            copies: Copies::default(),
            unseen: None,
            connections: 1,
            window: 10_000,
            tick: Duration::from_millis(1),
            is_realistic: false,
        }
    }

    /// The sensors of each connection.
    pub(crate) fn sensors(&self) -> Vec<Sensors> {
        let content = Rc::new(self.content.clone());
        let part = |index: usize| {
            let (count, bound) = (self.identifiers.len(), |index| self.bound(index));
            let limit = self.limit.map(|limit| {
                let until = |index: usize| u128::from(limit) * bound(index) as u128 / count as u128;
                u64::try_from(until(index + 1) - until(index)).expect("no more than the limit")
            });
            let sensors =
                (bound(index) as u64..).zip(&self.identifiers[bound(index)..bound(index + 1)]);
            let content = Rc::clone(&content);
            let mut sensors = Sensors::new(sensors, &self.topics, (content, self.seed));
            (sensors.left, sensors.copies, sensors.unseen) =
                (limit, self.copies, self.unseen.clone());
            sensors
        };
        (0..self.connections).map(part).collect()
    }

    /// Publishes until everything is published and acknowledged, or the time is over. Returns how long that took,
    /// without connecting.
    pub(crate) async fn publish(
        &self,
        mqtt: &mqtt::Config,
        client_id: &str,
        totals: &Rc<RefCell<Totals>>,
        stop: watch::Receiver<Stop>,
    ) -> anyhow::Result<Duration> {
        let publisher = |(index, sensors): (usize, Sensors)| {
            let identifiers = &self.identifiers[self.bound(index)..self.bound(index + 1)];
            let filters = identifiers.iter().filter(|_| self.is_realistic);
            let share = identifiers.len() as f64 / self.identifiers.len() as f64;
            let pace = Pace::new(self.rate.times(share));
            Publisher {
                sensors,
                mqtt: mqtt.clone(),
                client_id: format!("{client_id}-{index}"),
                filters: filters.map(|it| self.topics.configuration(*it)).collect(),
                pace: if self.is_realistic { pace.skipping() } else { pace },
                window: Window::new(self.window),
                tick: self.tick,
                reconnect: self.is_realistic,
                totals: Rc::clone(totals),
                acknowledged_at: Instant::now(),
                deadline: None,
            }
        };
        let publishers = self.sensors().into_iter().enumerate().map(publisher).collect();
        Publisher::run_all(publishers, self.duration, stop).await
    }

    /// The first sensor of a connection.
    fn bound(&self, connection: usize) -> usize {
        self.identifiers.len() * connection / self.connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::load::{Account, Invention, Message};
    use std::collections::HashSet;

    /// What a fleet of ten sensors publishes, by connection.
    fn published(connections: usize, copies: Copies, invention: Invention) -> Vec<Vec<Message>> {
        let identifiers = (0..10).map(|_| SensorIdentifier::random()).collect();
        let content = Content::Invented(invention);
        let fleet = Fleet {
            limit: Some(1_000),
            copies,
            connections,
            ..Fleet::new(identifiers, Topics::new("site-a"), content)
        };
        let now = Timestamp::now();
        let all = |mut sensors: Sensors| {
            let mut messages = Vec::new();
            while !sensors.has_ended() {
                messages.push(sensors.next(now));
            }
            messages
        };
        fleet.sensors().into_iter().map(all).collect()
    }

    fn account<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Account {
        let mut account = Account::default();
        messages.into_iter().for_each(|message| account.add(message.sent));
        account
    }

    #[test]
    fn the_connections_share_the_limit_and_no_two_messages_are_equal() {
        let measurements = Invention::of_measurements(1);
        let invention =
            Invention { log_share: 0.1, heartbeat_share: 0.1, bad_share: 0.1, ..measurements };
        let all = published(3, Copies::default(), invention);
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [300, 300, 400]);
        let account = account(all.iter().flatten());
        let [_, log_messages, heartbeats] = account.kinds.map(|it| it.published);
        for share in [log_messages, heartbeats, account.bad()] {
            assert!((60..140).contains(&share), "{account:?}");
        }
        assert_eq!(account.distinct() + account.bad(), 1_000);
        let distinct: HashSet<(String, Vec<u8>)> =
            all.iter().flatten().map(|it| (it.topic.to_string(), it.payload.to_vec())).collect();
        assert_eq!(distinct.len(), 1_000);
    }

    #[test]
    fn copies_are_equal_and_sent_at_the_given_share() {
        for (share, lag, copies) in [(0.5, 0, 500), (1.0, 4, 1_000), (0.01, 2_000, 10)] {
            let all = &published(1, Copies { share, lag }, Invention::of_measurements(2))[0];
            let account = account(all);
            assert_eq!((account.items(), account.distinct()), (2_000 + 2 * copies, 2_000));
            let copy = all.iter().position(|it| it.sent.copy).unwrap();
            let original = all.iter().position(|it| it.payload == all[copy].payload).unwrap();
            assert_eq!(all[copy].topic, all[original].topic);
            let between = all[original..copy].iter().filter(|it| !it.sent.copy).count();
            assert_eq!(between as u64 - 1, lag.min(1_000 - 1 - original as u64), "{share} {lag}");
        }
    }
}
