//! The publishers: they say numbered items at QoS 1, and keep what the broker acknowledged. What it did not acknowledge
//! they say again, over as many connections as it takes, as a sensor would. Promises that what is handed over at the end
//! was acknowledged, every message of it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rumqttc::v5::mqttbytes::v5::PubAckReason;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::said::{Message, Speech};
use crate::support::client::Client;

/// Un-acknowledged on one connection at the most.
const IN_FLIGHT: usize = 1_000;

/// How often what is due is looked at.
const TICK: Duration = Duration::from_millis(10);

/// What the voices share.
pub(crate) struct Shared {
    pub(crate) url: String,
    pub(crate) name: String,
    /// Messages a second, of each voice.
    pub(crate) rate: Cell<f64>,
    pub(crate) twice: bool,
    /// What was acknowledged longer ago is counted, and forgotten.
    pub(crate) remembers: Duration,
    pub(crate) stopping: Cell<bool>,
    /// How often the broker has forgotten something, and since when it may have.
    pub(crate) doubt: RefCell<Vec<Instant>>,
    /// Said again because the broker may have forgotten it.
    pub(crate) doubted: Cell<u64>,
    pub(crate) acknowledged: Cell<u64>,
}

/// All publishers.
pub(crate) struct Fleet {
    pub(crate) shared: Rc<Shared>,
    pub(crate) begun_at: Instant,
    voices: RefCell<Vec<JoinHandle<Vec<Rc<Message>>>>>,
}

impl Fleet {
    pub(crate) fn start(shared: Shared, speeches: Vec<Speech>) -> Self {
        let shared = Rc::new(shared);
        let voices = speeches
            .into_iter()
            .enumerate()
            .map(|(index, speech)| {
                let voice = Voice {
                    id: format!("{}-voice-{index}", shared.name),
                    shared: Rc::clone(&shared),
                    speech,
                    begun_at: Instant::now(),
                    owed: 0.0,
                    backlog: VecDeque::new(),
                    acknowledged: VecDeque::new(),
                    doubts: 0,
                };
                actix_rt::spawn(voice.speak())
            })
            .collect::<Vec<_>>()
            .into();
        Self { shared, begun_at: Instant::now(), voices }
    }

    /// What the broker acknowledged since then is with it no more: it is said again, and so is not counted as lost.
    pub(crate) fn doubt_since(&self, moment: Instant) {
        self.shared.doubt.borrow_mut().push(moment);
    }

    /// No new messages; returns all that were said, when each has been acknowledged.
    pub(crate) async fn finish(&self) -> Vec<Rc<Message>> {
        self.shared.stopping.set(true);
        let mut all = Vec::new();
        let voices = self.voices.take();
        for voice in voices {
            all.extend(voice.await.expect("a voice does not panic"));
        }
        all
    }
}

struct Voice {
    id: String,
    shared: Rc<Shared>,
    speech: Speech,
    begun_at: Instant,
    /// Messages that have been paid by the passing of time, and are not said yet.
    owed: f64,
    backlog: VecDeque<Rc<Message>>,
    acknowledged: VecDeque<(Instant, Rc<Message>)>,
    doubts: usize,
}

impl Voice {
    async fn speak(mut self) -> Vec<Rc<Message>> {
        loop {
            let clean_start = true;
            match Client::try_connect(&self.shared.url, &self.id, clean_start).await {
                Ok(client) => {
                    self.take_doubts();
                    if self.talk(&client).await {
                        client.disconnect().await;
                        break;
                    }
                }
                Err(_) => tokio::time::sleep(TICK * 5).await,
            }
        }
        self.acknowledged.into_iter().map(|(_, message)| message).collect()
    }

    /// Over one connection. True: all is said.
    async fn talk(&mut self, client: &Client) -> bool {
        let mut answers = FuturesUnordered::new();
        let mut alive = true;
        loop {
            self.earn();
            while alive && answers.len() < IN_FLIGHT {
                let Some(message) = self.due() else { break };
                answers.push(async move {
                    let outcome = client.publish(&message.topic, message.payload.clone()).await;
                    (message, outcome)
                });
            }
            if answers.is_empty() {
                if !alive {
                    return false;
                }
                if self.shared.stopping.get() && self.backlog.is_empty() {
                    // The last word: has the broker forgotten anything since?
                    if self.doubts == self.shared.doubt.borrow().len() {
                        return true;
                    }
                    self.take_doubts();
                }
                tokio::time::sleep(TICK).await;
                continue;
            }
            tokio::select! {
                Some((message, outcome)) = answers.next() => match outcome {
                    Ok(PubAckReason::Success) => {
                        let acknowledged = &self.shared.acknowledged;
                        acknowledged.set(acknowledged.get() + 1);
                        self.remember(message);
                    }
                    // The broker took it and gave it to nobody: the service has no session there.
                    Ok(PubAckReason::NoMatchingSubscribers) => self.backlog.push_back(message),
                    Ok(other) => panic!("the broker answers {other:?}"),
                    Err(_) => {
                        alive = false;
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
        while self.acknowledged.front().is_some_and(|(at, _)| now - *at > self.shared.remembers) {
            self.acknowledged.pop_front();
        }
    }

    fn earn(&mut self) {
        let now = Instant::now();
        let passed = now - self.begun_at;
        self.begun_at = now;
        // What could not be said while the broker was away is not made up for.
        self.owed = (self.owed + passed.as_secs_f64() * self.shared.rate.get())
            .min(self.shared.rate.get().max(200.0));
    }

    fn due(&mut self) -> Option<Rc<Message>> {
        let stopping = self.shared.stopping.get();
        let in_a_hurry = match stopping {
            true => !self.backlog.is_empty(),
            false => self.speech.is_in_a_hurry(),
        };
        if self.owed < 1.0 && !in_a_hurry {
            return None;
        }
        self.owed = (self.owed - 1.0).max(0.0);
        if let Some(message) = self.backlog.pop_front() {
            return Some(message);
        }
        if stopping {
            return None;
        }
        let message = Rc::new(self.speech.message());
        if self.shared.twice {
            self.backlog.push_back(Rc::clone(&message));
        }
        Some(message)
    }

    fn take_doubts(&mut self) {
        let doubt = self.shared.doubt.borrow();
        for since in &doubt[self.doubts..] {
            let first = self.acknowledged.partition_point(|(at, _)| at < since);
            let doubtful = self.acknowledged.split_off(first);
            self.shared.doubted.set(self.shared.doubted.get() + doubtful.len() as u64);
            self.backlog.extend(doubtful.into_iter().map(|(_, message)| message));
        }
        self.doubts = doubt.len();
    }
}
