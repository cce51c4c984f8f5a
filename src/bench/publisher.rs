//! Publishes a load at QoS 1 over one connection, many messages in flight, on a thread of its own:
//! the stand-in for the fleet. Called by every scenario. Promises that each message that it counts
//! was acknowledged by the broker, and heard by somebody.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hdrhistogram::Histogram;
use ntex_bytes::Bytes;
use ntex_io::IoBoxed;
use ntex_mqtt::v5::codec::{self, Decoded, Encoded, Packet, PublishAckReason};
use ntex_mqtt::v5::{QoS, client::Client};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::load::{Account, Load, Message};
use crate::mqtt::{BrokerUrl, ConnectOptions, connect};

/// A paced publisher looks at the clock this often.
const TICK: Duration = Duration::from_millis(1);

/// A broker that acknowledges nothing for so long never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message that goes out this late was held up by the full window: its latency counts from when
/// it was due.
const LATE: Duration = Duration::from_millis(5);

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

/// What was published.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) account: Account,
    /// From the first PUBLISH to the last PUBACK.
    pub(super) elapsed: Duration,
    /// From PUBLISH to PUBACK, in microseconds.
    pub(super) puback: Histogram<u64>,
}

/// An empty histogram: microseconds up to ten minutes, to three digits.
pub(super) fn latencies() -> Histogram<u64> {
    const MAX_MICROSECONDS: u64 = 600_000_000;
    Histogram::new_with_bounds(1, MAX_MICROSECONDS, 3).expect("the bounds are constants")
}

pub(super) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
}

/// Publishes it all.
pub(super) async fn publish(
    broker: &BrokerUrl,
    load: Load,
    manner: Manner,
) -> anyhow::Result<Published> {
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

/// Ends a session and what is queued for it.
pub(super) async fn forget_session(broker: &BrokerUrl, client_id: &str) -> anyhow::Result<()> {
    let client = connect(broker, &options(client_id)).await?;
    goodbye(client.into_inner()).await
}

fn options(client_id: &str) -> ConnectOptions {
    ConnectOptions {
        client_id: client_id.to_owned(),
        clean_start: true,
        session_expiry_secs: 0,
        receive_maximum: None,
        keep_alive_secs: 0,
    }
}

async fn goodbye((io, codec): (IoBoxed, codec::Codec)) -> anyhow::Result<()> {
    io.encode(Packet::Disconnect(codec::Disconnect::default()).into(), &codec)?;
    io.flush(true).await?;
    Ok(io.shutdown().await?)
}

async fn run(broker: &BrokerUrl, load: &Load, manner: &Manner) -> anyhow::Result<Published> {
    let client = connect(broker, &options(&manner.client_id)).await?;
    let mut line = Line::new(client, manner);
    let mut messages = load.messages();
    let mut schedule = Schedule::new(manner.pace.clone());
    let mut more = true;
    while more || !line.in_flight.is_empty() {
        let now = Instant::now();
        if manner.lasts.is_some_and(|lasts| now >= schedule.begun_at + lasts) {
            more = false;
        }
        schedule.advance(now);
        while more && line.in_flight.len() < line.window && schedule.is_due() {
            match messages.next() {
                Some(message) => line.send(message, schedule.sent_at(now))?,
                None => more = false,
            }
        }
        let waits = more && schedule.is_paced() && line.in_flight.len() < line.window;
        line.hear(waits).await?;
    }
    let elapsed = schedule.begun_at.elapsed();
    let Line { io, codec, account, puback, .. } = line;
    goodbye((io, codec)).await?;
    Ok(Published { account, elapsed, puback })
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

    /// The moment from which the latency of the message that goes out now is counted.
    fn sent_at(&mut self, now: Instant) -> Instant {
        let due_at = match self.pace {
            Pace::Steady(rate) => self.begun_at + Duration::from_secs_f64(self.sent as f64 / rate),
            Pace::FlatOut | Pace::Governed(_) => now,
        };
        self.sent += 1;
        if now.saturating_duration_since(due_at) > LATE { due_at } else { now }
    }
}

/// The connection and what is in flight on it.
struct Line<'a> {
    io: IoBoxed,
    codec: codec::Codec,
    window: usize,
    next_id: NonZeroU16,
    in_flight: VecDeque<(NonZeroU16, Instant)>,
    account: Account,
    puback: Histogram<u64>,
    manner: &'a Manner,
}

impl<'a> Line<'a> {
    fn new(client: Client, manner: &'a Manner) -> Self {
        let window = manner.window.min(client.packet().receive_max.get().into());
        let (io, codec) = client.into_inner();
        Self {
            io,
            codec,
            window,
            next_id: NonZeroU16::MIN,
            in_flight: VecDeque::with_capacity(window),
            account: Account::default(),
            puback: latencies(),
            manner,
        }
    }

    fn send(&mut self, message: Message, sent_at: Instant) -> anyhow::Result<()> {
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

    /// Takes in acknowledgements; where nothing may come, waits no longer than to the next tick.
    async fn hear(&mut self, only_for_a_tick: bool) -> anyhow::Result<()> {
        let patience = if only_for_a_tick { TICK } else { PATIENCE };
        let Ok(packet) = tokio::time::timeout(patience, self.io.recv(&self.codec)).await else {
            ensure!(only_for_a_tick, "the broker has acknowledged nothing for {PATIENCE:?}");
            return Ok(());
        };
        let mut packet = packet.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let now = Instant::now();
        while let Some(Decoded::Packet(Packet::PublishAck(ack), _)) = packet {
            self.acknowledged(&ack, now)?;
            packet = match self.io.decode(&self.codec)? {
                None => return Ok(()),
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
        self.manner.acknowledged.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
