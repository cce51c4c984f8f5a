//! Sensors belong to networks and have metadata; lists filter and sort them.

use actix_web::http::Method;
use serde_json::{Value, json};
use tributary::domain::{NetworkIdentifier, Role, Scope, Timestamp};
use tributary::sensor::{ReceiptStats, Snapshot};

use super::fixture::Api;

const SENSORS: &str = "/api/v1/sensors";

/// The names from all pages, with two sensors per page.
async fn names(api: &Api, query: &str) -> Vec<String> {
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("{SENSORS}?limit=2&{query}{cursor}")).await.expect(200);
        let items = page["items"].as_array().unwrap();
        names.extend(items.iter().map(|it| it["name"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { return names };
        cursor = format!("&cursor={next}");
    }
}

#[actix_rt::test]
async fn a_sensor_belongs_to_a_network_and_can_be_moved() {
    let api = Api::start().await;
    let here = api.network("here").await;
    let (_, by_default) = api.create_sensor("one").await;
    let created = api.post(SENSORS, json!({ "name": "one", "network": here })).await.expect(201);
    assert_eq!(created["network"], json!(here), "names are unique per network");
    assert_eq!(
        api.get(&by_default).await.expect(200)["network"],
        json!(NetworkIdentifier::DEFAULT)
    );

    let body = json!({ "network": here }).to_string();
    let taken = api.send_json(Method::PATCH, &by_default, &body).await.expect(409);
    assert_eq!(taken["pointer"], "/name");
    let body = json!({ "network": here, "name": "two" }).to_string();
    let moved = api.send_json(Method::PATCH, &by_default, &body).await.expect(200);
    assert_eq!((&moved["network"], &moved["name"]), (&json!(here), &json!("two")));
    let nowhere = json!({ "name": "x", "network": NetworkIdentifier::random() }).to_string();
    for (method, path) in [(Method::POST, SENSORS), (Method::PATCH, by_default.as_str())] {
        let problem = api.send_json(method, path, &nowhere).await.expect(422);
        assert_eq!(problem["pointer"], "/network");
    }
}

#[actix_rt::test]
async fn an_admin_of_one_network_creates_and_moves_sensors_only_within_it() {
    let api = Api::start_guarded().await;
    let (here, elsewhere) = (api.network("here").await, api.network("elsewhere").await);
    let admin = api.token(Role::Admin, Scope::Network(here)).await;
    let created = api.call(Some(&admin), Method::POST, SENSORS, Some(r#"{"name":"a"}"#)).await;
    let created = created.expect(201);
    assert_eq!(created["network"], json!(here));
    let path = format!("{SENSORS}/{}", created["identifier"].as_str().unwrap());
    let body = json!({ "network": elsewhere, "name": "b" }).to_string();
    for (method, path) in [(Method::POST, SENSORS), (Method::PATCH, path.as_str())] {
        let problem = api.call(Some(&admin), method, path, Some(&body)).await.expect(422);
        assert_eq!(problem["pointer"], "/network");
    }
    let other_viewer = api.token(Role::Viewer, Scope::Network(elsewhere)).await;
    for query in ["", "?name=a", &format!("?network={here}")] {
        let path = format!("{SENSORS}{query}");
        let page = api.call(Some(&other_viewer), Method::GET, &path, None).await.expect(200);
        assert_eq!(page["items"], json!([]), "{query}");
    }
}

#[actix_rt::test]
async fn metadata_is_stored_unchanged_and_is_no_configuration() {
    let api = Api::start().await;
    let body = r#"{"name":"one","metadata":{"site": {"height": 21.50, "tags": ["a", null]}}}"#;
    let created = api.post(SENSORS, body).await.expect(201);
    let path = format!("{SENSORS}/{}", created["identifier"].as_str().unwrap());
    let stored_metadata = r#""metadata":{"site": {"tags": ["a", null], "height": 21.50}}"#;
    assert!(api.get(&path).await.text.contains(stored_metadata));
    assert_eq!(created["newest_revision"], json!(null));

    let renamed = api.send_json(Method::PATCH, &path, r#"{"name":"two"}"#).await.expect(200);
    assert_eq!(renamed["metadata"], created["metadata"]);
    let emptied = api.send_json(Method::PATCH, &path, r#"{"metadata":{}}"#).await.expect(200);
    assert_eq!((&emptied["metadata"], &emptied["name"]), (&json!({}), &json!("two")));
    let large = json!({ "metadata": { "a": "x".repeat(16 << 10) } }).to_string();
    for body in [r#"{"metadata":[]}"#, r#"{"metadata":null}"#, &large] {
        let problem = api.send_json(Method::PATCH, &path, body).await.expect(422);
        assert_eq!(problem["pointer"], "/metadata");
    }
}

#[actix_rt::test]
async fn sensors_are_filtered_by_network_and_silent_since() {
    let api = Api::start().await;
    let here = api.network("here").await;
    for name in ["a", "b", "c"] {
        api.post(SENSORS, json!({ "name": name, "network": here })).await.expect(201);
    }
    api.create_sensor("a").await;
    api.execute(&format!(
        "update sensor set last_seen_timestamp = '2026-01-01T00:00:00Z' where name = 'a';
         update sensor set last_seen_timestamp = '2026-01-03T00:00:00Z'
             where name = 'b' and network_identifier = '{here}'"
    ))
    .await;

    assert_eq!(names(&api, "").await, ["a", "a", "b", "c"]);
    assert_eq!(names(&api, &format!("network={here}")).await, ["a", "b", "c"]);
    assert_eq!(names(&api, &format!("network={here}&name=a")).await, ["a"]);
    assert_eq!(names(&api, "silent_since=2026-01-02T00:00:00Z").await, ["a", "a", "c"]);
    assert_eq!(names(&api, "silent_since=1767312000").await, ["a", "a", "c"]);
    assert_eq!(names(&api, &format!("network={}", NetworkIdentifier::random())).await, [""; 0]);
    for (query, parameter) in [
        ("network=7", "network"),
        ("silent_since=yesterday", "silent_since"),
        ("silent_since=-009999-01-01T00:00:00Z", "silent_since"),
        ("configuration_state=lost", "configuration_state"),
        ("sort=age", "sort"),
    ] {
        let problem = api.get(&format!("{SENSORS}?{query}")).await.expect(400);
        assert_eq!(problem["parameter"], parameter, "{query}");
    }
}

#[actix_rt::test]
async fn sensors_are_sorted_by_last_seen() {
    let api = Api::start().await;
    for name in ["never", "late", "early", "also late", "never either"] {
        api.create_sensor(name).await;
    }
    api.execute(
        "update sensor set last_seen_timestamp = '2026-01-03T00:00:00.000001Z' where name like '%late';
         update sensor set last_seen_timestamp = '2026-01-01T00:00:00Z' where name = 'early'",
    )
    .await;
    let ascending = names(&api, "sort=last_seen").await;
    let mut descending = names(&api, "sort=-last_seen").await;
    assert_eq!(ascending.len(), 5);
    assert!(ascending[..2].iter().all(|name| name.starts_with("never")), "{ascending:?}");
    assert_eq!(ascending[2], "early");
    assert!(ascending[3..].iter().all(|name| name.ends_with("late")), "{ascending:?}");
    descending.reverse();
    assert_eq!(descending, ascending);

    let page = api.get(&format!("{SENSORS}?limit=1&sort=last_seen")).await.expect(200);
    let cursor = page["next"].as_str().unwrap();
    let problem = api.get(&format!("{SENSORS}?cursor={cursor}")).await.expect(400);
    assert_eq!(problem["parameter"], "cursor", "the cursor has another order");
}

#[actix_rt::test]
async fn sensors_are_filtered_by_configuration_state() {
    let api = Api::start().await;
    for name in ["none", "pending", "published", "acknowledged", "failed", "stale", "silent"] {
        let (_, path) = api.create_sensor(name).await;
        if name != "none" {
            api.post(&format!("{path}/configurations"), "{}").await.expect(202);
        }
    }
    api.execute(
        "update configuration set publication_timestamp = now() - interval '6 minutes'
             where sensor_identifier in (select identifier from sensor where name <> 'pending');
         update configuration set publication_timestamp = now() - interval '4 minutes'
             where sensor_identifier in (select identifier from sensor where name = 'published');
         update configuration set acknowledgement_timestamp = now(), success = name = 'acknowledged'
             from sensor where sensor_identifier = identifier and name in ('acknowledged', 'failed');
         update sensor set last_seen_timestamp = now();
         update sensor set last_seen_timestamp = now() - interval '2 minutes' where name = 'silent'",
    )
    .await;
    for (state, expected) in [
        ("none", vec!["none"]),
        ("pending", vec!["pending"]),
        ("published", vec!["published", "silent"]),
        ("acknowledged", vec!["acknowledged"]),
        ("failed", vec!["failed"]),
        ("stale", vec!["stale"]),
    ] {
        assert_eq!(names(&api, &format!("configuration_state={state}")).await, expected);
        let page = api.get(&format!("{SENSORS}?configuration_state={state}")).await.expect(200);
        let states: Vec<&Value> =
            page["items"].as_array().unwrap().iter().map(|it| &it["configuration_state"]).collect();
        assert!(states.iter().all(|it| **it == json!(state)), "{page}");
    }
}

#[actix_rt::test]
async fn last_seen_of_a_single_sensor_comes_from_its_actor() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    api.execute("update sensor set last_seen_timestamp = '2026-01-01T00:00:00Z'").await;
    assert_eq!(api.get(&one).await.expect(200)["last_seen_timestamp"], "2026-01-01T00:00:00Z");
    let received_at: jiff::Timestamp = "2026-01-01T00:00:07Z".parse().unwrap();
    let last_receipt = Some(Timestamp::from(received_at));
    *api.live.lock().unwrap() = Some(Snapshot {
        heartbeats: ReceiptStats { last_receipt, ..ReceiptStats::default() },
        ..Snapshot::default()
    });
    assert_eq!(api.get(&one).await.expect(200)["last_seen_timestamp"], "2026-01-01T00:00:07Z");
}
