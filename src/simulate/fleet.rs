//! The fleet: its sensors on their lines. Assembled by the run once the sensors are registered; it
//! promises that all lines start together, and that the counts are complete when it returns.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::{join_all, try_join_all};
use tokio::sync::watch;
use tokio::time::Instant;

use super::connection::Connection;
use super::counts::Counts;
use super::line::{Cast, Line};
use super::options::Options;
use super::pace::{self, Beat, Pace};
use super::plan::Habit;
use super::replay::Series;
use super::sensor::{Programme, Sensor};
use super::span::Span;
use super::stop::Stop;
use crate::domain::SensorIdentifier;
use crate::mqtt;

/// Every sensor with a configuration sends a heartbeat once a minute.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(60);

/// What the fleet plays, and when.
#[derive(Debug)]
pub(super) struct Score {
    programme: Rc<Programme>,
    tempo: Tempo,
    /// Measurement and log messages in all; none goes on until the time is up.
    limit: Option<u64>,
    duration: Option<Duration>,
    sensor_count: usize,
}

#[derive(Debug)]
enum Tempo {
    /// Messages a second of each sensor.
    Steady(f64),
    AtOnce,
    Recorded {
        offsets: Rc<[Duration]>,
        speed: f64,
    },
}

impl Score {
    /// Reads the series, where there is one.
    pub(super) fn new(options: &Options) -> anyhow::Result<Self> {
        let sensor_count = options.sensor_count();
        let per_message = options.items_per_message();
        let (programme, tempo, whole) = if let Some(file) = &options.replay {
            let series = read_series(file, options.time_column.as_deref())
                .with_context(|| format!("{} cannot be replayed", file.display()))?;
            let tempo = match options.speed {
                None => Tempo::AtOnce,
                Some(speed) => Tempo::Recorded { offsets: series.offsets(per_message), speed },
            };
            let batches = series.len().div_ceil(per_message) as u64;
            let series = Rc::new(series);
            (
                Programme::Recorded { series, per_message },
                tempo,
                Some(batches * sensor_count as u64),
            )
        } else {
            let habit = Habit {
                per_message,
                bad_share: options.bad,
                log_share: options.log_messages,
                spacing_microseconds: spacing_microseconds(options.rate, per_message),
            };
            (Programme::Invented(habit), Tempo::Steady(options.rate), None)
        };
        Ok(Self {
            programme: Rc::new(programme),
            tempo,
            limit: [whole, options.messages].into_iter().flatten().min(),
            duration: options.publishing_time(),
            sensor_count,
        })
    }

    /// How many messages are to be expected, for the progress bar.
    pub(super) fn message_count(&self) -> Option<u64> {
        let timed = match (&self.tempo, self.duration) {
            (Tempo::Steady(rate), Some(duration)) => {
                Some(pace::count(duration, rate * self.sensor_count as f64))
            }
            _ => None,
        };
        [timed, self.limit].into_iter().flatten().min()
    }

    /// The pace of the sensors `start .. end`.
    fn pace(&self, start: usize, end: usize) -> Pace {
        let sensor_count = end - start;
        let beat = match &self.tempo {
            Tempo::Steady(rate) => Beat::Steady { per_second: rate * sensor_count as f64 },
            Tempo::AtOnce => Beat::AtOnce,
            Tempo::Recorded { offsets, speed } => Beat::Recorded {
                offsets: offsets.clone(),
                speed: *speed,
                sensor_count: sensor_count as u64,
            },
        };
        let limit = self.limit.map(|total| pace::part(total, start, end, self.sensor_count));
        Pace::new(beat, limit)
    }
}

fn read_series(file: &std::path::Path, time_column: Option<&str>) -> anyhow::Result<Series> {
    let text = std::fs::read_to_string(file)?;
    Ok(Series::parse(&text, time_column)?)
}

/// The measurements of a message are spread over the time since the one before.
#[expect(clippy::cast_possible_truncation, reason = "a rate of at least 1e-6 keeps it in range")]
fn spacing_microseconds(rate: f64, per_message: usize) -> i64 {
    (1e6 / rate / per_message as f64) as i64
}

/// Connected, subscribed, and silent.
#[derive(Debug)]
pub(super) struct Fleet {
    lines: Vec<(Line, Connection)>,
    duration: Option<Duration>,
}

impl Fleet {
    /// Puts the sensors on their lines and connects those.
    pub(super) async fn open(
        score: &Score,
        options: &Options,
        mqtt: &mqtt::Config,
        identifiers: &[SensorIdentifier],
        counts: &Rc<Counts>,
    ) -> anyhow::Result<Self> {
        let connection_count = options.connection_count();
        let run = rand::random::<u32>();
        let mut lines = Vec::with_capacity(connection_count);
        let mut start = 0;
        for index in 0..connection_count {
            let end = identifiers.len() * (index + 1) / connection_count;
            let sensors = (start..end)
                .map(|number| Sensor::new(identifiers[number], options.seed, number as u64))
                .collect::<Vec<_>>();
            let per_second = sensors.len() as f64 / HEARTBEAT_INTERVAL.as_secs_f64();
            lines.push(Line::new(Cast {
                mqtt: mqtt.clone(),
                client_id: format!("tributary-simulate-{run:08x}-{index}"),
                sensors,
                programme: score.programme.clone(),
                pace: score.pace(start, end),
                heartbeat_pace: Pace::new(Beat::Steady { per_second }, None),
                counts: counts.clone(),
            }));
            start = end;
        }
        let authority = mqtt.broker.authority();
        let connections = try_join_all(lines.iter().map(Line::open)).await.map_err(|broken| {
            anyhow::anyhow!("no connection to the broker at {authority}: {broken}")
        })?;
        Ok(Self { lines: lines.into_iter().zip(connections).collect(), duration: score.duration })
    }

    /// Speaks, until everything is said and acknowledged. How long that took.
    pub(super) async fn play(self, stop: watch::Receiver<Stop>) -> Duration {
        let started_at = Instant::now();
        let span = Span { started_at, duration: self.duration, stop };
        let lines = self.lines.into_iter().map(|(line, connection)| {
            let span = span.clone();
            actix_rt::spawn(line.play(connection, span))
        });
        for ended in join_all(lines).await {
            ended.expect("a line does not panic");
        }
        started_at.elapsed()
    }
}
