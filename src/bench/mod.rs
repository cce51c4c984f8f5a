//! `tributary bench`: how fast the service is, what it costs, and whether it keeps its promises meanwhile.
//! Measured from outside on real servers, in turn with baselines: other clients that do half of the work.
//! docs/BENCHMARKS.md says what each scenario is and how to repeat it.
//!
//! `load` defines what is published; `service` is the child process under measurement; `test_bed` and `meters`
//! set up and measure; `baseline` runs the baselines; `backlog`, `live` and those beside them are the scenarios; `report`
//! holds the results.

mod aggregates;
mod backlog;
mod baseline;
mod live;
mod load;
mod meters;
mod overload;
mod probe;
mod reads;
mod report;
mod service;
mod test_bed;

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use self::report::{Report, Row};
use self::test_bed::TestBed;
use crate::config::BenchServers;
use crate::store::EngineName;

/// The command line of `tributary bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Run only this scenario; may be given several times.
    #[arg(long = "scenario", value_name = "NAME", value_enum)]
    scenarios: Vec<Scenario>,
    /// Multiply the size and the duration of every load by this.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    scale: f64,
    /// Rounds per scenario; each alternates the service with its baseline.
    #[arg(long, value_name = "COUNT", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Write the results to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the results to this file, as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write the results to this file, as a chart in SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// What stores the rows; the server needs its extension.
    #[arg(long, value_enum, default_value_t)]
    engine: EngineName,
    /// Settings of the broker to mention in the results: brokers do not report theirs.
    #[arg(long, value_name = "TEXT")]
    broker_settings: Option<String>,
    /// Show no progress.
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Scenario {
    /// A backlog of 300,000 messages of one measurement, against mosquitto_sub to /dev/null.
    #[value(name = "drain-1")]
    Drain1,
    /// A backlog of 10,000 messages of 100 measurements, against psql \copy of the same rows.
    #[value(name = "drain-100")]
    Drain100,
    /// 10,000 messages per second for 30 s, then as many as the broker takes for 10 s.
    Live,
    /// drain-1 from 1,000, 10,000 and 100,000 sensors.
    Fleet,
    /// drain-100, twice as long, with 0, 1, 10 and 100 % of the messages sent twice.
    Redelivery,
    /// 90 % measurements, 5 % log messages, 5 % heartbeats; 1 % of the items are bad.
    Mixed,
    /// Three times what the service can store for 30 s, then silence.
    Overload,
    /// 200 requests per second while ingest runs as fast as possible, and the same without them.
    Reads,
    /// A backlog of 300,000 messages from 100,000 sensors, with and without the journal of the roll-up.
    Rollup,
    /// Aggregates over four weeks of one sensor among others, in buckets from 1 s to 30 d.
    Aggregates,
}

impl Scenario {
    async fn run(self, bed: &TestBed) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Drain1 => backlog::drain_1(bed).await,
            Self::Drain100 => backlog::drain_100(bed).await,
            Self::Live => live::live(bed).await,
            Self::Fleet => backlog::fleet(bed).await,
            Self::Redelivery => backlog::redelivery(bed).await,
            Self::Mixed => backlog::mixed(bed).await,
            Self::Overload => overload::overload(bed).await,
            Self::Reads => reads::reads(bed).await,
            Self::Rollup => backlog::rollup(bed).await,
            Self::Aggregates => aggregates::aggregates(bed).await,
        }
    }
}

/// Runs the scenarios and writes the results. What was created on the servers is removed, also after an
/// interruption.
///
/// # Errors
/// When a server is unavailable, a scenario cannot be completed, or an item is not accounted for.
pub async fn run(
    options: &Options,
    servers: BenchServers,
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    ensure!((0.001..=100.0).contains(&options.scale), "--scale takes a number from 0.001 to 100");
    let &Options { scale, rounds, quiet, engine, .. } = options;
    let bed = TestBed::open(servers, (scale, rounds, quiet, engine)).await?;
    let outcome = tokio::select! {
        outcome = measure(options, &bed) => outcome,
        () = interrupted => Err(anyhow::anyhow!("interrupted")),
    };
    let cleared = bed.clear().await.context("removing what was created on the servers");
    let report = outcome?;
    cleared?;
    write(&report, options)
}

async fn measure(options: &Options, bed: &TestBed) -> anyhow::Result<Report> {
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine: meters::machine(),
        scale: bed.scale,
        database_settings: bed.database_settings().await?,
        broker_settings: baseline::broker_settings(bed, options.broker_settings.clone()).await,
        rows: Vec::new(),
    };
    for scenario in <Scenario as clap::ValueEnum>::value_variants() {
        if options.scenarios.is_empty() || options.scenarios.contains(scenario) {
            let rows = scenario.run(bed).await.with_context(|| format!("{scenario:?}"))?;
            report.rows.extend(rows);
        }
    }
    Ok(report)
}

#[expect(clippy::print_stdout, reason = "the results are the command's output")]
fn write(report: &Report, options: &Options) -> anyhow::Result<()> {
    let markdown = report.markdown();
    println!("\n{markdown}");
    let files = [
        (&options.json, serde_json::to_string_pretty(report)?),
        (&options.markdown, markdown),
        (&options.svg, report.svg()),
    ];
    for (path, text) in files {
        if let Some(path) = path {
            std::fs::write(path, text).with_context(|| path.display().to_string())?;
        }
    }
    let inexact = report.rows.iter().filter(|row| !row.exact);
    let inexact: Vec<&str> = inexact.map(|row| row.name.as_str()).collect();
    ensure!(inexact.is_empty(), "not every item is accounted for: {}", inexact.join(", "));
    Ok(())
}
