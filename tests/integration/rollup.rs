//! The roll-up agrees with the rows, also with late items, duplicates, concurrent deletions and rebuilds; and its sums
//! are kept after the rows are deleted.

use std::collections::BTreeMap;

use futures_util::future;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tributary::domain::{SensorIdentifier, Subscriptions, Timestamp};
use tributary::store::{
    self, Aggregates, Aggregation, Committer, CopyMode, EngineName, Housekeeper, Rebuilder, RollUp,
    Source, Store,
};

use crate::access::run_tributary;
use crate::support::postgres::{
    Database, connect, engine, for_engine_tables, without_empty_databases,
};
use crate::support::service::{count, database};
use crate::support::store::{batch_from, config};

mod months;
mod rebuild;

const HOUR_SECS: i64 = 3_600;

/// The first Monday after the Unix epoch: a week starts here.
const MONDAY: i64 = 4 * 24 * HOUR_SECS;

type Sums = BTreeMap<i64, (i64, i64, i64, i64)>;

struct Fixture {
    database: Database,
    config: store::Config,
    store: Store,
    committer: Committer,
}

impl Fixture {
    async fn new() -> Self {
        let database = database().await;
        store::migrate(&config(&database)).await.unwrap();
        Self::on(database)
    }

    fn on(database: Database) -> Self {
        let config = config(&database);
        let committer = Committer::new(&config, 2).publishing_to(Subscriptions::none());
        Self { store: Store::new(&config), committer, database, config }
    }

    async fn execute(&self, statements: &str) {
        connect(&self.database.url).await.unwrap().batch_execute(statements).await.unwrap();
    }

    async fn sensor(&self) -> SensorIdentifier {
        let sensor = SensorIdentifier::random();
        self.create(sensor).await;
        sensor
    }

    async fn create(&self, sensor: SensorIdentifier) {
        self.execute(&format!(
            "insert into sensor (identifier, name) values ('{sensor}', '{sensor}')"
        ))
        .await;
    }

    /// Commits measurements of `n` at these Unix seconds, as the writer does.
    async fn commit(&self, sensor: SensorIdentifier, items: &[(i64, i64)]) {
        let item = |(second, n)| json!({ "revision": 0, "timestamp": second, "value": { "n": n } });
        let items: Vec<_> = items.iter().copied().map(item).collect();
        let payload = json!({ "measurements": items }).to_string();
        let mut batch = batch_from(sensor, "measurements", &payload);
        // The writer also retries: a new connection can exceed its timeout.
        while let Err(failed) = self.committer.commit(batch, CopyMode::Staged).await {
            assert!(failed.error.is_unavailable(), "{:?}", failed.error);
            batch = failed.batch;
        }
    }

    async fn fold(&self) {
        while !self.store.fold_activity().await.unwrap().is_complete {}
    }

    /// Also sums up the hours that become due within 15 minutes.
    async fn recount(&self) {
        let soon = Timestamp::from_unix_microseconds(
            Timestamp::now().unix_microseconds() + 900 * 1_000_000,
        );
        while !self.store.recount(soon).await.unwrap() {}
    }

    /// Also sums up the months that become due within an hour.
    async fn recount_months(&self) {
        let soon = Timestamp::now().unix_microseconds() + HOUR_SECS * 1_000_000;
        let soon = Timestamp::from_unix_microseconds(soon);
        while !self.store.recount_months(soon).await.unwrap() {}
    }

    async fn rebuild(&self, from: i64, to: i64) {
        let at = |second: i64| Timestamp::from_unix_microseconds(second * 1_000_000);
        let rebuilder = Rebuilder::new(self.store.clone(), &self.config);
        rebuilder.rebuild(at(from), at(to), |_| ()).await.unwrap();
    }

    async fn aggregates(&self, sensor: SensorIdentifier, bucket_secs: u32) -> Aggregates {
        let aggregation = Aggregation {
            from: Timestamp::default(),
            to: Timestamp::now(),
            bucket_secs,
            attributes: vec!["n".into()],
            limit: 10_000,
        };
        self.store.aggregate_measurements(sensor, &aggregation).await.unwrap().unwrap()
    }

    /// Count, minimum, sum and maximum of `n` from the rows, by the number of buckets since `MONDAY`.
    async fn buckets(&self, sensor: SensorIdentifier, bucket_secs: u32) -> Sums {
        let sums = format!(
            "select floor((extract(epoch from creation_timestamp) - {MONDAY}) / {bucket_secs})::bigint, count(*),
                 min((value->'n')::bigint), sum((value->'n')::bigint)::bigint, max((value->'n')::bigint)
             from measurement where sensor_identifier = '{sensor}' group by 1"
        );
        let rows = connect(&self.database.url).await.unwrap().query(&sums, &[]).await.unwrap();
        rows.iter().map(|it| (it.get(0), (it.get(1), it.get(2), it.get(3), it.get(4)))).collect()
    }

    /// The aggregates come from the roll-up, and equal those of the rows.
    async fn assert_aggregates(&self, sensor: SensorIdentifier, context: &str) {
        for bucket_secs in [3_600, 86_400, 7 * 86_400] {
            let expected = self.buckets(sensor, bucket_secs).await;
            let aggregates = self.aggregates(sensor, bucket_secs).await;
            let sums: Sums = aggregates
                .rows
                .iter()
                .map(|it| {
                    let since = it.bucket.unix_microseconds() / 1_000_000 - MONDAY;
                    let sum = (it.mean * it.count as f64).round() as i64;
                    let bucket = since.div_euclid(bucket_secs.into());
                    (bucket, (it.count, it.minimum as i64, sum, it.maximum as i64))
                })
                .collect();
            let found = (aggregates.source, sums);
            assert_eq!(found, (Source::Rollup, expected), "{context}, {bucket_secs} s");
        }
    }
}

/// The number of hours of a sensor whose sums differ from those of its rows, or are missing.
fn differences(sensor: SensorIdentifier) -> String {
    format!(
        "with rows as (
             select floor(extract(epoch from creation_timestamp) / 3600)::integer as hour, count(*) as n,
                 jsonb_build_array(count(*), jsonb_build_object('n', jsonb_build_array(count(*),
                     min((value->'n')::bigint), sum((value->'n')::bigint), max((value->'n')::bigint)))) as sums
             from measurement where sensor_identifier = '{sensor}' group by 1
         ), rolled_up as (
             select (day - date '1970-01-01') * 24 + hour_number - 1 as hour, n, sums->(hour_number - 1)::text as sums
             from sensor_hour cross join unnest(measurement_counts) with ordinality as counts (n, hour_number)
             where sensor_identifier = '{sensor}' and n > 0
         )
         select count(*) from rows full join rolled_up using (hour)
         where rows.n is distinct from rolled_up.n or rows.sums is distinct from rolled_up.sums"
    )
}

/// The start of the current hour.
fn current_hour() -> i64 {
    (Timestamp::now().unix_seconds() as i64).div_euclid(HOUR_SECS) * HOUR_SECS
}

#[actix_rt::test]
async fn an_hour_is_summed_up_again_after_late_items() {
    let fixture = Fixture::new().await;
    let (sensor, hour) = (fixture.sensor().await, current_hour() - 5 * HOUR_SECS);
    fixture.commit(sensor, &[(hour, 1), (hour + 60, 2)]).await;
    fixture.fold().await;
    fixture.recount().await;
    assert_eq!(count(&fixture.database, &differences(sensor)).await, 0);
    // The changed sum shows whether the aggregates come from the roll-up.
    let change_sum =
        format!(r#"update sensor_hour set sums = replace(sums::text, '{}', '77.0')::jsonb"#, "2.0");
    fixture.execute(&change_sum).await;
    assert_eq!(fixture.aggregates(sensor, 3_600).await.rows[0].maximum, 77.0);

    fixture.commit(sensor, &[(hour + 30, 3), (hour + 60, 2)]).await;
    fixture.assert_aggregates(sensor, "the journal contains a late item").await;
    fixture.fold().await;
    fixture.assert_aggregates(sensor, "the sums are outdated").await;
    fixture.recount().await;
    assert_eq!(count(&fixture.database, &differences(sensor)).await, 0);
    let due = "select count(*) from sensor_hour where recount_at is not null";
    assert_eq!(count(&fixture.database, due).await, 0);
}

/// After random operations, some of them concurrent, the aggregates equal those of the rows. The roll-up also equals
/// the rows once all hours are summed up.
#[actix_rt::test]
async fn the_roll_up_agrees_with_the_rows_after_random_operations() {
    for seed in 0..4 {
        let fixture = Fixture::new().await;
        let mut random = StdRng::seed_from_u64(seed);
        let mut sensors =
            vec![fixture.sensor().await, fixture.sensor().await, fixture.sensor().await];
        let mut sent: Vec<(SensorIdentifier, Vec<(i64, i64)>)> = Vec::new();
        for step in 0..40 {
            let sensor = sensors[random.random_range(0..sensors.len())];
            let is_late = random.random_bool(0.3);
            let items: Vec<_> = (0..random.random_range(1..20))
                .map(|_| {
                    let ago = match is_late {
                        true => random.random_range(40 * 24..110 * 24) * HOUR_SECS,
                        false => random.random_range(1..50 * HOUR_SECS),
                    };
                    (Timestamp::now().unix_seconds() as i64 - ago, random.random_range(-9..10))
                })
                .collect();
            let from = current_hour() - random.random_range(0..60) * HOUR_SECS;
            match random.random_range(0..11) {
                0 if !sent.is_empty() => {
                    let (sensor, items) = &sent[random.random_range(0..sent.len())];
                    if sensors.contains(sensor) {
                        fixture.commit(*sensor, items).await;
                    }
                }
                1 => fixture.fold().await,
                2 => fixture.recount().await,
                3 => {
                    future::join(fixture.recount(), fixture.commit(sensor, &items)).await;
                }
                4 => {
                    let rebuild = fixture.rebuild(from, from + 20 * HOUR_SECS);
                    Box::pin(future::join3(
                        rebuild,
                        fixture.commit(sensor, &items),
                        fixture.fold(),
                    ))
                    .await;
                }
                5 if random.random_bool(0.5) => {
                    fixture.store.delete_sensor(sensor).await.unwrap();
                    fixture.store.purge_sensor(sensor).await.unwrap();
                    fixture.execute("delete from deleted_sensor").await;
                    if random.random_bool(0.5) {
                        fixture.create(sensor).await;
                    } else {
                        let new = fixture.sensor().await;
                        sensors.retain(|it| *it != sensor);
                        sensors.push(new);
                    }
                }
                6 => fixture.recount_months().await,
                7 => {
                    let months = fixture.recount_months();
                    future::join3(months, fixture.commit(sensor, &items), fixture.fold()).await;
                }
                8 => {
                    fixture.assert_aggregates(sensor, &format!("seed {seed}, step {step}")).await;
                }
                _ => {
                    fixture.commit(sensor, &items).await;
                    sent.push((sensor, items));
                }
            }
        }
        fixture.fold().await;
        fixture.recount().await;
        fixture.recount_months().await;
        let months = "select count(*) from sensor_month where recount_at is null";
        assert_eq!(count(&fixture.database, months).await > 0, engine() != EngineName::Citus);
        for sensor in sensors {
            fixture.assert_aggregates(sensor, &format!("seed {seed}, end")).await;
            // The current hour is not summed up yet.
            let differences = differences(sensor).replace(
                "select count(*) from rows full",
                &format!(
                    "select count(*) filter (where hour < {}) from rows full",
                    (Timestamp::now().unix_seconds() as i64 - 600).div_euclid(HOUR_SECS)
                ),
            );
            assert_eq!(count(&fixture.database, &differences).await, 0, "seed {seed}");
        }
        assert!(sent.len() > 3);
    }
}

/// A measurement of 30 weeks ago, in a partition of its own.
async fn old_measurement(fixture: &Fixture, sensor: SensorIdentifier) -> i64 {
    let begin = count(
        &fixture.database,
        "select extract(epoch from date_trunc('week', now(), 'UTC') - interval '30 weeks')::bigint",
    )
    .await;
    fixture.commit(sensor, &[(begin + 60, 4), (begin + 120, 6)]).await;
    let received = "update measurement set receipt_timestamp = now() - interval '29 weeks'";
    fixture.execute(&for_engine_tables(received)).await;
    begin
}

#[actix_rt::test]
async fn rows_are_deleted_only_after_their_sums_and_the_sums_are_kept() {
    let mut fixture = Fixture::new().await;
    fixture.config.measurement_retention_days = Some(100);
    let sensor = fixture.sensor().await;
    let begin = old_measurement(&fixture, sensor).await;
    let rows = "select count(*) from measurement";
    let run_housekeeping = async || {
        Housekeeper::new(fixture.store.clone(), &fixture.config).round().await.unwrap();
    };

    fixture
        .execute("update sensor_hour_journal set commit_timestamp = now() - interval '29 weeks'")
        .await;
    fixture.execute("update sensor set creation_timestamp = now() - interval '40 weeks'").await;
    run_housekeeping().await;
    assert_eq!(count(&fixture.database, rows).await, 2, "the journal contains them");
    fixture.fold().await;
    fixture.execute("update sensor_hour set recount_at = now() - interval '2 hours'").await;
    run_housekeeping().await;
    assert_eq!(count(&fixture.database, rows).await, 2, "their sums are outdated");
    fixture.recount().await;
    run_housekeeping().await;
    assert_eq!(count(&fixture.database, rows).await, 0);
    let sums = fixture.aggregates(sensor, 3_600).await;
    assert_eq!((sums.source, sums.rows.len()), (Source::Rollup, 1));
    assert_eq!((sums.rows[0].count, sums.rows[0].mean), (2, 5.0));

    // A late item is counted, and the sums are kept. A rebuild also keeps them.
    fixture.commit(sensor, &[(begin + 180, 100)]).await;
    fixture.fold().await;
    fixture.recount().await;
    assert_eq!(fixture.aggregates(sensor, 3_600).await.rows, sums.rows);
    fixture.rebuild(begin, begin + HOUR_SECS).await;
    assert_eq!(fixture.aggregates(sensor, 3_600).await.rows, sums.rows);
    let counted = "select measurement_counts[1]::bigint from sensor_hour";
    assert_eq!(count(&fixture.database, counted).await, 3);
}

#[actix_rt::test]
async fn the_roll_up_has_its_own_retention() {
    let mut fixture = Fixture::new().await;
    fixture.config.rollup_retention_days = Some(10);
    let sensor = fixture.sensor().await;
    fixture
        .execute(&format!(
            "insert into sensor_hour
         select '{sensor}', (now() at time zone 'utc')::date - ago, '{{1}}', '{{0}}', '{{0}}'
         from generate_series(0, 19) ago"
        ))
        .await;
    Housekeeper::new(fixture.store.clone(), &fixture.config).round().await.unwrap();
    assert_eq!(count(&fixture.database, "select count(*) from sensor_hour").await, 11);
}

#[actix_rt::test]
async fn an_upgrade_rolls_up_the_existing_rows() {
    if without_empty_databases() {
        return;
    }
    let database = database().await;
    let mut client = connect(&database.url).await.unwrap();
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let mut migrations = refinery_core::load_sql_migrations(directory).unwrap();
    migrations.sort();
    let before = refinery_core::Runner::new(&migrations)
        .set_target(refinery_core::Target::Version(FIRST_WITH_ROLLUP - 1));
    before.run_async(&mut client).await.unwrap();
    let sensor = SensorIdentifier::random();
    let hour = current_hour() - 30 * HOUR_SECS;
    client
        .batch_execute(&format!(
            "insert into sensor (identifier, name) values ('{sensor}', 'before');
             insert into measurement select '{sensor}', to_timestamp({hour} + n * 600), now(), n, 0,
                 jsonb_build_object('n', n) from generate_series(0, 11) n;
             insert into heartbeat values ('{sensor}', to_timestamp({hour}), now(), 1, 0, true);
             insert into measurement values ('{sensor}', to_timestamp(60), now(), 1, 0, '{{\"n\":1}}');
             insert into activity values ('{sensor}', {hour} / 14400, 12, 0, 1);
             insert into activity_journal (sensors, buckets, kinds, counts)
             values (array['{sensor}'::uuid], array[{hour} / 14400], array[0::smallint], array[12])"
        ))
        .await
        .unwrap();

    store::migrate(&config(&database)).await.unwrap();
    let fixture = Fixture::on(database);
    // Before the roll-up, the aggregates come from the rows.
    let aggregates = fixture.aggregates(sensor, 3_600).await;
    assert_eq!((aggregates.source, aggregates.rows.len()), (Source::Rows, 3));
    fixture.commit(sensor, &[(hour + 61, 9)]).await;
    RollUp::new(fixture.store.clone(), &fixture.config).round(|_| ()).await.unwrap();
    fixture.fold().await;
    fixture.recount().await;

    fixture.assert_aggregates(sensor, "upgraded").await;
    assert_eq!(count(&fixture.database, &differences(sensor)).await, 0);
    let heartbeats = "select sum(n)::bigint from sensor_hour, unnest(heartbeat_counts) n";
    assert_eq!(count(&fixture.database, heartbeats).await, 1);
    assert_eq!(count(&fixture.database, "select count(*) from rollup_rebuild").await, 0);
}

const FIRST_WITH_ROLLUP: i32 = 19;

/// Includes rows that are not in the journal, and deleted rows.
#[actix_rt::test]
async fn the_rebuild_command_recounts_a_range() {
    let fixture = Fixture::new().await;
    let (sensor, hour) = (fixture.sensor().await, current_hour() - 5 * HOUR_SECS);
    fixture.commit(sensor, &[(hour, 1), (hour + HOUR_SECS, 2)]).await;
    fixture.fold().await;
    fixture.recount().await;
    fixture
        .execute(&format!(
            "delete from measurement where creation_timestamp = to_timestamp({hour});
             insert into measurement select '{sensor}', to_timestamp({hour} + {HOUR_SECS} + n), now(), n, 0,
                 jsonb_build_object('n', n) from generate_series(10, 14) n"
        ))
        .await;
    let rebuild = |to: i64| {
        let at = |second: i64| {
            Timestamp::from_unix_microseconds(second * 1_000_000).to_jiff().to_string()
        };
        let arguments = ["rollup", "rebuild", "--from", &at(hour), "--to", &at(to)];
        run_tributary(&fixture.database, &arguments, "")
    };

    let refused = rebuild(hour);
    assert_eq!(refused.status.code(), Some(1));
    let sentence = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(sentence, "tributary: --to must be later than --from\n");
    let done = rebuild(hour + 2 * HOUR_SECS);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(
        String::from_utf8(done.stdout).unwrap(),
        "Counted and summed up the rows of 1 sensors.\n"
    );
    fixture.assert_aggregates(sensor, "rebuilt").await;
    assert_eq!(count(&fixture.database, &differences(sensor)).await, 0);
}
