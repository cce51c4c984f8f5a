//! Some sensors of the fleet on one connection. Started by the fleet, one for each connection. What
//! they have said is said again after a reconnect, byte for byte, until the broker has acknowledged
//! it: the service stores it once.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use ntex_bytes::{ByteString, Bytes};
use ntex_mqtt::v5::codec::PublishAckReason;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::connection::{Broken, Connection, Event};
use super::counts::{Counts, add};
use super::pace::Pace;
use super::plan::Spoken;
use super::sensor::{Applied, HEARTBEAT, Programme, Sensor};
use super::span::{End, Span};
use super::stop::Stop;
use super::topics::Topics;
use super::window::Window;
use crate::domain::{SensorIdentifier, Timestamp};
use crate::mqtt::{BrokerUrl, ConnectOptions};

/// What falls due within this time is said together: one write for many messages.
const GATHER: Duration = Duration::from_millis(5);
/// Where nothing falls due by itself.
const IDLE: Duration = Duration::from_secs(1);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(5);
/// Messages that share a buffer.
const CHUNK_MESSAGES: usize = 64;
const CHUNK_BYTES: usize = 64 * 1024;

/// One connection's worth of sensors.
#[derive(Debug)]
pub(super) struct Line {
    broker: BrokerUrl,
    options: ConnectOptions,
    topics: Topics,
    sensors: Vec<Sensor>,
    indices: HashMap<SensorIdentifier, usize>,
    programme: Rc<Programme>,
    pace: Pace,
    heartbeat_pace: Pace,
    next_sensor: usize,
    next_heartbeat: usize,
    window: Window<Message>,
    buffer: Vec<u8>,
    counts: Rc<Counts>,
}

/// Said, and kept until it is acknowledged.
#[derive(Debug)]
struct Message {
    topic: ByteString,
    payload: Bytes,
}

/// What a line is made of.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) mqtt: crate::mqtt::Config,
    pub(super) client_id: String,
    pub(super) sensors: Vec<Sensor>,
    pub(super) programme: Rc<Programme>,
    pub(super) pace: Pace,
    pub(super) heartbeat_pace: Pace,
    pub(super) counts: Rc<Counts>,
}

impl Line {
    pub(super) fn new(cast: Cast) -> Self {
        let Cast { mqtt, client_id, sensors, programme, pace, heartbeat_pace, counts } = cast;
        let topics = Topics::new(&mqtt.topic_prefix, &sensors);
        let indices = sensors.iter().enumerate();
        Self {
            broker: mqtt.broker,
            options: ConnectOptions {
                client_id,
                clean_start: true,
                session_expiry_secs: 0,
                receive_maximum: None,
                keep_alive_secs: mqtt.keep_alive_secs,
                gathers: false,
            },
            indices: indices.map(|(index, sensor)| (sensor.identifier, index)).collect(),
            topics,
            sensors,
            programme,
            pace,
            heartbeat_pace,
            next_sensor: 0,
            next_heartbeat: 0,
            window: Window::new(),
            buffer: Vec::new(),
            counts,
        }
    }

    /// Connects, and subscribes to the configuration of each sensor.
    pub(super) async fn open(&self) -> Result<Connection, Broken> {
        let filter = |sensor: &Sensor| self.topics.configuration(sensor);
        let filters: Vec<ByteString> = self.sensors.iter().map(filter).collect();
        Connection::open(&self.broker, &self.options, &filters).await
    }

    /// Speaks until the span is over and everything is acknowledged, or cannot be.
    pub(super) async fn play(mut self, mut connection: Connection, mut span: Span) {
        let mut end = End::Speaking;
        loop {
            match self.converse(&mut connection, &mut span, &mut end).await {
                Ok(()) => {
                    if let Err(broken) = connection.close().await {
                        info!(reason = %broken, "the broker was gone before the good-bye");
                    }
                    break;
                }
                Err(broken) => {
                    warn!(reason = %broken, un_acknowledged = self.window.len(), "connection lost");
                }
            }
            match self.reconnect(&mut span, &mut end).await {
                Some(again) => connection = again,
                None => break,
            }
        }
        let now = Instant::now();
        let unsaid = if span.is_stopped() { 0 } else { self.pace.due(span.elapsed(now)) };
        add(&self.counts.skipped, self.pace.skipped() + unsaid);
    }

    /// Speaks and listens on one connection; ends well when there is nothing left to do.
    async fn converse(
        &mut self,
        connection: &mut Connection,
        span: &mut Span,
        end: &mut End,
    ) -> Result<(), Broken> {
        let again = self.window.restart(connection.receive_maximum);
        add(&self.counts.republished, again as u64);
        loop {
            let now = Instant::now();
            if *end == End::Speaking {
                self.speak(now, span);
                *end = span.end(now, self.pace.exhausted());
            }
            self.send(connection)?;
            if end.is_over(now, self.window.is_empty(), span) {
                return Ok(());
            }
            let wake_at = self.wake_at(now, span, *end).min(connection.keep_alive(now)?);
            tokio::select! {
                event = connection.event() => self.take(event?),
                () = tokio::time::sleep_until(wake_at) => {}
                changed = span.stop.changed() => changed.expect("the run keeps the switch"),
            }
            while let Some(event) = connection.next_event()? {
                self.take(event);
            }
            self.window.shrink();
        }
    }

    /// Says what is due, as far as the window has room for it.
    fn speak(&mut self, now: Instant, span: &Span) {
        let elapsed = span.elapsed(now);
        for _ in 0..self.heartbeat_pace.due(elapsed) {
            self.heartbeat_pace.say(1);
            self.beat();
        }
        let due = usize::try_from(self.pace.due(elapsed)).unwrap_or(usize::MAX);
        // As much as there is room for, however little: what we write carries TCP's own
        // acknowledgement, and a broker that has not turned Nagle's algorithm off (mosquitto's
        // default) holds its PUBACKs back for 40 ms without.
        let mut left = due.min(self.window.room());
        while left > 0 && self.window.room() > 0 {
            let said = self.speak_chunk(left.min(CHUNK_MESSAGES));
            self.pace.say(said as u64);
            left -= said;
        }
    }

    /// Says so many messages at the most, in one buffer. How many.
    fn speak_chunk(&mut self, most: usize) -> usize {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut said = Vec::with_capacity(most);
        let now = Timestamp::now();
        while said.len() < most && buffer.len() < CHUNK_BYTES {
            let index = self.next_sensor;
            self.next_sensor = (index + 1) % self.sensors.len();
            let spoken = self.sensors[index].speak(&self.programme, now, &mut buffer);
            let spoken = spoken.expect("the pace ends with the series");
            said.push((index, spoken, buffer.len()));
        }
        let bytes = Bytes::copy_from_slice(&buffer);
        buffer.clear();
        self.buffer = buffer;
        let mut start = 0;
        for &(index, spoken, end) in &said {
            self.push(index, spoken, bytes.slice(start..end));
            start = end;
        }
        said.len()
    }

    /// The minute's heartbeat of the sensor whose turn it is.
    fn beat(&mut self) {
        let index = self.next_heartbeat;
        self.next_heartbeat = (index + 1) % self.sensors.len();
        let mut payload = Vec::new();
        if let Some(spoken) = self.sensors[index].beat(Timestamp::now(), &mut payload) {
            self.push(index, spoken, payload.into());
        }
    }

    fn push(&mut self, index: usize, spoken: Spoken, payload: Bytes) {
        self.counts.say(spoken);
        let size_bytes = payload.len();
        let topic = self.topics.of(spoken.kind, index, &self.sensors[index]);
        self.window.push(Message { topic, payload }, size_bytes);
    }

    fn send(&mut self, connection: &Connection) -> Result<(), Broken> {
        while let Some((packet_identifier, message)) = self.window.next() {
            connection.publish(packet_identifier, &message.topic, &message.payload)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Acknowledged(packet_identifier, reason) => {
                if self.window.acknowledge(packet_identifier).is_none() {
                    return;
                }
                match reason {
                    PublishAckReason::Success => {}
                    PublishAckReason::NoMatchingSubscribers => add(&self.counts.unheard, 1),
                    _ => return add(&self.counts.refused, 1),
                }
                add(&self.counts.acknowledged, 1);
            }
            Event::Configuration(topic, payload) => self.configure(&topic, &payload),
        }
    }

    fn configure(&mut self, topic: &str, payload: &[u8]) {
        let identifier = topic.rsplit('/').next().and_then(SensorIdentifier::parse);
        let Some(&index) = identifier.and_then(|it| self.indices.get(&it)) else { return };
        let mut heartbeat = Vec::new();
        let now = Timestamp::now();
        match self.sensors[index].configure(payload, now, &mut heartbeat) {
            Applied::Yes => add(&self.counts.configurations_applied, 1),
            Applied::Rejected => add(&self.counts.configurations_rejected, 1),
            // An empty payload takes a retained configuration back.
            Applied::Malformed if payload.is_empty() => return,
            Applied::Malformed => return add(&self.counts.configurations_malformed, 1),
        }
        self.push(index, HEARTBEAT, heartbeat.into());
    }

    fn wake_at(&self, now: Instant, span: &Span, end: End) -> Instant {
        if let End::Waiting { deadline } = end {
            return deadline;
        }
        // With a full window, an acknowledgement wakes.
        let next = self.pace.next_at().filter(|_| self.window.room() > 0);
        let due = [next, self.heartbeat_pace.next_at(), span.duration].into_iter().flatten().min();
        due.map_or(now + IDLE, |due| (span.started_at + due).max(now + GATHER))
    }

    async fn reconnect(&mut self, span: &mut Span, end: &mut End) -> Option<Connection> {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let now = Instant::now();
            if *end == End::Speaking {
                *end = span.end(now, self.pace.exhausted());
            }
            if end.is_over(now, self.window.is_empty(), span) {
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.mul_f64(rand::random_range(0.5..1.0))) => {}
                changed = span.stop.changed() => changed.expect("the run keeps the switch"),
            }
            let opened = tokio::select! {
                opened = self.open() => opened,
                _ = span.stop.wait_for(|stop| *stop == Stop::Now) => return None,
            };
            match opened {
                Ok(connection) => {
                    info!("connected again");
                    add(&self.counts.reconnects, 1);
                    return Some(connection);
                }
                Err(broken) => debug!(reason = %broken, "still no connection"),
            }
            backoff = LAST_BACKOFF.min(backoff * 2);
        }
    }
}
