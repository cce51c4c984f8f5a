//! The inbound loop: receives PUBLISHes, routes them, and sends a PUBACK for each once it is settled by a
//! `Committed`. Started by `app`; runs until shutdown, over as many connections as it takes. Invariant:
//! nothing is acknowledged in `Drop`, and it UNSUBSCRIBEs only to drain its session, so the broker keeps what is not
//! acknowledged.
//!
//! It uses ntex-mqtt's codec without its dispatcher, which closes the connection when Receive Maximum is
//! reached, and answers a Packet Identifier in use with 0x91, which acknowledges it. Here a full window
//! stops reading, which is TCP back-pressure.

use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ntex_mqtt::v5::client::Client;
use prometheus::local::LocalHistogram;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, interval_at, sleep_until};
use tracing::{debug, info, warn};

use super::receipt_clock::ReceiptClock;
use super::session::{Session, SessionEnd};
use super::stop::{InboundEnd, StopSignals};
use super::window::InboundWindow;
use super::{Config, ConnectOptions, DelayedReads, connect};
use crate::domain::{
    AckTokens, Flow, Health, KindCounts, Ledger, LostToken, Part, Timestamp, failures_after,
    is_contested, pause, standoff,
};
use crate::metrics::Metrics;
use crate::sensor::Router;
use crate::store::Committed;
use crate::tasks::Tasks;
use crate::wire::Decoder;

const SECONDS_PER_DAY: u32 = 86_400;

/// What the loop reports to.
#[derive(Clone, Debug)]
pub struct InboundHandles {
    /// Counts the items.
    pub ledger: Arc<Ledger>,
    /// Reports the state of the connection.
    pub health: Arc<Health>,
    /// The load, and the pause that an operator sets.
    pub flow: Arc<Flow>,
    /// Counts messages, bytes and PUBACKs.
    pub metrics: Arc<Metrics>,
    /// Runs what reads and writes the socket.
    pub tasks: Tasks,
}

/// The loop, before it runs.
pub struct Inbound {
    config: Config,
    pub(super) decoder: Decoder,
    pub(super) router: Router,
    pub(super) handles: InboundHandles,
    pub(super) settled: mpsc::UnboundedReceiver<Committed>,
    pub(super) lost: mpsc::UnboundedReceiver<LostToken>,
    pub(super) ack_tokens: AckTokens,
    pub(super) window: InboundWindow,
    pub(super) receipt_clock: ReceiptClock,
    /// Panics of actors by Packet Identifier, which a redelivery keeps [MQTT-4.4.0-1].
    pub(super) actor_failures: foldhash::HashMap<NonZeroU16, u8>,
    /// Observed per message, flushed per batch.
    puback_seconds: LocalHistogram,
    /// See `ConnectOptions::delay_reads`.
    all_acknowledged: Rc<Notify>,
    /// This process has been connected before.
    had_session: bool,
    /// The session has no subscriptions of an earlier release, or from before the group.
    has_left_former: bool,
    /// Started only to drain a session that exists.
    is_drain: bool,
    pub(super) stop: StopSignals,
}

impl Inbound {
    /// A loop that has not started.
    pub fn new(
        config: Config,
        decoder: Decoder,
        router: Router,
        handles: InboundHandles,
        settled: mpsc::UnboundedReceiver<Committed>,
        stop: StopSignals,
    ) -> Self {
        let (ack_tokens, lost) = AckTokens::new();
        let window = InboundWindow::new(config.receive_maximum.into(), config.window_bytes);
        let actor_failures = foldhash::HashMap::default();
        let metrics = &handles.metrics;
        metrics.window_messages_limit.set(config.receive_maximum.into());
        metrics.window_bytes_limit.set(i64::try_from(config.window_bytes).unwrap_or(i64::MAX));
        let puback_seconds = metrics.puback_seconds.local();
        let is_drain = *stop.drain.borrow();
        Self {
            config,
            decoder,
            router,
            handles,
            settled,
            lost,
            ack_tokens,
            window,
            receipt_clock: ReceiptClock::default(),
            actor_failures,
            puback_seconds,
            all_acknowledged: Rc::default(),
            had_session: false,
            has_left_former: false,
            is_drain,
            stop,
        }
    }

    /// Runs until it is stopped, over as many connections as it takes.
    pub async fn run(mut self) -> InboundEnd {
        let (mut failures, mut closures) = (0, 0);
        let mut outcome = InboundEnd::Shutdown;
        while !*self.stop.shutdown.borrow() {
            let started_at = Instant::now();
            let end = match connect(&self.config.broker, &self.options()).await {
                Ok(client) => self.session(client).await,
                Err(failure) => SessionEnd::Unreachable(failure.to_string()),
            };
            self.window.connection_ended();
            match end {
                SessionEnd::Shutdown => break,
                SessionEnd::Drained => outcome = InboundEnd::Drained,
                SessionEnd::NoSession => outcome = InboundEnd::NoSession,
                SessionEnd::TakenOver if *self.stop.drain.borrow() => {
                    outcome = InboundEnd::TakenOver
                }
                _ => {}
            }
            if outcome != InboundEnd::Shutdown {
                break;
            }
            failures = failures_after(failures, started_at.elapsed());
            let contested = match end {
                SessionEnd::TakenOver => true,
                SessionEnd::Closed => {
                    closures = failures_after(closures, started_at.elapsed());
                    is_contested(closures)
                }
                _ => false,
            };
            let pause = match contested {
                true => standoff(rand::random()),
                false => pause(failures, rand::random()),
            };
            self.handles.health.down(Part::Ingest, end.to_string());
            let failed = &self.handles.metrics.broker_failures;
            failed.with_label_values(&["ingest", end.cause()]).inc();
            warn!(
                broker = self.config.broker.authority(),
                failures,
                pause_ms = pause.as_millis(),
                "no connection for ingest: {end}"
            );
            if contested && matches!(end, SessionEnd::Closed) {
                warn!(
                    client_id = self.config.client_id,
                    "the broker repeatedly closes the connection; does another process use our client id?"
                );
            }
            self.idle(pause).await;
        }
        info!(in_flight = self.window.len(), "ingest ended");
        outcome
    }

    pub(super) fn filters(&self) -> Vec<String> {
        let topics = self.decoder.topics();
        match &self.config.shared_group {
            Some(group) => topics.shared_filters(group),
            None => topics.filters(),
        }
    }

    fn options(&self) -> ConnectOptions {
        ConnectOptions {
            client_id: self.config.client_id.clone(),
            clean_start: false,
            session_expiry_secs: self.config.session_expiry_days * SECONDS_PER_DAY,
            receive_maximum: NonZeroU16::new(self.config.receive_maximum),
            keep_alive_secs: self.config.keep_alive_secs,
            delay_reads: Some(DelayedReads {
                all_acknowledged: Rc::clone(&self.all_acknowledged),
                tasks: self.handles.tasks.clone(),
            }),
        }
    }

    /// Waits without a connection, and counts what is committed.
    async fn idle(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                Some(committed) = self.settled.recv() => self.settle(committed),
                Some(lost) = self.lost.recv() => { self.lose(lost); }
                _ = self.stop.shutdown.changed() => return,
                () = sleep_until(until) => return,
            }
            self.acknowledge(None).ok();
        }
    }

    /// Returns why it ended.
    async fn session(&mut self, client: Client) -> SessionEnd {
        let session_present = client.session_present();
        let has_shared = client.packet().shared_subscription_available;
        let granted_secs = client.packet().session_expiry_interval_secs;
        let mut session =
            Session::new(client, self.decoder.limits().payload_bytes, self.config.keep_alive_secs);
        let is_read = self.handles.flow.paused_since().is_none() && self.window.has_room();
        if session_present && !is_read {
            // The subscription exists. Its SUBACK may be behind PUBLISHes that are not read now.
            session.subscribed = true;
            self.handles.health.up(Part::Ingest);
        }
        info!(session_present, broker = self.config.broker.authority(), "connected for ingest");
        self.handles.metrics.broker_connects.with_label_values(&["ingest"]).inc();
        let asked_secs = self.config.session_expiry_days * SECONDS_PER_DAY;
        if let Some(granted_secs) = granted_secs.filter(|granted| *granted < asked_secs) {
            warn!(
                granted_secs,
                asked_secs,
                "the broker keeps our session for less than MQTT_SESSION_EXPIRY_DAYS; after that time without \
                 us it loses the backlog"
            );
        }
        if !session_present {
            if self.is_drain && !self.had_session {
                // This connection has created one.
                if let Err(error) = session.end().await {
                    debug!(%error, "the connection ended before DISCONNECT");
                }
                return SessionEnd::NoSession;
            }
            self.has_left_former = true;
            self.actor_failures.clear();
            if self.had_session {
                warn!(
                    "the broker has no session for our client id: messages that it held are lost; subscribing again"
                );
            }
        }
        if !self.has_left_former {
            let topics = self.decoder.topics();
            session.former_filters = topics.former_filters();
            if self.config.shared_group.is_some() {
                session.former_filters.extend(topics.filters());
            }
        }
        self.had_session = true;
        let mut end = if *self.stop.drain.borrow() {
            SessionEnd::Draining
        } else if self.config.shared_group.is_some() && !has_shared {
            SessionEnd::NotShared
        } else {
            match session.subscribe(&self.filters()) {
                Ok(()) => self.exchange(&mut session).await,
                Err(end) => end,
            }
        };
        self.has_left_former |= session.left_former;
        if matches!(end, SessionEnd::Draining) {
            end = self.drain(&mut session).await;
        }
        if matches!(end, SessionEnd::Shutdown) {
            self.finish(&mut session).await;
        }
        end
    }

    async fn exchange(&mut self, session: &mut Session) -> SessionEnd {
        let pings = session.keep_alive_secs > 0;
        let keep_alive = Duration::from_secs(session.keep_alive_secs.max(1).into());
        let mut ping = interval_at(Instant::now() + keep_alive, keep_alive);
        let mut was_stopped = false;
        let mut pause = self.handles.flow.subscribe_to_pause();
        loop {
            let stopped = session.subscribed && pause.borrow_and_update().is_some();
            was_stopped |= stopped;
            let mut has_read = false;
            let step = tokio::select! {
                biased;
                _ = self.stop.shutdown.changed() => Err(SessionEnd::Shutdown),
                _ = self.stop.drain.changed() => Err(SessionEnd::Draining),
                Some(committed) = self.settled.recv() => {
                    self.settle(committed);
                    Ok(())
                }
                Some(lost) = self.lost.recv() => {
                    if self.lose(lost) { Err(SessionEnd::MessageLost) } else { Ok(()) }
                }
                _ = pause.changed() => Ok(()),
                _ = ping.tick(), if pings => {
                    // While reading is stopped, PINGRESP waits behind PUBLISHes.
                    if session.io.is_closed() {
                        Err(SessionEnd::Closed)
                    } else if session.received_since_ping || was_stopped {
                        was_stopped = false;
                        session.ping()
                    } else {
                        Err(SessionEnd::Silent(session.keep_alive_secs.into()))
                    }
                }
                packet = session.io.recv(&session.codec), if self.window.has_room() && !stopped => {
                    has_read = true;
                    self.read(session, packet)
                }
            };
            was_stopped |= !self.window.has_room();
            if let Err(end) = step.and_then(|()| self.acknowledge(Some(session))) {
                return end;
            }
            if has_read {
                // During a backlog this task is always ready, and tokio polls the thread's other sockets
                // only every 61 turns: each look-up of sensors waited 50 ms. Yielding polls them first.
                tokio::task::yield_now().await;
            }
        }
    }

    pub(super) fn settle(&mut self, committed: Committed) {
        let Committed { ack_tokens, tally, .. } = committed;
        let window = &mut self.window;
        let mut messages = KindCounts::default();
        let arrived = ack_tokens
            .into_iter()
            .filter_map(|ack_token| window.settle(ack_token.settle()))
            .inspect(|entry| messages.add(entry.kind, 1))
            .map(|entry| (entry.kind, entry.items));
        self.handles.ledger.settle(arrived, &tally);
        self.handles.metrics.settled(messages);
    }

    /// True: the message arrived on this connection, which must be closed to have it delivered again.
    pub(super) fn lose(&mut self, lost: LostToken) -> bool {
        let Some(entry) = self.window.lose(lost.sequence) else { return false };
        self.handles.ledger.release(entry.kind, entry.items);
        self.handles.metrics.released(entry.kind);
        if let (true, Some(packet_id)) = (lost.caused_panic, entry.packet_id) {
            *self.actor_failures.entry(packet_id).or_default() += 1;
        }
        entry.packet_id.is_some()
    }

    /// Sends the PUBACKs that are due.
    pub(super) fn acknowledge(&mut self, session: Option<&mut Session>) -> Result<(), SessionEnd> {
        self.acknowledge_with(|packet_id| {
            session.as_ref().map_or(Ok(()), |it| it.puback(packet_id))
        })
    }

    /// Removes settled messages from the front of the window, in order, and acknowledges each.
    pub(super) fn acknowledge_with(
        &mut self,
        puback: impl Fn(NonZeroU16) -> Result<(), SessionEnd>,
    ) -> Result<(), SessionEnd> {
        let mut sent = 0;
        let mut now = None;
        let mut outcome = Ok(());
        while let Some(entry) = self.window.pop() {
            if let Some(packet_id) = entry.packet_id {
                if !self.actor_failures.is_empty() {
                    self.actor_failures.remove(&packet_id);
                }
                outcome = puback(packet_id);
                if outcome.is_err() {
                    break;
                }
                let now = now.get_or_insert_with(Timestamp::now);
                self.puback_seconds.observe(now.seconds_since(entry.received_at));
                sent += 1;
            }
        }
        let metrics = &self.handles.metrics;
        if sent > 0 {
            self.puback_seconds.flush();
            metrics.pubacks_sent.inc_by(sent);
            if self.window.is_empty() {
                self.all_acknowledged.notify_waiters();
            }
        }
        metrics.window_messages.set(self.window.len() as i64);
        metrics.window_bytes.set(self.window.bytes() as i64);
        metrics.window_oldest.set(self.window.oldest());
        self.handles.flow.window(self.window.len(), self.window.bytes());
        outcome
    }
}
