//! A connection of the fleet to the broker, on ntex's codec: the only ntex code of the simulation.
//! Opened and driven by a line. It gives acknowledgements and configurations as they come, and
//! ends with one reason, whatever broke.
//!
//! As for ingest, the codec is driven by a loop of our own: thousands of PUBLISHes are under way
//! without a task or a channel each, and acknowledgements may come in any order.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU16;
use std::time::Duration;

use ntex_bytes::{ByteString, Bytes};
use ntex_io::IoBoxed;
use ntex_mqtt::v5::codec::{self, Decoded, Encoded, Packet};
use ntex_mqtt::{QoS, error};
use ntex_util::future::Either;
use tokio::time::Instant;

use crate::mqtt::{BrokerUrl, ConnectFailure, ConnectOptions, connect};

/// Filters in one SUBSCRIBE: a packet of about 25 KB, far below what brokers take.
const FILTERS_PER_SUBSCRIBE: usize = 500;
/// How long the broker may take to answer all of them.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a connection ended, or never began.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// There is none.
    #[error(transparent)]
    Connect(#[from] ConnectFailure),
    /// TCP failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The broker hung up.
    #[error("the broker closed the connection")]
    Closed,
    /// The broker hung up, and said why.
    #[error("the broker disconnected us: {0:?}")]
    Disconnected(codec::DisconnectReasonCode),
    /// A subscription to a configuration topic was refused.
    #[error("the broker refused a subscription: {0:?}")]
    SubscriptionRefused(codec::SubscribeAckReason),
    /// Nothing came, not even an answer to our PINGREQs.
    #[error("the broker has been silent for {0:?}")]
    Silent(Duration),
    /// What came was no MQTT.
    #[error("protocol error: {0}")]
    Protocol(String),
}

impl From<error::DecodeError> for Broken {
    fn from(error: error::DecodeError) -> Self {
        Self::Protocol(error.to_string())
    }
}

impl From<error::EncodeError> for Broken {
    fn from(error: error::EncodeError) -> Self {
        Self::Protocol(error.to_string())
    }
}

/// What the broker has to say.
#[derive(Debug)]
pub(super) enum Event {
    /// A PUBACK.
    Acknowledged(NonZeroU16, codec::PublishAckReason),
    /// A PUBLISH on a topic that we subscribed to.
    Configuration(ByteString, Vec<u8>),
}

/// An open connection, subscribed.
#[derive(Debug)]
pub(super) struct Connection {
    io: IoBoxed,
    codec: codec::Codec,
    /// What the broker takes un-acknowledged.
    pub(super) receive_maximum: NonZeroU16,
    /// Configurations that came before the last SUBACK.
    early: VecDeque<Event>,
    /// A PUBLISH whose payload has not come whole.
    partial: Option<(codec::Publish, Vec<u8>)>,
    unanswered_subscribe_count: usize,
    keep_alive: Duration,
    heard_at: Instant,
    pinged_at: Instant,
}

impl Connection {
    /// Connects, and subscribes at QoS 1.
    pub(super) async fn open(
        broker: &BrokerUrl,
        options: &ConnectOptions,
        filters: &[ByteString],
    ) -> Result<Self, Broken> {
        let client = connect(broker, options).await?;
        let connack = client.packet();
        let receive_maximum = connack.receive_max;
        let keep_alive = connack.server_keepalive_sec.unwrap_or(options.keep_alive_secs);
        let (io, codec) = client.into_inner();
        let mut connection = Self {
            io,
            codec,
            receive_maximum,
            early: VecDeque::new(),
            partial: None,
            unanswered_subscribe_count: 0,
            keep_alive: Duration::from_secs(u64::from(keep_alive.max(1))),
            heard_at: Instant::now(),
            pinged_at: Instant::now(),
        };
        tokio::time::timeout(SUBSCRIBE_TIMEOUT, connection.subscribe(filters))
            .await
            .map_err(|_| Broken::Silent(SUBSCRIBE_TIMEOUT))??;
        Ok(connection)
    }

    async fn subscribe(&mut self, filters: &[ByteString]) -> Result<(), Broken> {
        let options = codec::SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
        for (packet_id, filters) in (1..=u16::MAX).zip(filters.chunks(FILTERS_PER_SUBSCRIBE)) {
            self.unanswered_subscribe_count += 1;
            self.encode(Packet::Subscribe(codec::Subscribe {
                packet_id: NonZeroU16::new(packet_id).expect("counted from 1"),
                id: None,
                user_properties: Vec::new(),
                topic_filters: filters.iter().map(|it| (it.clone(), options)).collect(),
            }))?;
        }
        // Nothing is published before: from here on the packet identifiers are the window's.
        while self.unanswered_subscribe_count > 0 {
            let packet = self.receive().await?;
            if let Some(event) = self.take(packet)? {
                self.early.push_back(event);
            }
        }
        Ok(())
    }

    /// Waits for what the broker says next. Nothing is lost when it is not awaited to the end.
    pub(super) async fn event(&mut self) -> Result<Event, Broken> {
        loop {
            if let Some(event) = self.next_event()? {
                return Ok(event);
            }
            let packet = self.receive().await?;
            if let Some(event) = self.take(packet)? {
                return Ok(event);
            }
        }
    }

    /// What has been received already.
    pub(super) fn next_event(&mut self) -> Result<Option<Event>, Broken> {
        if let Some(event) = self.early.pop_front() {
            return Ok(Some(event));
        }
        while let Some(packet) = self.io.decode(&self.codec)? {
            if let Some(event) = self.take(packet)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Puts a QoS 1 PUBLISH into the write buffer.
    pub(super) fn publish(
        &self,
        packet_identifier: NonZeroU16,
        topic: &ByteString,
        payload: &Bytes,
    ) -> Result<(), Broken> {
        let packet = codec::Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(packet_identifier),
            topic: topic.clone(),
            payload_size: u32::try_from(payload.len())
                .map_err(|_| error::EncodeError::OverMaxPacketSize)?,
            ..Default::default()
        };
        self.io.encode(Encoded::Publish(packet, Some(payload.clone())), &self.codec)?;
        Ok(())
    }

    /// Sends a PINGREQ where one is due. When to call it next.
    pub(super) fn keep_alive(&mut self, now: Instant) -> Result<Instant, Broken> {
        let silence = now - self.heard_at;
        if silence > self.keep_alive * 2 {
            return Err(Broken::Silent(silence));
        }
        let interval = self.keep_alive / 2;
        if now >= self.pinged_at + interval {
            self.pinged_at = now;
            self.encode(Packet::PingRequest)?;
        }
        Ok(self.pinged_at + interval)
    }

    /// Says good-bye. What has been written is sent.
    pub(super) async fn close(self) -> Result<(), Broken> {
        self.encode(Packet::Disconnect(codec::Disconnect::default()))?;
        Ok(self.io.shutdown().await?)
    }

    fn encode(&self, packet: Packet) -> Result<(), Broken> {
        Ok(self.io.encode(Encoded::Packet(packet), &self.codec)?)
    }

    async fn receive(&mut self) -> Result<Decoded, Broken> {
        match self.io.recv(&self.codec).await {
            Ok(Some(packet)) => {
                self.heard_at = Instant::now();
                Ok(packet)
            }
            Ok(None) => Err(Broken::Closed),
            Err(Either::Left(error)) => Err(error.into()),
            Err(Either::Right(error)) => Err(error.into()),
        }
    }

    fn take(&mut self, packet: Decoded) -> Result<Option<Event>, Broken> {
        match packet {
            Decoded::Publish(publish, payload, _) => {
                self.partial = Some((publish, payload.to_vec()));
                self.take_whole()
            }
            Decoded::PayloadChunk(chunk, _) => {
                if let Some((_, payload)) = &mut self.partial {
                    payload.extend_from_slice(&chunk);
                }
                self.take_whole()
            }
            Decoded::Packet(Packet::PublishAck(ack), _) => {
                Ok(Some(Event::Acknowledged(ack.packet_id, ack.reason_code)))
            }
            Decoded::Packet(Packet::SubscribeAck(ack), _) => {
                self.unanswered_subscribe_count = self.unanswered_subscribe_count.saturating_sub(1);
                let refusal = ack.status.into_iter().find(|status| u8::from(*status) >= 0x80);
                refusal.map_or(Ok(None), |reason| Err(Broken::SubscriptionRefused(reason)))
            }
            Decoded::Packet(Packet::Disconnect(packet), _) => {
                Err(Broken::Disconnected(packet.reason_code))
            }
            Decoded::Packet(..) => Ok(None),
        }
    }

    /// The PUBLISH that came, once its payload is whole: acknowledged, and handed on. It is
    /// retained by the broker, so that no crash of ours can lose it.
    fn take_whole(&mut self) -> Result<Option<Event>, Broken> {
        let whole = self
            .partial
            .take_if(|(publish, payload)| payload.len() >= publish.payload_size as usize);
        let Some((publish, payload)) = whole else { return Ok(None) };
        if let Some(packet_id) = publish.packet_id {
            self.encode(Packet::PublishAck(codec::PublishAck {
                packet_id,
                reason_code: codec::PublishAckReason::Success,
                properties: Vec::new(),
                reason_string: None,
            }))?;
        }
        Ok(Some(Event::Configuration(publish.topic, payload)))
    }
}
