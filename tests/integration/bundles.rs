//! Measurements are put together behind the writers' back: whatever comes late, and whoever does it
//! beside us, what is told is what the rows say.

use serde_json::json;
use tributary::domain::Timestamp;
use tributary::store::{self, Bundler, Store};

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::postgres::{Database, connect};
use crate::support::service::{Service, database};
use crate::support::store::config;
use crate::support::wait::{PATIENCE, eventually};

fn store(database: &Database) -> Store {
    Store::new(&config(database))
}

async fn execute(database: &Database, statements: &str) {
    connect(&database.url).await.unwrap().batch_execute(statements).await.unwrap();
}

async fn count(database: &Database, query: &str) -> i64 {
    connect(&database.url).await.unwrap().query_one(query, &[]).await.unwrap().get(0)
}

/// The begin of the last period but one, in Unix seconds: it is over for hours.
fn settled() -> i64 {
    (Timestamp::now().unix_seconds() as i64).div_euclid(14_400) * 14_400 - 28_800
}

/// So many sensors that say something each minute of the settled period, as commits would store it.
fn fleet(sensors: u32) -> String {
    let (begin, bucket) = (settled(), settled() / 14_400);
    format!(
        "insert into sensor (identifier, name)
         select md5(n::text)::uuid, n from generate_series(1, {sensors}) n;
         insert into measurement
         select identifier, to_timestamp({begin} + minute * 60), now(),
                hashint8extended(minute, name::int), 0, jsonb_build_object('n', minute)
         from sensor, generate_series(0, 239) minute;
         insert into activity select identifier, {bucket}, 240, 0, 0 from sensor"
    )
}

const BUNDLES: &str = "select count(*) from measurement_bundle";

/// Those that hold what the rows say.
const GOOD: &str = "\
select count(*) from measurement_bundle bundle
where (row_count, digest_xor, moments, lines) = (
    select count(*), bit_xor(digest), array_agg(creation_timestamp order by creation_timestamp),
           string_agg(value::text, e'\\n' order by creation_timestamp)
    from measurement
    where sensor_identifier = bundle.sensor_identifier
      and creation_timestamp >= period and creation_timestamp < period + interval '4 hours')";

#[actix_rt::test]
async fn rows_that_come_behind_their_bundle_are_counted() {
    let broker = Broker::shared().await;
    let database = database().await;
    let settings = [("MEASUREMENT_BUNDLES", "false")];
    let service = Service::start(&database, broker, &settings).await;
    let (store, begin) = (store(&database), settled());
    let sensor = service.create_sensor("late").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let say = async |second: i64, n: i64| {
        let one = json!({ "revision": 0, "timestamp": begin + second, "value": { "n": n } });
        let topic = format!("{}/measurements/{sensor}", database.name);
        client.publish(&topic, json!({ "measurements": [one] }).to_string()).await.unwrap();
    };
    let path = format!(
        "/api/v1/sensors/{sensor}/measurements/aggregates?bucket=1h&attributes=n&from={begin}&to={}",
        begin + 14_400
    );
    let numbers = async || {
        let (status, page) = service.get(&path).await.unwrap();
        assert_eq!(status, 200, "{page}");
        let numbers = &page["items"][0]["attributes"]["n"];
        (numbers["count"].as_i64().unwrap(), numbers["max"].as_f64().unwrap())
    };
    let bundle = async || {
        store.fold_activity().await.unwrap();
        Bundler::new(store.clone()).round().await.unwrap();
    };
    let rows = "select row_count::bigint from measurement_bundle";
    // What is read shows by it whether it came from the bundle.
    let falsify =
        "update measurement_bundle set lines = replace(lines, '{\"n\": 1}', '{\"n\": 77}')";

    say(0, 1).await;
    say(60, 2).await;
    service.until(|account| account.committed == 2).await;
    assert_eq!(numbers().await, (2, 2.0));
    bundle().await;
    assert_eq!(count(&database, rows).await, 2);
    assert_eq!(numbers().await, (2, 2.0));
    execute(&database, falsify).await;
    assert_eq!(numbers().await, (2, 77.0), "it is read from the bundle");

    say(30, 3).await;
    service.until(|account| account.committed == 3).await;
    assert_eq!(numbers().await, (3, 3.0), "the bundle does not count any more");
    bundle().await;
    assert_eq!(count(&database, rows).await, 3);
    assert_eq!(numbers().await, (3, 3.0));
    execute(&database, falsify).await;
    assert_eq!(numbers().await, (3, 77.0));
}

#[actix_rt::test]
async fn two_processes_bundle_side_by_side() {
    let database = database().await;
    store::migrate(&config(&database)).await.unwrap();
    execute(&database, &fleet(150)).await;
    let (one, other) = (Bundler::new(store(&database)), Bundler::new(store(&database)));

    let (first, second) = futures_util::future::join(one.round(), other.round()).await;
    first.and(second).unwrap();
    // What one had to leave to the other is done by the next round at the latest.
    one.round().await.unwrap();

    assert_eq!(count(&database, BUNDLES).await, 150);
    assert_eq!(count(&database, GOOD).await, 150);
}

#[actix_rt::test]
async fn what_another_process_bundles_is_left_to_it() {
    let database = database().await;
    store::migrate(&config(&database)).await.unwrap();
    execute(&database, &fleet(1)).await;
    let bundler = Bundler::new(store(&database));
    let other = connect(&database.url).await.unwrap();
    let lock = "begin; select pg_advisory_xact_lock(hashtextextended('tributary bundles', 0))";
    other.batch_execute(lock).await.unwrap();

    bundler.round().await.unwrap();
    assert_eq!(count(&database, BUNDLES).await, 0);

    other.batch_execute("commit").await.unwrap();
    bundler.round().await.unwrap();
    assert_eq!(count(&database, GOOD).await, 1);
    // Nothing has changed, so nothing is made again.
    execute(&database, "update measurement_bundle set lines = 'mine'").await;
    bundler.round().await.unwrap();
    let kept = "select count(*) from measurement_bundle where lines = 'mine'";
    assert_eq!(count(&database, kept).await, 1);
}

#[actix_rt::test]
async fn the_service_bundles_by_itself() {
    let broker = Broker::shared().await;
    let database = database().await;
    store::migrate(&config(&database)).await.unwrap();
    execute(&database, &fleet(2)).await;

    let service = Service::start(&database, broker, &[]).await;

    eventually(PATIENCE, async || match count(&database, GOOD).await {
        2 => Ok(()),
        other => Err((other, service.log())),
    })
    .await;
}
