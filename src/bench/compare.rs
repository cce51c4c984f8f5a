//! Our own measurements held against one another: a backlog from more sensors, and one of which a
//! part was sent twice. Called by the scenarios. Each round measures all that is compared, in turn.

use super::drain::{Backlog, MESSAGES_OF_1, drain};
use super::ground::Ground;
use super::load::{Repetition, SENSORS};
use super::report::Row;
use super::run::Run;

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

/// The same backlog from ever more sensors.
pub(super) async fn fleet(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    const SIZES: [usize; 3] = [SENSORS, 10_000, 100_000];
    let backlogs = SIZES.map(|size| (format!("fleet-{size}"), Backlog::of_1(ground, size)));
    let measured = in_turn(ground, &backlogs, ground.rounds.min(OWN_ROUNDS)).await?;
    let memory = |runs: &[Run]| -> (f64, f64) {
        let mean = |which: fn(&Run) -> u64| {
            runs.iter().map(|run| which(run) as f64).sum::<f64>() / runs.len() as f64
        };
        (mean(|run| run.memory.peak), mean(|run| run.memory.resident))
    };
    let backlog_messages = ground.scaled(MESSAGES_OF_1);
    let (base_peak, base_resident) = memory(&measured[0].1);
    let mut rows = Vec::new();
    for (size, (mut row, runs)) in SIZES.into_iter().zip(measured) {
        if size > SENSORS {
            // At a small scale not every sensor has its turn.
            let heard = (backlog_messages as usize).min(size);
            let more = heard.saturating_sub(SENSORS).max(1) as f64;
            let (peak, resident) = memory(&runs);
            let at_its_peak = (peak - base_peak) / more;
            row.figures.insert("rss_bytes_per_sensor", at_its_peak);
            row.notes.push(format!(
                "RSS per sensor beyond the first {SENSORS}: {at_its_peak:.0} bytes at its peak, {:.0} bytes at the end",
                (resident - base_resident) / more,
            ));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// Twice as many as in drain-100. The messages that come while the sensors are looked up for the
/// first time are grouped by sensor then, and a copy among them meets its original in one batch.
const REDELIVERY_MESSAGES: u64 = 20_000;

/// A copy that follows so many messages later is mostly in another batch than its original.
const LAG_MESSAGES: u64 = 8_000;

/// The same backlog, with ever more of it sent twice.
pub(super) async fn redelivery(ground: &Ground) -> anyhow::Result<Vec<Row>> {
    let backlog = |percent: u32, lag| {
        let lag = if lag > 0 { ground.scaled(lag) } else { 0 };
        let name = match (percent, lag) {
            (0, _) | (_, 0) => format!("redelivery-{percent}%"),
            _ => format!("redelivery-{percent}%-later"),
        };
        let repetition = Repetition { share: f64::from(percent) / 100.0, lag };
        let messages = ground.scaled(REDELIVERY_MESSAGES);
        (name, Backlog { messages, repetition, ..Backlog::of_100(ground) })
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
