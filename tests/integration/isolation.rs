//! A bad item, a bad message or a row that PostgreSQL rejects: all others are stored, and the bad one
//! is recorded with its reason and its bytes.

use tributary::config::read_store;
use tributary::store::migrate;

use crate::support::fixture::Fixture;
use crate::support::payloads::{measurement, measurements};
use crate::support::postgres::{Postgres, connect, for_engine_tables};
use crate::support::service::{count, database};
use crate::support::wait::{TIMEOUT, eventually};

impl Fixture {
    async fn rejections(&self) -> Vec<(String, Option<i32>, Vec<u8>)> {
        let client = connect(&self.database.url).await.unwrap();
        let rows = client
            .query("select reason, item_index, raw from rejection order by identifier", &[])
            .await
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }

    /// The first message waits for a lock, and the others collect behind it.
    async fn publish_in_one_batch(&self, payloads: Vec<Vec<u8>>) {
        let mut locker = connect(&self.database.url).await.unwrap();
        let lock = locker.transaction().await.unwrap();
        let statement = for_engine_tables("lock table measurement in access exclusive mode");
        lock.batch_execute(&statement).await.unwrap();
        let count = payloads.len() as u64;
        let all = payloads.into_iter().map(|payload| self.publish("measurements", payload));
        futures_util::future::join_all(all).await;
        self.service.wait_for_ledger(|entry| entry.in_flight >= count).await;
        lock.rollback().await.unwrap();
    }
}

#[actix_rt::test]
async fn one_bad_item_does_not_reject_its_message() {
    let fixture = Fixture::new(&[]).await;
    let bad = r#"{"revision":0,"timestamp":2,"value":{"a":{"nested":true}}}"#;
    fixture
        .publish(
            "measurements",
            format!(
                r#"{{"measurements":[{{"revision":0,"timestamp":1,"value":{{}}}},{bad},{{"revision":0,"timestamp":3,"value":{{}}}}]}}"#
            ),
        )
        .await;
    let entry =
        fixture.service.wait_for_ledger(|entry| entry.received == 3 && entry.in_flight == 0).await;
    assert_eq!((entry.committed, entry.rejected), (2, 1));
    assert_eq!(
        fixture.rejections().await,
        [("nested_value".to_owned(), Some(1), bad.as_bytes().to_vec())]
    );
}

#[actix_rt::test]
async fn one_bad_message_does_not_reject_its_batch() {
    let fixture = Fixture::new(&[("MAX_PAYLOAD_BYTES", "1000")]).await;
    let large = format!(r#"{{"measurements":[],"padding":"{}"}}"#, "x".repeat(2_000));
    let mut payloads: Vec<Vec<u8>> =
        (0..20).map(|second| measurement(f64::from(second)).into_bytes()).collect();
    let bad =
        [b"{".to_vec(), b"\xff\xfe".to_vec(), large.clone().into(), br#"{"heartbeats":[]}"#.into()];
    payloads.splice(10..10, bad);
    fixture.publish_in_one_batch(payloads).await;
    let entry =
        fixture.service.wait_for_ledger(|entry| entry.received == 24 && entry.in_flight == 0).await;
    assert_eq!((entry.committed, entry.rejected), (20, 4));
    let rejections = fixture.rejections().await;
    let reasons: Vec<&str> = rejections.iter().map(|(reason, ..)| reason.as_str()).collect();
    assert_eq!(reasons, ["not_json", "not_utf8", "payload_too_large", "invalid_shape"]);
    assert_eq!(rejections[1].2, b"\xff\xfe");
    assert_eq!(rejections[2].2, &large.as_bytes()[..1_000], "only the first bytes are stored");
}

#[actix_rt::test]
async fn one_row_that_postgres_rejects_is_rejected_alone() {
    let fixture = Fixture::new(&[]).await;
    let client = connect(&fixture.database.url).await.unwrap();
    // A constraint of the operator rejects a row that passes the validation.
    client
        .batch_execute(&for_engine_tables("alter table measurement add constraint cool check ((value->>'temperature')::numeric <> 13)"))
        .await
        .unwrap();
    let messages = (0..40).map(|second| measurement(f64::from(second)).into_bytes());
    let last = measurements([100.0, 13.0, 101.0]).into_bytes();
    fixture.publish_in_one_batch(messages.chain([last]).collect()).await;
    let entry =
        fixture.service.wait_for_ledger(|entry| entry.received == 43 && entry.in_flight == 0).await;
    // 13 was published twice: alone in a message, and between two good items.
    assert_eq!((entry.committed, entry.rejected), (41, 2), "{entry:?}");
    assert_eq!(count(&fixture.database, "select count(*) from measurement").await, 41);
    let mut rejections = fixture.rejections().await;
    rejections.sort();
    for (_, _, raw) in &rejections {
        let raw = String::from_utf8_lossy(raw);
        assert!(raw.starts_with(r#"{"revision":0,"timestamp":13,"#), "more than the item: {raw}");
    }
    let reasons: Vec<_> = rejections.iter().map(|(reason, at, _)| (reason.as_str(), *at)).collect();
    assert_eq!(reasons, [("refused_by_database", Some(0)), ("refused_by_database", Some(1))]);
}

#[actix_rt::test]
async fn a_flood_of_rejected_rows_is_counted_but_not_stored() {
    let fixture = Fixture::new(&[("REJECTIONS_PER_SENSOR_HOUR", "5")]).await;
    let client = connect(&fixture.database.url).await.unwrap();
    let rule = &for_engine_tables(
        "alter table measurement add check ((value->>'temperature')::numeric < 100)",
    );
    client.batch_execute(rule).await.unwrap();
    for second in 0..4 {
        let hot = f64::from(100 + 3 * second);
        fixture
            .publish("measurements", measurements([hot, f64::from(second), hot + 1.0, hot + 2.0]))
            .await;
    }
    let entry =
        fixture.service.wait_for_ledger(|entry| entry.received == 16 && entry.in_flight == 0).await;
    assert_eq!((entry.committed, entry.rejected), (4, 12), "{entry:?}");
    let stored = count(&fixture.database, "select count(*) from rejection").await;
    let counted = "select coalesce(sum(item_count), 0)::bigint from rejection_overflow";
    // A new hour may begin during the test.
    assert!((5..=10).contains(&stored), "{stored}");
    assert_eq!(stored + count(&fixture.database, counted).await, 12);
}

/// Checked at once or at COMMIT, against a stored row or a row of the same batch.
#[actix_rt::test]
async fn rows_that_violate_an_operators_unique_constraint_are_rejected() {
    for deferral in ["", "deferrable initially deferred"] {
        let fixture = Fixture::new(&[]).await;
        let client = connect(&fixture.database.url).await.unwrap();
        let rule = format!(
            "alter table measurement add unique (sensor_identifier, creation_timestamp) {deferral}"
        );
        client.batch_execute(&for_engine_tables(&rule)).await.unwrap();
        let item = |second, value| {
            format!(r#"{{"revision":0,"timestamp":{second},"value":{{"a":{value}}}}}"#)
        };
        let payload = |items: &[String]| format!(r#"{{"measurements":[{}]}}"#, items.join(","));
        fixture.publish("measurements", payload(&[item(5, 1)])).await;
        fixture.publish("measurements", payload(&[item(5, 2)])).await;
        fixture.publish("measurements", payload(&[item(6, 1), item(6, 2), item(7, 1)])).await;

        let entry = fixture
            .service
            .wait_for_ledger(|entry| entry.received == 5 && entry.in_flight == 0)
            .await;
        assert_eq!((entry.committed, entry.rejected), (3, 2), "{deferral}: {entry:?}");
        let rejections = fixture.rejections().await;
        let is_refused = |(reason, ..): &(String, _, _)| reason == "refused_by_database";
        assert!(rejections.iter().all(is_refused), "{rejections:?}");
        assert_eq!(count(&fixture.database, "select count(*) from measurement").await, 3);
    }
}

/// The topic and the details of a rejection may contain any character.
#[actix_rt::test]
async fn migrate_refuses_a_database_that_is_not_utf8() {
    let database = database().await;
    let admin = connect(&Postgres::shared().await.url("postgres")).await.unwrap();
    for statement in ["drop database $", "create database $ template template0 encoding 'LATIN1'"] {
        admin.batch_execute(&statement.replace('$', &database.name)).await.unwrap();
    }
    let url = database.url.clone();
    let config = read_store(|name| (name == "DATABASE_URL").then(|| url.clone())).unwrap();
    let refusal = migrate(&config).await.unwrap_err().to_string();
    assert!(refusal.contains("LATIN1") && refusal.contains("encoding 'UTF8'"), "{refusal}");
}

#[actix_rt::test]
async fn two_values_at_one_timestamp_are_both_stored() {
    let fixture = Fixture::new(&[]).await;
    let item = |value| format!(r#"{{"revision":0,"timestamp":5,"value":{{"a":{value}}}}}"#);
    fixture
        .publish(
            "measurements",
            format!(r#"{{"measurements":[{},{},{}]}}"#, item(1), item(2), item(1)),
        )
        .await;
    let entry =
        fixture.service.wait_for_ledger(|entry| entry.received == 3 && entry.in_flight == 0).await;
    assert_eq!((entry.committed, entry.duplicate), (2, 1));
    assert_eq!(count(&fixture.database, "select count(*) from measurement").await, 2);
}

#[actix_rt::test]
async fn every_kind_is_stored_in_its_table() {
    let fixture = Fixture::new(&[]).await;
    fixture
        .publish(
            "log-messages",
            r#"{"log_messages":[{"severity":"warning","revision":0,"timestamp":0.0,"subject":"The CPU is burning","details":"Please call the fire department"},{"severity":"info","revision":0,"timestamp":0.0,"subject":"s"}]}"#,
        )
        .await;
    fixture
        .publish("heartbeats", r#"{"heartbeats":[{"revision":0,"timestamp":0.0,"success":true}]}"#)
        .await;
    eventually(TIMEOUT, async || {
        let logs = fixture.service.ledger_entry("log_messages").await?;
        let heartbeats = fixture.service.ledger_entry("heartbeats").await?;
        match (logs.committed, heartbeats.committed) {
            (2, 1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let (_, page) = fixture
        .service
        .get(&format!("/api/v1/sensors/{}/log-messages", fixture.sensor))
        .await
        .unwrap();
    assert_eq!(page["items"].as_array().unwrap().len(), 2, "{page}");
}

#[actix_rt::test]
async fn a_flood_of_rejected_messages_is_counted_but_not_stored() {
    let fixture = Fixture::new(&[("REJECTIONS_PER_SENSOR_HOUR", "5")]).await;
    for number in 0..12 {
        fixture.publish("measurements", format!("garbage {number}")).await;
    }
    let entry =
        fixture.service.wait_for_ledger(|entry| entry.received == 12 && entry.in_flight == 0).await;
    assert_eq!(entry.rejected, 12);
    let stored = count(&fixture.database, "select count(*) from rejection").await;
    let counted = count(
        &fixture.database,
        "select coalesce(sum(item_count), 0)::bigint from rejection_overflow",
    )
    .await;
    // A new hour may begin during the test.
    assert!((5..=10).contains(&stored), "{stored}");
    assert_eq!(stored + counted, 12);
}

/// An operator's trigger rejects the update that a heartbeat causes: the heartbeat is rejected as if
/// PostgreSQL had rejected its row, and no other message waits for it.
#[actix_rt::test]
async fn an_acknowledgement_that_postgres_rejects_is_rejected_alone() {
    let fixture = Fixture::new(&[]).await;
    let configurations = format!("/api/v1/sensors/{}/configurations", fixture.sensor);
    let (status, answer) =
        fixture.service.post(&configurations, &serde_json::json!({})).await.unwrap();
    assert_eq!(status, 202, "{answer}");
    let published = "select count(*) from configuration where publication_timestamp is not null";
    eventually(TIMEOUT, async || match count(&fixture.database, published).await {
        1 => Ok(()),
        count => Err(count),
    })
    .await;
    let client = connect(&fixture.database.url).await.unwrap();
    let refuse = "create function refuse() returns trigger language plpgsql
        as $$ begin raise exception 'no acknowledgements today'; end $$;
        create trigger refuse before update of acknowledgement_timestamp on configuration
        for each row execute function refuse()";
    client.batch_execute(refuse).await.unwrap();
    let revision = &answer["revision"];
    let refused = format!(r#"{{"revision":{revision},"timestamp":1.0,"success":true}}"#);
    let good = r#"{"revision":77,"timestamp":2.0,"success":true}"#;

    fixture.publish("heartbeats", format!(r#"{{"heartbeats":[{good},{refused}]}}"#)).await;
    fixture.publish("measurements", measurement(1.0)).await;

    let entry = fixture.service.wait_for_ledger(|entry| entry.committed == 1).await;
    assert_eq!(entry.in_flight, 0);
    eventually(TIMEOUT, async || match fixture.service.ledger_entry("heartbeats").await? {
        entry if (entry.committed, entry.rejected) == (1, 1) => Ok(()),
        entry => Err(format!("{entry:?}")),
    })
    .await;
    let reason = "refused_by_database".to_owned();
    assert_eq!(fixture.rejections().await, [(reason, Some(1), refused.into_bytes())]);
    let with_detail =
        "select count(*) from rejection where detail like '%no acknowledgements today%'";
    assert_eq!(count(&fixture.database, with_detail).await, 1);
}

/// An error that no single item causes is not retried endlessly.
#[actix_rt::test]
async fn a_message_that_fails_only_as_a_whole_is_rejected_as_a_whole() {
    let fixture = Fixture::new(&[]).await;
    let client = connect(&fixture.database.url).await.unwrap();
    let refuse = "create function refuse() returns trigger language plpgsql
        as $$ begin if 2 <= any (new.counts) then raise exception 'not two'; end if; return new; end $$;
        create trigger refuse before insert on sensor_hour_journal for each row
        execute function refuse()";
    client.batch_execute(refuse).await.unwrap();
    let now = tributary::domain::Timestamp::now().unix_seconds().floor();
    let two = measurements([now, now]).replacen(r#""temperature""#, r#""other""#, 1);

    fixture.publish("measurements", two.clone()).await;
    fixture.publish("measurements", measurement(now - 1.0)).await;

    let entry =
        fixture.service.wait_for_ledger(|entry| entry.received == 3 && entry.in_flight == 0).await;
    assert_eq!((entry.committed, entry.rejected), (1, 2), "{entry:?}");
    let reason = "refused_by_database".to_owned();
    assert_eq!(fixture.rejections().await, [(reason, None, two.into_bytes())]);
}
