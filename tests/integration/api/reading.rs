//! Lists return rows page by page, newest first, with unchanged values.

use serde_json::{Value, json};
use tributary::domain::{Kind, KindCounts, SensorIdentifier, Tally};

use super::fixture::Api;
use crate::support::postgres::Postgres;

/// The items of all pages of a list; `between` runs after the first page.
async fn pages(api: &Api, path: &str, between: impl AsyncFnOnce()) -> Vec<Value> {
    let mut items = Vec::new();
    let mut between = Some(between);
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("{path}limit=2{cursor}")).await.expect(200);
        let page_items = page["items"].as_array().expect("a list has items");
        assert!((1..=2).contains(&page_items.len()), "{page}");
        items.extend(page_items.iter().cloned());
        let Some(next) = page["next"].as_str() else { return items };
        cursor = format!("&cursor={next}");
        if let Some(between) = between.take() {
            between().await;
        }
    }
}

#[actix_rt::test]
async fn measurements_are_paged_newest_first_across_inserts() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    let (other, _) = api.create_sensor("two").await;
    // Pairs with equal timestamps, and the same timestamps for another sensor.
    for sensor in [identifier, other] {
        api.execute(&format!(
            "insert into measurement select uuid '{sensor}', to_timestamp(1700000000.25 + n / 2),
                 timestamptz '2024-01-01T00:00:00Z', n * 7777777777777777777 - 9, n, jsonb_build_object('n', n)
             from generate_series(0, 1) n
             union all select uuid '{sensor}', to_timestamp(1700000001.25 + n / 2),
                 timestamptz '2024-01-01T00:00:00Z', -n, 2 + n, jsonb_build_object('n', 2 + n)
             from generate_series(0, 3) n"
        ))
        .await;
    }

    let newer = async || {
        api.execute(&format!(
            "insert into measurement values ('{identifier}', now(), now(), 1, 9, '{{\"n\":99}}')"
        ))
        .await;
    };
    let items = pages(&api, &format!("{one}/measurements?"), newer).await;

    let seen: Vec<_> = items
        .iter()
        .map(|it| (it["timestamp"].as_f64().unwrap(), it["value"]["n"].as_i64().unwrap()))
        .collect();
    let expected = [
        (1_700_000_002.25, 4),
        (1_700_000_002.25, 5),
        (1_700_000_001.25, 2),
        (1_700_000_001.25, 3),
        (1_700_000_000.25, 1),
        (1_700_000_000.25, 0),
    ];
    assert_eq!(seen, expected);
    assert_eq!(items[0]["creation_timestamp"], "2023-11-14T22:13:22.25Z");
    assert_eq!(items[0]["receipt_timestamp"], "2024-01-01T00:00:00Z");
    assert_eq!(items[0]["revision"], 4);
}

#[actix_rt::test]
async fn a_measurement_in_the_future_is_the_latest_only_if_there_is_no_other() {
    let api = Api::start_with(
        Postgres::shared().await,
        &[("AUTH", "off"), ("FUTURE_TOLERANCE_SECS", "3600")],
    )
    .await;
    let (identifier, one) = api.create_sensor("one").await;
    let latest = async || {
        let latest = api.get(&format!("{one}/measurements/latest")).await;
        if latest.status == 404 {
            return latest.expect(404)["type"].clone();
        }
        let latest = latest.expect(200);
        json!([latest["value"]["n"], latest["in_future"], latest["newer_in_future"]])
    };
    let insert = async |n: i32, at: &str| {
        api.execute(&format!(
            "insert into measurement values ('{identifier}', {at}, now(), {n}, 0, '{{\"n\":{n}}}')"
        ))
        .await;
        latest().await
    };

    assert_eq!(latest().await, "/problems/measurement-not-found");
    assert_eq!(insert(1, "timestamptz '2099-01-01T00:00:00Z'").await, json!([1, true, false]));
    assert_eq!(insert(2, "now() + interval '2 hours'").await, json!([1, true, false]));
    // A measurement that is not in the future is preferred, however old it is.
    assert_eq!(insert(3, "now() - interval '3 years'").await, json!([3, false, true]));
    assert_eq!(insert(4, "now() - interval '1 minute'").await, json!([4, false, true]));
    assert_eq!(insert(5, "now() + interval '50 minutes'").await, json!([5, false, true]));
    api.execute("delete from measurement where creation_timestamp > now() + interval '1 hour'")
        .await;
    assert_eq!(latest().await, json!([5, false, false]));
}

#[actix_rt::test]
async fn a_value_is_returned_exactly_as_stored() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    let digits = "1".repeat(400);
    let value = format!(
        r#"{{"a": 1.0, "b": 0.10, "c": 123456789012345678901234567890.5, "d": {digits}, "e": "µ\u0001\"", "f": null}}"#
    );
    api.execute(&format!(
        "insert into measurement values ('{identifier}', to_timestamp(0.000001), now(), 1, 0, '{value}')"
    ))
    .await;

    let page = api.get(&format!("{one}/measurements")).await;

    assert!(page.text.contains(&format!(r#""value":{value}"#)), "{}", page.text);
    assert!(page.text.contains(r#""creation_timestamp":"1970-01-01T00:00:00.000001Z""#));
}

#[actix_rt::test]
async fn log_messages_and_heartbeats_are_paged_newest_first() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    api.execute(&format!(
        "insert into log_message select '{identifier}', to_timestamp(n), now(), n, 0, 'warning',
             'subject ' || n, case when n = 3 then 'why' end from generate_series(0, 4) n;
         insert into heartbeat select '{identifier}', to_timestamp(n), now(), n, n, n > 0
             from generate_series(0, 4) n"
    ))
    .await;

    let logs = pages(&api, &format!("{one}/log-messages?"), async || {}).await;
    let beats = pages(&api, &format!("{one}/heartbeats?"), async || {}).await;

    let subjects: Vec<_> = logs.iter().map(|it| it["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["subject 4", "subject 3", "subject 2", "subject 1", "subject 0"]);
    let details = (&logs[0]["details"], &logs[1]["details"], &logs[1]["severity"]);
    assert_eq!(details, (&json!(null), &json!("why"), &json!("warning")));
    let revisions: Vec<_> = beats.iter().map(|it| it["revision"].as_i64().unwrap()).collect();
    assert_eq!(revisions, [4, 3, 2, 1, 0]);
    assert_eq!((&beats[3]["success"], &beats[4]["success"]), (&json!(true), &json!(false)));
}

#[actix_rt::test]
async fn the_list_of_a_sensor_without_rows_gets_200_and_of_an_unknown_sensor_404() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    let unknown_sensor = format!("/api/v1/sensors/{}", SensorIdentifier::random());
    for list in ["measurements", "log-messages", "heartbeats", "configurations"] {
        let empty = api.get(&format!("{one}/{list}")).await.expect(200);
        assert_eq!(empty, json!({ "items": [], "next": null }));
        let problem = api.get(&format!("{unknown_sensor}/{list}")).await.expect(404);
        assert_eq!(problem["type"], "/problems/sensor-not-found");
    }
}

#[actix_rt::test]
async fn sensors_are_listed_by_name() {
    let api = Api::start().await;
    for name in ["delta", "alpha", "echo", "bravo", "char/lie?&"] {
        api.create_sensor(name).await;
    }

    let items = pages(&api, "/api/v1/sensors?", async || {}).await;

    let names: Vec<_> = items.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["alpha", "bravo", "char/lie?&", "delta", "echo"]);
    let exact = api.get("/api/v1/sensors?name=char/lie%3F%26").await.expect(200);
    assert_eq!(exact["items"].as_array().unwrap().len(), 1);
    let none = api.get("/api/v1/sensors?name=alph").await.expect(200);
    assert_eq!(none["items"], json!([]));
}

#[actix_rt::test]
async fn rejections_are_filtered_and_returned_with_their_bytes() {
    let api = Api::start().await;
    let sensor = SensorIdentifier::random();
    api.execute(&format!(
        r"insert into rejection (receipt_timestamp, topic, sensor_identifier, kind, item_index,
              item_count, reason, detail, raw, digest)
          select '2024-01-01T00:00:00Z', 'measurements/x', case when n > 0 then uuid '{sensor}' end,
              'measurement', n, 1, case when n > 1 then 'not_json' else 'not_utf8' end, 'a sentence',
              case when n > 1 then '{{'::bytea else '\xff'::bytea end, gen_random_uuid()
          from generate_series(0, 4) n"
    ))
    .await;

    let all = pages(&api, "/api/v1/rejections?", async || {}).await;
    let some =
        pages(&api, &format!("/api/v1/rejections?sensor={sensor}&reason=not_utf8&"), async || {})
            .await;

    let indices: Vec<_> = all.iter().map(|it| it["item_index"].as_i64().unwrap()).collect();
    assert_eq!(indices, [4, 3, 2, 1, 0]);
    assert_eq!((&all[0]["raw"], all[0].get("raw_base64")), (&json!("{"), None));
    assert_eq!(some.len(), 1);
    assert_eq!((&some[0]["raw_base64"], some[0].get("raw")), (&json!("/w=="), None));
    assert_eq!(some[0]["sensor_identifier"], json!(sensor));
}

#[actix_rt::test]
async fn the_status_and_the_metrics_show_the_ledger() {
    let api = Api::start().await;
    let mut arrivals = KindCounts::default();
    arrivals.add(Some(Kind::Measurement), 10);
    api.ledger.receive(arrivals);
    let mut tally = Tally::default();
    tally.stored(Kind::Measurement, 6, 5);
    api.ledger.settle([(Some(Kind::Measurement), 6)], &tally);

    let status = api.get("/api/v1/status").await.expect(200);

    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["commit"].is_string());
    assert!(status["started_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        status["ledger"]["measurements"],
        json!({ "received": 10, "committed": 5, "duplicate": 1, "rejected": 0, "in_flight": 4, "released": 0, "replayed": 0 })
    );
    assert_eq!(status["ledger"]["log_messages"]["received"], 0);
    assert_eq!(status["ledger"]["heartbeats"]["received"], 0);
    assert_eq!(status["connections"]["database"]["up"], true);
    assert_eq!(status["connections"]["broker_ingest"]["up"], true);
    assert_eq!(status["actors"]["alive"], 7);
    let metrics = api.get("/metrics").await;
    let line = r#"tributary_items_total{kind="measurements",outcome="committed"} 5"#;
    assert!(metrics.text.contains(line), "{metrics:?}");
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
}
