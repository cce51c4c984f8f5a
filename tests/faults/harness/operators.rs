//! Changes that operators make to the database, and clock errors: none of them stops ingest or deletes rows. Called by `fault`.
//! During each of them a new partition is needed, and it ends only after a row of that partition is stored.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use super::messages::{WEEK_SECONDS, week_begin};
use super::run::Run;
use crate::support::wait::{TIMEOUT, eventually};

/// Clock errors on both sides of the retention (100 days) and of the tolerance (5 minutes).
const OFFSETS: [&str; 4] = ["+200d", "-200d", "+2h", "-2h"];

/// With a publication of all tables, PostgreSQL refuses deletions from a table without a replica identity.
pub(super) async fn publication(run: &Run<'_>) {
    // The first housekeeping run of a database sets the replica identity of these tables; until then deletions wait.
    let without_identity = "select count(*) from pg_class where relreplident = 'd' and relname in
        ('measurement_default', 'log_message_default', 'heartbeat_default')";
    eventually(TIMEOUT * 3, async || {
        match run.client().await.query_one(without_identity, &[]).await {
            Ok(row) if row.get::<_, i64>(0) == 0 => Ok(()),
            other => Err(other.map(|row| row.get::<_, i64>(0))),
        }
    })
    .await;
    change(run, "create publication everything for all tables").await;
    let path = format!("/api/v1/sensors/{}", run.deleted_sensor);
    run.process_runs.request_until_success("DELETE", &path, None).await;
    ingest_another_week(run).await;
    change(run, "drop publication if exists everything").await;
    // cannot delete from a table that "does not have a replica identity and publishes deletes"
    check_no_failure(run, "55000");
}

/// An operator adds a generated column to a table of measurements, log messages or heartbeats.
pub(super) async fn generated_column(run: &Run<'_>, rng: &mut StdRng) {
    let tables = ["measurement", "log_message", "heartbeat"];
    let table = tables.choose(rng).expect("there are three");
    let day = "date generated always as ((creation_timestamp at time zone 'UTC')::date) stored";
    change(run, &format!("alter table {table} add column if not exists day {day}")).await;
    ingest_another_week(run).await;
    change(run, &format!("alter table {table} drop column if exists day")).await;
    // ATTACH PARTITION fails if a column of the partition is not generated in the same way as the table's.
    check_no_failure(run, "42804");
}

/// The database's clock jumps. The service deletes by age at each start, so it is restarted.
pub(super) async fn wrong_clock(run: &Run<'_>, rng: &mut StdRng) {
    set_clock(run, OFFSETS.choose(rng).expect("there are four")).await;
    let warning = "the database's clock and ours differ";
    let before = run.process_runs.log().matches(warning).count();
    run.process_runs.terminate(false).await;
    eventually(TIMEOUT * 3, async || match run.process_runs.log().matches(warning).count() {
        now if now > before => Ok(()),
        now => Err(now),
    })
    .await;
    ingest_another_week(run).await;
    set_clock(run, "+0").await;
}

async fn set_clock(run: &Run<'_>, offset: &str) {
    run.postgres.lock().await.set_clock(offset);
    if let Some(standby) = &run.standby {
        standby.lock().await.postgres.set_clock(offset);
    }
    let is_right = offset == "+0";
    let clock = "select abs(extract(epoch from clock_timestamp())::float8 - $1) < 600";
    eventually(TIMEOUT, async || {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("the time is after 1970");
        match run.client().await.query_one(clock, &[&now.as_secs_f64()]).await {
            Ok(row) if row.get::<_, bool>(0) == is_right => Ok(()),
            other => Err(other.map(drop)),
        }
    })
    .await;
}

/// If a partition cannot be created, its rows go to the default one and are not lost, but the failure is a violation.
fn check_no_failure(run: &Run<'_>, state: &str) {
    if run.process_runs.log().contains(&format!("(SQLSTATE {state})")) {
        run.process_runs.report_violation(format!("a statement failed with SQLSTATE {state}"));
    }
}

/// Executes a statement, and retries it, because other faults may make it fail.
async fn change(run: &Run<'_>, statement: &str) {
    eventually(TIMEOUT * 3, async || {
        let client = run.client().await;
        client.batch_execute(statement).await.map_err(|error| error.to_string())
    })
    .await;
}

/// Sets the sensors' clocks to a week without a partition, and returns once a row of it is stored.
async fn ingest_another_week(run: &Run<'_>) {
    let weeks = run.workload.weeks_behind.get() + 1;
    run.workload.weeks_behind.set(weeks);
    let begin = week_begin(weeks) as f64;
    let end = begin + WEEK_SECONDS as f64;
    let rows = "select exists (select from measurement
        where creation_timestamp >= to_timestamp($1) and creation_timestamp < to_timestamp($2))";
    eventually(TIMEOUT * 3, async || {
        let found = run.client().await.query_one(rows, &[&begin, &end]).await;
        match found.map(|row| row.get(0)) {
            Ok(true) => Ok(()),
            Ok(false) => Err("no row of this week".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}
