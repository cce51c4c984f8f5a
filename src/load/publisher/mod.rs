//! Publishes for its sensors over one connection, as fast as its pace says and its window allows. Started by the
//! fleet, one for each connection. After a reconnect un-acknowledged messages are sent again, byte for byte; without
//! `reconnect` a lost connection is an error.

mod connection;
mod window;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use ntex_mqtt::v5::codec::PublishAckReason;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::account::{Account, Configurations, Message};
use super::pace::Pace;
use super::sensors::Sensors;
use crate::domain::{Timestamp, pause};
use crate::mqtt;
pub(crate) use connection::{BrokerEvent, PublisherConnection};
pub(super) use window::Window;

/// How long, after the last message, the broker may take to acknowledge it.
const WIND_DOWN: Duration = Duration::from_secs(30);
/// A broker that acknowledges nothing for this long never will.
const ACKNOWLEDGEMENT_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(1);

/// What the publishers of one run have done. All of them run on one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) account: Account,
    pub(crate) configurations: Configurations,
    /// Messages that the broker acknowledged.
    pub(crate) acknowledged: u64,
    /// Shows them.
    pub(crate) progress: Option<ProgressBar>,
    /// Those of them to which nobody is subscribed.
    pub(crate) without_subscriber: u64,
    /// Messages that the broker discarded and answered with an error.
    pub(crate) refused: u64,
    /// Messages that it never acknowledged.
    pub(crate) unacknowledged: u64,
    /// Messages sent again after a reconnect.
    pub(crate) republished: u64,
    pub(crate) reconnects: u64,
    /// Messages never published, because broker or machine caused a delay.
    pub(crate) skipped: u64,
    /// From PUBLISH to PUBACK, in microseconds, where somebody asks for it.
    pub(crate) latency: Option<Histogram<u64>>,
}

/// An empty histogram: microseconds up to ten minutes, to three digits.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are constants")
}

pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
}

/// How much of a run is cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    No,
    /// Publish nothing more; wait for acknowledgements.
    Publishing,
    /// Wait for nothing.
    Now,
}

/// The same for all connections of a run.
#[derive(Clone)]
struct Timing {
    started_at: Instant,
    /// None continues until the sensors have ended.
    duration: Option<Duration>,
    stop: watch::Receiver<Stop>,
}

impl Timing {
    fn is_stopped(&self) -> bool {
        *self.stop.borrow() != Stop::No
    }

    /// Since the start, at most the duration.
    fn elapsed(&self, now: Instant) -> Duration {
        let elapsed = now - self.started_at;
        self.duration.map_or(elapsed, |duration| duration.min(elapsed))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.is_stopped() || self.duration.is_some_and(|it| now >= self.started_at + it)
    }
}

/// One connection's publisher.
pub(crate) struct Publisher {
    pub(super) sensors: Sensors,
    pub(super) mqtt: mqtt::Config,
    pub(super) client_id: String,
    /// Topics to subscribe to.
    pub(super) filters: Vec<String>,
    pub(super) pace: Pace,
    pub(super) window: Window,
    /// Messages that fall due within this time are written together.
    pub(super) tick: Duration,
    pub(super) reconnect: bool,
    pub(super) totals: Rc<RefCell<Totals>>,
    pub(super) acknowledged_at: Instant,
    /// Set once everything has been published.
    pub(super) deadline: Option<Instant>,
}

impl Publisher {
    /// Connects them all, and lets them publish until everything is published and acknowledged, or the run is over.
    /// Returns how long that took, without connecting.
    pub(super) async fn run_all(
        publishers: Vec<Self>,
        duration: Option<Duration>,
        stop: watch::Receiver<Stop>,
    ) -> anyhow::Result<Duration> {
        let connections = try_join_all(publishers.iter().map(Self::open)).await?;
        let timing = Timing { started_at: Instant::now(), duration, stop };
        let mut running = JoinSet::new();
        for (publisher, connection) in publishers.into_iter().zip(connections) {
            running.spawn_local(publisher.run(connection, timing.clone()));
        }
        while let Some(ended) = running.join_next().await {
            ended.context("a publisher panicked")??;
        }
        Ok(timing.started_at.elapsed())
    }

    async fn open(&self) -> anyhow::Result<PublisherConnection> {
        let Self { mqtt, client_id, filters, .. } = self;
        let opened = PublisherConnection::open(mqtt, client_id, filters).await;
        opened
            .with_context(|| format!("no connection to the broker at {}", mqtt.broker.authority()))
    }

    async fn run(
        mut self,
        mut connection: PublisherConnection,
        mut timing: Timing,
    ) -> anyhow::Result<()> {
        while let Err(error) = self.run_connection(&mut connection, &mut timing).await {
            if !self.reconnect {
                return Err(error);
            }
            let unacknowledged = self.window.len();
            warn!(unacknowledged, "connection to the broker lost: {error}");
            match self.reconnect(&mut timing).await {
                Some(opened) => connection = opened,
                None => break,
            }
        }
        if let Err(error) = connection.close().await {
            debug!("the connection ended before DISCONNECT: {error}");
        }
        let pace = &mut self.pace;
        let is_complete = self.sensors.has_ended() || pace.is_unlimited() || timing.is_stopped();
        let totals = &mut *self.totals.borrow_mut();
        if !is_complete {
            totals.skipped += pace.due(timing.elapsed(Instant::now())) + pace.skipped();
        }
        totals.unacknowledged += self.window.len() as u64;
        Ok(())
    }

    /// Publishes over one connection; returns when there is nothing left to do.
    async fn run_connection(
        &mut self,
        connection: &mut PublisherConnection,
        timing: &mut Timing,
    ) -> anyhow::Result<()> {
        let republished = self.window.restart(connection.receive_maximum);
        self.totals.borrow_mut().republished += republished as u64;
        self.acknowledged_at = Instant::now();
        loop {
            let now = Instant::now();
            self.fill(now, timing);
            while let Some((id, topic, payload)) = self.window.next(now) {
                connection.publish(id, topic, payload)?;
            }
            if self.is_done(now, timing) {
                return Ok(());
            }
            if self.window.is_empty() {
                self.acknowledged_at = now;
            }
            ensure!(
                now < self.acknowledged_at + ACKNOWLEDGEMENT_TIMEOUT,
                "the broker has acknowledged nothing for {ACKNOWLEDGEMENT_TIMEOUT:?}"
            );
            let wake_at = self.wake_at(now, timing).min(connection.keep_alive(now)?);
            // A round for a single PUBACK would take CPU time from the broker.
            let is_flat_out = self.pace.is_unlimited() && self.deadline.is_none();
            let gather = if is_flat_out { self.tick } else { Duration::ZERO };
            tokio::select! {
                events = connection.events(gather) => {
                    let now = Instant::now();
                    events?.into_iter().for_each(|event| self.handle(event, now));
                    let totals = self.totals.borrow();
                    totals.progress.iter().for_each(|it| it.set_position(totals.acknowledged));
                }
                () = sleep_until(wake_at) => {}
                changed = timing.stop.changed() => changed.context("the run has ended")?,
            }
        }
    }

    /// Queues the due messages, as far as the window has room.
    fn fill(&mut self, now: Instant, timing: &Timing) {
        if self.deadline.is_some() {
            return;
        }
        let clock = Timestamp::now();
        for message in self.sensors.heartbeats(timing.elapsed(now), clock) {
            self.push(message);
        }
        let mut due = self.pace.due(timing.elapsed(now));
        while due > 0 && self.window.has_room() && !self.sensors.has_ended() {
            let message = self.sensors.next(clock);
            self.push(message);
            self.pace.sent();
            due -= 1;
        }
        if self.sensors.has_ended() || timing.is_over(now) {
            self.deadline = Some(now + WIND_DOWN);
        }
    }

    fn push(&mut self, message: Message) {
        self.totals.borrow_mut().account.add(message.sent);
        self.window.push(message.topic, message.payload);
    }

    fn handle(&mut self, event: BrokerEvent, now: Instant) {
        match event {
            BrokerEvent::Acknowledged(id, reason) => {
                let Some(sent_at) = self.window.acknowledge(id) else { return };
                self.acknowledged_at = now;
                let totals = &mut *self.totals.borrow_mut();
                if let Some(latency) = &mut totals.latency {
                    record(latency, now - sent_at);
                }
                let is_without_subscriber = reason == PublishAckReason::NoMatchingSubscribers;
                if reason == PublishAckReason::Success || is_without_subscriber {
                    totals.without_subscriber += u64::from(is_without_subscriber);
                    totals.acknowledged += 1;
                } else {
                    totals.refused += 1;
                }
            }
            BrokerEvent::Publish { topic, payload, .. } => {
                let clock = Timestamp::now();
                let answer = {
                    let counts = &mut self.totals.borrow_mut().configurations;
                    self.sensors.receive(&topic, &payload, clock, counts)
                };
                answer.into_iter().for_each(|answer| self.push(answer));
            }
        }
    }

    fn is_done(&self, now: Instant, timing: &Timing) -> bool {
        let is_late = |deadline| now >= deadline || *timing.stop.borrow() == Stop::Now;
        self.deadline.is_some_and(|deadline| self.window.is_empty() || is_late(deadline))
    }

    fn wake_at(&self, now: Instant, timing: &Timing) -> Instant {
        if self.deadline.is_some() {
            return now + IDLE;
        }
        // With a full window, an acknowledgement wakes the task.
        let next = self.pace.next_at().filter(|_| self.window.has_room());
        let due = next.into_iter().chain(timing.duration).min().map(|due| timing.started_at + due);
        due.map_or(now + IDLE, |due| due.max(now + self.tick).min(now + IDLE))
    }

    async fn reconnect(&mut self, timing: &mut Timing) -> Option<PublisherConnection> {
        for failures in 1.. {
            let now = Instant::now();
            if timing.is_over(now) || self.sensors.has_ended() {
                self.deadline.get_or_insert(now + WIND_DOWN);
            }
            if self.is_done(now, timing) {
                break;
            }
            tokio::select! {
                () = sleep(pause(failures, rand::random())) => {}
                changed = timing.stop.changed() => changed.ok()?,
            }
            let opened = tokio::select! {
                opened = self.open() => opened,
                _ = timing.stop.wait_for(|stop| *stop == Stop::Now) => break,
            };
            match opened {
                Ok(connection) => {
                    info!("connected to the broker again");
                    self.totals.borrow_mut().reconnects += 1;
                    return Some(connection);
                }
                Err(error) => debug!("still no connection: {error:#}"),
            }
        }
        None
    }
}
