//! The scenarios by name, and what each measures. Called by the run, in this order.

use std::fmt;
use std::time::Duration;

use super::aggregates::aggregates;
use super::compare::{fleet, redelivery};
use super::drain::{self, Backlog, drain};
use super::ground::Ground;
use super::live::{self, Live, Part};
use super::load::{SENSORS, Shape};
use super::overload::overload;
use super::publisher::Pace;
use super::reads::reads;
use super::report::Row;
use super::yardstick;

/// A scenario.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Scenario {
    /// A backlog of 300,000 messages of one measurement, against mosquitto_sub into nothing.
    #[value(name = "drain-1")]
    Drain1,
    /// A backlog of 10,000 messages of 100 measurements, against psql \copy of the same rows.
    #[value(name = "drain-100")]
    Drain100,
    /// 10,000 messages a second for 30 s, and then as many as the broker takes for 10 s.
    Live,
    /// drain-1 over 1,000, 10,000 and 100,000 sensors.
    Fleet,
    /// drain-100, twice as long, with 0, 1, 10 and 100 % of the messages sent twice.
    Redelivery,
    /// 90 % measurements, 5 % log messages, 5 % heartbeats; 1 % of the items are bad.
    Mixed,
    /// Three times what it can take for 30 s, and then silence.
    Overload,
    /// 200 requests a second while ingest runs as fast as it goes, and the same without them.
    Reads,
    /// Four weeks of one sensor among those of others, summed up by buckets from 1 s to 30 d.
    Aggregates,
}

impl fmt::Display for Scenario {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = clap::ValueEnum::to_possible_value(self).expect("none is skipped");
        formatter.write_str(value.get_name())
    }
}

impl Scenario {
    /// Those that were asked for, or all.
    pub(super) fn chosen(asked: &[Self]) -> Vec<Self> {
        let all = <Self as clap::ValueEnum>::value_variants();
        all.iter().copied().filter(|it| asked.is_empty() || asked.contains(it)).collect()
    }

    pub(super) async fn run(self, ground: &Ground) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Drain1 => drain_1(ground).await,
            Self::Drain100 => drain_100(ground).await,
            Self::Live => live(ground).await,
            Self::Fleet => fleet(ground).await,
            Self::Redelivery => redelivery(ground).await,
            Self::Mixed => mixed(ground).await,
            Self::Overload => overload(ground).await,
            Self::Reads => reads(ground).await,
            Self::Aggregates => aggregates(ground).await,
        }
    }
}

/// Live messages a second, and for how long.
const LIVE_RATE: u64 = 10_000;
const LIVE_LASTS: Duration = Duration::from_secs(30);

/// As fast as the broker takes it, for so long.
const FLAT_OUT_LASTS: Duration = Duration::from_secs(10);

/// No broker takes more than this meanwhile.
const FLAT_OUT_MESSAGES: u64 = 5_000_000;

async fn drain_1(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let backlog = Backlog::of_1(ground, SENSORS);
    let (mut runs, mut rounds) = (Vec::new(), Vec::new());
    for round in 1..=ground.rounds {
        let what = format!("drain-1, round {round}");
        let run = drain(ground, &backlog, &what).await?;
        if yardstick::has("mosquitto_sub") {
            let elapsed = drain::mosquitto_sub(ground, &backlog, &what).await?;
            let theirs = run.account.messages as f64 / elapsed.as_secs_f64();
            rounds.push((run.items_per_second(), theirs));
        }
        runs.push(run);
    }
    Ok(vec![held_against(Row::of_rounds("drain-1", &runs), "mosquitto_sub", rounds)])
}

async fn drain_100(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let backlog = Backlog::of_100(ground);
    let (mut runs, mut rounds) = (Vec::new(), Vec::new());
    for round in 1..=ground.rounds {
        let what = format!("drain-100, round {round}");
        let run = drain(ground, &backlog, &what).await?;
        if yardstick::has("psql") {
            let elapsed = drain::psql_copy(ground, &backlog, &what).await?;
            let theirs = run.account.items() as f64 / elapsed.as_secs_f64();
            rounds.push((run.items_per_second(), theirs));
        }
        runs.push(run);
    }
    Ok(vec![held_against(Row::of_rounds("drain-100", &runs), "psql \\copy", rounds)])
}

fn held_against(mut row: Row, name: &str, rounds: Vec<(f64, f64)>) -> Row {
    if rounds.is_empty() {
        row.notes.push(format!("{name} is not installed, so there is no yardstick"));
        return row;
    }
    row.against(name, rounds)
}

async fn live(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let mut live = Live::start(ground, SENSORS).await?;
    let lasts = ground.scaled_time(LIVE_LASTS);
    let steady = Part {
        what: "live, 10,000 messages a second",
        messages: LIVE_RATE * lasts.as_secs(),
        shape: Shape::Measurements(1),
        pace: Pace::Steady(LIVE_RATE as f64),
        lasts: None,
    };
    let steady = live.tell(&steady).await?.row("live-10000/s");
    let mut part = Part {
        what: "live, as fast as the broker takes it",
        messages: FLAT_OUT_MESSAGES,
        shape: Shape::Measurements(1),
        pace: Pace::FlatOut,
        lasts: Some(ground.scaled_time(FLAT_OUT_LASTS)),
    };
    let run = live.tell(&part).await?;
    live.stop().await?;

    let mut rounds = Vec::new();
    if yardstick::has("mosquitto_sub") {
        (part.messages, part.lasts) = (run.account.messages, None);
        let theirs = live::mosquitto_sub(ground, SENSORS, &part).await?;
        rounds.push((run.items_per_second(), theirs));
    }
    Ok(vec![steady, held_against(run.row("live-flat-out"), "mosquitto_sub", rounds)])
}

async fn mixed(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let backlog = Backlog { shape: Shape::Mixture, ..Backlog::of_1(ground, SENSORS) };
    Ok(vec![drain(ground, &backlog, "mixed").await?.row("mixed")])
}
