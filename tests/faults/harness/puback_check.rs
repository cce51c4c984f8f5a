//! Decodes the service's connection to the broker: when the service sends a PUBACK, its item must be in PostgreSQL. Called by
//! the proxy with all bytes. PostgreSQL is queried before the proxy forwards the PUBACK, for at most 32 PUBACKs per read;
//! PUBACKs that cannot be verified, because PostgreSQL is unavailable, are counted separately.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use tokio_postgres::Client;
use uuid::Uuid;

use super::messages::marks;
use crate::support::postgres::connect;

const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;

const MAX_VERIFICATIONS_PER_READ: usize = 32;

/// Longer than the query takes, shorter than the keep-alive.
const TIMEOUT: Duration = Duration::from_millis(800);

/// Items without a row or a rejection, whose sensor was not deleted.
const UNSETTLED: &str = "\
select it.number from unnest($1::uuid[], $2::bigint[], $3::float8[]) as it (sensor, number, timestamp)
where not exists (select from measurement
        where sensor_identifier = it.sensor and (value ->> 'n')::bigint = it.number
            and creation_timestamp between to_timestamp(it.timestamp) - interval '1 ms'
                and to_timestamp(it.timestamp) + interval '1 ms')
    and not exists (select from rejection
        where sensor_identifier = it.sensor
            and position(convert_to('#' || it.number || '#', 'UTF8') in raw) > 0)
    and not exists (select from deleted_sensor where identifier = it.sensor)";

/// The counts of verified PUBACKs.
pub(crate) struct PubackCheck {
    database_url: RefCell<String>,
    /// The connection and its URL.
    client: tokio::sync::Mutex<Option<(String, Client)>>,
    pub(crate) pubacks: Cell<u64>,
    pub(crate) verified: Cell<u64>,
    pub(crate) unverified: Cell<u64>,
    /// PUBACKs that were sent before their COMMIT.
    pub(crate) early: Cell<u64>,
    /// While true, nothing can be committed, so any PUBACK is early.
    pub(crate) nothing_commits: Cell<bool>,
}

impl PubackCheck {
    pub(crate) fn new(database_url: &str) -> Rc<Self> {
        Rc::new(Self {
            database_url: RefCell::new(database_url.into()),
            client: tokio::sync::Mutex::default(),
            pubacks: Cell::new(0),
            verified: Cell::new(0),
            unverified: Cell::new(0),
            early: Cell::new(0),
            nothing_commits: Cell::new(false),
        })
    }

    /// From now on, PUBACKs are verified at this server.
    pub(crate) fn verify_at(&self, database_url: &str) {
        self.database_url.replace(database_url.into());
    }

    /// The numbers of the items that are not settled.
    async fn unsettled(&self, items: &[SingleMeasurement]) -> Option<Vec<i64>> {
        let mut client = self.client.lock().await;
        let url = self.database_url.borrow().clone();
        if client.as_ref().is_none_or(|(verified, client)| *verified != url || client.is_closed()) {
            let connected = connect(&url).await.ok()?;
            *client = Some((url, connected));
        }
        let sensors: Vec<Uuid> = items.iter().map(|it| it.sensor).collect();
        let numbers: Vec<i64> = items.iter().map(|it| it.number.cast_signed()).collect();
        let timestamps: Vec<f64> = items.iter().map(|it| it.timestamp).collect();
        let unsettled =
            client.as_ref()?.1.query(UNSETTLED, &[&sensors, &numbers, &timestamps]).await.ok()?;
        Some(unsettled.iter().map(|row| row.get(0)).collect())
    }
}

/// PUBACKs to verify before they are forwarded.
pub(crate) struct Verification {
    puback_check: Rc<PubackCheck>,
    items: Vec<SingleMeasurement>,
}

impl Verification {
    pub(crate) async fn run(self) {
        let Self { puback_check, items } = self;
        let count = match tokio::time::timeout(TIMEOUT, puback_check.unsettled(&items)).await {
            Ok(Some(unsettled)) => {
                if !unsettled.is_empty() {
                    eprintln!("PUBACKs were sent before their COMMIT: {unsettled:?}");
                }
                puback_check.early.set(puback_check.early.get() + unsettled.len() as u64);
                &puback_check.verified
            }
            Ok(None) | Err(_) => &puback_check.unverified,
        };
        count.set(count.get() + items.len() as u64);
    }
}

/// The packets of one connection.
pub(crate) struct ConnectionTap {
    puback_check: Rc<PubackCheck>,
    down: Frames,
    up: Frames,
    /// By Packet Identifier, oldest first: mosquitto before 2.0.13 reuses an identifier before its PUBACK.
    delivered: HashMap<u16, VecDeque<Option<SingleMeasurement>>>,
}

impl ConnectionTap {
    pub(crate) fn new(puback_check: Rc<PubackCheck>) -> Self {
        Self {
            puback_check,
            down: Frames::default(),
            up: Frames::default(),
            delivered: HashMap::new(),
        }
    }

    /// Decodes bytes, and returns the PUBACKs to verify before the bytes are forwarded.
    pub(crate) fn observe(&mut self, bytes: &[u8], upwards: bool) -> Option<Verification> {
        if !upwards {
            self.down.feed(bytes);
            while let Some((first, body)) = self.down.next() {
                if first >> 4 == PUBLISH && first & 0b110 != 0 {
                    self.record_publish(&body);
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
            self.puback_check.pubacks.set(self.puback_check.pubacks.get() + 1);
            if self.puback_check.nothing_commits.get() {
                eprintln!("a PUBACK was sent while nothing could be committed");
                self.puback_check.early.set(self.puback_check.early.get() + 1);
            }
            let packet_id = u16::from_be_bytes([body[0], body[1]]);
            let known = self.delivered.get_mut(&packet_id).and_then(VecDeque::pop_front).flatten();
            // Only the last PUBACKs: earlier ones were committed with them or before.
            if known.is_some() && items.len() == MAX_VERIFICATIONS_PER_READ {
                items.remove(0);
            }
            items.extend(known);
        }
        let puback_check = Rc::clone(&self.puback_check);
        (!items.is_empty()).then_some(Verification { puback_check, items })
    }

    fn record_publish(&mut self, body: &[u8]) {
        let topic_length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let (topic, rest) = body[2..].split_at(topic_length);
        let packet_id = u16::from_be_bytes([rest[0], rest[1]]);
        self.delivered.entry(packet_id).or_default().push_back(single_measurement(topic, rest));
    }
}

/// A measurement that is the only item of its message.
#[derive(Clone, Copy)]
struct SingleMeasurement {
    sensor: Uuid,
    number: u64,
    /// Lets PostgreSQL find the row by index; reading all rows of the sensor would delay PUBACKs.
    timestamp: f64,
}

fn single_measurement(topic: &[u8], rest: &[u8]) -> Option<SingleMeasurement> {
    let (kind, sensor) = std::str::from_utf8(topic).ok()?.rsplit_once('/')?;
    if !kind.ends_with("measurements") {
        return None;
    }
    let sensor = sensor.parse().ok()?;
    // The property length fits into one byte here.
    let payload = &rest[3 + usize::from(rest[2])..];
    let payload = payload.strip_prefix("\u{feff}".as_bytes()).unwrap_or(payload);
    let items = payload.strip_prefix(br#"{"measurements":"#).unwrap_or(payload);
    match (items.starts_with(br##"[{"mark":"#"##), &marks(payload)[..]) {
        (true, [number]) => {
            Some(SingleMeasurement { sensor, number: *number, timestamp: timestamp(payload)? })
        }
        _ => None,
    }
}

fn timestamp(payload: &[u8]) -> Option<f64> {
    let (_, rest) = std::str::from_utf8(payload).ok()?.split_once(r#""timestamp":"#)?;
    rest.split([',', '}']).next()?.parse().ok()
}

/// Splits a stream into MQTT packets.
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
