//! Faults of the service's process. Called by `fault`. Each fault is over when its function returns.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::run::Run;
use crate::support::ports::free_port;
use crate::support::service::Service;
use crate::support::wait::{TIMEOUT, eventually};

/// Two processes with the same client identifier detect each other within this time.
const CONTENTION: Duration = Duration::from_secs(30);

pub(super) async fn pause(rng: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(milliseconds))).await;
}

/// SIGKILL three times.
pub(super) async fn killed(run: &Run<'_>, rng: &mut StdRng) {
    for _ in 0..3 {
        let process_run = run.process_runs.count.get();
        run.process_runs.kill();
        run.process_runs.restarted_after(process_run).await;
        pause(rng, 200..1_500).await;
    }
}

/// SIGKILL six times, shortly after a start.
pub(super) async fn killed_at_start(run: &Run<'_>, rng: &mut StdRng) {
    for _ in 0..6 {
        let process_run = run.process_runs.count.get();
        run.process_runs.kill();
        run.process_runs.restarted_after(process_run).await;
        pause(rng, 5..250).await;
    }
}

/// The proxy holds PUBACKs of committed batches, then SIGKILL: the broker delivers them again.
pub(super) async fn killed_before_puback(run: &Run<'_>, rng: &mut StdRng) {
    let to_broker = run.to_broker.lock().await;
    for _ in 0..2 {
        to_broker.hold_upstream(true);
        pause(rng, 300..900).await;
        let process_run = run.process_runs.count.get();
        run.process_runs.kill();
        to_broker.close_all();
        to_broker.hold_upstream(false);
        run.process_runs.restarted_after(process_run).await;
        pause(rng, 300..900).await;
    }
}

/// SIGTERM, and SIGKILL before the process has exited.
pub(super) async fn killed_in_drain(run: &Run<'_>, rng: &mut StdRng) {
    for _ in 0..2 {
        let process_run = run.process_runs.count.get();
        run.process_runs.send_sigterm();
        pause(rng, 1..40).await;
        run.process_runs.kill();
        run.process_runs.restarted_after(process_run).await;
        pause(rng, 300..1_000).await;
    }
}

/// SIGTERM under load: exit status 0 within the grace period.
pub(super) async fn terminated(run: &Run<'_>, rng: &mut StdRng) {
    for _ in 0..2 {
        run.process_runs.terminate(false).await;
        pause(rng, 300..1_000).await;
    }
}

/// A second process with the same client identifier: nothing is lost, and the processes do not take over the session
/// continually.
pub(super) async fn twins(run: &Run<'_>) {
    let mut settings: Vec<(&str, &str)> = run
        .settings
        .iter()
        .filter(|(name, _)| name != "TRIBUTARY_FAULTS")
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let address = format!("127.0.0.1:{}", free_port());
    settings.push(("HTTP_ADDR", &address));
    let connections = |log: &str| log.matches("connected for ingest").count();
    let before = connections(&run.process_runs.log());
    let mut twin = {
        let broker = run.broker.lock().await;
        Service::start_unready(&run.database, &broker, &settings)
    };
    eventually(TIMEOUT, async || {
        let log = twin.log();
        if connections(&log) > 0 { Ok(()) } else { Err(log) }
    })
    .await;
    let takeovers =
        |twin: &Service| connections(&run.process_runs.log()) - before + connections(&twin.log());
    // One process detects the other, and does not reconnect for at least 15 s. Another fault may end the contention earlier.
    let detects = |log: &str| log.contains("repeatedly closes the connection");
    let detected = eventually(CONTENTION * 2, async || {
        if detects(&run.process_runs.log()) || detects(&twin.log()) {
            Ok(())
        } else {
            Err("no process has detected the other")
        }
    });
    drop(tokio::time::timeout(CONTENTION, detected).await);
    let before_calm = takeovers(&twin);
    let calm = run.scale.seconds(6.0, 40.0);
    tokio::time::sleep(calm).await;
    let after = takeovers(&twin) - before_calm;
    let is_first_run = run.process_runs.count.get() == 1;
    if is_first_run && after > 2 + 2 * usize::try_from(calm.as_secs() / 15).expect("at most 40 s") {
        run.process_runs.report_violation(format!(
            "too many takeovers of the session: {before_calm}, then {after}"
        ));
    }
    if twin.exit_status().is_none() {
        twin.kill();
    } else {
        run.process_runs.report_violation(format!("the second process exited: {}", twin.log()));
    }
}
