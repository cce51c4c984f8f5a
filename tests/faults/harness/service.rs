//! Faults of the service itself.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::world::World;
use crate::support::ports::free_port;
use crate::support::service::Service;
use crate::support::wait::{PATIENCE, eventually};

/// Two processes with one client identifier have noticed each other after so long.
const QUARREL: Duration = Duration::from_secs(30);

pub(super) async fn pause(rng: &mut StdRng, milliseconds: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(milliseconds))).await;
}

/// SIGKILL, and SIGKILL again.
pub(super) async fn killed(world: &World<'_>, rng: &mut StdRng) {
    for _ in 0..3 {
        let life = world.lives.count.get();
        world.lives.kill();
        world.lives.reborn_after(life).await;
        pause(rng, 200..1_500).await;
    }
}

/// SIGKILL while it starts.
pub(super) async fn killed_at_start(world: &World<'_>, rng: &mut StdRng) {
    for _ in 0..6 {
        let life = world.lives.count.get();
        world.lives.kill();
        world.lives.reborn_after(life).await;
        pause(rng, 5..250).await;
    }
}

/// The PUBACKs of what is committed do not get through, and then it is killed: all of that comes again.
pub(super) async fn killed_before_puback(world: &World<'_>, rng: &mut StdRng) {
    let to_broker = world.to_broker.lock().await;
    for _ in 0..2 {
        to_broker.hold_back(true);
        pause(rng, 300..900).await;
        let life = world.lives.count.get();
        world.lives.kill();
        to_broker.cut();
        to_broker.hold_back(false);
        world.lives.reborn_after(life).await;
        pause(rng, 300..900).await;
    }
}

/// SIGTERM, and SIGKILL before it is through.
pub(super) async fn killed_in_drain(world: &World<'_>, rng: &mut StdRng) {
    for _ in 0..2 {
        let life = world.lives.count.get();
        world.lives.tell_to_stop();
        pause(rng, 1..40).await;
        world.lives.kill();
        world.lives.reborn_after(life).await;
        pause(rng, 300..1_000).await;
    }
}

/// SIGTERM under load: it ends with 0, within its grace time.
pub(super) async fn terminated(world: &World<'_>, rng: &mut StdRng) {
    for _ in 0..2 {
        world.lives.terminate(false).await;
        pause(rng, 300..1_000).await;
    }
}

/// A second process with the same client identifier, for a while: nothing is lost, and the session does not go to and
/// fro.
pub(super) async fn twins(world: &World<'_>) {
    let mut settings: Vec<(&str, &str)> = world
        .settings
        .iter()
        .filter(|(name, _)| name != "TRIBUTARY_FAULTS")
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let address = format!("127.0.0.1:{}", free_port());
    settings.push(("HTTP_ADDR", &address));
    let connections = |log: &str| log.matches("connected for ingest").count();
    let before = connections(&world.lives.log());
    let mut twin = {
        let broker = world.broker.lock().await;
        Service::start_unready(&world.database, &broker, &settings)
    };
    eventually(PATIENCE, async || {
        let log = twin.log();
        if connections(&log) > 0 { Ok(()) } else { Err(log) }
    })
    .await;
    let taken =
        |twin: &Service| connections(&world.lives.log()) - before + connections(&twin.log());
    // One of them notices the other, and then leaves the session to it for 15 s at least. Where another fault ends
    // the quarrel before, there is nothing to notice.
    let notices = |log: &str| log.contains("repeatedly closes the connection");
    let noticed = eventually(QUARREL * 2, async || {
        if notices(&world.lives.log()) || notices(&twin.log()) { Ok(()) } else { Err("nothing") }
    });
    drop(tokio::time::timeout(QUARREL, noticed).await);
    let noticed = taken(&twin);
    let calm = world.scale.seconds(6.0, 40.0);
    tokio::time::sleep(calm).await;
    let after = taken(&twin) - noticed;
    let only_life = world.lives.count.get() == 1;
    if only_life && after > 2 + 2 * usize::try_from(calm.as_secs() / 15).expect("it is short") {
        world.lives.complain(format!("the session went to and fro: {noticed} and {after} times"));
    }
    if twin.exit_status().is_none() {
        twin.kill();
    } else {
        world.lives.complain(format!("the second process ended: {}", twin.log()));
    }
}
