//! What the fleet publishes and when, and its sensors spread over connections. Made by the run from the options.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;

use super::invented::Invention;
use super::options::Options;
use super::sensor::{Configurations, Content, Sensor, Sensors};
use super::series::Series;
use crate::domain::SensorIdentifier;
use crate::load::{Limit, Pace, Plan, Publisher, Rate, Totals, share_of, whole_messages};
use crate::mqtt;
use crate::wire::Topics;

/// On each connection: enough to hide the broker's answer time at 100,000 messages/s, few enough to be sent
/// again after a reconnect.
const LIMIT: Limit = Limit { messages: 1_000, payload_bytes: 4 << 20 };
const TICK: Duration = Duration::from_millis(5);

pub(super) struct Fleet {
    content: Rc<Content>,
    /// Of one sensor.
    rate: Rate,
    /// Measurement and log messages in total.
    limit: Option<u64>,
    duration: Option<Duration>,
    sensor_count: usize,
}

impl Fleet {
    /// Reads the series, if there is one.
    pub(super) fn new(options: &Options) -> anyhow::Result<Self> {
        let (sensor_count, per_message) = (options.sensor_count(), options.items_per_message());
        let (content, rate, total) = match &options.replay {
            Some(file) => {
                let series = std::fs::read_to_string(file).map_err(anyhow::Error::from);
                let series = series
                    .and_then(|text| Series::parse(&text, options.time_column.as_deref()))
                    .with_context(|| format!("{} cannot be replayed", file.display()))?;
                let offsets = series.offsets(per_message);
                let rate = match options.speed {
                    None => Rate::Unlimited,
                    Some(speed) => Rate::Recorded { offsets, speed, messages: 1.0 },
                };
                let total = series.len().div_ceil(per_message) * sensor_count;
                (Content::Recorded { series, per_message }, rate, Some(total as u64))
            }
            None => {
                let invention = Invention {
                    per_message,
                    bad_share: options.bad,
                    log_share: options.log_messages,
                    // The measurements of a message are spread over the time since the one before.
                    spacing: Duration::from_secs_f64(1.0 / options.rate / per_message as f64),
                };
                (Content::Invented(invention), Rate::PerSecond(options.rate), None)
            }
        };
        let limit = total.into_iter().chain(options.messages).min();
        let (content, duration) = (Rc::new(content), options.duration());
        Ok(Self { content, rate, limit, duration, sensor_count })
    }

    /// How many messages to expect, for the progress bar.
    pub(super) fn message_count(&self) -> Option<u64> {
        let timed = match (&self.rate, self.duration) {
            (Rate::PerSecond(rate), Some(duration)) => {
                Some(whole_messages(duration, rate * self.sensor_count as f64))
            }
            _ => None,
        };
        timed.into_iter().chain(self.limit).min()
    }

    /// One publisher for each connection, with its part of the sensors.
    pub(super) fn publishers(
        &self,
        options: &Options,
        mqtt: &mqtt::Config,
        identifiers: &[SensorIdentifier],
        totals: &Rc<RefCell<Totals>>,
        configurations: &Rc<RefCell<Configurations>>,
    ) -> Vec<Publisher<Sensors>> {
        let topics = Topics::new(&mqtt.topic_prefix);
        let run = rand::random::<u32>();
        let count = options.connection_count();
        let bound = |index: usize| identifiers.len() * index / count;
        let publisher = |index: usize| {
            let (start, end) = (bound(index), bound(index + 1));
            let identifiers = &identifiers[start..end];
            let sensors = identifiers.iter().zip(start as u64..).map(|(identifier, number)| {
                Sensor::new(*identifier, &topics, (options.seed, number))
            });
            let source = Sensors::new(
                sensors.collect(),
                topics.clone(),
                Rc::clone(&self.content),
                Rc::clone(configurations),
            );
            let plan = Plan {
                mqtt: mqtt.clone(),
                client_id: format!("tributary-simulate-{run:08x}-{index}"),
                filters: identifiers.iter().map(|it| topics.configuration(*it)).collect(),
                pace: self.pace(start, end),
                limit: LIMIT,
                tick: TICK,
                reconnect: true,
                totals: Rc::clone(totals),
            };
            Publisher::new(source, plan)
        };
        (0..count).map(publisher).collect()
    }

    /// The pace of the sensors `start .. end`.
    fn pace(&self, start: usize, end: usize) -> Pace {
        let limit = self.limit.map(|total| share_of(total, start, end, self.sensor_count));
        Pace::new(self.rate.times((end - start) as f64), limit).skipping()
    }
}
