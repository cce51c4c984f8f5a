//! Deleting a sensor deletes all its rows.

use std::time::{Duration, Instant};

use actix_web::http::Method;
use serde_json::json;
use tributary::domain::SensorIdentifier;
use tributary::store::{Housekeeper, Store};

use super::fixture::{Api, SupervisorMessage, store_config};
use crate::support::postgres::connect;
use crate::support::wait::{TIMEOUT, eventually};

/// The advisory lock that commits of batches take shared, and deletions exclusive.
const DELETION_LOCK: i64 = 0x7472_6962;

fn insert_rows(sensor: SensorIdentifier) -> String {
    format!(
        "insert into measurement values ('{sensor}', to_timestamp(1), now(), 1, 0, '{{}}');
         insert into log_message values ('{sensor}', to_timestamp(1), now(), 1, 0, 'info', 's', null);
         insert into heartbeat values ('{sensor}', to_timestamp(1), now(), 1, 0, true);
         insert into rejection (receipt_timestamp, topic, sensor_identifier, item_count, reason,
             detail, raw, digest) values (now() - interval '1 minute', 't', '{sensor}', 1, 'not_json', '', '', gen_random_uuid());
         insert into rejection_overflow values ('{sensor}', date_trunc('hour', now()), 1);"
    )
}

/// The state after a process stopped before its purge was complete.
const UNPURGED: &str = "update deleted_sensor set purge_timestamp = null;";

const ROWS: &str = "\
select (select count(*) from measurement) + (select count(*) from log_message)
     + (select count(*) from heartbeat) + (select count(*) from rejection)
     + (select count(*) from rejection_overflow) + (select count(*) from configuration)";

#[actix_rt::test]
async fn a_deleted_sensor_leaves_only_its_deleted_sensor_row() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    let (other, _) = api.create_sensor("two").await;
    api.execute(&(insert_rows(identifier) + &insert_rows(other))).await;
    for sensor in [identifier, other] {
        api.execute(&format!(
            "insert into sensor_hour values ('{sensor}', '1970-01-01', '{{1}}', '{{0}}', '{{0}}')"
        ))
        .await;
    }
    api.post(&format!("{one}/configurations"), "{}").await.expect(202);

    api.request(Method::DELETE, &one).await.expect(204);

    assert_eq!(api.count(ROWS).await, 5, "rows of the other sensor");
    assert_eq!(api.count("select count(*) from sensor_hour").await, 1);
    assert_eq!(api.count("select count(*) from deleted_sensor").await, 1);
    assert_eq!(
        api.supervisor_messages().last(),
        Some(&SupervisorMessage::Deleted(vec![identifier]))
    );
    api.get(&one).await.expect(404);
    api.request(Method::DELETE, &one).await.expect(404);
    api.create_sensor("one").await;
}

#[actix_rt::test]
async fn a_batch_committed_during_a_deletion_leaves_no_rows() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    let mut writer = connect(&api.database.url).await.unwrap();
    let batch = writer.transaction().await.unwrap();
    batch.query("select pg_advisory_xact_lock_shared($1)", &[&DELETION_LOCK]).await.unwrap();

    let delete = async { api.request(Method::DELETE, &one).await.expect(204) };
    let commit = async {
        let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
        eventually(TIMEOUT, async || match api.count(waiting).await {
            0 => Err("the deletion does not wait yet"),
            _ => Ok(()),
        })
        .await;
        batch.batch_execute(&insert_rows(identifier)).await.unwrap();
        batch.commit().await.unwrap();
    };
    tokio::join!(delete, commit);

    assert_eq!(api.count(ROWS).await, 0);
}

#[actix_rt::test]
async fn a_reused_identifier_starts_without_rows() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    api.request(Method::DELETE, &one).await.expect(204);
    api.execute(&(insert_rows(identifier) + UNPURGED)).await;

    // A message that arrived after the deletion was rejected; it can be replayed to the new sensor.
    api.execute(&format!(
        "insert into rejection (receipt_timestamp, topic, sensor_identifier, item_count, reason,
         detail, raw, digest) values (now(), 't', '{identifier}', 1, 'unknown_sensor', '', '',
         gen_random_uuid())"
    ))
    .await;

    let body = json!({ "name": "one", "identifier": identifier, "configuration": {} });
    api.post("/api/v1/sensors", body).await.expect(201);

    assert_eq!(api.count(ROWS).await, 2, "the configuration and the rejection");
    assert_eq!(api.count("select count(*) from deleted_sensor").await, 0);
}

/// Creates a sensor with this identifier; expects 503 because rows of the deleted sensor remain.
async fn assert_purge_under_way(api: &Api, identifier: SensorIdentifier) {
    let start = Instant::now();
    let body = json!({ "name": "one", "identifier": identifier });
    let answer = api.post("/api/v1/sensors", body).await;
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(answer.header("retry-after"), "10", "{answer:?}");
    let problem = answer.expect(503);
    assert_eq!(problem["type"], "/problems/purge-under-way");
    assert_eq!(problem["pointer"], "/identifier");
}

#[actix_rt::test]
async fn an_identifier_can_be_reused_only_after_its_rows_are_purged() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    api.execute(&insert_rows(identifier)).await;
    // This transaction blocks the purge, like a purge of millions of rows.
    let mut holder = connect(&api.database.url).await.unwrap();
    let hold = holder.transaction().await.unwrap();
    hold.batch_execute("delete from heartbeat").await.unwrap();

    let delete = async { api.request(Method::DELETE, &one).await.expect(204) };
    let create = async {
        let purging = "select count(*) from pg_stat_activity where datname = current_database()
            and wait_event_type = 'Lock' and query like 'delete from heartbeat%'";
        eventually(TIMEOUT, async || match api.count(purging).await {
            0 => Err("the purge does not wait yet"),
            _ => Ok(()),
        })
        .await;
        for _ in 0..3 {
            assert_purge_under_way(&api, identifier).await;
        }
        assert_eq!(api.count(purging).await, 1, "only the purge waits");
        api.get(&one).await.expect(404);
        hold.rollback().await.unwrap();
    };
    tokio::join!(delete, create);

    let body = json!({ "name": "one", "identifier": identifier });
    api.post("/api/v1/sensors", body).await.expect(201);
    assert_eq!(api.count(ROWS).await, 0);
    api.execute(&insert_rows(identifier)).await;
    run_housekeeping(&api).await;
    assert_eq!(api.count(ROWS).await, 5, "rows of the new sensor remain");
}

#[actix_rt::test]
async fn an_interrupted_purge_is_completed() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    api.request(Method::DELETE, &one).await.expect(204);
    api.execute(&(insert_rows(identifier) + UNPURGED)).await;
    let mut holder = connect(&api.database.url).await.unwrap();
    let hold = holder.transaction().await.unwrap();
    hold.batch_execute("delete from heartbeat").await.unwrap();
    assert_purge_under_way(&api, identifier).await;

    hold.rollback().await.unwrap();

    // The rejected creation has restarted the purge.
    let purged = "select count(*) from deleted_sensor where purge_timestamp is not null";
    eventually(TIMEOUT, async || match api.count(purged).await {
        0 => Err("it is not purged yet"),
        _ => Ok(()),
    })
    .await;
    assert_eq!(api.count(ROWS).await, 0);

    // Without a request, housekeeping completes the purge.
    let long_ago = "update deleted_sensor set deletion_timestamp = now() - interval '2 minutes';";
    api.execute(&(insert_rows(identifier) + UNPURGED + long_ago)).await;
    api.execute("update rejection set receipt_timestamp = now() - interval '3 minutes'").await;
    api.execute("update rejection_overflow set hour = hour - interval '1 hour'").await;
    run_housekeeping(&api).await;
    assert_eq!(api.count(ROWS).await, 0);
    assert_eq!(api.count(purged).await, 1);
}

async fn run_housekeeping(api: &Api) {
    let config = store_config(&api.database.url, &[]);
    Housekeeper::new(Store::new(&config), &config).round().await.unwrap();
}
