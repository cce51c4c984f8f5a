//! The fault harness as a program. Called by `scripts/faults`. Promises a table with a row per run, and exit status 1 if
//! something was lost, doubled or otherwise not as promised.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod harness;
#[path = "../integration/support/mod.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod support;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use clap::Parser;
use harness::fault::{Fault, Scale};
use harness::report::HEADER;
use harness::test_bed::TestBed;
use harness::{Plan, run};

/// Injects faults, and compares what the broker acknowledged with the tables
#[derive(Debug, Parser)]
struct Options {
    /// The first seed; a seed determines the faults and their times
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seed: u64,
    /// Number of runs, each with the next seed
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// These faults together; --list names them
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    fault: Vec<Fault>,
    /// Several instances: two or three of their faults in each run, sometimes with another one
    #[arg(long)]
    instances: bool,
    /// Faults last as long as in production, not a few seconds
    #[arg(long)]
    long: bool,
    /// Append a line of JSON per run to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Instead: a soak of this many minutes, with one fault per minute
    #[arg(long)]
    soak: Option<u64>,
    /// Draw the soak's memory to this SVG file
    #[arg(long)]
    svg: Option<PathBuf>,
    /// List the faults
    #[arg(long)]
    list: bool,
}

fn fault(name: &str) -> Result<Fault, String> {
    Fault::named(name).ok_or_else(|| "there is no such fault; --list names them".into())
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        for fault in Fault::ALL.iter().chain(Fault::OF_INSTANCES) {
            println!("{}", fault.name());
        }
        return ExitCode::SUCCESS;
    }
    actix_rt::System::new().block_on(async {
        match options.soak {
            Some(minutes) => soak(minutes, &options).await,
            None => play(options).await,
        }
    })
}

async fn soak(minutes: u64, options: &Options) -> ExitCode {
    let soaked = harness::soak::soak(minutes, options.seed).await;
    println!("{}", soaked.table());
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string(&soaked).unwrap()).unwrap();
    }
    if let Some(path) = &options.svg {
        soaked.draw(path).unwrap();
    }
    if soaked.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn play(options: Options) -> ExitCode {
    let test_bed = Rc::new(TestBed::prepare().await);
    let scale = if options.long { Scale::Long } else { Scale::Short };
    println!("{HEADER}");
    let mut failed = Vec::new();
    for seed in options.seed..options.seed + options.runs {
        let plan_of = if options.instances { Plan::of_instances } else { Plan::of };
        let mut plan = plan_of(seed, scale);
        if !options.fault.is_empty() {
            plan.faults.clone_from(&options.fault);
        }
        plan.faults = Fault::playable(&plan.faults);
        let (test_bed, played) = (Rc::clone(&test_bed), plan.clone());
        // A separate task, so that a panic in one run does not end the others.
        let outcome = actix_rt::spawn(async move { run(&played, &test_bed).await }).await;
        match outcome {
            Ok(report) => {
                println!("{}", report.line());
                if let Some(path) = &options.json {
                    let mut file =
                        std::fs::File::options().append(true).create(true).open(path).unwrap();
                    writeln!(file, "{}", serde_json::to_string(&report).unwrap()).unwrap();
                }
                if !report.is_clean() {
                    failed.push(seed);
                }
            }
            Err(surprise) => {
                println!("| {seed:>5} | {:?}: {surprise}", plan.faults);
                failed.push(seed);
            }
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("Not as promised: {failed:?}. scripts/faults --seed N plays one of them again.");
    ExitCode::FAILURE
}
