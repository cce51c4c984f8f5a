//! Knows the other instances: writes this one's row, reads theirs, and passes on what they relay. Run by `app` as a
//! task. A notification starts a round at once; without one there is a round each second or two, so a broken listener
//! costs time only.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::domain::{
    Event, EventKind, Faults, Flow, Leadership, Ledger, SensorIdentifier, Step, Subscriptions,
    Task, Timestamp, pause,
};
use crate::metrics::Metrics;
use crate::sensor::{Acknowledged, Deleted, Outbox, Refresh, SetDesiredRevision, Supervisor, Wake};
use crate::store::{Acknowledgement, InstanceRow, KnownVersions, Listener, Store, StoreError};
use crate::streams::Hub;

/// See `relay`.
const FIRST_BATCH: i64 = 2;

/// A row is alive for ten seconds.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// Less than the ten seconds: the others may have given this instance up meanwhile, and relayed nothing to it.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(8);

/// Without notifications.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What arrives meanwhile is read in one round.
const ROUND_PAUSE: Duration = Duration::from_millis(10);

/// What this process may have missed for other reasons than those it sees.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);

/// Who this process is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// New with each start.
    pub identifier: Uuid,
    /// `MQTT_CLIENT_ID`
    pub client_id: String,
    /// The host's name.
    pub host: String,
    /// When the process began.
    pub started_at: Timestamp,
    /// `MQTT_TOPIC_PREFIX`
    pub topic_prefix: String,
    /// Host and port of `MQTT_URL`
    pub broker: String,
}

/// Who receives what the others relay.
#[derive(Clone)]
pub struct PeersHandles {
    /// Of the sensors' actors.
    pub supervisor: Addr<Supervisor>,
    /// Publishes configurations.
    pub outbox: Addr<Outbox>,
    /// The open streams.
    pub hub: Arc<Hub>,
    /// Written into this instance's row.
    pub ledger: Arc<Ledger>,
    /// Written into this instance's row.
    pub flow: Arc<Flow>,
    /// Written into this instance's row.
    pub leadership: Leadership,
}

/// How far the batches of an instance were read.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    /// The number of the last one.
    at: i64,
    /// Whether the next one must follow it.
    is_exact: bool,
    is_alive: bool,
    /// Whether it relays to this one.
    is_mutual: bool,
}

/// The other instances, as far as this one knows.
pub struct Peers {
    identity: Identity,
    store: Store,
    handles: PeersHandles,
    cursors: BTreeMap<Uuid, Cursor>,
    /// Whether the others were read.
    has_joined: bool,
    /// What the row says now.
    written: Option<(KnownVersions, i64, bool)>,
    /// When the last statement that wrote it began.
    written_at: Instant,
}

impl Peers {
    /// Knows nobody yet.
    pub fn new(identity: Identity, store: Store, handles: PeersHandles) -> Self {
        let (cursors, written, written_at) = (BTreeMap::new(), None, Instant::now());
        Self { identity, store, handles, cursors, has_joined: false, written, written_at }
    }

    /// Runs until `stop`, and then no longer writes the row.
    pub async fn run(
        &mut self,
        listener: &mut Listener,
        stop: &mut watch::Receiver<bool>,
        metrics: &Metrics,
        faults: &Faults,
    ) {
        let subscriptions = Arc::clone(self.handles.hub.subscriptions());
        let mut leadership = self.handles.leadership.clone();
        let (mut failures, mut refreshed_at, mut retry_at) = (0, Instant::now(), Instant::now());
        let mut listener_failures = 0;
        loop {
            if let Err(error) = listener.check().await {
                warn!(%error, "the connection that listens for the other instances has failed");
                retry_at = Instant::now() + pause(1, rand::random());
            }
            if !listener.is_listening() && retry_at <= Instant::now() {
                match listener.listen().await {
                    Ok(()) => listener_failures = 0,
                    Err(error) => {
                        listener_failures += 1;
                        retry_at = Instant::now() + pause(listener_failures, rand::random());
                        if listener_failures == 1 {
                            warn!(%error, "not listening for the other instances; polling every second");
                        }
                    }
                }
            }
            metrics.instance_listener_up.set(listener.is_listening().into());
            faults.at(Task::Peers);
            match self.round().await {
                Ok(others) => {
                    failures = 0;
                    metrics.instances.set(others as i64 + 1);
                    if others > 0 && refreshed_at.elapsed() >= REFRESH_INTERVAL {
                        refreshed_at = Instant::now();
                        self.refresh().await;
                    }
                }
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        warn!(%error, "the other instances could not be read; it will be retried");
                    }
                    if !self.has_joined && !error.is_unavailable() {
                        // Messages must not wait for a missing grant.
                        subscriptions.set_known_version(Some(-1));
                    }
                }
            }
            tokio::time::sleep(ROUND_PAUSE).await;
            let wait = if listener.is_listening() { HEARTBEAT_INTERVAL } else { POLL_INTERVAL };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = listener.changed() => {}
                () = subscriptions.watch_changed() => {}
                () = leadership.changed() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Returns how many others are alive.
    async fn round(&mut self) -> Result<usize, StoreError> {
        let subscriptions = Arc::clone(self.handles.hub.subscriptions());
        if !self.has_joined {
            // Of two instances that start at once, one then knows the other before its first commit.
            self.write(&subscriptions, KnownVersions::new()).await?;
        }
        let (mut missed, mut is_stale) = (false, false);
        let mut others = self.store.instances().await?;
        others.retain(|it| it.identifier != self.identity.identifier);
        for it in others.iter().filter(|it| it.is_alive) {
            match self.cursors.get_mut(&it.identifier) {
                Some(cursor) => missed |= !std::mem::replace(&mut cursor.is_alive, true),
                None => self.add_peer(it).await?,
            }
            let is_mutual = it.known_versions.contains_key(&self.identity.identifier);
            if let Some(cursor) = self.cursors.get_mut(&it.identifier) {
                // An actor may be older than that.
                is_stale |= is_mutual && !std::mem::replace(&mut cursor.is_mutual, true);
            }
        }
        // Before it is reported as known.
        let alive: Vec<&InstanceRow> = others.iter().filter(|it| it.is_alive).collect();
        let watched: HashSet<_> = alive.iter().flat_map(|it| it.watched.iter().copied()).collect();
        subscriptions.set_peers(watched, !alive.is_empty());
        let known = alive.iter().map(|it| (it.identifier, it.watch_version)).collect();
        let was_silent = self.write(&subscriptions, known).await?;
        missed |= was_silent && !self.cursors.is_empty();
        let known_version_of_this =
            |it: &&InstanceRow| it.known_versions.get(&self.identity.identifier).copied();
        self.has_joined = true;
        subscriptions.set_known_version(
            alive.iter().map(|it| known_version_of_this(it).unwrap_or(-1)).min(),
        );

        missed |= self.read_batches().await?;
        for it in others.iter().filter(|it| !it.is_alive) {
            if let Some(cursor) = self.cursors.get_mut(&it.identifier)
                && std::mem::take(&mut cursor.is_alive)
            {
                warn!(
                    client_id = it.client_id,
                    "another instance has ended without a stop; some of its events may be missing"
                );
                missed = true;
            }
        }
        self.cursors.retain(|identifier, _| others.iter().any(|it| it.identifier == *identifier));
        if missed {
            self.handles.hub.end_incomplete();
        }
        if missed || is_stale {
            self.refresh().await;
        }
        Ok(alive.len())
    }

    /// Begins to read the batches of another instance.
    async fn add_peer(&mut self, other: &InstanceRow) -> Result<(), StoreError> {
        let InstanceRow { identifier, client_id, host, topic_prefix, broker, .. } = other;
        info!(client_id, host, "another instance is alive");
        if other.differs_from(&self.identity.topic_prefix, &self.identity.broker) {
            warn!(
                client_id,
                topic_prefix,
                broker,
                "another instance on this database has another MQTT_TOPIC_PREFIX or broker: \
                 configurations reach only the sensors of the one that leads"
            );
        }
        // A later one knew of this one before its first commit.
        let at = match self.has_joined {
            true => FIRST_BATCH - 1,
            false => self.store.last_relayed(*identifier).await?,
        };
        let (is_exact, is_mutual) = (self.has_joined || at > 0, self.has_joined);
        self.cursors.insert(*identifier, Cursor { at, is_exact, is_alive: true, is_mutual });
        Ok(())
    }

    /// Writes the row if the interval has passed or its content has changed. True: it was so old that the others may
    /// have given this instance up.
    async fn write(
        &mut self,
        subscriptions: &Subscriptions,
        known: KnownVersions,
    ) -> Result<bool, StoreError> {
        let (watched, watch_version) = subscriptions.watched();
        let is_leader = self.handles.leadership.is_leader();
        let content = (known, watch_version, is_leader);
        let is_changed = self.written.as_ref() != Some(&content);
        if !is_changed && self.written_at.elapsed() < HEARTBEAT_INTERVAL {
            return Ok(false);
        }
        let row = self.row(watched, &content);
        let began_at = Instant::now();
        self.store.write_instance(&row, is_changed).await?;
        if is_leader && is_changed {
            self.store.prune_instances().await?;
        }
        let was_silent = self.written_at.elapsed() > GIVEN_UP_AFTER;
        (self.written, self.written_at) = (Some(content), began_at);
        Ok(was_silent)
    }

    fn row(
        &self,
        watched: Vec<SensorIdentifier>,
        (known, watch_version, is_leader): &(KnownVersions, i64, bool),
    ) -> InstanceRow {
        let identity = self.identity.clone();
        InstanceRow {
            identifier: identity.identifier,
            client_id: identity.client_id,
            host: identity.host,
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: identity.started_at,
            heartbeat_at: Timestamp::now(),
            is_alive: true,
            is_leader: *is_leader,
            ledger: self.handles.ledger.snapshot(),
            flow: self.handles.flow.snapshot(),
            watched,
            watch_version: *watch_version,
            known_versions: known.clone(),
            topic_prefix: identity.topic_prefix,
            broker: identity.broker,
        }
    }

    /// Returns whether something was missed.
    async fn read_batches(&mut self) -> Result<bool, StoreError> {
        let mut missed = false;
        loop {
            let after: Vec<(Uuid, i64)> =
                self.cursors.iter().map(|(id, it)| (*id, it.at)).collect();
            if after.is_empty() {
                return Ok(missed);
            }
            let batches = self.store.relayed(&after).await?;
            if batches.is_empty() {
                return Ok(missed);
            }
            let mut events = Vec::new();
            for batch in batches {
                if let Some(cursor) = self.cursors.get_mut(&batch.instance) {
                    missed |= cursor.is_exact && batch.sequence != cursor.at + 1;
                    (cursor.at, cursor.is_exact) = (batch.sequence, true);
                }
                events.extend(batch.events);
            }
            self.pass_on(events).await;
        }
    }

    async fn pass_on(&self, events: Vec<Event>) {
        let (mut acknowledged, mut deleted, mut wakes) = (Vec::new(), Vec::new(), false);
        for Event { sensor, what } in &events {
            let sensor = *sensor;
            match *what {
                EventKind::Configuration { revision, step: Step::Pending } => {
                    wakes = true;
                    let message = SetDesiredRevision { sensor, revision };
                    delivered(self.handles.supervisor.send(message).await);
                }
                EventKind::Configuration {
                    revision,
                    step: step @ (Step::Acknowledged | Step::Failed),
                } => {
                    let success = step == Step::Acknowledged;
                    acknowledged.push(Acknowledgement { sensor, revision, success });
                }
                EventKind::Deleted => deleted.push(sensor),
                _ => {}
            }
        }
        wakes |= !deleted.is_empty();
        if !acknowledged.is_empty() {
            delivered(self.handles.supervisor.send(Acknowledged(acknowledged)).await);
        }
        if !deleted.is_empty() {
            delivered(self.handles.supervisor.send(Deleted(deleted)).await);
        }
        if wakes {
            delivered(self.handles.outbox.send(Wake).await);
        }
        self.handles.hub.subscriptions().receive(events).await;
    }

    async fn refresh(&self) {
        delivered(self.handles.supervisor.send(Refresh).await);
    }
}

fn delivered(sent: Result<(), actix::MailboxError>) {
    if let Err(error) = sent {
        debug!(%error, "an actor has ended");
    }
}
