//! The publisher of configurations. Receives downlinks from the outbox; has a connection of its own, so
//! that a full inbound window does not delay its PUBACKs. Answers each downlink when the broker has
//! acknowledged it, with why it did not, or drops the answer when it could not be sent; the outbox retries.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ntex_bytes::Bytes;
use ntex_io::IoBoxed;
use ntex_mqtt::error::EncodeError;
use ntex_mqtt::v5::client::Client;
use ntex_mqtt::v5::{QoS, codec};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval_at, sleep_until};
use tracing::{debug, info, warn};

use super::downlink_window::{DownlinkWindow, PUBACK_DEADLINE};
use super::puback::{Puback, PublishingCodec, Received};
use super::session::disconnect_reason;
use super::{Config, ConnectOptions, connect};
use crate::domain::{Health, Part, Task, failures_after, is_contested, pause, standoff};
use crate::metrics::Metrics;
use crate::sensor::{Downlink, Refusal};
use crate::tasks::Tasks;
use crate::wire::{Topics, configuration_payload};

const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The publisher, before it runs.
pub struct Outbound {
    config: Config,
    topics: Topics,
    downlinks: mpsc::Receiver<Downlink>,
    connected: watch::Sender<bool>,
    window: DownlinkWindow,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    shutdown: watch::Receiver<bool>,
}

impl Outbound {
    /// Publishes what `downlinks` receives.
    pub fn new(
        config: Config,
        topics: Topics,
        (downlinks, connected): (mpsc::Receiver<Downlink>, watch::Sender<bool>),
        (health, metrics, tasks): (Arc<Health>, Arc<Metrics>, Tasks),
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        let window = DownlinkWindow::new();
        Self { config, topics, downlinks, connected, window, health, metrics, tasks, shutdown }
    }

    /// Runs until shutdown, over as many connections as it takes.
    pub async fn run(&mut self) {
        // Else nothing is in flight.
        self.window.connection_ended("the publisher panicked");
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
            // What is in flight is the likelier cause than another process with our client identifier.
            let suspects = self.window.connection_ended(&problem);
            let closed = cause == "closed" && !suspects;
            if suspects {
                failures = 1;
            }
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
            delay_reads: None,
        }
    }

    /// Returns why it ended.
    async fn session(&mut self, client: Client) -> String {
        let accepted = client.packet();
        let keep_alive = accepted.server_keepalive_sec.unwrap_or(self.config.keep_alive_secs);
        let (receive_maximum, largest) = (accepted.receive_max, accepted.max_packet_size);
        let unusable = unusable(accepted);
        let (io, codec) = client.into_inner();
        codec.set_max_outbound_size(largest.unwrap_or(0));
        let codec = PublishingCodec(codec);
        if let Some(problem) = unusable {
            disconnect(&io, &codec).await;
            return problem.into();
        }
        info!(broker = self.config.broker.authority(), "connected for publishing");
        self.metrics.broker_connects.with_label_values(&["publishing"]).inc();
        self.health.up(Part::Publishing);
        self.window.connected(receive_maximum);
        self.connected.send_replace(true);
        let end = self.exchange(&io, &codec, keep_alive, largest).await;
        self.connected.send_replace(false);
        disconnect(&io, &codec).await;
        end
    }

    async fn exchange(
        &mut self,
        io: &IoBoxed,
        codec: &PublishingCodec,
        keep_alive_secs: u16,
        largest: Option<u32>,
    ) -> String {
        // 0: no keep alive, and so no PINGREQ [MQTT-3.1.2.10].
        let pings = keep_alive_secs > 0;
        let period = Duration::from_secs(keep_alive_secs.max(1).into());
        // Early enough for the broker's timer of one and a half.
        let mut ping = interval_at(tokio::time::Instant::now() + period, period);
        let mut received_since_ping = true;
        loop {
            while let Some(downlink) = self.window.next() {
                if let Err(end) = self.publish(io, codec, downlink, largest) {
                    return end;
                }
            }
            let deadline = self.window.deadline();
            let given_up = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = self.shutdown.changed() => return "shutdown".into(),
                _ = ping.tick(), if pings => {
                    if !std::mem::take(&mut received_since_ping) {
                        return format!("no answer from the broker for {keep_alive_secs} s");
                    }
                    if let Err(error) = io.encode(codec::Packet::PingRequest.into(), codec) {
                        return error.to_string();
                    }
                }
                () = given_up => {
                    self.give_up();
                    if self.window.is_stuck() {
                        return "the broker acknowledges nothing".into();
                    }
                }
                packet = io.recv(codec) => {
                    received_since_ping = true;
                    match packet {
                        Ok(Some(Received::Puback(puback))) => self.acknowledged(&puback),
                        Ok(Some(Received::Other(packet))) => {
                            if let Some(end) = disconnected(&packet) {
                                return end;
                            }
                        }
                        Ok(None) => return "the broker closed the connection".into(),
                        Err(error) => return format!("the connection failed: {error}"),
                    }
                }
                downlink = self.downlinks.recv(), if self.window.has_room() => match downlink {
                    Some(downlink) => self.window.push(downlink),
                    None => return "the outbox has stopped".into(),
                },
            }
        }
    }

    fn publish(
        &mut self,
        io: &IoBoxed,
        codec: &PublishingCodec,
        downlink: Downlink,
        largest: Option<u32>,
    ) -> Result<(), String> {
        let payload = configuration_payload(downlink.configuration.as_ref());
        self.tasks.faults().at(Task::Publisher);
        let packet_id = self.window.packet_id();
        let publish = codec::Publish {
            dup: false,
            retain: true,
            qos: QoS::AtLeastOnce,
            packet_id: Some(packet_id),
            topic: self.topics.configuration(downlink.sensor).into(),
            payload_size: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            properties: codec::PublishProperties::default(),
        };
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        match io.encode(codec::Encoded::Publish(publish, Some(payload)), codec) {
            Ok(()) => self.window.sent(packet_id, downlink, Instant::now()),
            Err(EncodeError::OverMaxPacketSize) => {
                let largest = largest.unwrap_or(u32::MAX);
                let problem =
                    format!("larger than the broker's Maximum Packet Size, {largest} bytes");
                downlink.published.send(Err(Refusal { cause: "too_large", problem })).ok();
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    fn acknowledged(&mut self, puback: &Puback) {
        // None: it was given up, and the outbox sends it again.
        let Some(downlink) = self.window.acknowledged(puback.packet_id) else { return };
        let answer = if puback.is_success() {
            Ok(())
        } else {
            Err(Refusal { cause: "refused", problem: puback.refusal() })
        };
        // The outbox may have given up.
        downlink.published.send(answer).ok();
    }

    fn give_up(&mut self) {
        for downlink in self.window.give_up(Instant::now()) {
            let problem =
                format!("the broker did not acknowledge it within {} s", PUBACK_DEADLINE.as_secs());
            downlink.published.send(Err(Refusal { cause: "unanswered", problem })).ok();
        }
    }
}

/// Why configurations cannot be published over this connection.
fn unusable(accepted: &codec::ConnectAck) -> Option<&'static str> {
    if !accepted.retain_available {
        return Some(
            "the broker does not keep retained messages (Retain Available is 0), which configurations need; allow them in its settings",
        );
    }
    matches!(accepted.max_qos, QoS::AtMostOnce).then_some(
        "the broker takes QoS 0 only (Maximum QoS is 0), but configurations are published with QoS 1",
    )
}

/// Why the broker ended the connection, if this packet says so.
fn disconnected(packet: &codec::Decoded) -> Option<String> {
    let codec::Decoded::Packet(codec::Packet::Disconnect(disconnect), _) = packet else {
        return None;
    };
    Some(format!("the broker ended the session: {}", disconnect_reason(disconnect)))
}

async fn disconnect(io: &IoBoxed, codec: &PublishingCodec) {
    let packet = codec::Packet::Disconnect(codec::Disconnect::default());
    if io.encode(packet.into(), codec).is_ok() {
        // A broker that reads nothing must not hold the publisher.
        match tokio::time::timeout(DISCONNECT_TIMEOUT, io.flush(true)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the connection ended before DISCONNECT"),
            Err(_elapsed) => debug!("DISCONNECT could not be sent"),
        }
    }
    io.close();
}
