//! The publishers: they publish numbered items at QoS 1, record what the broker acknowledges, and publish again what it does
//! not acknowledge, as a sensor would. Used by `run`. Every message that `finish` returns was acknowledged or is of QoS 0.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::messages::{Message, MessageSource};
use crate::support::client::Client;

/// At most this many unacknowledged messages per connection.
const IN_FLIGHT: usize = 1_000;

/// How often a publisher checks for messages that are due.
const TICK: Duration = Duration::from_millis(10);

/// What the publishers share.
pub(crate) struct Shared {
    pub(crate) url: String,
    pub(crate) name: String,
    /// Messages per second and publisher.
    pub(crate) rate: Cell<f64>,
    pub(crate) twice: bool,
    /// How long acknowledged messages are kept.
    pub(crate) remembered_for: Duration,
    pub(crate) stopping: Cell<bool>,
    /// One entry per loss of messages by the broker: messages acknowledged since this time may be lost.
    pub(crate) forgotten_since: RefCell<Vec<Instant>>,
    /// Messages published again because the broker may have lost them.
    pub(crate) resent: Cell<u64>,
    pub(crate) acknowledged: Cell<u64>,
}

/// All publishers.
pub(crate) struct Fleet {
    pub(crate) shared: Rc<Shared>,
    pub(crate) started_at: Instant,
    publishers: RefCell<Vec<JoinHandle<Vec<Rc<Message>>>>>,
}

impl Fleet {
    pub(crate) fn start(shared: Shared, sources: Vec<MessageSource>) -> Self {
        let shared = Rc::new(shared);
        let publishers = sources
            .into_iter()
            .enumerate()
            .map(|(index, source)| {
                let publisher = Publisher {
                    id: format!("{}-publisher-{index}", shared.name),
                    shared: Rc::clone(&shared),
                    source,
                    started_at: Instant::now(),
                    due_count: 0.0,
                    backlog: VecDeque::new(),
                    acknowledged: VecDeque::new(),
                    forgotten_seen: 0,
                };
                actix_rt::spawn(publisher.run())
            })
            .collect::<Vec<_>>()
            .into();
        Self { shared, started_at: Instant::now(), publishers }
    }

    /// The broker has lost what it acknowledged since this time: the messages are published again, so that they do not count as
    /// lost.
    pub(crate) fn resend_since(&self, time: Instant) {
        self.shared.forgotten_since.borrow_mut().push(time);
    }

    /// Generates no new messages, and returns all messages once each is acknowledged.
    pub(crate) async fn finish(&self) -> Vec<Rc<Message>> {
        self.shared.stopping.set(true);
        let mut all = Vec::new();
        let publishers = self.publishers.take();
        for publisher in publishers {
            all.extend(publisher.await.expect("a publisher does not panic"));
        }
        all
    }
}

struct Publisher {
    id: String,
    shared: Rc<Shared>,
    source: MessageSource,
    started_at: Instant,
    /// Messages that are due at the rate and not published yet.
    due_count: f64,
    backlog: VecDeque<Rc<Message>>,
    acknowledged: VecDeque<(Instant, Rc<Message>)>,
    forgotten_seen: usize,
}

impl Publisher {
    async fn run(mut self) -> Vec<Rc<Message>> {
        loop {
            let clean_start = true;
            match Client::try_connect(&self.shared.url, &self.id, clean_start).await {
                Ok(client) => {
                    self.requeue_forgotten();
                    if self.publish_all(&client).await {
                        client.disconnect().await;
                        break;
                    }
                }
                Err(_) => tokio::time::sleep(TICK * 5).await,
            }
        }
        self.acknowledged.into_iter().map(|(_, message)| message).collect()
    }

    /// Publishes over one connection. Returns true once all messages are acknowledged, false if the connection closes.
    async fn publish_all(&mut self, client: &Client) -> bool {
        let mut responses = FuturesUnordered::new();
        let mut connected = true;
        loop {
            self.update_due_count();
            while connected && responses.len() < IN_FLIGHT {
                let Some(message) = self.next_due() else { break };
                responses.push(async move {
                    let (topic, payload) = (&message.topic, message.payload.clone());
                    let outcome = match message.at_most_once {
                        true => client
                            .publish_at_most_once(topic, payload)
                            .await
                            .map(|()| PubAckReason::Success),
                        false => client.publish(topic, payload).await,
                    };
                    (message, outcome)
                });
            }
            if responses.is_empty() {
                if !connected {
                    return false;
                }
                if self.shared.stopping.get() && self.backlog.is_empty() {
                    // The broker may have lost messages since.
                    if self.forgotten_seen == self.shared.forgotten_since.borrow().len() {
                        return true;
                    }
                    self.requeue_forgotten();
                }
                tokio::time::sleep(TICK).await;
                continue;
            }
            tokio::select! {
                Some((message, outcome)) = responses.next() => match outcome {
                    Ok(PubAckReason::Success) => {
                        let acknowledged = &self.shared.acknowledged;
                        acknowledged.set(acknowledged.get() + 1);
                        self.remember(message);
                    }
                    // The broker dropped it, because the service has no session.
                    Ok(PubAckReason::NoMatchingSubscribers) => self.backlog.push_back(message),
                    Ok(other) => panic!("PUBACK with reason {other:?}"),
                    // A sensor does not publish it again, because it may have arrived.
                    Err(_) if message.at_most_once => {
                        connected = false;
                        self.remember(message);
                    }
                    Err(_) => {
                        connected = false;
                        self.backlog.push_back(message);
                    }
                },
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    fn remember(&mut self, message: Rc<Message>) {
        let now = Instant::now();
        self.acknowledged.push_back((now, message));
        while self
            .acknowledged
            .front()
            .is_some_and(|(at, _)| now - *at > self.shared.remembered_for)
        {
            self.acknowledged.pop_front();
        }
    }

    fn update_due_count(&mut self) {
        let now = Instant::now();
        let passed = now - self.started_at;
        self.started_at = now;
        // Bounded: after an outage of the broker, publishers do not catch up.
        self.due_count = (self.due_count + passed.as_secs_f64() * self.shared.rate.get())
            .min(self.shared.rate.get().max(200.0));
    }

    fn next_due(&mut self) -> Option<Rc<Message>> {
        let stopping = self.shared.stopping.get();
        let has_burst = match stopping {
            true => !self.backlog.is_empty(),
            false => self.source.has_burst(),
        };
        if self.due_count < 1.0 && !has_burst {
            return None;
        }
        self.due_count = (self.due_count - 1.0).max(0.0);
        if let Some(message) = self.backlog.pop_front() {
            return Some(message);
        }
        if stopping {
            return None;
        }
        let message = Rc::new(self.source.message());
        if self.shared.twice && !message.at_most_once {
            self.backlog.push_back(Rc::clone(&message));
        }
        Some(message)
    }

    fn requeue_forgotten(&mut self) {
        let forgotten_since = self.shared.forgotten_since.borrow();
        for since in &forgotten_since[self.forgotten_seen..] {
            let first = self.acknowledged.partition_point(|(at, _)| at < since);
            let (once, forgotten): (VecDeque<_>, VecDeque<_>) =
                self.acknowledged.split_off(first).into_iter().partition(|(_, it)| it.at_most_once);
            self.acknowledged.extend(once);
            self.shared.resent.set(self.shared.resent.get() + forgotten.len() as u64);
            self.backlog.extend(forgotten.into_iter().map(|(_, message)| message));
        }
        self.forgotten_seen = forgotten_since.len();
    }
}
