//! What real firmware and real clients publish, on a real broker. Each case once lost data or broke a guarantee.

use serde_json::{Value, json};

use crate::support::fixture::Fixture;
use crate::support::payloads::heartbeat;
use crate::support::postgres::connect;
use crate::support::service::count;
use crate::support::wait::{TIMEOUT, eventually};

impl Fixture {
    async fn read(&self, rest: &str) -> Value {
        let path = format!("/api/v1/sensors/{}/{rest}", self.sensor);
        let (status, answer) = self.service.get(&path).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        answer
    }

    async fn text(&self, rest: &str) -> String {
        let url = format!("{}/api/v1/sensors/{}/{rest}", self.service.url(), self.sensor);
        let mut answer = crate::support::service::client(false).get(url).send().await.unwrap();
        String::from_utf8(answer.body().await.unwrap().to_vec()).unwrap()
    }

    async fn count(&self, query: &str) -> i64 {
        count(&self.database, query).await
    }
}

#[actix_rt::test]
async fn a_sensor_without_a_configuration_has_no_revision() {
    let fixture = Fixture::new(&[]).await;
    // The second round has duplicates only.
    for _ in 0..2 {
        fixture
            .publish(
                "measurements",
                r#"{"measurements":[{"revision":null,"timestamp":1,"value":{"n":1}},
                    {"revision":-1,"timestamp":2,"value":{"n":2}},{"timestamp":3,"value":{"n":3}},
                    {"revision":0,"timestamp":4,"value":{"n":4}},{"revision":-2,"timestamp":5,"value":{"n":5}}]}"#,
            )
            .await;
        fixture
            .publish(
                "log-messages",
                r#"{"log_messages":[{"revision":null,"timestamp":1,"severity":"info","subject":"s"},
                    {"timestamp":2,"severity":"info","subject":"s"}]}"#,
            )
            .await;
        fixture
            .publish(
                "heartbeats",
                r#"{"heartbeats":[{"revision":-1,"timestamp":1,"success":true},{"timestamp":2,"success":true}]}"#,
            )
            .await;
    }
    let service = &fixture.service;
    service.wait_for_ledger(|entry| entry.received == 10 && entry.in_flight == 0).await;
    let measurements = service.ledger_entry("measurements").await.unwrap();
    assert_eq!((measurements.committed, measurements.duplicate, measurements.rejected), (4, 5, 1));
    for (kind, stored) in [("log_messages", 2), ("heartbeats", 2)] {
        let entry = service
            .wait_for_ledger_of(kind, |entry| entry.received == 4 && entry.in_flight == 0)
            .await;
        assert_eq!((entry.committed, entry.duplicate), (stored, stored), "{kind}");
    }
    for (table, rows) in [("measurement", 3), ("log_message", 2), ("heartbeat", 2)] {
        let query = format!("select count(*) from {table} where revision is null");
        assert_eq!(fixture.count(&query).await, rows, "{table}");
    }
    let rejected =
        "select count(*) from rejection where reason = 'invalid_revision' and item_index = 4";
    assert_eq!(fixture.count(rejected).await, 1);

    // All routes that read rows return null.
    for list in ["measurements", "log-messages", "heartbeats"] {
        let items = fixture.read(&format!("{list}?order=asc")).await;
        assert_eq!(items["items"][0]["revision"], json!(null), "{list}");
    }
    let summary = fixture.read("log-messages/aggregates").await;
    assert_eq!(summary["items"][0]["first_revision"], json!(null));
    assert_eq!(summary["items"][0]["count"], 2);
    let lines = fixture.text("measurements/export?format=ndjson").await;
    let revisions: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["revision"].clone())
        .collect();
    assert_eq!(revisions, [json!(null), json!(null), json!(null), json!(0)]);
    let csv = fixture.text("measurements/export").await;
    assert!(csv.lines().nth(1).unwrap().contains(r#"Z,,"{""n"": 1}""#), "{csv}");
    let (_, sensor) = service.get(&format!("/api/v1/sensors/{}", fixture.sensor)).await.unwrap();
    assert_eq!(sensor["live"]["reported_revision"], json!(null));
}

#[actix_rt::test]
async fn the_first_revision_is_1_and_an_existing_revision_0_is_kept() {
    let fixture = Fixture::new(&[]).await;
    let path = format!("/api/v1/sensors/{}/configurations", fixture.sensor);
    let (_, answer) = fixture.service.post(&path, &json!({})).await.unwrap();
    assert_eq!(answer["revision"], 1);
    // Revision 0 and null mean "none"; neither acknowledges anything.
    fixture.publish("heartbeats", heartbeat(0, 1.0, true)).await;
    fixture
        .publish("heartbeats", r#"{"heartbeats":[{"revision":null,"timestamp":2,"success":true}]}"#)
        .await;
    let settled = |entry: crate::support::service::LedgerEntry| entry.committed == 2;
    fixture.service.wait_for_ledger_of("heartbeats", settled).await;
    let acknowledged =
        "select count(*) from configuration where acknowledgement_timestamp is not null";
    assert_eq!(fixture.count(acknowledged).await, 0);

    // A row as an earlier version stored it.
    let older = fixture.service.create_sensor("older").await;
    let client = connect(&fixture.database.url).await.unwrap();
    let insert = format!(
        "insert into configuration (sensor_identifier, revision, value) values ('{older}', 0, '{{}}')"
    );
    client.batch_execute(&insert).await.unwrap();
    let path = format!("/api/v1/sensors/{older}/configurations");
    let (_, answer) = fixture.service.post(&path, &json!({})).await.unwrap();
    assert_eq!(answer["revision"], 1);
    assert_eq!(fixture.service.get(&format!("{path}/0")).await.unwrap().0, 200);
}

#[actix_rt::test]
async fn a_malformed_item_does_not_affect_other_items() {
    let fixture = Fixture::new(&[]).await;
    let malformed =
        ["NaN", "Infinity", "-Infinity", "nan", "inf", "-inf", "+1", "0x1F", "01", "'a'"];
    for (second, bad) in malformed.into_iter().enumerate() {
        let item =
            |value: &str, at: usize| format!(r#"{{"timestamp":{at},"value":{{"t":{value}}}}}"#);
        let at = 10 * second;
        let items = [item("1", at), item(bad, at + 1), item("2", at + 2)].join(", ");
        // As Python writes it, and as C does, with a byte order mark and a terminating NUL.
        fixture.publish("measurements", format!("{{\"measurements\": [{items}]}}")).await;
        fixture.publish("measurements", format!("\u{feff}[{items}]\0")).await;
    }
    let log = r#"[{"timestamp":1,"severity":"info","subject":"a"},{"timestamp":NaN,"severity":"info","subject":"b"}]"#;
    fixture.publish("log-messages", log).await;
    let service = &fixture.service;
    let count = malformed.len() as u64;
    let entry =
        service.wait_for_ledger(|entry| entry.received == 6 * count && entry.in_flight == 0).await;
    // The messages of a pair differ in bytes, so each has its own rejection.
    assert_eq!(
        (entry.committed, entry.duplicate, entry.rejected),
        (2 * count, 2 * count, 2 * count)
    );
    service
        .wait_for_ledger_of("log_messages", |entry| entry.committed == 1 && entry.rejected == 1)
        .await;

    let reasons = "select count(*) from rejection where item_index = 1 and reason = ";
    assert_eq!(fixture.count(&format!("{reasons} 'not_a_number'")).await, 13);
    assert_eq!(fixture.count(&format!("{reasons} 'invalid_item'")).await, 8);
    let named = "select count(*) from rejection where kind = 'measurement' and raw like '{%}' \
        and (detail like 'value.t is %, which JSON does not have%' or detail like 'value.t is %, which is not JSON')";
    assert_eq!(fixture.count(named).await, 2 * count as i64);

    // A replay rejects them again.
    let replay = "/api/v1/rejections/replay";
    let (status, report) = service.post(replay, &json!({ "all": true })).await.unwrap();
    assert_eq!((status, &report["kept"]), (200, &json!(21)), "{report}");
}

#[actix_rt::test]
async fn a_payload_in_another_encoding_is_rejected_and_named() {
    let fixture = Fixture::new(&[]).await;
    let json = r#"{"measurements":[{"timestamp":1,"value":{"t":1}}]}"#;
    let utf16: Vec<u8> = json.encode_utf16().flat_map(u16::to_le_bytes).collect();
    // The first bytes of Python's `gzip.compress`, `zlib.compress` and `cbor2.dumps`.
    for (payload, form) in [
        (b"\x1f\x8b\x08\0\xf1\x8e\x1ei\x02\xff\xabV".to_vec(), "gzip-compressed"),
        (b"x\x9c\xabV\xca\x4dM,.-J".to_vec(), "zlib-compressed"),
        (b"\xa1lmeasurements\x81\xa2itimestamp\x01".to_vec(), "CBOR-encoded"),
        (utf16.clone(), "UTF-16-encoded"),
        ([b"\xff\xfe", &utf16[..]].concat(), "UTF-16-encoded"),
    ] {
        fixture.publish("measurements", payload.clone()).await;
        let expected = format!("the payload looks {form}; send plain JSON");
        eventually(TIMEOUT, async || {
            let (_, page) = fixture.service.get("/api/v1/rejections?limit=1").await?;
            let detail = page["items"][0]["detail"].as_str().unwrap_or_default().to_owned();
            if detail == expected { Ok(()) } else { Err(detail) }
        })
        .await;
    }
    fixture.service.wait_for_ledger(|entry| entry.rejected == 5).await;
    assert_eq!(fixture.count("select count(*) from rejection").await, 5);
}

#[actix_rt::test]
async fn nested_values_are_stored_if_so_configured() {
    let fixture = Fixture::new(&[("NESTED_VALUES", "store")]).await;
    let deep = format!("{}1{}", r#"{"a":"#.repeat(17), "}".repeat(17));
    fixture
        .publish(
            "measurements",
            format!(
                r#"[{{"timestamp":1782896400,"value":{{"wind":{{"speed":3.5,"gusts":[5,{{"max":7}}]}},"sky":"clear"}}}},
                    {{"timestamp":1782896401,"value":{{"wind.speed":4.5,"wind":{{"speed":100}}}}}},
                    {{"timestamp":1782896402,"value":{{"sky":null}}}},
                    {{"timestamp":1782896403,"value":{deep}}}]"#
            ),
        )
        .await;
    fixture.service.wait_for_ledger(|entry| entry.received == 4 && entry.in_flight == 0).await;
    let deeper = "select count(*) from rejection where item_index = 3 and reason = 'nested_value' \
        and detail = 'in value: the member \"a\" is nested deeper than 16 levels'";
    assert_eq!(fixture.count(deeper).await, 1);

    let bucket = "measurements/aggregates?bucket=1h&from=1782896400&to=1782900000";
    let sums = fixture.read(&format!("{bucket}&attributes=wind.speed,wind.gusts.1.max,wind")).await;
    assert_eq!(
        sums["items"][0]["attributes"],
        json!({
            "wind.speed": { "count": 2, "min": 3.5, "mean": 4.0, "max": 4.5 },
            "wind.gusts.1.max": { "count": 1, "min": 7.0, "mean": 7.0, "max": 7.0 },
        })
    );
    let path = "measurements/export?attributes=wind.speed,wind.gusts.0,sky";
    let csv = fixture.text(path).await;
    let lines: Vec<&str> = csv.lines().map(|line| line.splitn(6, ',').nth(5).unwrap()).collect();
    assert_eq!(lines, [r#""wind.speed","wind.gusts.0","sky""#, "3.5,5,clear", "4.5,,", ",,"]);
    let lines = fixture.text(&format!("{path}&format=ndjson")).await;
    let values: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].clone())
        .collect();
    assert_eq!(
        values,
        [
            json!({ "wind.speed": 3.5, "wind.gusts.0": 5, "sky": "clear" }),
            json!({ "wind.speed": 4.5 }),
            json!({ "sky": null }),
        ]
    );
    let page = fixture.read("measurements?order=asc&attributes=wind.gusts.1.max").await;
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(page["items"][0]["value"], json!({ "wind.gusts.1.max": 7 }));

    let configuration = json!({ "schedule": { "days": ["mo", "tu"], "rate": 60 } });
    let topic = format!("{}/configurations/{}", fixture.database.name, fixture.sensor);
    fixture.client.subscribe(&topic).await;
    let path = format!("/api/v1/sensors/{}/configurations", fixture.sensor);
    assert_eq!(fixture.service.post(&path, &configuration).await.unwrap().0, 202);
    let sent = fixture.client.wait_for_messages(1).await;
    let sent: Value = serde_json::from_str(&sent[0].payload).unwrap();
    assert_eq!(sent["configuration"], configuration);
    let (status, problem) =
        fixture.service.post(&path, &serde_json::from_str(&deep).unwrap()).await.unwrap();
    assert_eq!((status, &problem["reason"]), (422, &json!("nested_value")), "{problem}");
    assert_eq!(problem["pointer"], "/a".repeat(16));
    let with_nul = r#"{"name":"two","configuration":{"a":[1,{"b/c":"\u0000"}]}}"#;
    let with_nul = serde_json::from_str(with_nul).unwrap();
    let (status, problem) = fixture.service.post("/api/v1/sensors", &with_nul).await.unwrap();
    assert_eq!((status, &problem["reason"]), (422, &json!("nul_character")), "{problem}");
    assert_eq!(problem["pointer"], "/configuration/a/1/b~1c");
    let status = fixture.service.get("/api/v1/status").await.unwrap().1;
    assert_eq!(status["settings"]["nested_values"], "store");
    assert_eq!(status["settings"]["topic_prefix"], json!(fixture.database.name));
}

#[actix_rt::test]
async fn a_missing_timestamp_is_replaced_by_the_receipt_if_so_configured() {
    let mut fixture = Fixture::new(&[("TIMESTAMP_MISSING", "receipt")]).await;
    let measurement = format!("{}/measurements/{}", fixture.database.name, fixture.sensor);
    let readings =
        r#"[{"value":{"t":1}},{"timestamp":null,"value":{"t":1}},{"timestamp":5,"value":{"t":1}}]"#;
    // All readings without a timestamp are stored, although equal; those with a timestamp are duplicates.
    for _ in 0..50 {
        fixture.client.publish_at_most_once(&measurement, readings).await.unwrap();
    }
    for (kind, item) in [
        ("logs", r#"[{"severity":"info","message":"started"}]"#),
        ("heartbeats", r#"{"heartbeats":[{"success":true}]}"#),
    ] {
        let topic = format!("{}/{kind}/{}", fixture.database.name, fixture.sensor);
        fixture.client.publish_at_most_once(&topic, item).await.unwrap();
    }
    // At QoS 1, which may redeliver, they are rejected; an equal second message adds no rejection.
    fixture.publish("measurements", readings).await;
    fixture.publish("measurements", readings).await;
    let retained = r#"[{"value":{"t":2}}]"#;
    fixture.client.publish_retained_at_most_once(&measurement, retained).await.unwrap();

    let service = &fixture.service;
    let entry =
        service.wait_for_ledger(|entry| entry.received == 157 && entry.in_flight == 0).await;
    assert_eq!((entry.committed, entry.duplicate, entry.rejected), (102, 53, 2));
    for kind in ["log_messages", "heartbeats"] {
        service.wait_for_ledger_of(kind, |entry| entry.committed == 1).await;
    }
    let timed = "select count(distinct creation_timestamp) from measurement where timed_at_receipt \
        and creation_timestamp - receipt_timestamp between '0' and interval '1 microsecond'";
    assert_eq!(fixture.count(timed).await, 101);
    let sensors = "select count(*) from measurement where timed_at_receipt is null";
    assert_eq!(fixture.count(sensors).await, 1);
    let rejected = "select count(*) from rejection where reason = 'invalid_timestamp' \
        and detail like 'timestamp is % only at QoS 0, because a message of QoS 1 may be delivered twice'";
    assert_eq!(fixture.count(rejected).await, 2);

    // All routes that read rows mark them.
    for list in ["measurements", "log-messages", "heartbeats"] {
        let page = fixture.read(&format!("{list}?order=desc&limit=1")).await;
        assert_eq!(page["items"][0]["timed_at_receipt"], true, "{list}: {page}");
    }
    let oldest = fixture.read("measurements?order=asc&limit=1").await;
    assert_eq!(oldest["items"][0].get("timed_at_receipt"), None);
    let (_, fleet) = service.get("/api/v1/log-messages").await.unwrap();
    assert_eq!(fleet["items"][0]["timed_at_receipt"], true, "{fleet}");

    // A replay rejects them, too: the broker may still redeliver the message.
    let replay = "/api/v1/rejections/replay";
    let (_, report) = service.post(replay, &json!({ "all": true })).await.unwrap();
    assert_eq!((&report["kept"], &report["removed"]), (&json!(2), &json!(0)), "{report}");
    // Each session receives a retained message again, which would be another row each time.
    let session = format!("{}-another", fixture.database.name);
    fixture.restart(&[("TIMESTAMP_MISSING", "receipt"), ("MQTT_CLIENT_ID", &session)]).await;
    let retained =
        "select count(*) from rejection where detail like '%because a retained message%'";
    eventually(TIMEOUT, async || match fixture.count(retained).await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(fixture.count("select count(*) from measurement").await, 102);
}

#[actix_rt::test]
async fn items_rejected_without_a_timestamp_are_replayed_with_their_receipt() {
    let mut fixture = Fixture::new(&[]).await;
    let topic = format!("{}/measurements/{}", fixture.database.name, fixture.sensor);
    let readings = r#"[{"value":{"t":1}},{"value":{"t":1}}]"#;
    // Equal readings: none is the redelivery of another.
    for _ in 0..3 {
        fixture.client.publish_at_most_once(&topic, readings).await.unwrap();
    }
    fixture.publish("measurements", r#"[{"value":{"t":2}}]"#).await;
    fixture.service.wait_for_ledger(|entry| entry.rejected == 7).await;

    fixture.restart(&[("TIMESTAMP_MISSING", "receipt")]).await;
    let replay = "/api/v1/rejections/replay";
    for (removed, kept) in [(6, 1), (0, 1)] {
        let (_, report) = fixture.service.post(replay, &json!({ "all": true })).await.unwrap();
        assert_eq!((&report["removed"], &report["kept"]), (&json!(removed), &json!(kept)));
    }
    let stored =
        "select count(distinct creation_timestamp) from measurement where timed_at_receipt";
    assert_eq!(fixture.count(stored).await, 6);
}

#[actix_rt::test]
async fn equal_readings_of_an_unknown_sensor_are_all_replayed() {
    let fixture = Fixture::new(&[("TIMESTAMP_MISSING", "receipt")]).await;
    let sensor = uuid::Uuid::new_v4();
    let topic = format!("{}/measurements/{sensor}", fixture.database.name);
    for _ in 0..10 {
        let reading = r#"{"measurements":[{"value":{"t":21.5}}]}"#;
        fixture.client.publish_at_most_once(&topic, reading).await.unwrap();
    }
    fixture.service.wait_for_ledger(|entry| entry.rejected == 10).await;

    let create = json!({ "name": "late", "identifier": sensor });
    assert_eq!(fixture.service.post("/api/v1/sensors", &create).await.unwrap().0, 201);
    let replay = json!({ "all": true });
    let (_, report) = fixture.service.post("/api/v1/rejections/replay", &replay).await.unwrap();
    assert_eq!(report["removed"], 10, "{report}");
    assert_eq!(fixture.count("select count(*) from measurement").await, 10);
}
