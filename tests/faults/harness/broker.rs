//! Faults of the broker and of the connections to it. Called by `fault`. Each fault is over when its function returns.

use rand::rngs::StdRng;
use tokio::time::Instant;

use super::proxy::Listener;
use super::run::Run;
use super::service::pause;
use crate::support::client::Client;
use crate::support::wait::{TIMEOUT, eventually};

/// SIGKILL shortly after a save. The broker loses what it has acknowledged since, so the publishers publish it again.
pub(super) async fn killed(run: &Run<'_>, rng: &mut StdRng) {
    let mut broker = run.broker.lock().await;
    let saved_after = Instant::now();
    broker.save().await;
    pause(rng, 1..800).await;
    broker.kill().await;
    run.fleet.resend_since(saved_after);
    broker.start_again().await;
}

/// SIGTERM, which saves everything, and a start.
pub(super) async fn restarted(run: &Run<'_>) {
    let mut broker = run.broker.lock().await;
    broker.stop().await;
    broker.start_again().await;
}

/// The service's connections are closed four times.
pub(super) async fn closed(run: &Run<'_>, rng: &mut StdRng) {
    for _ in 0..4 {
        run.to_broker.lock().await.close_all();
        pause(rng, 50..900).await;
    }
}

/// Connections stay open, but no data passes: the keep-alive must detect this.
pub(super) async fn half_open(run: &Run<'_>) {
    let to_broker = run.to_broker.lock().await;
    let before = to_broker.connection_count();
    to_broker.drop_bytes();
    eventually(TIMEOUT * 2, async || match to_broker.connection_count() {
        now if now > before => Ok(()),
        now => Err(now),
    })
    .await;
}

/// No data passes for a while.
pub(super) async fn stalled(run: &Run<'_>) {
    let to_broker = run.to_broker.lock().await;
    to_broker.stall(true);
    tokio::time::sleep(run.scale.seconds(3.0, 20.0)).await;
    to_broker.stall(false);
}

/// SIGSTOP and SIGCONT. The publishers are affected too.
pub(super) async fn frozen(run: &Run<'_>) {
    let mut broker = run.broker.lock().await;
    broker.freeze().await;
    tokio::time::sleep(run.scale.seconds(3.0, 20.0)).await;
    broker.thaw().await;
}

/// The login is refused for a while.
pub(super) async fn refuses_login(run: &Run<'_>) {
    let to_broker = run.to_broker.lock().await;
    to_broker.set_listener(Listener::NotAuthorized);
    to_broker.close_all();
    tokio::time::sleep(run.scale.seconds(3.0, 20.0)).await;
    to_broker.set_listener(Listener::Open);
}

/// The broker loses the session with its queue; the service must subscribe again and log a warning.
pub(super) async fn loses_session(run: &Run<'_>) {
    let to_broker = run.to_broker.lock().await;
    to_broker.set_listener(Listener::Closed);
    to_broker.close_all();
    let _broker = run.broker.lock().await;
    eventually(TIMEOUT, async || {
        let clean_start = true;
        let other = Client::try_connect(&run.broker_url, &run.database.name, clean_start);
        other.await?.disconnect().await;
        Ok::<(), String>(())
    })
    .await;
    // Any message that the broker has acknowledged may have been in the queue.
    run.fleet.resend_since(run.fleet.started_at);
    let (warning, process_run) =
        ("the broker has no session for our client id", run.process_runs.count.get());
    let log = run.process_runs.log();
    let before = log.matches(warning).count();
    // A process that has not been connected yet does not expect a session, and neither does a new one.
    let since_start = log.rsplit("tributary started").next().unwrap_or_default();
    let expects_session = since_start.contains("connected for ingest");
    to_broker.set_listener(Listener::Open);
    if !expects_session {
        return;
    }
    eventually(TIMEOUT, async || {
        let has_warned = run.process_runs.log().matches(warning).count() > before;
        if has_warned || run.process_runs.count.get() > process_run { Ok(()) } else { Err(()) }
    })
    .await;
}
