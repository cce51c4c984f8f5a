//! Lists of a sensor's data are filtered by time range, attributes, severity and text, and ordered.

use serde_json::{Value, json};
use tributary::domain::SensorIdentifier;

use super::fixture::Api;
use crate::support::postgres::Postgres;

/// Creates a sensor with the measurements n = 0 to 9, created at second 1,700,000,000 + n.
async fn sensor_with_measurements(api: &Api, name: &str) -> (SensorIdentifier, String) {
    let (identifier, one) = api.create_sensor(name).await;
    api.execute(&format!(
        "insert into measurement select '{identifier}', to_timestamp(1700000000 + n), now(), n, 3,
             case when n % 2 = 0 then jsonb_build_object('n', n, 'even', true, 'a,b', 'x')
                  else jsonb_build_object('n', n) end
         from generate_series(0, 9) n"
    ))
    .await;
    (identifier, one)
}

fn numbers(page: &Value) -> Vec<i64> {
    page["items"].as_array().unwrap().iter().map(|it| it["value"]["n"].as_i64().unwrap()).collect()
}

#[actix_rt::test]
async fn a_time_range_includes_from_and_excludes_to() {
    let api = Api::start().await;
    let (_, one) = sensor_with_measurements(&api, "one").await;
    for (query, expected) in [
        ("from=1700000007", vec![9, 8, 7]),
        ("to=1700000002", vec![1, 0]),
        ("from=1700000003&to=1700000005", vec![4, 3]),
        ("from=2023-11-14T22:13:23Z&to=2023-11-14T23:13:25%2B01:00", vec![4, 3]),
        ("from=1700000007&order=asc", vec![7, 8, 9]),
        ("order=asc&limit=2", vec![0, 1]),
        ("order=desc&limit=2", vec![9, 8]),
        ("from=1800000000", vec![]),
        ("to=0.5", vec![]),
    ] {
        let page = api.get(&format!("{one}/measurements?{query}")).await.expect(200);
        assert_eq!(numbers(&page), expected, "{query}");
    }
}

#[actix_rt::test]
async fn pages_continue_in_their_order() {
    let api = Api::start().await;
    let (identifier, one) = sensor_with_measurements(&api, "one").await;
    // Years older than the others, so that it is outside the range that is searched first.
    api.execute(&format!(
        "insert into measurement values ('{identifier}', to_timestamp(1), now(), 1, 0, '{{\"n\":-1}}')"
    ))
    .await;
    for (order, expected) in [
        ("asc", vec![-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("desc", vec![9, 8, 7, 6, 5, 4, 3, 2, 1, 0, -1]),
    ] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("{one}/measurements?order={order}&limit=3{cursor}");
            let page = api.get(&path).await.expect(200);
            seen.extend(numbers(&page));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, expected, "{order}");
    }
}

#[actix_rt::test]
async fn only_the_requested_attributes_are_returned() {
    let api = Api::start().await;
    let (_, one) = sensor_with_measurements(&api, "one").await;

    let page = api.get(&format!("{one}/measurements?attributes=even,n&limit=2")).await.expect(200);
    let values: Vec<_> = page["items"].as_array().unwrap().iter().map(|it| &it["value"]).collect();
    assert_eq!(values, [&json!({ "n": 9 }), &json!({ "n": 8, "even": true })]);

    let some = api.get(&format!("{one}/measurements?attributes=a%5C,b")).await.expect(200);
    let items = some["items"].as_array().unwrap();
    assert_eq!(items.len(), 5, "measurements with the attribute");
    assert!(items.iter().all(|it| it["value"] == json!({ "a,b": "x" })));
    let none = api.get(&format!("{one}/measurements?attributes=pressure")).await.expect(200);
    assert_eq!(none, json!({ "items": [], "next": null }));
}

#[actix_rt::test]
async fn the_latest_measurement_is_returned_alone() {
    let api = Api::start().await;
    let (_, one) = sensor_with_measurements(&api, "one").await;
    let (_, silent) = api.create_sensor("silent").await;

    let latest = api.get(&format!("{one}/measurements/latest")).await.expect(200);

    assert_eq!(latest["value"]["n"], 9);
    assert_eq!(latest["timestamp"], 1_700_000_009.0);
    assert_eq!(latest["creation_timestamp"], "2023-11-14T22:13:29Z");
    let problem = api.get(&format!("{silent}/measurements/latest")).await.expect(404);
    assert_eq!(problem["type"], "/problems/measurement-not-found");
    let unknown = format!("/api/v1/sensors/{}/measurements/latest", SensorIdentifier::random());
    assert_eq!(api.get(&unknown).await.expect(404)["type"], "/problems/sensor-not-found");
}

#[actix_rt::test]
async fn a_page_over_4_mib_ends_early() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    // 1 MB each, which PostgreSQL compresses; a page is limited to 4 MiB.
    api.execute(&format!(
        "insert into measurement select '{identifier}', to_timestamp(n), now(), n, 0,
             jsonb_build_object('n', n, 'text', repeat('x', 1000000)) from generate_series(0, 11) n"
    ))
    .await;

    let (mut seen, mut cursor, mut lengths) = (Vec::new(), String::new(), Vec::new());
    loop {
        let answer = api.get(&format!("{one}/measurements?limit=1000{cursor}")).await;
        lengths.push(answer.text.len());
        let page = answer.expect(200);
        seen.extend(numbers(&page));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }

    assert_eq!(seen, (0..12).rev().collect::<Vec<_>>());
    assert_eq!(lengths.len(), 3, "{lengths:?}");
    assert!(lengths.iter().all(|length| *length < 5_500_000), "{lengths:?}");
}

#[actix_rt::test]
async fn log_messages_are_found_by_severity_text_and_time() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    api.execute(&format!(
        "insert into log_message values
             ('{identifier}', to_timestamp(1), now(), 1, 0, 'info', 'started', null),
             ('{identifier}', to_timestamp(2), now(), 1, 0, 'warning', 'Battery low', 'at 10% now'),
             ('{identifier}', to_timestamp(3), now(), 1, 1, 'warning', 'Battery low', 'at 100 mV'),
             ('{identifier}', to_timestamp(4), now(), 1, 2, 'error', 'sensor lost', null)"
    ))
    .await;
    let seconds = async |query: &str| -> Vec<f64> {
        let page = api.get(&format!("{one}/log-messages?{query}")).await.expect(200);
        let items = page["items"].as_array().unwrap();
        items.iter().map(|it| it["timestamp"].as_f64().unwrap()).collect()
    };
    for (query, expected) in [
        ("", vec![4.0, 3.0, 2.0, 1.0]),
        ("severity=error", vec![4.0]),
        ("severity=info,error", vec![4.0, 1.0]),
        ("text=battery", vec![3.0, 2.0]),
        ("text=10%25", vec![2.0]),
        ("text=10_", vec![]),
        ("text=at&severity=error", vec![]),
        ("from=2&to=4&order=asc", vec![2.0, 3.0]),
    ] {
        assert_eq!(seconds(query).await, expected, "{query}");
    }

    let path = format!("{one}/log-messages/aggregates");
    let all = api.get(&path).await.expect(200);
    assert_eq!(
        all["items"],
        json!([
            {
                "severity": "error", "subject": "sensor lost", "count": 1,
                "first_revision": 2, "last_revision": 2,
                "first_creation_timestamp": "1970-01-01T00:00:04Z",
                "last_creation_timestamp": "1970-01-01T00:00:04Z",
            },
            {
                "severity": "warning", "subject": "Battery low", "count": 2,
                "first_revision": 0, "last_revision": 1,
                "first_creation_timestamp": "1970-01-01T00:00:02Z",
                "last_creation_timestamp": "1970-01-01T00:00:03Z",
            },
            {
                "severity": "info", "subject": "started", "count": 1,
                "first_revision": 0, "last_revision": 0,
                "first_creation_timestamp": "1970-01-01T00:00:01Z",
                "last_creation_timestamp": "1970-01-01T00:00:01Z",
            },
        ])
    );
    let (mut subjects, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("{path}?limit=1{cursor}")).await.expect(200);
        subjects.push(page["items"][0]["subject"].as_str().unwrap().to_owned());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(subjects, ["sensor lost", "Battery low", "started"]);
    let one = api.get(&format!("{path}?text=low&from=3&severity=warning")).await.expect(200);
    assert_eq!((&one["items"][0]["count"], one["items"].as_array().unwrap().len()), (&json!(1), 1));
}

#[actix_rt::test]
async fn heartbeats_are_found_by_revision_and_success() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    api.execute(&format!(
        "insert into heartbeat select '{identifier}', to_timestamp(n), now(), n, n / 2, n <> 3
         from generate_series(0, 4) n"
    ))
    .await;
    for (query, expected) in [
        ("revision=1", vec![3.0, 2.0]),
        ("success=false", vec![3.0]),
        ("revision=1&success=true", vec![2.0]),
        ("from=1&to=3&order=asc", vec![1.0, 2.0]),
    ] {
        let page = api.get(&format!("{one}/heartbeats?{query}")).await.expect(200);
        let seen: Vec<_> = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["timestamp"].as_f64().unwrap())
            .collect();
        assert_eq!(seen, expected, "{query}");
    }
}

#[actix_rt::test]
async fn an_invalid_parameter_is_rejected_by_name() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    for (path, parameter) in [
        ("measurements?from=yesterday", "from"),
        ("measurements?to=-1", "to"),
        ("measurements?from=2&to=2", "to"),
        ("measurements?order=up", "order"),
        ("measurements?attributes=", "attributes"),
        ("measurements?attributes=a,,b", "attributes"),
        ("measurements?attributes=a%00", "attributes"),
        ("measurements?severity=error", "severity"),
        ("measurements/latest?limit=1", "limit"),
        ("measurements/aggregates?bucket=1h", "attributes"),
        ("measurements/aggregates?attributes=a", "bucket"),
        ("measurements/aggregates?attributes=a&bucket=0", "bucket"),
        ("measurements/aggregates?attributes=a&bucket=31d", "bucket"),
        ("measurements/aggregates?attributes=a,b,c,d,e,f,g,h,i&bucket=1h", "attributes"),
        ("measurements/aggregates?attributes=a&bucket=1h&order=asc", "order"),
        ("measurements/export?format=xml", "format"),
        ("measurements/export?limit=1", "limit"),
        ("log-messages?severity=fatal", "severity"),
        ("log-messages?severity=", "severity"),
        ("log-messages?severity=error,", "severity"),
        ("log-messages?severity=Error", "severity"),
        ("log-messages?severity=error,%20info", "severity"),
        ("log-messages?text=", "text"),
        ("log-messages?text=%00", "text"),
        ("log-messages/aggregates?cursor=bm8", "cursor"),
        ("heartbeats?revision=-1", "revision"),
        ("heartbeats?success=yes", "success"),
        ("configurations/diff", "from"),
        ("configurations/diff?from=x", "from"),
    ] {
        let problem = api.get(&format!("{one}/{path}")).await.expect(400);
        assert_eq!(problem["type"], "/problems/invalid-parameter", "{path}");
        assert_eq!(problem["parameter"], parameter, "{path}");
    }
}

#[actix_rt::test]
async fn a_read_over_its_timeout_gets_503() {
    let postgres = Postgres::shared().await;
    let api =
        Api::start_with(postgres, &[("AUTH", "off"), ("DATABASE_READ_TIMEOUT_SECS", "1")]).await;
    let (_, one) = sensor_with_measurements(&api, "one").await;
    let locker = crate::support::postgres::connect(&api.database.url).await.unwrap();
    locker.batch_execute("begin; lock table measurement").await.unwrap();

    let answer = api.get(&format!("{one}/measurements")).await;

    assert_eq!(answer.header("retry-after"), "10");
    assert_eq!(answer.expect(503)["type"], "/problems/read-timeout");
    locker.batch_execute("rollback").await.unwrap();
    api.get(&format!("{one}/measurements")).await.expect(200);
}

#[actix_rt::test]
async fn a_cursor_is_valid_only_for_its_own_list_and_order() {
    let api = Api::start().await;
    let (identifier, one) = sensor_with_measurements(&api, "one").await;
    api.execute(&format!(
        "insert into heartbeat select '{identifier}', to_timestamp(n), now(), n, n, true
             from generate_series(0, 4) n;
         insert into log_message select '{identifier}', to_timestamp(n), now(), n, n, 'info', 'x', null
             from generate_series(0, 4) n"
    ))
    .await;
    for number in 0..2 {
        let user =
            json!({ "name": number.to_string(), "role": "viewer", "password": "correct horse" });
        api.post("/api/v1/users", user).await.expect(201);
        let token = json!({ "name": number.to_string(), "role": "viewer" });
        api.post("/api/v1/tokens", token).await.expect(201);
    }
    let mut lists = Vec::new();
    for series in ["measurements", "log-messages", "heartbeats"] {
        for order in ["asc", "desc"] {
            lists.push(format!("{one}/{series}?order={order}"));
        }
    }
    lists.extend(["users", "tokens"].map(|list| format!("/api/v1/{list}?")));
    for from in &lists {
        let page = api.get(&format!("{from}&limit=1")).await.expect(200);
        let cursor = page["next"].as_str().unwrap();
        for to in &lists {
            let answer = api.get(&format!("{to}&limit=1&cursor={cursor}")).await;
            if from == to {
                assert_ne!(answer.expect(200)["items"], page["items"], "{to}");
            } else {
                assert_eq!(answer.expect(400)["parameter"], "cursor", "from {from} to {to}");
            }
        }
    }
}

#[actix_rt::test]
async fn a_duplicate_attribute_is_named_in_the_problem() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    for list in ["measurements?", "measurements/aggregates?bucket=1h&", "measurements/export?"] {
        let path = format!("{one}/{list}attributes=a,temperature,temperature");
        let problem = api.get(&path).await.expect(400);
        assert_eq!(problem["detail"], "it names \"temperature\" twice", "{path}");
    }
}
