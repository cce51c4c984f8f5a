//! The publisher of configurations. Receives downlinks from the outbox; has a connection of its own, so
//! that a full inbound window does not delay its PUBACKs. Answers each downlink when the broker has
//! acknowledged it, or drops the answer; the outbox retries.

use std::sync::Arc;
use std::time::Instant;

use ntex_bytes::Bytes;
use ntex_mqtt::v5::client::{Client, ProtocolMessage, ProtocolMessageAck};
use ntex_mqtt::v5::codec::PublishAckReason;
use ntex_mqtt::v5::{MqttSink, error::MqttError};
use ntex_service::fn_service;
use tokio::sync::{mpsc, watch};
use tracing::{debug, info, warn};

use super::{Config, ConnectOptions, connect};
use crate::domain::{Health, Part, failures_after, is_contested, pause, standoff};
use crate::metrics::Metrics;
use crate::sensor::Downlink;
use crate::wire::{Topics, configuration_payload};

/// The publisher, before it runs.
pub struct Outbound {
    config: Config,
    topics: Topics,
    downlinks: mpsc::Receiver<Downlink>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    shutdown: watch::Receiver<bool>,
}

impl Outbound {
    /// Publishes what `downlinks` receives.
    #[must_use]
    pub fn new(
        config: Config,
        topics: Topics,
        downlinks: mpsc::Receiver<Downlink>,
        (health, metrics): (Arc<Health>, Arc<Metrics>),
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Self { config, topics, downlinks, health, metrics, shutdown }
    }

    /// Runs until shutdown, over as many connections as it takes.
    pub async fn run(mut self) {
        let (mut failures, mut closures) = (0, 0);
        while !*self.shutdown.borrow() {
            let started_at = Instant::now();
            let (cause, problem) = match connect(&self.config.broker, &self.options()).await {
                Ok(client) => ("closed", self.session(client).await),
                Err(failure) => ("unreachable", failure.to_string()),
            };
            if *self.shutdown.borrow() {
                break;
            }
            failures = failures_after(failures, started_at.elapsed());
            self.metrics.broker_failures.with_label_values(&["publishing", cause]).inc();
            let closed = cause == "closed";
            if closed {
                closures = failures_after(closures, started_at.elapsed());
            }
            let pause = match closed && is_contested(closures) {
                true => standoff(rand::random()),
                false => pause(failures, rand::random()),
            };
            let pause_ms = pause.as_millis();
            warn!(failures, pause_ms, "no connection for publishing: {problem}");
            self.health.down(Part::Publishing, problem);
            tokio::select! {
                _ = self.shutdown.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        debug!("publishing ended");
    }

    fn options(&self) -> ConnectOptions {
        ConnectOptions {
            client_id: format!("{}-down", self.config.client_id),
            clean_start: true,
            session_expiry_secs: 0,
            receive_maximum: None,
            keep_alive_secs: self.config.keep_alive_secs,
            delay_reads: false,
        }
    }

    /// Returns why it ended.
    async fn session(&mut self, client: Client) -> String {
        info!(broker = self.config.broker.authority(), "connected for publishing");
        self.metrics.broker_connects.with_label_values(&["publishing"]).inc();
        self.health.up(Part::Publishing);
        let sink = client.sink();
        // Without subscriptions, only acknowledgements are received.
        let dispatcher = actix_rt::spawn(client.start(fn_service(refuse)));
        tokio::pin!(dispatcher);
        loop {
            tokio::select! {
                _ = self.shutdown.changed() => {
                    sink.close();
                    return "shutdown".into();
                }
                ended = &mut dispatcher => return reason(ended),
                downlink = self.downlinks.recv() => match downlink {
                    Some(downlink) => self.publish(&sink, downlink),
                    None => return "the outbox has stopped".into(),
                },
            }
        }
    }

    fn publish(&self, sink: &MqttSink, downlink: Downlink) {
        let Downlink { sensor, configuration, published } = downlink;
        let payload = configuration_payload(configuration);
        let retained = true;
        let acknowledged = sink
            .publish(self.topics.configuration(sensor))
            .retain(retained)
            .send_at_least_once(Bytes::copy_from_slice(payload.as_bytes()));
        actix_rt::spawn(async move {
            match acknowledged.await {
                Ok(ack)
                    if matches!(
                        ack.reason_code,
                        PublishAckReason::Success | PublishAckReason::NoMatchingSubscribers
                    ) =>
                {
                    // The outbox may have given up.
                    published.send(()).ok();
                }
                Ok(ack) => {
                    warn!(%sensor, reason = ?ack.reason_code, "the broker refused a configuration")
                }
                Err(error) => debug!(%sensor, %error, "configuration not acknowledged"),
            }
        });
    }
}

async fn refuse(message: ProtocolMessage) -> Result<ProtocolMessageAck, std::convert::Infallible> {
    Ok(match message {
        ProtocolMessage::Ping(ping) => ping.ack(),
        other => other.ack(),
    })
}

fn reason<E: std::fmt::Debug>(
    ended: Result<Result<(), MqttError<E>>, tokio::task::JoinError>,
) -> String {
    match ended {
        Ok(Ok(())) => "connection closed".into(),
        Ok(Err(error)) => format!("{error:?}"),
        Err(panic) => format!("its task failed: {panic}"),
    }
}
