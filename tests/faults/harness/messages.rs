//! The messages of the publishers: numbered items of every kind, valid and invalid, generated from a seed. Used by `fleet`.
//! The number of an item can be read from its row and from the raw bytes of its rejection.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

/// 2026-11-16. Its partition is created on demand.
const FIRST_SECOND: u64 = 1_794_787_200;
pub(crate) const WEEK_SECONDS: u64 = 7 * 86_400;

/// Heartbeats of the publishers report higher revisions than the harness configures.
pub(crate) const REVISION_OFFSET: u64 = 1_000_000;

/// Members that make an item invalid, but not the other items of its message.
const BAD_MEMBERS: [&str; 6] =
    [r#""nested":{}"#, r#""u":NaN"#, r#""u":-Infinity"#, r#""u":nan"#, r#""u":+1"#, "'u':1"];

/// The service under test rejects larger payloads.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 32 << 10;
pub(crate) const MAX_ITEMS: usize = 200;

/// How an item must be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    Row,
    Rejection,
    /// As a row, or deleted with its sensor.
    MaybeDeleted,
    /// As a row, or lost before it reaches the service: published at QoS 0.
    MaybeLost,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) number: u64,
    pub(crate) expected: Expected,
}

/// One PUBLISH.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) items: Vec<Item>,
    /// Published at QoS 0.
    pub(crate) at_most_once: bool,
}

impl Message {
    fn new(topic: String, payload: Vec<u8>, items: Vec<Item>) -> Self {
        Self { topic, payload, items, at_most_once: false }
    }
}

/// Which messages are generated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workload {
    pub(crate) garbage: bool,
    pub(crate) limits: bool,
    /// The first sensor publishes 90 % of the messages.
    pub(crate) hot: bool,
    /// Each message is published twice.
    pub(crate) twice: bool,
    /// `TIMESTAMP_MISSING=receipt`
    pub(crate) receipt_times: bool,
    /// Timestamps from 1970 to 2100.
    pub(crate) all_times: bool,
    /// The clocks of the sensors are this many weeks behind [`FIRST_SECOND`].
    pub(crate) weeks_behind: Cell<u64>,
    /// Sensors that are deleted or created while they publish.
    pub(crate) uncertain: Vec<(Uuid, Expected)>,
    /// Mostly single measurements.
    pub(crate) plain: bool,
    /// The number of unknown sensors that publish one message each.
    pub(crate) newcomers: usize,
}

/// The messages of one publisher.
pub(crate) struct MessageSource {
    rng: StdRng,
    prefix: String,
    sensors: Rc<Vec<Uuid>>,
    workload: Rc<Workload>,
    numbers: Rc<Cell<u64>>,
    newcomers: usize,
}

impl MessageSource {
    pub(crate) fn new(
        seed: u64,
        prefix: &str,
        (sensors, workload): (Rc<Vec<Uuid>>, Rc<Workload>),
        numbers: Rc<Cell<u64>>,
        publishers: usize,
    ) -> Self {
        let newcomers = workload.newcomers / publishers;
        let rng = StdRng::seed_from_u64(seed);
        Self { rng, prefix: prefix.into(), sensors, workload, numbers, newcomers }
    }

    /// Whether messages are due at once, besides the steady rate.
    pub(crate) fn has_burst(&self) -> bool {
        self.newcomers > 0
    }

    pub(crate) fn message(&mut self) -> Message {
        if self.newcomers > 0 {
            self.newcomers -= 1;
            let newcomer = Uuid::from_u128(self.rng.random());
            return self.measurements(newcomer, Expected::Row, 1);
        }
        let (sensor, valid) = self.sensor();
        let invalid_percent = if self.workload.garbage { 50 } else { 3 };
        if self.rng.random_range(0..100) < invalid_percent {
            return self.garbage(sensor, valid);
        }
        if self.workload.limits && self.rng.random_range(0..25) == 0 {
            return self.at_a_limit(sensor, valid);
        }
        if !self.workload.plain && self.rng.random_range(0..20) == 0 {
            let message = self.without_timestamp(sensor, valid);
            return self.add_stray_bytes(message);
        }
        let message = match if self.workload.plain { 2 } else { self.rng.random_range(0..10) } {
            0 => self.log_messages(sensor, valid),
            1 => self.heartbeats(sensor, valid),
            2..=6 => self.measurements(sensor, valid, 1),
            _ => {
                let count = self.rng.random_range(2..10);
                self.measurements(sensor, valid, count)
            }
        };
        self.add_stray_bytes(message)
    }

    fn sensor(&mut self) -> (Uuid, Expected) {
        if !self.workload.uncertain.is_empty() && self.rng.random_range(0..4) == 0 {
            let which = self.rng.random_range(0..self.workload.uncertain.len());
            return self.workload.uncertain[which];
        }
        if self.workload.hot && self.rng.random_range(0..10) > 0 {
            return (self.sensors[0], Expected::Row);
        }
        (self.sensors[self.rng.random_range(0..self.sensors.len())], Expected::Row)
    }

    fn number(&self) -> u64 {
        let number = self.numbers.get();
        self.numbers.set(number + 1);
        number
    }

    fn timestamp(&mut self, number: u64) -> String {
        let weeks = self.workload.weeks_behind.get();
        if self.workload.all_times && (weeks == 0 || self.rng.random_bool(0.5)) {
            // Up to the year 2100.
            let second = self.rng.random_range(0..4_102_444_800_u64);
            return format!("{second}.{:06}", number % 1_000_000);
        }
        let second = week_begin(weeks) + number / 1_000;
        format!("{second}.{:03}", number % 1_000)
    }

    fn measurements(&mut self, sensor: Uuid, valid: Expected, count: usize) -> Message {
        let mut items = Vec::with_capacity(count);
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let number = self.number();
            let bad = count > 1 && self.rng.random_range(0..20) == 0;
            let timestamp = self.timestamp(number);
            let degrees = f64::from(self.rng.random_range(-400..400)) / 10.0;
            let member = if bad { self.choose(&BAD_MEMBERS) } else { r#""sky":"clear""# };
            let revision = self.revision();
            texts.push(format!(
                r##"{{"mark":"#{number}#",{revision}"timestamp":{timestamp},"value":{{"n":{number},"t":{degrees},{member}}}}}"##
            ));
            items.push(Item { number, expected: if bad { rejected_if(valid) } else { valid } });
        }
        self.message_of("measurements", sensor, &texts, items)
    }

    fn log_messages(&mut self, sensor: Uuid, valid: Expected) -> Message {
        let number = self.number();
        let timestamp = self.timestamp(number);
        let bad = self.rng.random_range(0..20) == 0;
        let severity = if bad { "fatal" } else { "warning" };
        let revision = self.revision();
        let subject = match self.rng.random_range(0..4) {
            0 => format!(r##""message":"#{number}#\nand more""##),
            _ => format!(r##""subject":"#{number}#""##),
        };
        let text = format!(
            r##"{{"mark":"#{number}#","severity":"{severity}",{revision}"timestamp":{timestamp},{subject}}}"##
        );
        let expected = if bad { rejected_if(valid) } else { valid };
        self.message_of("log-messages", sensor, &[text], vec![Item { number, expected }])
    }

    fn heartbeats(&mut self, sensor: Uuid, valid: Expected) -> Message {
        let number = self.number();
        let timestamp = self.timestamp(number);
        let bad = self.rng.random_range(0..20) == 0;
        let success = if bad { "\"perhaps\"" } else { "true" };
        // Without a revision, the number can be read from the timestamp only.
        let revision = match !self.workload.all_times && self.rng.random_range(0..10) == 0 {
            true => self.no_revision().to_owned(),
            false => format!(r#""revision":{},"#, REVISION_OFFSET + number),
        };
        let text = format!(
            r##"{{"mark":"#{number}#",{revision}"timestamp":{timestamp},"success":{success}}}"##
        );
        let expected = if bad { rejected_if(valid) } else { valid };
        self.message_of("heartbeats", sensor, &[text], vec![Item { number, expected }])
    }

    /// Items without a timestamp: stored only at QoS 0, with `TIMESTAMP_MISSING=receipt`.
    fn without_timestamp(&mut self, sensor: Uuid, valid: Expected) -> Message {
        let at_most_once = self.workload.receipt_times && self.rng.random_bool(0.5);
        let expected = match valid {
            Expected::Row if at_most_once => Expected::MaybeLost,
            _ if at_most_once => valid,
            _ => rejected_if(valid),
        };
        let time = self.choose(&["", r#""timestamp":null,"#]);
        let kind = self.choose(&["measurements", "log-messages", "heartbeats"]);
        let (mut texts, mut items) = (Vec::new(), Vec::new());
        for _ in 0..self.rng.random_range(1..4) {
            let number = self.number();
            let members = match kind {
                "measurements" => format!(r#""value":{{"n":{number}}}"#),
                "log-messages" => format!(r##""severity":"info","subject":"#{number}#""##),
                _ => format!(r#""revision":{},"success":true"#, REVISION_OFFSET + number),
            };
            texts.push(format!(r##"{{"mark":"#{number}#",{time}{members}}}"##));
            items.push(Item { number, expected });
        }
        let message = self.message_of(kind, sensor, &texts, items);
        Message { at_most_once, ..message }
    }

    fn choose(&mut self, choices: &[&'static str]) -> &'static str {
        choices[self.rng.random_range(0..choices.len())]
    }

    /// One of the three forms of "no configuration".
    fn no_revision(&mut self) -> &'static str {
        self.choose(&[r#""revision":null,"#, r#""revision":-1,"#, ""])
    }

    fn revision(&mut self) -> &'static str {
        match self.rng.random_range(0..4) {
            0 => self.no_revision(),
            _ => r#""revision":1000000,"#,
        }
    }

    /// A message that is rejected as a whole.
    fn garbage(&mut self, sensor: Uuid, valid: Expected) -> Message {
        let number = self.number();
        let expected = rejected_if(valid);
        let topic = format!("{}/measurements/{sensor}", self.prefix);
        let (topic, payload) = match self.rng.random_range(0..6) {
            0 => (topic, format!("not json #{number}#").into_bytes()),
            1 => (topic, [b"\xff\xfe#", number.to_string().as_bytes(), b"#"].concat()),
            2 => (topic, format!(r##"{{"readings":["#{number}#"]}}"##).into_bytes()),
            3 => (topic, format!(r##"{{"measurements":[],"mark":"#{number}#"}}"##).into_bytes()),
            4 => (topic + "/roof", format!("#{number}#").into_bytes()),
            _ => {
                let not_an_identifier = format!("{}/measurements/kitchen", self.prefix);
                (not_an_identifier, format!("#{number}#").into_bytes())
            }
        };
        Message::new(topic, payload, vec![Item { number, expected }])
    }

    /// A payload of the maximum size or an array of the maximum length, or one byte or item more.
    fn at_a_limit(&mut self, sensor: Uuid, valid: Expected) -> Message {
        let exceeds = self.rng.random_bool(0.5);
        if self.rng.random_bool(0.5) {
            let mut message = self.measurements(sensor, valid, 1);
            let size = MAX_PAYLOAD_BYTES + usize::from(exceeds);
            message.payload.resize(size, b' ');
            if exceeds {
                message.items[0].expected = rejected_if(valid);
            }
            return message;
        }
        let count = MAX_ITEMS + usize::from(exceeds);
        let mut items = Vec::with_capacity(count);
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let number = self.number();
            let timestamp = self.timestamp(number);
            texts.push(format!(
                r##"{{"mark":"#{number}#","revision":1000000,"timestamp":{timestamp},"value":{{"n":{number}}}}}"##
            ));
            items.push(Item { number, expected: if exceeds { rejected_if(valid) } else { valid } });
        }
        self.message_of("measurements", sensor, &texts, items)
    }

    /// Some messages have the form of Hermes' sensors and the `tenta` package: an array without the object around it.
    fn message_of(
        &mut self,
        kind: &str,
        sensor: Uuid,
        texts: &[String],
        items: Vec<Item>,
    ) -> Message {
        let member = kind.replace('-', "_");
        let items_text = texts.join(",");
        let text = match self.rng.random_range(0..4) {
            0 => format!("[{items_text}]"),
            _ => format!(r#"{{"{member}":[{items_text}]}}"#),
        };
        let topic = match (kind, self.rng.random_range(0..4)) {
            ("log-messages", 0) => "logs",
            ("heartbeats", 0) => "acknowledgments",
            _ => kind,
        };
        Message::new(format!("{}/{topic}/{sensor}", self.prefix), text.into_bytes(), items)
    }

    /// Adds the NUL byte of firmware in C, or the byte order mark of programs for Windows, to some payloads.
    fn add_stray_bytes(&mut self, message: Message) -> Message {
        let payload = match self.rng.random_range(0..20) {
            0 => [&message.payload[..], b"\0"].concat(),
            1 => ["\u{feff}".as_bytes(), &message.payload[..]].concat(),
            _ => return message,
        };
        Message { payload, ..message }
    }
}

/// The first second of the week that is this many weeks before the first one.
pub(crate) const fn week_begin(weeks_behind: u64) -> u64 {
    FIRST_SECOND - weeks_behind * WEEK_SECONDS
}

/// How an invalid item must be stored if a valid one is stored like this.
fn rejected_if(valid: Expected) -> Expected {
    match valid {
        Expected::MaybeDeleted => Expected::MaybeDeleted,
        Expected::Row | Expected::Rejection | Expected::MaybeLost => Expected::Rejection,
    }
}

/// An item's number is its timestamp minus this one, in milliseconds, modulo the length of a week.
pub(crate) const FIRST_MILLISECOND: i64 = (FIRST_SECOND * 1_000).cast_signed();

/// The numbers between two `#`, in order.
pub(crate) fn marks(raw: &[u8]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    raw.split(|byte| *byte == b'#')
        .filter(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
        .filter_map(|part| std::str::from_utf8(part).ok()?.parse().ok())
        .filter(|number| seen.insert(*number))
        .collect()
}
