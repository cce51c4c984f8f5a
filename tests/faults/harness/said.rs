//! What the fleet says: numbered items of every kind, good and bad, by a seed. Called by the publishers.
//! Promises that every item carries its number in whatever becomes of it: a row, or the raw bytes of a rejection.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

/// 2026-11-16: in the partitions that are made on demand.
const FIRST_SECOND: u64 = 1_794_787_200;
pub(crate) const WEEK_SECONDS: u64 = 7 * 86_400;

/// What a heartbeat of the fleet acknowledges lies beyond what the harness configures, so that none of them lags.
pub(crate) const REVISION_OFFSET: u64 = 1_000_000;

/// Members for which an item is refused, and its neighbours are not.
const BAD_MEMBERS: [&str; 6] =
    [r#""nested":{}"#, r#""u":NaN"#, r#""u":-Infinity"#, r#""u":nan"#, r#""u":+1"#, "'u':1"];

/// Larger payloads are refused by the service under test.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 32 << 10;
pub(crate) const MAX_ITEMS: usize = 200;

/// What has to become of an item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Row,
    Rejection,
    /// It may go with its sensor.
    MayGo,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) number: u64,
    pub(crate) fate: Fate,
}

/// One PUBLISH.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) items: Vec<Item>,
}

impl Message {
    fn new(topic: String, payload: Vec<u8>, items: Vec<Item>) -> Self {
        Self { topic, payload, items }
    }
}

/// How the fleet speaks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mix {
    pub(crate) garbage: bool,
    pub(crate) limits: bool,
    /// The first sensor has nine tenths of the traffic.
    pub(crate) hot: bool,
    pub(crate) twice: bool,
    /// From 1970 to 2100.
    pub(crate) all_times: bool,
    /// The clocks of the sensors are this many weeks behind [`FIRST_SECOND`].
    pub(crate) weeks_behind: Cell<u64>,
    /// Sensors that are deleted, or created, while they speak, and what may become of their items.
    pub(crate) uncertain: Vec<(Uuid, Fate)>,
    /// Hardly anything but single measurements.
    pub(crate) plain: bool,
    /// So many unknown ones speak once each.
    pub(crate) newcomers: usize,
}

/// One voice of the fleet.
pub(crate) struct Speech {
    rng: StdRng,
    prefix: String,
    sensors: Rc<Vec<Uuid>>,
    mix: Rc<Mix>,
    numbers: Rc<Cell<u64>>,
    newcomers: usize,
}

impl Speech {
    pub(crate) fn new(
        seed: u64,
        prefix: &str,
        (sensors, mix): (Rc<Vec<Uuid>>, Rc<Mix>),
        numbers: Rc<Cell<u64>>,
        voices: usize,
    ) -> Self {
        let newcomers = mix.newcomers / voices;
        let rng = StdRng::seed_from_u64(seed);
        Self { rng, prefix: prefix.into(), sensors, mix, numbers, newcomers }
    }

    /// Messages that are due beside the steady pace.
    pub(crate) fn is_in_a_hurry(&self) -> bool {
        self.newcomers > 0
    }

    pub(crate) fn message(&mut self) -> Message {
        if self.newcomers > 0 {
            self.newcomers -= 1;
            let newcomer = Uuid::from_u128(self.rng.random());
            return self.measurements(newcomer, Fate::Row, 1);
        }
        let (sensor, good) = self.sensor();
        let odd = if self.mix.garbage { 50 } else { 3 };
        if self.rng.random_range(0..100) < odd {
            return self.garbage(sensor, good);
        }
        if self.mix.limits && self.rng.random_range(0..25) == 0 {
            return self.at_a_limit(sensor, good);
        }
        let message = match if self.mix.plain { 2 } else { self.rng.random_range(0..10) } {
            0 => self.log_messages(sensor, good),
            1 => self.heartbeats(sensor, good),
            2..=6 => self.measurements(sensor, good, 1),
            _ => {
                let count = self.rng.random_range(2..10);
                self.measurements(sensor, good, count)
            }
        };
        self.surround(message)
    }

    fn sensor(&mut self) -> (Uuid, Fate) {
        if !self.mix.uncertain.is_empty() && self.rng.random_range(0..4) == 0 {
            let which = self.rng.random_range(0..self.mix.uncertain.len());
            return self.mix.uncertain[which];
        }
        if self.mix.hot && self.rng.random_range(0..10) > 0 {
            return (self.sensors[0], Fate::Row);
        }
        (self.sensors[self.rng.random_range(0..self.sensors.len())], Fate::Row)
    }

    fn number(&self) -> u64 {
        let number = self.numbers.get();
        self.numbers.set(number + 1);
        number
    }

    fn timestamp(&mut self, number: u64) -> String {
        let weeks = self.mix.weeks_behind.get();
        if self.mix.all_times && (weeks == 0 || self.rng.random_bool(0.5)) {
            // To the year 2100.
            let second = self.rng.random_range(0..4_102_444_800_u64);
            return format!("{second}.{:06}", number % 1_000_000);
        }
        let second = week_begin(weeks) + number / 1_000;
        format!("{second}.{:03}", number % 1_000)
    }

    fn measurements(&mut self, sensor: Uuid, good: Fate, count: usize) -> Message {
        let mut items = Vec::with_capacity(count);
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let number = self.number();
            let bad = count > 1 && self.rng.random_range(0..20) == 0;
            let at = self.timestamp(number);
            let degrees = f64::from(self.rng.random_range(-400..400)) / 10.0;
            let member = if bad { self.any(&BAD_MEMBERS) } else { r#""sky":"clear""# };
            let revision = self.revision();
            texts.push(format!(
                r##"{{"mark":"#{number}#",{revision}"timestamp":{at},"value":{{"n":{number},"t":{degrees},{member}}}}}"##
            ));
            items.push(Item { number, fate: if bad { spoilt(good) } else { good } });
        }
        self.message_of("measurements", sensor, &texts, items)
    }

    fn log_messages(&mut self, sensor: Uuid, good: Fate) -> Message {
        let number = self.number();
        let at = self.timestamp(number);
        let bad = self.rng.random_range(0..20) == 0;
        let severity = if bad { "fatal" } else { "warning" };
        let revision = self.revision();
        let subject = match self.rng.random_range(0..4) {
            0 => format!(r##""message":"#{number}#\nand more""##),
            _ => format!(r##""subject":"#{number}#""##),
        };
        let text = format!(
            r##"{{"mark":"#{number}#","severity":"{severity}",{revision}"timestamp":{at},{subject}}}"##
        );
        let fate = if bad { spoilt(good) } else { good };
        self.message_of("log-messages", sensor, &[text], vec![Item { number, fate }])
    }

    fn heartbeats(&mut self, sensor: Uuid, good: Fate) -> Message {
        let number = self.number();
        let at = self.timestamp(number);
        let bad = self.rng.random_range(0..20) == 0;
        let success = if bad { "\"perhaps\"" } else { "true" };
        // Without a revision its number is known by its timestamp alone.
        let revision = match !self.mix.all_times && self.rng.random_range(0..10) == 0 {
            true => self.no_revision().to_owned(),
            false => format!(r#""revision":{},"#, REVISION_OFFSET + number),
        };
        let text =
            format!(r##"{{"mark":"#{number}#",{revision}"timestamp":{at},"success":{success}}}"##);
        let fate = if bad { spoilt(good) } else { good };
        self.message_of("heartbeats", sensor, &[text], vec![Item { number, fate }])
    }

    fn any(&mut self, choices: &[&'static str]) -> &'static str {
        choices[self.rng.random_range(0..choices.len())]
    }

    /// A sensor without a configuration says so in one of three ways.
    fn no_revision(&mut self) -> &'static str {
        self.any(&[r#""revision":null,"#, r#""revision":-1,"#, ""])
    }

    fn revision(&mut self) -> &'static str {
        match self.rng.random_range(0..4) {
            0 => self.no_revision(),
            _ => r#""revision":1000000,"#,
        }
    }

    /// What is refused as a whole.
    fn garbage(&mut self, sensor: Uuid, good: Fate) -> Message {
        let number = self.number();
        let fate = spoilt(good);
        let topic = format!("{}/measurements/{sensor}", self.prefix);
        let (topic, payload) = match self.rng.random_range(0..6) {
            0 => (topic, format!("not json #{number}#").into_bytes()),
            1 => (topic, [b"\xff\xfe#", number.to_string().as_bytes(), b"#"].concat()),
            2 => (topic, format!(r##"{{"readings":["#{number}#"]}}"##).into_bytes()),
            3 => (topic, format!(r##"{{"measurements":[],"mark":"#{number}#"}}"##).into_bytes()),
            4 => (topic + "/roof", format!("#{number}#").into_bytes()),
            _ => {
                let nobody = format!("{}/measurements/kitchen", self.prefix);
                (nobody, format!("#{number}#").into_bytes())
            }
        };
        Message::new(topic, payload, vec![Item { number, fate }])
    }

    /// A payload of just the size that is taken, or one byte more; as many items as are taken, or one more.
    fn at_a_limit(&mut self, sensor: Uuid, good: Fate) -> Message {
        let beyond = self.rng.random_bool(0.5);
        if self.rng.random_bool(0.5) {
            let mut message = self.measurements(sensor, good, 1);
            let size = MAX_PAYLOAD_BYTES + usize::from(beyond);
            message.payload.resize(size, b' ');
            if beyond {
                message.items[0].fate = spoilt(good);
            }
            return message;
        }
        let count = MAX_ITEMS + usize::from(beyond);
        let mut items = Vec::with_capacity(count);
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let number = self.number();
            let at = self.timestamp(number);
            texts.push(format!(
                r##"{{"mark":"#{number}#","revision":1000000,"timestamp":{at},"value":{{"n":{number}}}}}"##
            ));
            items.push(Item { number, fate: if beyond { spoilt(good) } else { good } });
        }
        self.message_of("measurements", sensor, &texts, items)
    }

    /// Now and then as Hermes' sensors and the `tenta` package send it: an array without the object around it.
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

    /// Now and then bytes come along that firmware in C, or a program for Windows, sends.
    fn surround(&mut self, message: Message) -> Message {
        let Message { topic, payload, items } = message;
        let payload = match self.rng.random_range(0..20) {
            0 => [&payload[..], b"\0"].concat(),
            1 => ["\u{feff}".as_bytes(), &payload[..]].concat(),
            _ => payload,
        };
        Message::new(topic, payload, items)
    }
}

/// The first second of the week that is this many before the first one.
pub(crate) const fn week_begin(weeks_behind: u64) -> u64 {
    FIRST_SECOND - weeks_behind * WEEK_SECONDS
}

/// What becomes of a bad item where a good one becomes this.
fn spoilt(good: Fate) -> Fate {
    match good {
        Fate::MayGo => Fate::MayGo,
        Fate::Row | Fate::Rejection => Fate::Rejection,
    }
}

/// An item's number is its timestamp less this one, in milliseconds, whatever its week.
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
