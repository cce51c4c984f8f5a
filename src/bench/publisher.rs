//! Publishes a load at QoS 1 over one connection, many messages in flight, on a thread of its own:
//! the stand-in for the fleet. Called by every scenario. Promises that each message that it counts
//! was acknowledged by the broker, and heard by somebody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::line::{Closed, Line};
use super::load::{Account, Load};
use crate::mqtt::BrokerUrl;

/// How fast.
#[derive(Clone, Debug)]
pub(super) enum Pace {
    /// As fast as the broker acknowledges.
    FlatOut,
    /// So many messages a second, whatever the broker does.
    Steady(f64),
    /// Messages a second as this says from moment to moment.
    Governed(Arc<AtomicU64>),
}

/// How to publish.
#[derive(Clone, Debug)]
pub(super) struct Manner {
    pub(super) client_id: String,
    /// So many messages un-acknowledged at the most.
    pub(super) window: usize,
    pub(super) pace: Pace,
    /// No longer than this; none until the load is through.
    pub(super) lasts: Option<Duration>,
    /// Counts what is acknowledged, for those who watch.
    pub(super) acknowledged: Arc<AtomicU64>,
}

/// Publishes it all.
pub(super) async fn publish(
    broker: &BrokerUrl,
    load: Load,
    manner: Manner,
) -> anyhow::Result<Account> {
    let broker = broker.clone();
    let (done, outcome) = oneshot::channel();
    let arbiter = actix_rt::Arbiter::new();
    arbiter.spawn_fn(move || {
        actix_rt::spawn(async move {
            // Nobody waits for it when the benchmark was interrupted.
            done.send(run(&broker, &load, &manner).await).ok();
        });
    });
    let outcome = outcome.await.context("the publisher's thread ended")?;
    arbiter.stop();
    outcome.context("publishing")
}

async fn run(broker: &BrokerUrl, load: &Load, manner: &Manner) -> anyhow::Result<Account> {
    let mut line = Line::open(broker, &manner.client_id, manner.window).await?;
    let mut messages = load.messages();
    let mut schedule = Schedule::new(manner.pace.clone());
    let mut more = true;
    loop {
        let now = Instant::now();
        if manner.lasts.is_some_and(|lasts| now >= schedule.begun_at + lasts) {
            more = false;
        }
        schedule.advance(now);
        while more && !line.is_full() && schedule.is_due() {
            match messages.next() {
                Some(message) => {
                    line.send(message, now)?;
                    schedule.sent += 1;
                }
                None => more = false,
            }
        }
        if !more && line.is_empty() {
            break;
        }
        let only_for_a_tick = more && schedule.is_paced() && !line.is_full();
        line.hear(only_for_a_tick).await?;
        manner.acknowledged.store(line.acknowledged_count(), Ordering::Relaxed);
    }
    let Closed { account, .. } = line.close().await?;
    Ok(account)
}

/// When the next message is due.
struct Schedule {
    pace: Pace,
    begun_at: Instant,
    advanced_at: Instant,
    /// So many are due in all, a fraction of the next one too.
    due: f64,
    sent: u64,
}

impl Schedule {
    fn new(pace: Pace) -> Self {
        let now = Instant::now();
        Self { pace, begun_at: now, advanced_at: now, due: 0.0, sent: 0 }
    }

    const fn is_paced(&self) -> bool {
        !matches!(self.pace, Pace::FlatOut)
    }

    fn advance(&mut self, now: Instant) {
        let rate = match &self.pace {
            Pace::FlatOut => return,
            Pace::Steady(rate) => *rate,
            Pace::Governed(rate) => rate.load(Ordering::Relaxed) as f64,
        };
        self.due += rate * (now - self.advanced_at).as_secs_f64();
        self.advanced_at = now;
    }

    fn is_due(&self) -> bool {
        !self.is_paced() || (self.sent as f64) < self.due
    }
}
