//! One MQTT 5 connection that publishes at QoS 1 and subscribes, on ntex's codec; used by the publisher. It hands out what the broker sends as [`BrokerEvent`]s, in order. As for ingest, the codec
//! is driven by a loop of our own: thousands of PUBLISHes are in flight without a task or a channel each.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::{anyhow, bail, ensure};
use ntex_bytes::{ByteString, Bytes};
use ntex_io::IoBoxed;
use ntex_mqtt::QoS;
use ntex_mqtt::v5::codec::{self, Decoded, Encoded, Packet};
use tokio::time::{Instant, sleep, timeout};

use crate::mqtt::{Config, ConnectOptions, connect};

/// Filters in one SUBSCRIBE: a packet of about 25 KB.
const FILTERS_PER_SUBSCRIBE: usize = 500;
/// How long the broker may take to answer all of them.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the broker sent.
#[derive(Debug)]
pub(crate) enum BrokerEvent {
    /// A PUBACK.
    Acknowledged(NonZeroU16, codec::PublishAckReason),
    /// A PUBLISH on a subscribed topic.
    Publish { topic: ByteString, payload: Bytes, retain: bool, at_most_once: bool },
}

/// An open, subscribed connection.
pub(crate) struct PublisherConnection {
    io: IoBoxed,
    codec: codec::Codec,
    pub(super) receive_maximum: NonZeroU16,
    received: VecDeque<BrokerEvent>,
    pending_subscribes: usize,
    keep_alive: Duration,
    received_at: Instant,
    pinged_at: Instant,
}

impl PublisherConnection {
    /// Connects with a clean session, and subscribes to `filters` at QoS 1.
    pub(crate) async fn open(
        mqtt: &Config,
        client_id: &str,
        filters: &[String],
    ) -> anyhow::Result<Self> {
        let options = ConnectOptions {
            client_id: client_id.to_owned(),
            clean_start: true,
            session_expiry_secs: 0,
            receive_maximum: None,
            keep_alive_secs: mqtt.keep_alive_secs,
            delay_reads: None,
        };
        let client = connect(&mqtt.broker, &options).await?;
        let connack = client.packet();
        let receive_maximum = connack.receive_max;
        let keep_alive_secs = connack.server_keepalive_sec.unwrap_or(mqtt.keep_alive_secs);
        let (io, codec) = client.into_inner();
        // Payloads are handed out whole.
        codec.set_min_chunk_size(u32::MAX);
        let mut connection = Self {
            io,
            codec,
            receive_maximum,
            received: VecDeque::new(),
            pending_subscribes: 0,
            keep_alive: Duration::from_secs(keep_alive_secs.max(1).into()),
            received_at: Instant::now(),
            pinged_at: Instant::now(),
        };
        timeout(SUBSCRIBE_TIMEOUT, connection.subscribe(filters))
            .await
            .map_err(|_| anyhow!("no SUBACK within {SUBSCRIBE_TIMEOUT:?}"))??;
        Ok(connection)
    }

    async fn subscribe(&mut self, filters: &[String]) -> anyhow::Result<()> {
        let options = codec::SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
        for (id, filters) in (1..=u16::MAX).zip(filters.chunks(FILTERS_PER_SUBSCRIBE)) {
            self.pending_subscribes += 1;
            self.encode(Packet::Subscribe(codec::Subscribe {
                packet_id: NonZeroU16::new(id).expect("counted from 1"),
                id: None,
                user_properties: Vec::new(),
                topic_filters: filters.iter().map(|it| (it.as_str().into(), options)).collect(),
            }))?;
        }
        // Nothing is published before the last SUBACK: from then on the identifiers are the window's.
        while self.pending_subscribes > 0 {
            let packet = self.receive().await?;
            self.handle(packet)?;
        }
        Ok(())
    }

    /// Waits for a packet, and then for `gather`, so that more packets arrive together. Nothing is lost when
    /// the future is dropped.
    pub(crate) async fn events(
        &mut self,
        gather: Duration,
    ) -> anyhow::Result<VecDeque<BrokerEvent>> {
        while self.received.is_empty() {
            let packet = self.receive().await?;
            self.handle(packet)?;
        }
        if !gather.is_zero() {
            sleep(gather).await;
        }
        while let Some(packet) = self.io.decode(&self.codec)? {
            self.handle(packet)?;
        }
        Ok(std::mem::take(&mut self.received))
    }

    /// Writes a QoS 1 PUBLISH into the send buffer.
    pub(super) fn publish(
        &self,
        id: NonZeroU16,
        topic: &ByteString,
        payload: &Bytes,
    ) -> anyhow::Result<()> {
        let packet = codec::Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(id),
            topic: topic.clone(),
            payload_size: u32::try_from(payload.len())?,
            ..Default::default()
        };
        Ok(self.io.encode(Encoded::Publish(packet, Some(payload.clone())), &self.codec)?)
    }

    /// Sends a PINGREQ if one is due. Returns when to call it again.
    pub(crate) fn keep_alive(&mut self, now: Instant) -> anyhow::Result<Instant> {
        let silence = now - self.received_at;
        ensure!(silence <= self.keep_alive * 2, "the broker has been silent for {silence:?}");
        let interval = self.keep_alive / 2;
        if now >= self.pinged_at + interval {
            self.pinged_at = now;
            self.encode(Packet::PingRequest)?;
        }
        Ok(self.pinged_at + interval)
    }

    /// Sends what was written, DISCONNECT last.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        self.encode(Packet::Disconnect(codec::Disconnect::default()))?;
        self.io.flush(true).await?;
        Ok(self.io.shutdown().await?)
    }

    fn encode(&self, packet: Packet) -> anyhow::Result<()> {
        Ok(self.io.encode(Encoded::Packet(packet), &self.codec)?)
    }

    async fn receive(&mut self) -> anyhow::Result<Decoded> {
        let received = self.io.recv(&self.codec).await;
        let packet = received.map_err(|error| match error {
            ntex_util::future::Either::Left(error) => anyhow!("protocol error: {error}"),
            ntex_util::future::Either::Right(error) => error.into(),
        })?;
        self.received_at = Instant::now();
        packet.ok_or_else(|| anyhow!("the broker closed the connection"))
    }

    fn handle(&mut self, packet: Decoded) -> anyhow::Result<()> {
        match packet {
            Decoded::Publish(publish, payload, _) => {
                if let Some(packet_id) = publish.packet_id {
                    self.encode(Packet::PublishAck(codec::PublishAck {
                        packet_id,
                        reason_code: codec::PublishAckReason::Success,
                        properties: Vec::new(),
                        reason_string: None,
                    }))?;
                }
                let codec::Publish { topic, retain, packet_id, .. } = publish;
                let at_most_once = packet_id.is_none();
                self.received.push_back(BrokerEvent::Publish {
                    topic,
                    payload,
                    retain,
                    at_most_once,
                });
            }
            Decoded::Packet(Packet::PublishAck(ack), _) => {
                self.received.push_back(BrokerEvent::Acknowledged(ack.packet_id, ack.reason_code));
            }
            Decoded::Packet(Packet::SubscribeAck(ack), _) => {
                self.pending_subscribes = self.pending_subscribes.saturating_sub(1);
                let refusal = ack.status.into_iter().find(|status| u8::from(*status) >= 0x80);
                ensure!(refusal.is_none(), "the broker refused a subscription: {refusal:?}");
            }
            Decoded::Packet(Packet::Disconnect(packet), _) => {
                bail!("the broker disconnected us: {:?}", packet.reason_code)
            }
            Decoded::Packet(..) | Decoded::PayloadChunk(..) => {}
        }
        Ok(())
    }
}
