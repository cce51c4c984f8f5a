//! Looks over the shoulder of the service's connection to the broker: when a PUBACK passes, the item must be in
//! PostgreSQL already. Called by the proxy with all bytes. Promises to ask before the PUBACK goes on, over a connection of
//! its own, for one PUBACK of each read; what cannot be asked (PostgreSQL is away) is counted apart.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio_postgres::Client;
use uuid::Uuid;

use super::said::marks;
use crate::support::postgres::connect;

const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;

/// Longer than any look-up, shorter than a keep-alive.
const PATIENCE: Duration = Duration::from_millis(800);

/// Rejected, or its sensor deleted: that is settled, too.
const SETTLED: &str = "\
select exists (select from measurement where sensor_identifier = $1 and (value ->> 'n')::bigint = $2)
    or exists (select from rejection where sensor_identifier = $1 and position($3 in raw) > 0)
    or exists (select from deleted_sensor where identifier = $1)";

/// What was asked, and what came of it.
pub(crate) struct Watcher {
    database_url: String,
    client: tokio::sync::Mutex<Option<Client>>,
    pub(crate) pubacks: Cell<u64>,
    pub(crate) asked: Cell<u64>,
    pub(crate) unanswered: Cell<u64>,
    /// PUBACKs that came before their COMMIT.
    pub(crate) early: Cell<u64>,
}

impl Watcher {
    pub(crate) fn new(database_url: &str) -> Rc<Self> {
        Rc::new(Self {
            database_url: database_url.into(),
            client: tokio::sync::Mutex::default(),
            pubacks: Cell::new(0),
            asked: Cell::new(0),
            unanswered: Cell::new(0),
            early: Cell::new(0),
        })
    }

    async fn look(&self, sensor: Uuid, number: u64) -> Option<bool> {
        let mut client = self.client.lock().await;
        if client.as_ref().is_none_or(Client::is_closed) {
            *client = Some(connect(&self.database_url).await.ok()?);
        }
        let (n, mark) = (i64::try_from(number).ok()?, format!("#{number}#").into_bytes());
        let found = client.as_ref()?.query_one(SETTLED, &[&sensor, &n, &mark]).await.ok()?;
        Some(found.get(0))
    }
}

/// One PUBACK that is about to pass.
pub(crate) struct Question {
    watcher: Rc<Watcher>,
    sensor: Uuid,
    number: u64,
}

impl Question {
    pub(crate) async fn ask(self) {
        let Self { watcher, sensor, number } = self;
        let count = match tokio::time::timeout(PATIENCE, watcher.look(sensor, number)).await {
            Ok(Some(true)) => &watcher.asked,
            Ok(Some(false)) => {
                eprintln!("a PUBACK came before its COMMIT: item {number} of {sensor}");
                &watcher.early
            }
            Ok(None) | Err(_) => &watcher.unanswered,
        };
        count.set(count.get() + 1);
    }
}

/// One connection.
pub(crate) struct Tap {
    watcher: Rc<Watcher>,
    down: Frames,
    up: Frames,
    /// By Packet Identifier: the sensor and the number of a lone measurement.
    delivered: HashMap<u16, (Uuid, u64)>,
}

impl Tap {
    pub(crate) fn new(watcher: Rc<Watcher>) -> Self {
        Self { watcher, down: Frames::default(), up: Frames::default(), delivered: HashMap::new() }
    }

    /// Takes note of what passes; what is to be asked before it goes on.
    pub(crate) fn hear(&mut self, bytes: &[u8], upwards: bool) -> Option<Question> {
        if !upwards {
            self.down.feed(bytes);
            while let Some((first, body)) = self.down.next() {
                if first >> 4 == PUBLISH && first & 0b110 != 0 {
                    self.note(&body);
                }
            }
            return None;
        }
        let mut question = None;
        self.up.feed(bytes);
        while let Some((first, body)) = self.up.next() {
            if first >> 4 != PUBACK {
                continue;
            }
            self.watcher.pubacks.set(self.watcher.pubacks.get() + 1);
            let known = self.delivered.remove(&u16::from_be_bytes([body[0], body[1]]));
            // The last one of the read: those before it were committed with it or earlier.
            if let Some((sensor, number)) = known {
                question = Some(Question { watcher: Rc::clone(&self.watcher), sensor, number });
            }
        }
        question
    }

    /// Notes a PUBLISH that carries one good measurement.
    fn note(&mut self, body: &[u8]) {
        let topic_length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let (topic, rest) = body[2..].split_at(topic_length);
        let packet_id = u16::from_be_bytes([rest[0], rest[1]]);
        self.delivered.remove(&packet_id);
        let Ok(topic) = std::str::from_utf8(topic) else { return };
        let Some((kind, sensor)) = topic.rsplit_once('/') else { return };
        let (true, Ok(sensor)) = (kind.ends_with("measurements"), sensor.parse()) else { return };
        // The properties' length is one byte here: there are hardly any.
        let payload = &rest[3 + usize::from(rest[2])..];
        if payload.starts_with(br##"{"measurements":[{"mark":"#"##)
            && let [number] = marks(payload)[..]
        {
            self.delivered.insert(packet_id, (sensor, number));
        }
    }
}

/// Cuts a stream into MQTT's packets.
#[derive(Default)]
struct Frames {
    buffer: BytesMut,
}

impl Frames {
    fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The first byte of a packet, and what follows its Remaining Length.
    fn next(&mut self) -> Option<(u8, BytesMut)> {
        let mut length = 0;
        for (index, byte) in self.buffer.iter().skip(1).take(4).enumerate() {
            length |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                let begin = 2 + index;
                let end = begin + length;
                if self.buffer.len() < end {
                    return None;
                }
                let mut packet = self.buffer.split_to(end);
                let first = packet[0];
                return Some((first, packet.split_off(begin)));
            }
        }
        None
    }
}
