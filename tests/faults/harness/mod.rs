//! The fault harness: publishers send numbered items at QoS 1, and a seed determines which faults are injected into real
//! servers and the real binary. When nothing is in flight any more, every acknowledged item must be in its table or in
//! `rejection`, exactly once. Called by the integration tests (a short version) and by `scripts/faults`.

mod broker;
mod compare;
pub(crate) mod fault;
mod fleet;
mod instances;
pub(crate) mod test_bed;
pub(crate) mod process_runs;
mod operators;
mod postgres;
mod proxy;
mod replication;
pub(crate) mod report;
mod messages;
mod sensors;
mod service;
pub(crate) mod soak;
mod puback_check;
mod run;

use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use fault::{Fault, Scale};
use report::Report;
use run::Run;
use test_bed::TestBed;

use crate::support::client::Client;
use crate::support::wait::eventually;

/// A process whose session was taken over waits up to 30 s before it reconnects; a debug build is slow.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(150);

/// The revision of the heartbeat that is published last.
const LAST_REVISION: i32 = 999_999;

/// The parameters of one run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Vec<Fault>,
    pub(crate) scale: Scale,
}

impl Plan {
    /// Each of the first seeds runs one fault alone; every other seed runs two to four at once.
    pub(crate) fn of(seed: u64, scale: Scale) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let singly = usize::try_from(seed - 1).ok().and_then(|index| Fault::ALL.get(index));
        let faults = match singly {
            Some(fault) => vec![*fault],
            None => {
                let count = rng.random_range(2..=4);
                Fault::ALL.sample(&mut rng, count).copied().collect()
            }
        };
        Self { seed, faults, scale }
    }

    /// For several instances: two or three of their faults, and in half of the runs one other fault.
    pub(crate) fn of_instances(seed: u64, scale: Scale) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = rng.random_range(2..=3);
        let mut faults: Vec<Fault> = Fault::OF_INSTANCES.sample(&mut rng, count).copied().collect();
        if rng.random_bool(0.5) {
            faults.extend(Fault::BESIDE_INSTANCES.sample(&mut rng, 1));
        }
        Self { seed, faults, scale }
    }
}

/// Executes a run.
pub(crate) async fn run(plan: &Plan, test_bed: &TestBed) -> Report {
    let mut rng = StdRng::seed_from_u64(plan.seed ^ 0x7472_6962_7574_6172);
    let started_at = Instant::now();
    let run = Run::build(test_bed, &plan.faults, plan.scale, &mut rng).await;
    let mut rngs: Vec<StdRng> =
        (0..=plan.faults.len()).map(|_| StdRng::from_rng(&mut rng)).collect();
    let configuring = run.configure(rngs.pop().expect("one generator more than there are faults"));
    let injecting = async {
        let faults = plan.faults.iter().zip(rngs).map(|(fault, mut rng)| {
            let run = &run;
            async move {
                service::pause(&mut rng, 500..2_000).await;
                fault.inject(run, &mut rng).await;
            }
        });
        join_all(faults).await;
        service::pause(&mut rng, 500..1_500).await;
        run.configuring.set(false);
    };
    tokio::join!(configuring, injecting);
    settle(plan, run, started_at).await
}

/// Waits until nothing is in flight, and compares the tables with what was published.
async fn settle(plan: &Plan, run: Run<'_>, started_at: Instant) -> Report {
    let Run { database, process_runs, accepted, puback_check, fleet, .. } = &run;
    let shared = std::rc::Rc::clone(&fleet.shared);
    let injected_for = started_at.elapsed();
    let published = fleet.finish().await;

    let client = wait_until_settled(&run).await;
    if let Some(companions) = &run.companions {
        companions.settle_and_stop(&run).await;
    }
    if plan.faults.contains(&Fault::InputCreated) {
        replay(&run).await;
    }
    let accepted = accepted.borrow().clone();
    process_runs.terminate(true).await;

    let lenient: &[&str] =
        if plan.faults.contains(&Fault::PanicInActor) { &["actor_failed"] } else { &[] };
    let comparison =
        compare::compare_rows(&client, &published, lenient).await.expect("PostgreSQL is available");
    let mut violations = process_runs.violations.borrow().clone();
    let log = process_runs.log();
    if log.contains("panicked at") && !plan.faults.iter().any(|it| it.panics().is_some()) {
        violations.push("the service panicked".into());
    }
    let report = Report {
        seed: plan.seed,
        faults: plan.faults.iter().map(|fault| fault.name().to_owned()).collect(),
        seconds: started_at.elapsed().as_secs_f64(),
        fault_seconds: injected_for.as_secs_f64(),
        messages: published.len() as u64,
        items: comparison.items,
        rows: comparison.rows,
        rejections: comparison.rejections,
        lost: comparison.lost.len() as u64,
        doubled: comparison.doubled.len() as u64,
        misplaced: comparison.misplaced.len() as u64,
        invented: comparison.invented.len() as u64,
        process_runs: process_runs.count.get(),
        ledger_reads: process_runs.ledger_reads.get(),
        pubacks: puback_check.pubacks.get(),
        pubacks_verified: puback_check.verified.get(),
        pubacks_unverified: puback_check.unverified.get(),
        pubacks_early: puback_check.early.get(),
        resent: shared.resent.get(),
        configurations: accepted.values().map(|revision| *revision as u64).sum(),
        violations,
    };
    if !report.is_clean() {
        eprintln!(
            "lost {:?}\ndoubled {:?}\nmisplaced {:?}\ninvented {:?}\n{}",
            first(&comparison.lost),
            first(&comparison.doubled),
            first(&comparison.misplaced),
            first(&comparison.invented),
            run.log_tail()
        );
    }
    drop(client);
    let shared_name = run.shares_server().then(|| database.name.clone());
    let test_bed = run.test_bed;
    drop(run);
    if let Some(name) = shared_name {
        test_bed.drop_database(&name).await;
    }
    report
}

/// Waits until every message is settled and every configured sensor has acknowledged its newest configuration.
async fn wait_until_settled(run: &Run<'_>) -> tokio_postgres::Client {
    let Run { database, broker_url, process_runs, sensors, accepted, .. } = run;
    let topic = format!("{}/heartbeats/{}", database.name, sensors[UNTOUCHED]);
    let last = format!(
        r#"{{"heartbeats":[{{"revision":{LAST_REVISION},"timestamp":1794787200,"success":true}}]}}"#
    );
    eventually(SETTLE_TIMEOUT, async || {
        let client = Client::try_connect(broker_url, "last-heartbeat", true).await?;
        match client.publish(&topic, last.clone()).await? {
            rumqttc::v5::mqttbytes::v5::PubAckReason::Success => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let client = run.client().await;
    eventually(SETTLE_TIMEOUT, async || {
        let count = "select count(*) from heartbeat where revision = $1";
        let count: i64 = match client.query_one(count, &[&LAST_REVISION]).await {
            Ok(row) => row.get(0),
            Err(error) => panic!("PostgreSQL must be available: {error}"),
        };
        if count > 0 { Ok(()) } else { Err("the last heartbeat is not stored") }
    })
    .await;
    eventually(SETTLE_TIMEOUT, async || {
        let (_, status) = process_runs.get("/api/v1/status").await?;
        let ledger = status["ledger"].as_object().ok_or("no ledger")?;
        let in_flight: u64 = ledger.values().filter_map(|it| it["in_flight"].as_u64()).sum();
        if in_flight == 0 { Ok(()) } else { Err(format!("{in_flight} in flight")) }
    })
    .await;
    let accepted = accepted.borrow().clone();
    sensors::acknowledge(run, &client, &accepted, SETTLE_TIMEOUT).await;
    client
}

/// Replays the items that were rejected before their sensor was created.
async fn replay(run: &Run<'_>) {
    let mut cursor = serde_json::Value::Null;
    loop {
        let mut request = serde_json::json!({
            "sensor": run.late_sensor, "reason": "unknown_sensor", "limit": 200
        });
        if !cursor.is_null() {
            request["cursor"] = cursor;
        }
        let answer = run
            .process_runs
            .request_until_success("POST", "/api/v1/rejections/replay", Some(&request))
            .await;
        cursor = answer["next"].clone();
        if cursor.is_null() {
            break;
        }
    }
}

/// Stops the publishers, and waits until nothing is in flight.
pub(super) async fn finish_and_settle(run: &Run<'_>) -> tokio_postgres::Client {
    run.fleet.finish().await;
    wait_until_settled(run).await
}

/// The index of a sensor that no fault and no configuration affects.
const UNTOUCHED: usize = run::CONFIGURED + 1;

fn first<T>(all: &[T]) -> &[T] {
    &all[..all.len().min(20)]
}
