//! The scenarios by name, and what each measures. Called by the run, in this order.

use std::fmt;
use std::time::Duration;

use super::drain::{self, Backlog, drain};
use super::ground::Ground;
use super::live::{self, Live, Part};
use super::load::{Repetition, Shape};
use super::overload::overload;
use super::publisher::Pace;
use super::report::Row;
use super::run::Run;
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
    /// drain-100 with 0, 1, 10 and 100 % of the messages sent twice.
    Redelivery,
    /// 90 % measurements, 5 % log messages, 5 % heartbeats; 1 % of the items are bad.
    Mixed,
    /// Three times what it can take for 30 s, and then silence.
    Overload,
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
        }
    }
}

/// The backlog of messages of one measurement.
const DRAIN_1_MESSAGES: u64 = 300_000;

pub(super) fn backlog_of_1(ground: &Ground, sensors: usize) -> Backlog {
    Backlog {
        messages: ground.scaled(DRAIN_1_MESSAGES),
        sensors,
        shape: Shape::Measurements(1),
        repetition: Repetition::NONE,
    }
}

/// 10,000 messages of 100 measurements.
pub(super) fn backlog_of_100(ground: &Ground, repetition: Repetition) -> Backlog {
    Backlog {
        messages: ground.scaled(10_000),
        sensors: SENSORS,
        shape: Shape::Measurements(100),
        repetition,
    }
}

pub(super) const SENSORS: usize = 1_000;

/// Live messages a second, and for how long.
const LIVE_RATE: u64 = 10_000;
const LIVE_LASTS: Duration = Duration::from_secs(30);

/// As fast as the broker takes it, for so long.
const FLAT_OUT_LASTS: Duration = Duration::from_secs(10);

/// No broker takes more than this meanwhile.
const FLAT_OUT_MESSAGES: u64 = 5_000_000;

async fn drain_1(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let backlog = backlog_of_1(ground, SENSORS);
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
    let backlog = backlog_of_100(ground, Repetition::NONE);
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

/// Of a comparison between our own measurements no more rounds than this.
const OWN_ROUNDS: u32 = 2;

/// Measures several backlogs in turn, and holds the others against the first.
async fn in_turn(
    ground: &Ground,
    backlogs: &[(String, Backlog)],
    rounds: u32,
) -> anyhow::Result<Vec<(Row, Vec<Run>)>> {
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); backlogs.len()];
    for round in 1..=rounds {
        for ((name, backlog), runs) in backlogs.iter().zip(&mut runs) {
            let what = format!("{name}, round {round}");
            runs.push(drain(ground, backlog, &what).await?);
        }
    }
    let (first, base) = (&backlogs[0].0, runs[0].clone());
    let rows = backlogs.iter().zip(runs).enumerate().map(|(index, ((name, _), runs))| {
        let row = Row::of_rounds(name, &runs);
        if index == 0 {
            return (row, runs);
        }
        let rates = runs.iter().zip(&base);
        let pairs = rates.map(|(ours, base)| (ours.items_per_second(), base.items_per_second()));
        (row.against(first, pairs.collect()), runs)
    });
    Ok(rows.collect())
}

async fn fleet(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    const SIZES: [usize; 3] = [SENSORS, 10_000, 100_000];
    let backlogs = SIZES.map(|size| (format!("fleet-{size}"), backlog_of_1(ground, size)));
    let measured = in_turn(ground, &backlogs, ground.rounds.min(OWN_ROUNDS)).await?;
    let memory = |runs: &[Run]| -> (f64, f64) {
        let mean = |which: fn(&Run) -> u64| {
            runs.iter().map(|run| which(run) as f64).sum::<f64>() / runs.len() as f64
        };
        (mean(|run| run.memory.peak), mean(|run| run.memory.resident))
    };
    let backlog_messages = ground.scaled(DRAIN_1_MESSAGES);
    let (base_peak, base_resident) = memory(&measured[0].1);
    let mut rows = Vec::new();
    for (size, (mut row, runs)) in SIZES.into_iter().zip(measured) {
        if size > SENSORS {
            // At a small scale not every sensor has its turn.
            let heard = (backlog_messages as usize).min(size);
            let more = heard.saturating_sub(SENSORS).max(1) as f64;
            let (peak, resident) = memory(&runs);
            row.notes.push(format!(
                "RSS per sensor beyond the first {SENSORS}: {:.0} bytes at its peak, {:.0} bytes at the end",
                (peak - base_peak) / more,
                (resident - base_resident) / more,
            ));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// A copy that follows so many messages later is in another batch: they hold four of the largest.
const LAG_MESSAGES: u64 = 2_000;

async fn redelivery(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let backlog = |percent: u32, lag| {
        let lag = if lag > 0 { ground.scaled(lag) } else { 0 };
        let name = match (percent, lag) {
            (0, _) | (_, 0) => format!("redelivery-{percent}%"),
            _ => format!("redelivery-{percent}%-later"),
        };
        (name, backlog_of_100(ground, Repetition { share: f64::from(percent) / 100.0, lag }))
    };
    let often = [backlog(0, 0), backlog(1, 0), backlog(1, LAG_MESSAGES)];
    let once = [backlog(0, 0), backlog(10, 0), backlog(10, LAG_MESSAGES)];
    let all = [backlog(0, 0), backlog(100, 0), backlog(100, LAG_MESSAGES)];
    let mut rows = Vec::new();
    for (backlogs, rounds) in [(often, OWN_ROUNDS), (once, 1), (all, 1)] {
        let measured = in_turn(ground, &backlogs, ground.rounds.min(rounds)).await?;
        // The first is there already, but for the first time.
        let known = usize::from(!rows.is_empty());
        rows.extend(measured.into_iter().skip(known).map(|(row, _)| row));
    }
    Ok(rows)
}

async fn mixed(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let backlog = Backlog { shape: Shape::Mixture, ..backlog_of_1(ground, SENSORS) };
    Ok(vec![drain(ground, &backlog, "mixed").await?.row("mixed")])
}
