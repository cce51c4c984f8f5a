//! Looks over the shoulder of the service's connection to the broker: when a PUBACK passes, the item must be in
//! PostgreSQL already. Called by the proxy with all bytes. Promises to ask before the PUBACK goes on, over a connection of
//! its own, for some PUBACKs of each read; what cannot be asked (PostgreSQL is away) is counted apart.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio_postgres::Client;
use uuid::Uuid;

use super::said::marks;
use crate::support::postgres::connect;

const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;

/// Of one read.
const ASK_AT_ONCE: usize = 32;

/// Longer than any look-up, shorter than a keep-alive.
const PATIENCE: Duration = Duration::from_millis(800);

/// Rejected, or its sensor deleted: that is settled, too.
const UNSETTLED: &str = "\
select it.number from unnest($1::uuid[], $2::bigint[], $3::float8[]) as it (sensor, number, made)
where not exists (select from measurement
        where sensor_identifier = it.sensor and (value ->> 'n')::bigint = it.number
            and creation_timestamp between to_timestamp(it.made) - interval '1 ms'
                and to_timestamp(it.made) + interval '1 ms')
    and not exists (select from rejection
        where sensor_identifier = it.sensor
            and position(convert_to('#' || it.number || '#', 'UTF8') in raw) > 0)
    and not exists (select from deleted_sensor where identifier = it.sensor)";

/// What was asked, and what came of it.
pub(crate) struct Watcher {
    database_url: RefCell<String>,
    /// And whom it asks.
    client: tokio::sync::Mutex<Option<(String, Client)>>,
    pub(crate) pubacks: Cell<u64>,
    pub(crate) asked: Cell<u64>,
    pub(crate) unanswered: Cell<u64>,
    /// PUBACKs that came before their COMMIT.
    pub(crate) early: Cell<u64>,
    /// Nothing can be committed: any PUBACK is early.
    pub(crate) nothing_commits: Cell<bool>,
}

impl Watcher {
    pub(crate) fn new(database_url: &str) -> Rc<Self> {
        Rc::new(Self {
            database_url: RefCell::new(database_url.into()),
            client: tokio::sync::Mutex::default(),
            pubacks: Cell::new(0),
            asked: Cell::new(0),
            unanswered: Cell::new(0),
            early: Cell::new(0),
            nothing_commits: Cell::new(false),
        })
    }

    /// From now on this server is asked. A question that is under way is asked of the other one.
    pub(crate) fn ask_elsewhere(&self, database_url: &str) {
        self.database_url.replace(database_url.into());
    }

    /// Those of these items that are not settled.
    async fn look(&self, items: &[Lone]) -> Option<Vec<i64>> {
        let mut client = self.client.lock().await;
        let url = self.database_url.borrow().clone();
        if client.as_ref().is_none_or(|(asked, client)| *asked != url || client.is_closed()) {
            let connected = connect(&url).await.ok()?;
            *client = Some((url, connected));
        }
        let sensors: Vec<Uuid> = items.iter().map(|it| it.sensor).collect();
        let numbers: Vec<i64> = items.iter().map(|it| it.number.cast_signed()).collect();
        let made: Vec<f64> = items.iter().map(|it| it.made).collect();
        let unsettled =
            client.as_ref()?.1.query(UNSETTLED, &[&sensors, &numbers, &made]).await.ok()?;
        Some(unsettled.iter().map(|row| row.get(0)).collect())
    }
}

/// PUBACKs that are about to pass.
pub(crate) struct Question {
    watcher: Rc<Watcher>,
    items: Vec<Lone>,
}

impl Question {
    pub(crate) async fn ask(self) {
        let Self { watcher, items } = self;
        let count = match tokio::time::timeout(PATIENCE, watcher.look(&items)).await {
            Ok(Some(unsettled)) => {
                if !unsettled.is_empty() {
                    eprintln!("PUBACKs came before their COMMIT: {unsettled:?}");
                }
                watcher.early.set(watcher.early.get() + unsettled.len() as u64);
                &watcher.asked
            }
            Ok(None) | Err(_) => &watcher.unanswered,
        };
        count.set(count.get() + items.len() as u64);
    }
}

/// One connection.
pub(crate) struct Tap {
    watcher: Rc<Watcher>,
    down: Frames,
    up: Frames,
    /// By Packet Identifier, the oldest first. Brokers before mosquitto 2.0.13 use an identifier
    /// again while it waits for its PUBACK.
    delivered: HashMap<u16, VecDeque<Option<Lone>>>,
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
        let mut items = Vec::new();
        self.up.feed(bytes);
        while let Some((first, body)) = self.up.next() {
            if first >> 4 != PUBACK {
                continue;
            }
            self.watcher.pubacks.set(self.watcher.pubacks.get() + 1);
            if self.watcher.nothing_commits.get() {
                eprintln!("a PUBACK came while nothing could be committed");
                self.watcher.early.set(self.watcher.early.get() + 1);
            }
            let packet_id = u16::from_be_bytes([body[0], body[1]]);
            let known = self.delivered.get_mut(&packet_id).and_then(VecDeque::pop_front).flatten();
            // The last ones: those before them were committed with them or earlier.
            if items.len() == ASK_AT_ONCE {
                items.remove(0);
            }
            items.extend(known);
        }
        let watcher = Rc::clone(&self.watcher);
        (!items.is_empty()).then_some(Question { watcher, items })
    }

    /// Notes a PUBLISH.
    fn note(&mut self, body: &[u8]) {
        let topic_length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let (topic, rest) = body[2..].split_at(topic_length);
        let packet_id = u16::from_be_bytes([rest[0], rest[1]]);
        self.delivered.entry(packet_id).or_default().push_back(lone_measurement(topic, rest));
    }
}

/// A measurement that is alone in its message.
#[derive(Clone, Copy)]
struct Lone {
    sensor: Uuid,
    number: u64,
    /// Its timestamp. By it PostgreSQL finds the row in the index: a look that reads all rows of a
    /// sensor would hold up the PUBACKs ever longer.
    made: f64,
}

fn lone_measurement(topic: &[u8], rest: &[u8]) -> Option<Lone> {
    let (kind, sensor) = std::str::from_utf8(topic).ok()?.rsplit_once('/')?;
    if !kind.ends_with("measurements") {
        return None;
    }
    let sensor = sensor.parse().ok()?;
    // The properties' length is one byte here: there are hardly any.
    let payload = &rest[3 + usize::from(rest[2])..];
    let payload = payload.strip_prefix("\u{feff}".as_bytes()).unwrap_or(payload);
    let items = payload.strip_prefix(br#"{"measurements":"#).unwrap_or(payload);
    match (items.starts_with(br##"[{"mark":"#"##), &marks(payload)[..]) {
        (true, [number]) => Some(Lone { sensor, number: *number, made: timestamp(payload)? }),
        _ => None,
    }
}

fn timestamp(payload: &[u8]) -> Option<f64> {
    let (_, behind) = std::str::from_utf8(payload).ok()?.split_once(r#""timestamp":"#)?;
    behind.split([',', '}']).next()?.parse().ok()
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
