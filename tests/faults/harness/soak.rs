//! The soak test: a steady load with one fault per minute. Memory, file descriptors, connections and latency of the process
//! must not grow. Called by `scripts/faults --soak`. It reports samples of all four.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use serde::Serialize;
use tokio::time::Instant;

use super::fault::{Fault, Scale};
use super::run::Run;
use super::test_bed::TestBed;
use super::{UNTOUCHED, finish_and_settle};
use crate::support::client::Client;

/// Faults that neither stop the service nor make the broker lose messages.
const FAULTS: [Fault; 15] = [
    Fault::PostgresBackendKilled,
    Fault::PostgresTerminated,
    Fault::PostgresRestarted,
    Fault::PostgresRefused,
    Fault::PostgresLocked,
    Fault::PostgresUsedUp,
    Fault::PostgresReadOnly,
    Fault::PostgresDeadlock,
    Fault::PostgresSerialization,
    Fault::PostgresClosed,
    Fault::PostgresHalfOpen,
    Fault::BrokerRestarted,
    Fault::BrokerClosed,
    Fault::BrokerHalfOpen,
    Fault::BrokerStalled,
];

const SAMPLE_EVERY: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_secs(60);

/// One sample of the process.
#[derive(Clone, Copy, Debug, Serialize)]
struct Sample {
    second: f64,
    rss_bytes: u64,
    file_descriptors: u64,
    database_connections: i64,
    in_flight: u64,
}

/// The latency from PUBLISH to a readable row.
#[derive(Clone, Copy, Debug, Serialize)]
struct Probe {
    second: f64,
    milliseconds: f64,
}

/// The results of the soak test.
#[derive(Debug, Serialize)]
pub(crate) struct Soak {
    minutes: u64,
    messages_per_second: f64,
    published: u64,
    found: i64,
    lost: i64,
    doubled: i64,
    process_runs: u64,
    pubacks: u64,
    pubacks_verified: u64,
    pubacks_early: u64,
    faults: Vec<(f64, &'static str, f64)>,
    samples: Vec<Sample>,
    probes: Vec<Probe>,
    violations: Vec<String>,
}

const COMPARISON: &str = "
    with found (n) as (
        select (value ->> 'n')::bigint from measurement where value ? 'n'
        union all
        select trim(both '#' from subject)::bigint from log_message
        union all
        select revision - 1000000 from heartbeat where revision >= 1000000
        union all
        select (regexp_match(convert_from(raw, 'LATIN1'), '#([0-9]+)#'))[1]::bigint from rejection
    )
    select count(*), count(distinct n) from found";

/// Runs the soak test for this many minutes.
pub(crate) async fn soak(minutes: u64, seed: u64) -> Soak {
    let test_bed = TestBed::durable().await;
    let mut rng = StdRng::seed_from_u64(seed);
    let run = Run::build(&test_bed, &[], Scale::Soak, &mut rng).await;
    let started_at = Instant::now();
    let end = started_at + MINUTE * u32::try_from(minutes).expect("the minutes fit in a u32");
    let (mut samples, mut probes, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    tokio::join!(
        run.configure(StdRng::from_rng(&mut rng)),
        sample(&run, started_at, &mut samples),
        probe(&run, started_at, &mut probes),
        async {
            let mut order = FAULTS.to_vec();
            for minute in 0_u32.. {
                let index = minute as usize % order.len();
                if index == 0 {
                    order.shuffle(&mut rng);
                }
                let at = started_at + MINUTE * minute + Duration::from_secs(20);
                if at >= end {
                    break;
                }
                tokio::time::sleep_until(at).await;
                order[index].inject(&run, &mut rng).await;
                let lasted = at.elapsed().as_secs_f64();
                eprintln!(
                    "{:>4.0} s: {} ({lasted:.1} s)",
                    (at - started_at).as_secs_f64(),
                    order[index].name()
                );
                faults.push(((at - started_at).as_secs_f64(), order[index].name(), lasted));
            }
            tokio::time::sleep_until(end).await;
            run.configuring.set(false);
        }
    );
    let messages = run.fleet.shared.acknowledged.get();
    let client = finish_and_settle(&run).await;
    run.process_runs.terminate(true).await;
    drop(client.batch_execute("set work_mem = '512MB'").await);
    let row = client.query_one(COMPARISON, &[]).await.expect("PostgreSQL is available");
    let (count, distinct): (i64, i64) = (row.get(0), row.get(1));
    let published = run.numbers.get() - 1;
    Soak {
        minutes,
        messages_per_second: messages as f64 / (end - started_at).as_secs_f64(),
        published,
        found: distinct,
        lost: published.cast_signed() - distinct,
        doubled: count - distinct,
        process_runs: run.process_runs.count.get(),
        pubacks: run.puback_check.pubacks.get(),
        pubacks_verified: run.puback_check.verified.get(),
        pubacks_early: run.puback_check.early.get(),
        faults,
        samples,
        probes,
        violations: run.process_runs.violations.borrow().clone(),
    }
}

async fn sample(run: &Run<'_>, started_at: Instant, samples: &mut Vec<Sample>) {
    let mut client = run.client().await;
    while run.configuring.get() {
        let pid = run.process_runs.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let ours =
            "select count(*) from pg_stat_activity where application_name like 'tributary-%'";
        let connections = match client.query_one(ours, &[]).await {
            Ok(row) => row.get(0),
            Err(_) => {
                client = run.client().await;
                -1
            }
        };
        let in_flight = match run.process_runs.get("/api/v1/status").await {
            Ok((200, status)) => status["ledger"]["measurements"]["in_flight"].as_u64(),
            _ => None,
        };
        samples.push(Sample {
            second: started_at.elapsed().as_secs_f64(),
            rss_bytes: rss.unwrap_or(0) * 1024,
            file_descriptors: descriptors as u64,
            database_connections: connections,
            in_flight: in_flight.unwrap_or(0),
        });
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
}

/// One sensor publishes every second, and polls until the row is readable.
async fn probe(run: &Run<'_>, started_at: Instant, probes: &mut Vec<Probe>) {
    let sensor = run.sensors[UNTOUCHED];
    let topic = format!("{}/measurements/{sensor}", run.database.name);
    let find = "select exists (select from measurement
        where sensor_identifier = $1 and creation_timestamp = to_timestamp($2::float8))";
    let mut database = run.client().await;
    let mut publisher = None;
    let mut second = 1_600_000_000.0;
    while run.configuring.get() {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        let Some(client) = &publisher else {
            publisher = Client::try_connect(&run.broker_url, "probe", true).await.ok();
            continue;
        };
        second += 1.0;
        let payload = format!(
            r#"{{"measurements":[{{"revision":1000000,"timestamp":{second},"value":{{"probe":true}}}}]}}"#
        );
        let published_at = Instant::now();
        if client.publish(&topic, payload).await.is_err() {
            publisher = None;
            continue;
        }
        while run.configuring.get() {
            match database.query_one(find, &[&sensor, &second]).await {
                Ok(row) if row.get(0) => {
                    let milliseconds = published_at.elapsed().as_secs_f64() * 1e3;
                    probes.push(Probe {
                        second: (published_at - started_at).as_secs_f64(),
                        milliseconds,
                    });
                    break;
                }
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(_) => database = run.client().await,
            }
        }
    }
}

impl Soak {
    pub(crate) fn is_clean(&self) -> bool {
        self.lost == 0
            && self.doubled == 0
            && self.pubacks_early == 0
            && self.process_runs == 1
            && self.violations.is_empty()
    }

    /// A table with one row per five minutes.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{} minutes, {:.0} messages/s, {} items, lost {}, doubled {}, {} process runs, PUBACKs {} (verified {}, early {}) {:?}\n\n",
            self.minutes,
            self.messages_per_second,
            self.published,
            self.lost,
            self.doubled,
            self.process_runs,
            self.pubacks,
            self.pubacks_verified,
            self.pubacks_early,
            self.violations,
        );
        table += "| minutes | RSS, median | RSS, peak | file descriptors | connections | latency, median |\n\
                  | ---: | ---: | ---: | ---: | ---: | ---: |\n";
        for from in (0..self.minutes).step_by(5) {
            let within =
                |second: f64| second >= from as f64 * 60.0 && second < (from + 5) as f64 * 60.0;
            let samples: Vec<_> = self.samples.iter().filter(|it| within(it.second)).collect();
            let of =
                |value: fn(&Sample) -> f64| median(samples.iter().map(|it| value(it)).collect());
            let peak = samples.iter().map(|it| it.rss_bytes).max().unwrap_or(0);
            let latency = self.probes.iter().filter(|it| within(it.second));
            writeln!(
                table,
                "| {from} to {} | {:.0} MB | {:.0} MB | {:.0} | {:.0} | {:.0} ms |",
                from + 5,
                of(|it| it.rss_bytes as f64) / 1e6,
                peak as f64 / 1e6,
                of(|it| it.file_descriptors as f64),
                of(|it| it.database_connections as f64),
                median(latency.map(|it| it.milliseconds).collect()),
            )
            .expect("writing to a String succeeds");
        }
        table
    }

    /// Writes a chart of the RSS over time, with the faults.
    pub(crate) fn draw(&self, path: &Path) -> std::io::Result<()> {
        const WIDTH: f64 = 900.0;
        const HEIGHT: f64 = 260.0;
        let length = self.minutes as f64 * 60.0;
        let top = self.samples.iter().map(|it| it.rss_bytes).max().unwrap_or(1) as f64 * 1.15;
        let x = |second: f64| 60.0 + second / length * WIDTH;
        let y = |bytes: f64| 20.0 + HEIGHT * (1.0 - bytes / top);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            WIDTH + 80.0,
            HEIGHT + 60.0
        );
        let mut add = |line: String| svg += &(line + "\n");
        let step = [10.0, 20.0, 50.0, 100.0, 200.0]
            .into_iter()
            .find(|it| top / 1e6 / it < 8.0)
            .unwrap_or(500.0);
        for tick in 0..8 {
            let megabytes = f64::from(tick) * step;
            if megabytes * 1e6 < top {
                let at = y(megabytes * 1e6);
                add(format!(
                    "<line x1=\"60\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>",
                    WIDTH + 60.0
                ));
                add(format!(
                    "<text x=\"54\" y=\"{:.1}\" text-anchor=\"end\">{megabytes:.0}</text>",
                    at + 4.0
                ));
            }
        }
        for minute in (0..=self.minutes).step_by(5) {
            let at = x(minute as f64 * 60.0);
            add(format!(
                "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{minute} min</text>",
                HEIGHT + 38.0
            ));
        }
        for (second, name, lasted) in &self.faults {
            let (from, to) = (x(*second), x(second + lasted.max(2.0)));
            add(format!(
                "<rect x=\"{from:.1}\" y=\"20\" width=\"{:.1}\" height=\"{HEIGHT}\" fill=\"#f7c8b8\"><title>{name}</title></rect>",
                (to - from).max(1.5)
            ));
        }
        let points: Vec<String> = self
            .samples
            .iter()
            .map(|it| format!("{:.1},{:.1}", x(it.second), y(it.rss_bytes as f64)))
            .collect();
        add(format!(
            "<polyline fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.join(" ")
        ));
        add("<text x=\"60\" y=\"14\">RSS of the service, MB; a fault in each shaded span</text>"
            .into());
        svg += "</svg>\n";
        std::fs::write(path, svg)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
