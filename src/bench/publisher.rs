//! Publishes a load at QoS 1, many messages in flight on each connection, on a thread of its own:
//! the stand-in for the fleet. Called by every scenario. Promises that each message that it counts
//! was acknowledged by the broker, and heard by somebody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::line::{Line, TICK};
use super::load::{Account, Load, Messages};
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
    /// Every message goes over one of so many connections.
    pub(super) connections: u16,
    /// So many messages un-acknowledged on each of them at the most.
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
    let mut lines = Vec::new();
    for number in 0..manner.connections {
        let client_id = format!("{}-{number}", manner.client_id);
        lines.push(Line::open(broker, &client_id, manner.window).await?);
    }
    let step = u64::from(manner.connections);
    let talks = lines.into_iter().zip(0..).map(|(line, first)| {
        let schedule = Schedule::new(manner.pace.clone(), step);
        talk(line, load.share(first, step), schedule, manner)
    });
    let mut account = Account::default();
    for share in try_join_all(talks).await? {
        account.merge(&share);
    }
    Ok(account)
}

/// One connection's share.
async fn talk(
    mut line: Line,
    mut messages: Messages<'_>,
    mut schedule: Schedule,
    manner: &Manner,
) -> anyhow::Result<Account> {
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
        let paced = more && schedule.is_paced() && !line.is_full();
        let heard = line.hear(paced).await?;
        manner.acknowledged.fetch_add(heard, Ordering::Relaxed);
        if !paced && more {
            // A PUBACK alone is not worth a wake-up, and the broker has enough to do meanwhile.
            tokio::time::sleep(TICK).await;
        }
    }
    Ok(line.close().await?.account)
}

/// When the next message is due.
struct Schedule {
    pace: Pace,
    /// So many connections share the pace.
    sharers: u64,
    begun_at: Instant,
    advanced_at: Instant,
    /// So many are due in all, a fraction of the next one too.
    due: f64,
    sent: u64,
}

impl Schedule {
    fn new(pace: Pace, sharers: u64) -> Self {
        let now = Instant::now();
        Self { pace, sharers, begun_at: now, advanced_at: now, due: 0.0, sent: 0 }
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
        self.due += rate / self.sharers as f64 * (now - self.advanced_at).as_secs_f64();
        self.advanced_at = now;
    }

    fn is_due(&self) -> bool {
        !self.is_paced() || (self.sent as f64) < self.due
    }
}
