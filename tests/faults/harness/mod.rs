//! The fault harness: publishers send numbered items at QoS 1 and keep what the broker acknowledged, a seeded schedule of
//! faults is played on real servers and the real binary, everything comes to rest, and then every item has to be in its
//! table or in `rejection`, exactly once. Called by the integration tests, in short, and by `scripts/faults`.

mod broker;
mod compare;
pub(crate) mod fault;
mod fleet;
pub(crate) mod ground;
pub(crate) mod lives;
mod operators;
mod postgres;
mod proxy;
mod replication;
pub(crate) mod report;
mod said;
mod sensors;
mod service;
pub(crate) mod soak;
mod watcher;
mod world;

use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use fault::{Fault, Scale};
use ground::Ground;
use report::Report;
use world::World;

use crate::support::client::Client;
use crate::support::wait::eventually;

/// A process that was told that its session is taken waits 30 s at the most; and a debug build is slow.
const REST: Duration = Duration::from_secs(150);

/// The revision of the heartbeat that is said after everything else.
const LAST_REVISION: i32 = 999_999;

/// What is played.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Vec<Fault>,
    pub(crate) scale: Scale,
}

impl Plan {
    /// The first seeds play each fault by itself, the others two to four of them at once.
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
}

/// Plays it.
pub(crate) async fn run(plan: &Plan, ground: &Ground) -> Report {
    let mut rng = StdRng::seed_from_u64(plan.seed ^ 0x7472_6962_7574_6172);
    let begun = Instant::now();
    let world = World::build(ground, &plan.faults, plan.scale, &mut rng).await;
    let mut rngs: Vec<StdRng> =
        (0..=plan.faults.len()).map(|_| StdRng::from_rng(&mut rng)).collect();
    let configuring = world.configure(rngs.pop().expect("there is one more"));
    let playing = async {
        let faults = plan.faults.iter().zip(rngs).map(|(fault, mut rng)| {
            let world = &world;
            async move {
                service::pause(&mut rng, 500..2_000).await;
                fault.play(world, &mut rng).await;
            }
        });
        join_all(faults).await;
        service::pause(&mut rng, 500..1_500).await;
        world.configuring.set(false);
    };
    tokio::join!(configuring, playing);
    settle(plan, world, begun).await
}

/// Everything comes to rest, and is compared.
async fn settle(plan: &Plan, world: World<'_>, begun: Instant) -> Report {
    let World { database, lives, promised, watcher, fleet, .. } = &world;
    let shared = std::rc::Rc::clone(&fleet.shared);
    let played = begun.elapsed();
    let said = fleet.finish().await;

    lives.order_no_more_panics();
    let client = rest(&world).await;
    if plan.faults.contains(&Fault::InputCreated) {
        replay(&world).await;
    }
    let promised = promised.borrow().clone();
    lives.terminate(true).await;

    let lenient: &[&str] =
        if plan.faults.contains(&Fault::PanicInActor) { &["actor_failed"] } else { &[] };
    let reckoning = compare::reckon(&client, &said, lenient).await.expect("PostgreSQL is at rest");
    let mut complaints = lives.complaints.borrow().clone();
    let log = lives.log();
    if log.contains("panicked at") && !plan.faults.iter().any(|it| it.panics().is_some()) {
        complaints.push("it panicked".into());
    }
    let report = Report {
        seed: plan.seed,
        faults: plan.faults.iter().map(|fault| fault.name().to_owned()).collect(),
        seconds: begun.elapsed().as_secs_f64(),
        played_seconds: played.as_secs_f64(),
        messages: said.len() as u64,
        items: reckoning.items,
        rows: reckoning.rows,
        rejections: reckoning.rejections,
        lost: reckoning.lost.len() as u64,
        doubled: reckoning.doubled.len() as u64,
        misplaced: reckoning.misplaced.len() as u64,
        invented: reckoning.invented.len() as u64,
        lives: lives.count.get(),
        looks: lives.looks.get(),
        pubacks: watcher.pubacks.get(),
        pubacks_asked: watcher.asked.get(),
        pubacks_unanswered: watcher.unanswered.get(),
        pubacks_early: watcher.early.get(),
        said_again: shared.doubted.get(),
        configurations: promised.values().map(|revision| *revision as u64).sum(),
        complaints,
    };
    if !report.is_clean() {
        eprintln!(
            "lost {:?}\ndoubled {:?}\nmisplaced {:?}\n{}",
            first(&reckoning.lost),
            first(&reckoning.doubled),
            first(&reckoning.misplaced),
            world.last_words()
        );
    }
    drop(client);
    let shared_name = world.shares_server().then(|| database.name.clone());
    let ground = world.ground;
    drop(world);
    if let Some(name) = shared_name {
        ground.drop_database(&name).await;
    }
    report
}

/// Waits until all that was said has come, is settled, and every sensor has its newest configuration.
async fn rest(world: &World<'_>) -> tokio_postgres::Client {
    let World { database, broker_url, lives, sensors, promised, .. } = world;
    let topic = format!("{}/heartbeats/{}", database.name, sensors[CALM]);
    let last = format!(
        r#"{{"heartbeats":[{{"revision":{LAST_REVISION},"timestamp":1794787200,"success":true}}]}}"#
    );
    eventually(REST, async || {
        let client = Client::try_connect(broker_url, "last-word", true).await?;
        match client.publish(&topic, last.clone()).await? {
            rumqttc::v5::mqttbytes::v5::PubAckReason::Success => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let client = world.client().await;
    eventually(REST, async || {
        let heard = "select count(*) from heartbeat where revision = $1";
        let count: i64 = match client.query_one(heard, &[&LAST_REVISION]).await {
            Ok(row) => row.get(0),
            Err(error) => panic!("PostgreSQL is to be at rest: {error}"),
        };
        if count > 0 { Ok(()) } else { Err("the last word has not come") }
    })
    .await;
    eventually(REST, async || {
        let (_, status) = lives.get("/api/v1/status").await?;
        let ledger = status["ledger"].as_object().ok_or("no ledger")?;
        let in_flight: u64 = ledger.values().filter_map(|it| it["in_flight"].as_u64()).sum();
        if in_flight == 0 { Ok(()) } else { Err(format!("{in_flight} in flight")) }
    })
    .await;
    let promised = promised.borrow().clone();
    sensors::obey(world, &client, &promised, REST).await;
    client
}

/// What was rejected as long as its sensor was unknown goes through the pipeline again.
async fn replay(world: &World<'_>) {
    let mut cursor = serde_json::Value::Null;
    loop {
        let mut order = serde_json::json!({
            "sensor": world.unborn, "reason": "unknown_sensor", "limit": 200
        });
        if !cursor.is_null() {
            order["cursor"] = cursor;
        }
        let answer = world.lives.insist("POST", "/api/v1/rejections/replay", Some(&order)).await;
        cursor = answer["next"].clone();
        if cursor.is_null() {
            break;
        }
    }
}

/// Nothing new is said, and what was said comes to its end.
pub(super) async fn come_to_rest(world: &World<'_>) -> tokio_postgres::Client {
    world.fleet.finish().await;
    rest(world).await
}

/// A sensor that no fault and no configuration touches.
const CALM: usize = world::CONFIGURED + 1;

fn first<T>(all: &[T]) -> &[T] {
    &all[..all.len().min(20)]
}
