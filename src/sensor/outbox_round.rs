//! A round of the outbox: reads what is to be published or cleared, hands it to the publisher, and records the answers.
//! Called by the outbox's actor, one round at a time. What fails is in the next round again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::refusals::{Refusal, Refusals};
use crate::domain::{EventKind, SensorIdentifier, Step, Subscriptions, Timestamp};
use crate::metrics::Metrics;
use crate::store::{PendingConfiguration, RefusedConfiguration, Store, StoreError};
use crate::tasks::Panic;

/// Configurations per round.
const BATCH: i64 = 500;

/// How long the publisher may take nothing, or answer nothing. It gives one PUBLISH 5 s.
const PUBLISHER_DEADLINE: Duration = Duration::from_secs(15);

/// A retained QoS 1 PUBLISH on the topic of a sensor's configuration.
#[derive(Debug)]
pub struct Downlink {
    /// Whose configuration it is.
    pub sensor: SensorIdentifier,
    /// Revision and JSON text; none clears what is retained.
    pub configuration: Option<(i32, String)>,
    /// Sent when the broker has acknowledged, or why not; dropped if it could not be sent.
    pub published: oneshot::Sender<Result<(), Refusal>>,
}

/// Leads to the publisher.
#[derive(Clone, Debug)]
pub struct PublisherHandle {
    /// What it is to publish.
    pub downlinks: mpsc::Sender<Downlink>,
    /// Whether it has a connection.
    pub connected: watch::Receiver<bool>,
}

/// Where the next round begins: a configuration that the broker refuses must not delay the others.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    pub(super) unpublished: Option<SensorIdentifier>,
    pub(super) uncleared: Option<SensorIdentifier>,
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundFailure {
    #[error("database: {0}")]
    Store(#[from] StoreError),
    #[error("the broker did not acknowledge {0} of {1} configurations")]
    Broker(usize, usize),
    #[error(transparent)]
    Panic(Panic),
}

/// One round, and what it works on.
pub(super) struct Round {
    pub(super) store: Store,
    pub(super) publisher: PublisherHandle,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) metrics: Arc<Metrics>,
    /// Only the leader publishes what is not published yet, and clears. What a sensor needs again is published by the
    /// instance that was asked.
    pub(super) is_leader: bool,
    /// Those that need their configuration again, and afterwards those that still do.
    pub(super) republish: Vec<SensorIdentifier>,
    pub(super) position: Position,
    pub(super) refusals: Refusals,
}

/// What was sent: a sensor's configuration, or its clearance.
type SentConfiguration = (SensorIdentifier, Option<(i32, Timestamp)>);

impl Round {
    pub(super) async fn run(&mut self) -> Result<usize, RoundFailure> {
        let mut pending = match self.is_leader {
            true => self.store.unpublished_configurations(self.position.unpublished, BATCH).await?,
            false => Vec::new(),
        };
        self.position.unpublished = next(pending.iter().map(|it| it.sensor));
        self.metrics.outbox_waiting.set(pending.len() as i64);
        self.metrics.outbox_oldest.set(pending.iter().map(|it| it.created_at).min());
        if !self.republish.is_empty() {
            let unpublished: BTreeSet<_> = pending.iter().map(|it| it.sensor).collect();
            let newest = self.store.newest_configurations(&self.republish).await?;
            pending.extend(newest.into_iter().filter(|it| !unpublished.contains(&it.sensor)));
        }
        let cleared = match self.is_leader {
            true => self.store.uncleared_sensors(self.position.uncleared, BATCH).await?,
            false => Vec::new(),
        };
        self.position.uncleared = next(cleared.iter().copied());

        let now = Instant::now();
        pending.retain(|it| self.refusals.is_due(it.sensor, Some(it.revision), now));
        let cleared: Vec<_> =
            cleared.into_iter().filter(|it| self.refusals.is_due(*it, None, now)).collect();
        let wanted = pending.len() + cleared.len();
        if wanted > 0 {
            // Before anything is recorded as sent.
            let is_connected = self.publisher.connected.wait_for(|is_connected| *is_connected);
            if !matches!(tokio::time::timeout(PUBLISHER_DEADLINE, is_connected).await, Ok(Ok(_))) {
                return Err(RoundFailure::Broker(wanted, wanted));
            }
        }
        self.store.record_sending(&pending).await?;
        let configurations = pending.into_iter().map(|it| {
            let PendingConfiguration { sensor, revision, value, created_at } = it;
            ((sensor, Some((revision, created_at))), Some((revision, value)))
        });
        let clearances = cleared.into_iter().map(|sensor| ((sensor, None), None));
        let answers = self.send(configurations.chain(clearances)).await;
        let (published, answered) = self.record(answers).await?;
        if answered < wanted {
            return Err(RoundFailure::Broker(wanted - answered, wanted));
        }
        self.republish.retain(|sensor| self.refusals.contains(*sensor));
        Ok(published)
    }

    /// The answers of those that the broker or the publisher answered in time.
    async fn send(
        &self,
        downlinks: impl Iterator<Item = (SentConfiguration, Option<(i32, String)>)>,
    ) -> Vec<(SentConfiguration, Result<(), Refusal>)> {
        let mut waiting = Vec::new();
        for (sent, configuration) in downlinks {
            let (published, answer) = oneshot::channel();
            let downlink = Downlink { sensor: sent.0, configuration, published };
            // If the publisher has stopped, `published` is dropped, which is the answer.
            if self.publisher.downlinks.send_timeout(downlink, PUBLISHER_DEADLINE).await.is_err() {
                break;
            }
            waiting.push((sent, answer));
        }
        let mut answers = Vec::with_capacity(waiting.len());
        let mut deadline = PUBLISHER_DEADLINE;
        for (sent, answer) in waiting {
            match tokio::time::timeout(deadline, answer).await {
                Ok(Ok(answer)) => answers.push((sent, answer)),
                Ok(Err(_not_sent)) => {}
                Err(_elapsed) => deadline = Duration::ZERO,
            }
        }
        answers
    }

    /// How many were published or cleared, and how many were answered at all.
    async fn record(
        &mut self,
        answers: Vec<(SentConfiguration, Result<(), Refusal>)>,
    ) -> Result<(usize, usize), StoreError> {
        let (mut published, mut cleared, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let answered = answers.len();
        for ((sensor, configuration), answer) in answers {
            match (answer, configuration) {
                (Ok(()), Some((revision, at))) => published.push((sensor, revision, at)),
                (Ok(()), None) => cleared.push(sensor),
                (Err(refusal), configuration) => {
                    self.refuse(sensor, configuration.map(|it| it.0), &refusal);
                    if let Some((revision, created_at)) = configuration {
                        let is_final = refusal.is_final();
                        let problem = refusal.problem;
                        refused.push(RefusedConfiguration {
                            sensor,
                            revision,
                            created_at,
                            problem,
                            is_final,
                        });
                    }
                }
            }
        }
        for sensor in published.iter().map(|it| &it.0).chain(&cleared) {
            self.refusals.remove(*sensor);
        }
        self.store.record_refusals(&refused).await?;
        self.store.record_publications(&published).await?;
        for (sensor, revision, _) in &published {
            let what = EventKind::Configuration { revision: *revision, step: Step::Published };
            self.subscriptions.publish(*sensor, what);
        }
        self.store.record_clearances(&cleared).await?;
        Ok((published.len() + cleared.len(), answered))
    }

    fn refuse(&mut self, sensor: SensorIdentifier, revision: Option<i32>, refusal: &Refusal) {
        let Refusal { cause, problem } = refusal;
        self.metrics.configurations_refused.with_label_values(&[cause]).inc();
        let pause = self.refusals.add(sensor, revision, Instant::now());
        let pause_secs = pause.as_secs();
        warn!(%sensor, revision, cause, pause_secs, "a configuration was not published: {problem}");
    }
}

/// After the last page, the first one again.
fn next(page: impl ExactSizeIterator<Item = SensorIdentifier>) -> Option<SensorIdentifier> {
    let full = page.len() >= BATCH as usize;
    page.last().filter(|_| full)
}
