//! The fault harness as a program. Called by `scripts/faults`. It prints a table with one row per run, and exits with status 1
//! if an item was lost or stored twice, or another check failed.

#![expect(clippy::unwrap_used, reason = "a test stops at the first error")]

mod harness;
#[path = "../integration/support/mod.rs"]
#[expect(dead_code, reason = "only the integration tests use the other functions")]
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
    /// Seed of the first run; a seed determines the faults and their times
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seed: u64,
    /// Number of runs, each with the next seed
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Inject these faults together in each run; --list prints their names
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    fault: Vec<Fault>,
    /// Run several instances: two or three faults of instances in each run, sometimes with one other fault
    #[arg(long)]
    instances: bool,
    /// Let faults last as long as in production, instead of a few seconds
    #[arg(long)]
    long: bool,
    /// Append a line of JSON per run to this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Instead, run a soak test of this many minutes, with one fault per minute
    #[arg(long)]
    soak: Option<u64>,
    /// Write a chart of the soak test's memory use to this SVG file
    #[arg(long)]
    svg: Option<PathBuf>,
    /// List the faults
    #[arg(long)]
    list: bool,
}

fn fault(name: &str) -> Result<Fault, String> {
    Fault::named(name).ok_or_else(|| "unknown fault; --list prints the names".into())
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
            None => run_all(options).await,
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

async fn run_all(options: Options) -> ExitCode {
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
        plan.faults = Fault::supported(&plan.faults);
        let (test_bed, task_plan) = (Rc::clone(&test_bed), plan.clone());
        // A separate task, so that a panic in one run does not end the others.
        let outcome = actix_rt::spawn(async move { run(&task_plan, &test_bed).await }).await;
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
            Err(error) => {
                println!("| {seed:>5} | {:?}: {error}", plan.faults);
                failed.push(seed);
            }
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("Failed seeds: {failed:?}. scripts/faults --seed N repeats one of them.");
    ExitCode::FAILURE
}
