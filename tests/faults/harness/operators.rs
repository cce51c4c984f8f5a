//! What operators do to the database, or its clock does by itself: none of it stops ingest or deletes anything. Called by
//! `fault`. Promises that a new partition is needed while it lasts, and that ingest goes on before it is taken back.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::said::{WEEK_SECONDS, week_begin};
use super::world::World;
use crate::support::wait::{PATIENCE, eventually};

/// How wrong a clock is: retention, partitions and intervals all lie in between.
const OFFSETS: [&str; 4] = ["+200d", "-200d", "+2h", "-2h"];

/// Everything is published: without a replica identity nothing can be deleted or updated.
pub(super) async fn publication(world: &World<'_>) {
    change(world, "create publication everything for all tables").await;
    let path = format!("/api/v1/sensors/{}", world.mortal);
    world.lives.insist("DELETE", &path, None).await;
    ingest_another_week(world).await;
    change(world, "drop publication if exists everything").await;
    // cannot delete from a table that "does not have a replica identity and publishes deletes"
    none_refused(world, "55000");
}

/// A column of the user's on a hot table.
pub(super) async fn generated_column(world: &World<'_>, rng: &mut StdRng) {
    let tables = ["measurement", "log_message", "heartbeat"];
    let table = tables.choose(rng).expect("there are three");
    let day = "date generated always as ((creation_timestamp at time zone 'UTC')::date) stored";
    change(world, &format!("alter table {table} add column if not exists day {day}")).await;
    ingest_another_week(world).await;
    change(world, &format!("alter table {table} drop column if exists day")).await;
    // A partition's column is generated, the table's is not, or the other way round.
    none_refused(world, "42804");
}

/// The database's clock jumps. Each start of the service looks for what is over by its age.
pub(super) async fn wrong_clock(world: &World<'_>, rng: &mut StdRng) {
    set_clock(world, OFFSETS.choose(rng).expect("there are four")).await;
    let warned = "the database's clock and ours differ";
    let before = world.lives.log().matches(warned).count();
    world.lives.terminate(false).await;
    eventually(PATIENCE * 3, async || match world.lives.log().matches(warned).count() {
        now if now > before => Ok(()),
        now => Err(now),
    })
    .await;
    ingest_another_week(world).await;
    set_clock(world, "+0").await;
}

async fn set_clock(world: &World<'_>, offset: &str) {
    world.postgres.lock().await.set_clock(offset);
    if let Some(standby) = &world.standby {
        standby.lock().await.postgres.set_clock(offset);
    }
    let is_right = offset == "+0";
    let clock = "select abs(extract(epoch from clock_timestamp())::float8 - $1) < 600";
    eventually(PATIENCE, async || {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("it is later than 1970");
        match world.client().await.query_one(clock, &[&now.as_secs_f64()]).await {
            Ok(row) if row.get::<_, bool>(0) == is_right => Ok(()),
            other => Err(other.map(drop)),
        }
    })
    .await;
}

/// Rows of a partition that cannot be created go to the default one, so that nothing is lost by it; but it has to be
/// created.
fn none_refused(world: &World<'_>, state: &str) {
    if world.lives.log().contains(&format!("(SQLSTATE {state})")) {
        world.lives.complain(format!("PostgreSQL refused something with {state}"));
    }
}

/// As soon as the server does it: other faults may be in its way.
async fn change(world: &World<'_>, statement: &str) {
    eventually(PATIENCE * 3, async || {
        let client = world.client().await;
        client.batch_execute(statement).await.map_err(|error| error.to_string())
    })
    .await;
}

/// The sensors' clocks go back to a week without a partition; a row of it can be read when this returns.
async fn ingest_another_week(world: &World<'_>) {
    let weeks = world.mix.weeks_behind.get() + 1;
    world.mix.weeks_behind.set(weeks);
    let begin = week_begin(weeks) as f64;
    let end = begin + WEEK_SECONDS as f64;
    let rows = "select exists (select from measurement
        where creation_timestamp >= to_timestamp($1) and creation_timestamp < to_timestamp($2))";
    eventually(PATIENCE * 3, async || {
        let found = world.client().await.query_one(rows, &[&begin, &end]).await;
        match found.map(|row| row.get(0)) {
            Ok(true) => Ok(()),
            Ok(false) => Err("no row of this week".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}
