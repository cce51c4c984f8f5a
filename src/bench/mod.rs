//! `tributary bench`: how fast the service is, what it costs, and whether it keeps its promises
//! meanwhile, measured from outside on real servers, in turn with other people's clients that do
//! half of the work. docs/BENCHMARKS.md says what each scenario is and how to repeat it.
//!
//! `load` says what is published and `publisher` publishes it, `service` is the child under
//! measurement, `ground` and `process` read the meters, `yardstick` runs the others, `drain` and
//! its neighbours are the scenarios, `report` and those behind it are the results.

mod aggregates;
mod chart;
mod compare;
mod console;
mod drain;
mod ground;
mod line;
mod live;
mod load;
mod markdown;
mod overload;
mod payload;
mod probe;
mod process;
mod publisher;
mod reads;
mod report;
mod run;
mod scenario;
mod service;
mod table;
mod targets;
mod yardstick;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use self::console::Console;
use self::ground::Ground;
use self::report::Report;
use self::scenario::Scenario;
use crate::config::BenchServers;

/// The command line of `tributary bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Run this scenario only; may be given several times.
    #[arg(long = "scenario", value_name = "NAME", value_enum)]
    scenarios: Vec<Scenario>,
    /// Multiply the size of every load, and the time that it lasts, by this.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    scale: f64,
    /// So often is measured what has a yardstick, in turn with it.
    #[arg(long, value_name = "COUNT", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Write the results to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results to this file, as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Draw the results into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// What else to say of the broker in the results, such as its settings: it does not tell them.
    #[arg(long, value_name = "TEXT")]
    broker_settings: Option<String>,
    /// Show no progress.
    #[arg(long)]
    quiet: bool,
}

/// Runs the scenarios and writes the results; what it made on the servers is removed, also when it
/// is interrupted.
///
/// # Errors
/// When a server is away, a scenario cannot be brought to its end, or an item is not accounted for.
pub async fn run(
    options: &Options,
    servers: BenchServers,
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let Options { scale, rounds, quiet, .. } = *options;
    ensure!((0.001..=100.0).contains(&scale), "--scale takes a number from 0.001 to 100");
    let ground = Ground::open(servers, Console::new(quiet), (scale, rounds)).await?;
    let outcome = tokio::select! {
        outcome = measure(options, &ground) => outcome,
        () = interrupted => Err(anyhow::anyhow!("interrupted")),
    };
    let cleared = ground.clear().await.context("removing what was made on the servers");
    let report = outcome?;
    cleared?;
    report.write(options)
}

async fn measure(options: &Options, ground: &Ground) -> anyhow::Result<Report> {
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: process::machine(),
        scale: ground.scale,
        database_settings: ground.database_settings().await?,
        broker_settings: yardstick::broker_settings(ground, options.broker_settings.clone()).await,
        rows: Vec::new(),
    };
    for scenario in Scenario::chosen(&options.scenarios) {
        report.rows.extend(scenario.run(ground).await.with_context(|| scenario.to_string())?);
    }
    Ok(report)
}

impl Report {
    #[expect(clippy::print_stdout, reason = "the results are the command's output")]
    fn write(&self, options: &Options) -> anyhow::Result<()> {
        println!("{}", self.text());
        if let Some(path) = &options.json {
            let json = serde_json::to_vec_pretty(self)?;
            std::fs::write(path, json).with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &options.markdown {
            std::fs::write(path, self.markdown()).with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &options.svg {
            std::fs::write(path, self.svg()).with_context(|| path.display().to_string())?;
        }
        let wrong: Vec<&str> =
            self.rows.iter().filter(|row| !row.exact).map(|row| row.name.as_str()).collect();
        ensure!(wrong.is_empty(), "not every item is accounted for: {}", wrong.join(", "));
        Ok(())
    }
}
