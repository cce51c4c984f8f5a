//! One connection of the fleet's: QoS 1 PUBLISHes, many in flight, and their PUBACKs. Driven by the
//! publisher and by the probe. Promises that what it counts as acknowledged was heard by somebody.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use ntex_bytes::Bytes;
use ntex_io::IoBoxed;
use ntex_mqtt::v5::QoS;
use ntex_mqtt::v5::codec::{self, Decoded, Encoded, Packet, PublishAckReason};
use tokio::time::Instant;

use super::load::{Account, Message};
use crate::mqtt::{BrokerUrl, ConnectOptions, connect};

/// A paced publisher looks at the clock this often.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// A broker that acknowledges nothing for so long never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// An empty histogram: microseconds up to ten minutes, to three digits.
pub(super) fn latencies() -> Histogram<u64> {
    const MAX_MICROSECONDS: u64 = 600_000_000;
    Histogram::new_with_bounds(1, MAX_MICROSECONDS, 3).expect("the bounds are constants")
}

pub(super) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
}

/// The connection and what is in flight on it.
pub(super) struct Line {
    io: IoBoxed,
    codec: codec::Codec,
    window: usize,
    next_id: NonZeroU16,
    in_flight: VecDeque<(NonZeroU16, Instant)>,
    account: Account,
    puback: Histogram<u64>,
}

/// What went over a connection.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    pub(super) account: Account,
    /// From PUBLISH to PUBACK, in microseconds.
    pub(super) puback: Histogram<u64>,
}

impl Line {
    /// Connects, to have so many messages un-acknowledged at the most.
    pub(super) async fn open(
        broker: &BrokerUrl,
        client_id: &str,
        window: usize,
    ) -> anyhow::Result<Self> {
        let client = connect(broker, &options(client_id)).await?;
        let window = window.min(client.packet().receive_max.get().into());
        let (io, codec) = client.into_inner();
        Ok(Self {
            io,
            codec,
            window,
            next_id: NonZeroU16::MIN,
            in_flight: VecDeque::with_capacity(window),
            account: Account::default(),
            puback: latencies(),
        })
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_flight.len() >= self.window
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub(super) async fn close(self) -> anyhow::Result<Closed> {
        goodbye(&self.io, &self.codec).await?;
        Ok(Closed { account: self.account, puback: self.puback })
    }

    /// Puts it on its way; its latency counts from `sent_at`.
    pub(super) fn send(&mut self, message: Message, sent_at: Instant) -> anyhow::Result<()> {
        let packet_id = self.next_id;
        // The window is smaller than the number of identifiers, so this one is free again.
        self.next_id = packet_id.checked_add(1).unwrap_or(NonZeroU16::MIN);
        let payload = Bytes::from(message.payload.into_bytes());
        let packet = codec::Publish {
            qos: QoS::AtLeastOnce,
            packet_id: Some(packet_id),
            topic: message.topic.into(),
            payload_size: u32::try_from(payload.len())?,
            ..codec::Publish::default()
        };
        self.io.encode(Encoded::Publish(packet, Some(payload)), &self.codec)?;
        self.in_flight.push_back((packet_id, sent_at));
        self.account.add(message.said);
        Ok(())
    }

    /// Takes in acknowledgements, and says how many; where none may come, waits no longer than to
    /// the next tick.
    pub(super) async fn hear(&mut self, only_for_a_tick: bool) -> anyhow::Result<u64> {
        let before = self.in_flight.len();
        let patience = if only_for_a_tick { TICK } else { PATIENCE };
        let Ok(packet) = tokio::time::timeout(patience, self.io.recv(&self.codec)).await else {
            ensure!(only_for_a_tick, "the broker has acknowledged nothing for {PATIENCE:?}");
            return Ok(0);
        };
        let mut packet = packet.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let now = Instant::now();
        while let Some(Decoded::Packet(Packet::PublishAck(ack), _)) = packet {
            self.acknowledged(&ack, now)?;
            packet = match self.io.decode(&self.codec)? {
                None => return Ok((before - self.in_flight.len()) as u64),
                more => more,
            };
        }
        bail!("the broker closed the connection, or said {packet:?}");
    }

    fn acknowledged(&mut self, ack: &codec::PublishAck, now: Instant) -> anyhow::Result<()> {
        let reason = ack.reason_code;
        ensure!(reason == PublishAckReason::Success, "a PUBLISH was answered {reason:?}");
        // They come in order but for what a broker may do otherwise.
        let place = self.in_flight.iter().position(|(id, _)| *id == ack.packet_id);
        let (_, sent_at) = place
            .and_then(|place| self.in_flight.remove(place))
            .context("the broker acknowledged what was not sent")?;
        record(&mut self.puback, now.saturating_duration_since(sent_at));
        Ok(())
    }
}

/// Ends a session and what is queued for it.
pub(super) async fn forget_session(broker: &BrokerUrl, client_id: &str) -> anyhow::Result<()> {
    let client = connect(broker, &options(client_id)).await?;
    let (io, codec) = client.into_inner();
    goodbye(&io, &codec).await
}

fn options(client_id: &str) -> ConnectOptions {
    ConnectOptions {
        client_id: client_id.to_owned(),
        clean_start: true,
        session_expiry_secs: 0,
        receive_maximum: None,
        keep_alive_secs: 0,
        gathers: false,
    }
}

async fn goodbye(io: &IoBoxed, codec: &codec::Codec) -> anyhow::Result<()> {
    io.encode(Packet::Disconnect(codec::Disconnect::default()).into(), codec)?;
    io.flush(true).await?;
    Ok(io.shutdown().await?)
}
