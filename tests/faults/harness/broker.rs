//! Faults of the broker, and of the way to it.

use rand::rngs::StdRng;
use tokio::time::Instant;

use super::proxy::Door;
use super::service::pause;
use super::world::World;
use crate::support::client::Client;
use crate::support::wait::{PATIENCE, eventually};

/// SIGKILL, with what it had saved a moment before. What it has acknowledged since is its loss, not the service's: the
/// fleet says that again, and it is not counted as lost.
pub(super) async fn killed(world: &World<'_>, rng: &mut StdRng) {
    let mut broker = world.broker.lock().await;
    let saved_after = Instant::now();
    broker.save().await;
    pause(rng, 1..800).await;
    broker.kill().await;
    world.fleet.doubt_since(saved_after);
    broker.start_again().await;
}

/// SIGTERM, which saves everything, and a new start.
pub(super) async fn restarted(world: &World<'_>) {
    let mut broker = world.broker.lock().await;
    broker.stop().await;
    broker.start_again().await;
}

/// The service's connections are closed, again and again.
pub(super) async fn closed(world: &World<'_>, rng: &mut StdRng) {
    for _ in 0..4 {
        world.to_broker.lock().await.cut();
        pause(rng, 50..900).await;
    }
}

/// The connections stay and nothing passes: the keep-alive has to find that out.
pub(super) async fn half_open(world: &World<'_>) {
    let to_broker = world.to_broker.lock().await;
    let before = to_broker.connection_count();
    to_broker.swallow();
    eventually(PATIENCE * 2, async || match to_broker.connection_count() {
        now if now > before => Ok(()),
        now => Err(now),
    })
    .await;
}

/// Nothing passes for a while, and then all of it.
pub(super) async fn stalled(world: &World<'_>) {
    let to_broker = world.to_broker.lock().await;
    to_broker.stall(true);
    tokio::time::sleep(world.scale.seconds(3.0, 20.0)).await;
    to_broker.stall(false);
}

/// The broker's process stands still, for the fleet as well.
pub(super) async fn frozen(world: &World<'_>) {
    let mut broker = world.broker.lock().await;
    broker.freeze().await;
    tokio::time::sleep(world.scale.seconds(3.0, 20.0)).await;
    broker.thaw().await;
}

/// The account is unknown for a while.
pub(super) async fn refuses_login(world: &World<'_>) {
    let to_broker = world.to_broker.lock().await;
    to_broker.set_door(Door::NotAuthorized);
    to_broker.cut();
    tokio::time::sleep(world.scale.seconds(3.0, 20.0)).await;
    to_broker.set_door(Door::Open);
}

/// The broker forgets the session, and with it what waits there; the service has to subscribe again, and to say so.
pub(super) async fn loses_session(world: &World<'_>) {
    let to_broker = world.to_broker.lock().await;
    to_broker.set_door(Door::Shut);
    to_broker.cut();
    let _broker = world.broker.lock().await;
    eventually(PATIENCE, async || {
        let clean_start = true;
        let usurper = Client::try_connect(&world.broker_url, &world.database.name, clean_start);
        usurper.await?.disconnect().await;
        Ok::<(), String>(())
    })
    .await;
    // All that it has acknowledged may have waited there: it has forgotten that.
    world.fleet.doubt_since(world.fleet.begun_at);
    let (said, life) = ("the broker has no session for our client id", world.lives.count.get());
    let before = world.lives.log().matches(said).count();
    to_broker.set_door(Door::Open);
    eventually(PATIENCE, async || {
        let told = world.lives.log().matches(said).count() > before;
        // A new process does not know of an earlier session.
        if told || world.lives.count.get() > life { Ok(()) } else { Err(()) }
    })
    .await;
}
