//! The scenarios by name, and what each measures. Called by the run, in this order.

use std::fmt;

use super::drain::{Backlog, drain, mosquitto_sub, psql_copy};
use super::ground::Ground;
use super::load::{Repetition, Shape};
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
        }
    }
}

/// 300,000 messages of one measurement.
pub(super) fn backlog_of_1(ground: &Ground, sensors: usize) -> Backlog {
    Backlog {
        messages: ground.scaled(300_000),
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

const SENSORS: usize = 1_000;

async fn drain_1(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let backlog = backlog_of_1(ground, SENSORS);
    let (mut runs, mut rounds) = (Vec::new(), Vec::new());
    for round in 1..=ground.rounds {
        let what = format!("drain-1, round {round}");
        let run = drain(ground, &backlog, &what).await?;
        if yardstick::has("mosquitto_sub") {
            let elapsed = mosquitto_sub(ground, &backlog, &what).await?;
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
            let elapsed = psql_copy(ground, &backlog, &what).await?;
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
