//! The routes that the dashboard reads for the whole fleet, and its page.

use actix_web::http::Method;
use serde_json::{Value, json};
use tributary::domain::{NetworkIdentifier, Role, Scope, SensorIdentifier};

use super::fixture::Api;

/// Creates a sensor in a network.
async fn create_sensor(api: &Api, network: NetworkIdentifier, name: &str) -> SensorIdentifier {
    let one = SensorIdentifier::random();
    api.execute(&format!(
        "insert into sensor (identifier, network_identifier, name) values ('{one}', '{network}', '{name}')"
    ))
    .await;
    one
}

fn members<'a>(page: &'a Value, name: &str) -> Vec<&'a str> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item[name].as_str().unwrap()).collect()
}

#[actix_rt::test]
async fn sensors_are_found_by_a_part_of_their_name() {
    let api = Api::start().await;
    for name in ["Roof north", "roof south", "cellar", "100 % wet", "under_score", "Grünfläche"] {
        api.create_sensor(name).await;
    }
    for (part, expected) in [
        ("roof", vec!["Roof north", "roof south"]),
        ("OOF%20N", vec!["Roof north"]),
        ("l", vec!["Grünfläche", "cellar"]),
        ("%25", vec!["100 % wet"]),
        ("_", vec!["under_score"]),
        ("attic", vec![]),
    ] {
        let page = api.get(&format!("/api/v1/sensors?q={part}")).await.expect(200);
        let names = members(&page, "name");
        assert_eq!(names, expected, "{part}");
    }
    let first = api.get("/api/v1/sensors?q=roof&limit=1").await.expect(200);
    let next = first["next"].as_str().unwrap();
    let second = api.get(&format!("/api/v1/sensors?q=roof&limit=1&cursor={next}")).await;
    assert_eq!(members(&second.expect(200), "name"), ["roof south"]);
    assert_eq!(api.get("/api/v1/sensors?q=").await.expect(400)["parameter"], "q");
    let index = "select count(*) from pg_indexes where indexname = 'sensor_name_part'";
    assert_eq!(api.count(index).await, 1);
}

#[actix_rt::test]
async fn a_search_works_without_the_extension() {
    let api = Api::start().await;
    api.create_sensor("Roof north").await;
    api.execute("drop extension pg_trgm cascade").await;
    let page = api.get("/api/v1/sensors?q=roof").await.expect(200);
    assert_eq!(members(&page, "name"), ["Roof north"]);
}

#[actix_rt::test]
async fn sensors_are_counted_by_state_and_last_seen_within_the_scope() {
    let api = Api::start_guarded().await;
    let (here, elsewhere) = (api.network("here").await, api.network("elsewhere").await);
    create_sensor(&api, here, "none").await;
    create_sensor(&api, elsewhere, "other").await;
    for (name, columns) in [
        ("pending", "null, null, null, null"),
        ("published", "now(), null, null, null"),
        ("acknowledged", "now(), now(), now(), true"),
        ("failed", "now(), now(), now(), false"),
    ] {
        let one = create_sensor(&api, here, name).await;
        // The older revision is not counted.
        api.execute(&format!(
            "insert into configuration (sensor_identifier, revision, value, is_newest, publication_timestamp,
                 acknowledgement_timestamp, acknowledgement_receipt_timestamp, success)
             values ('{one}', 1, '{{}}', false, now(), now(), now(), true), ('{one}', 2, '{{}}', true, {columns})"
        ))
        .await;
    }
    api.execute("update sensor set last_seen_timestamp = now() where name in ('failed', 'none')")
        .await;
    api.execute(
        "update sensor set last_seen_timestamp = now() - interval '2 hours' where name = 'pending'",
    )
    .await;
    let counts = json!({ "none": 1, "pending": 1, "published": 1, "acknowledged": 1, "failed": 1, "stale": 0 });
    let summary = async |scope: Scope, query: &str| {
        let token = api.token(Role::Viewer, scope).await;
        let path = format!("/api/v1/sensors/summary{query}");
        api.call(Some(&token), Method::GET, &path, None).await.expect(200)
    };
    let own = summary(Scope::Network(here), "").await;
    assert_eq!((&own["sensors"], &own["silent"]), (&json!(5), &json!(3)), "{own}");
    assert_eq!(own["configuration_states"], counts);
    let since_1970 = summary(Scope::Network(here), "?silent_since=1000").await;
    assert_eq!(since_1970["silent"], 2, "only sensors without last_seen_timestamp");
    assert_eq!(since_1970["silent_since"], "1970-01-01T00:16:40Z");
    assert_eq!(summary(Scope::All, "").await["sensors"], 6);
    let of_one = summary(Scope::All, &format!("?network={elsewhere}")).await;
    assert_eq!(
        (&of_one["sensors"], &of_one["configuration_states"]["none"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(summary(Scope::Network(here), &format!("?network={elsewhere}")).await["sensors"], 0);
}

#[actix_rt::test]
async fn attributes_have_types_and_times() {
    let api = Api::start().await;
    let (one, path) = api.create_sensor("one").await;
    api.execute(&format!(
        "insert into measurement
         select uuid '{one}', now() - make_interval(hours => n), now(), n, 0,
                case when n = 0 then '{{\"wind\": 1.5, \"sky\": \"clear\"}}'::jsonb
                     else '{{\"wind\": null, \"on\": true}}' end
         from generate_series(0, 5) n
         union all
         select uuid '{one}', now() - interval '40 days', now(), 9, 0, '{{\"old\": 1}}'"
    ))
    .await;
    let found = api.get(&format!("{path}/attributes")).await.expect(200);
    let item = |at: usize| &found["items"][at];
    assert_eq!(members(&found, "name"), ["on", "sky", "wind"]);
    assert_eq!(found["more"], false);
    assert_eq!(item(2)["types"], json!(["null", "number"]));
    assert_eq!(
        (&item(0)["count"], &item(1)["count"], &item(2)["count"]),
        (&json!(5), &json!(1), &json!(6))
    );
    assert_eq!(item(1)["first_creation_timestamp"], item(1)["last_creation_timestamp"]);
    assert!(
        item(2)["first_creation_timestamp"].as_str() < item(2)["last_creation_timestamp"].as_str()
    );
    let all = api.get(&format!("{path}/attributes?from=0")).await.expect(200);
    assert_eq!(members(&all, "name"), ["old", "on", "sky", "wind"]);
    api.get(&format!("/api/v1/sensors/{}/attributes", SensorIdentifier::random()))
        .await
        .expect_status(404);
}

#[actix_rt::test]
async fn log_messages_of_all_sensors_are_one_list() {
    let api = Api::start_guarded().await;
    let (here, elsewhere) = (api.network("here").await, api.network("elsewhere").await);
    for (network, name) in [(here, "a"), (here, "b"), (elsewhere, "c")] {
        let one = create_sensor(&api, network, name).await;
        // Equal timestamps in all sensors; the oldest are outside the range that is searched first.
        api.execute(&format!(
            "insert into log_message
             select '{one}', now() - n * interval '10 days', now(), n, 0,
                    case n when 0 then 'error' else 'info' end, 's' || n || '{name}', null
             from generate_series(0, 3) n"
        ))
        .await;
    }
    // A row of a deleted sensor that is not yet purged.
    let deleted = SensorIdentifier::random();
    api.execute(&format!(
        "insert into log_message values ('{deleted}', now(), now(), 1, 0, 'info', 's', null)"
    ))
    .await;
    let list = async |scope: Scope, query: &str| {
        let token = api.token(Role::Viewer, scope).await;
        let (mut subjects, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/log-messages?limit=2&{query}{cursor}");
            let page = api.call(Some(&token), Method::GET, &path, None).await.expect(200);
            subjects.extend(members(&page, "subject").into_iter().map(str::to_owned));
            let Some(next) = page["next"].as_str() else { return subjects };
            cursor = format!("&cursor={next}");
        }
    };
    let newest_first = list(Scope::All, "").await;
    assert_eq!(newest_first.len(), 12);
    let prefixes: Vec<&str> = newest_first.iter().map(|it| &it[..2]).collect();
    assert_eq!(prefixes[..3], ["s0"; 3]);
    assert_eq!(prefixes[9..], ["s3"; 3]);
    let mut oldest_first = list(Scope::All, "order=asc").await;
    oldest_first.reverse();
    assert_eq!(oldest_first, newest_first);
    let own = list(Scope::Network(here), "").await;
    assert_eq!(own.len(), 8);
    assert!(own.iter().all(|subject| !subject.ends_with('c')), "{own:?}");
    assert_eq!(list(Scope::All, &format!("network={elsewhere}")).await.len(), 4);
    assert_eq!(list(Scope::Network(here), &format!("network={elsewhere}")).await.len(), 0);
    assert_eq!(list(Scope::All, "severity=error").await.len(), 3);
    assert_eq!(list(Scope::All, "text=S2B").await, ["s2b"]);
    let token = api.token(Role::Viewer, Scope::All).await;
    let page = api.call(Some(&token), Method::GET, "/api/v1/log-messages?text=s0a", None).await;
    let item = &page.expect(200)["items"][0];
    assert_eq!((&item["sensor_name"], &item["network"]), (&json!("a"), &json!(here)));
    assert_eq!(item["severity"], "error");
}

#[actix_rt::test]
async fn rejections_are_counted_by_reason_within_the_scope() {
    let api = Api::start_guarded().await;
    let (here, elsewhere) = (api.network("here").await, api.network("elsewhere").await);
    let (ours, theirs) =
        (create_sensor(&api, here, "ours").await, create_sensor(&api, elsewhere, "theirs").await);
    for (one, reason, count) in
        [(ours, "not_json", 1), (ours, "unknown_sensor", 2), (theirs, "not_json", 3)]
    {
        api.execute(&format!(
            "insert into rejection (receipt_timestamp, topic, sensor_identifier, kind, item_count, reason,
                 detail, raw, digest)
             select now(), 't', '{one}', 'measurement', 5, '{reason}', 'd', 'x', gen_random_uuid()
             from generate_series(1, {count})"
        ))
        .await;
    }
    let summary = async |scope: Scope, query: &str| -> Vec<(String, i64, i64)> {
        let token = api.token(Role::Viewer, scope).await;
        let path = format!("/api/v1/rejections/summary{query}");
        let page = api.call(Some(&token), Method::GET, &path, None).await.expect(200);
        let count = |item: &Value, name: &str| item[name].as_i64().unwrap();
        let items = page["items"].as_array().unwrap();
        let row = |item: &Value| {
            (
                item["reason"].as_str().unwrap().to_owned(),
                count(item, "count"),
                count(item, "item_count"),
            )
        };
        items.iter().map(row).collect()
    };
    let row = |reason: &str, count: i64| (reason.to_owned(), count, count * 5);
    assert_eq!(summary(Scope::All, "").await, [row("not_json", 4), row("unknown_sensor", 2)]);
    let own = summary(Scope::Network(here), "").await;
    assert_eq!(own, [row("unknown_sensor", 2), row("not_json", 1)]);
    let one = summary(Scope::All, &format!("?sensor={ours}&reason=not_json")).await;
    assert_eq!(one, [row("not_json", 1)]);
    let token = api.token(Role::Viewer, Scope::Network(here)).await;
    let path = format!("/api/v1/rejections/summary?sensor={theirs}");
    api.call(Some(&token), Method::GET, &path, None).await.expect_status(404);
}

#[actix_rt::test]
async fn activity_can_be_limited_to_given_sensors() {
    let api = Api::start().await;
    let mut sensors = Vec::new();
    for name in ["a", "b", "c"] {
        let (one, _) = api.create_sensor(name).await;
        // At any time of day, the first hour of the day has passed or is the current one.
        let day = "(now() at time zone 'utc')::date";
        let insert =
            format!("insert into sensor_hour values ('{one}', {day}, '{{1}}', '{{0}}', '{{0}}')");
        api.execute(&insert).await;
        sensors.push(one.to_string());
    }
    let some = format!("/api/v1/activity?sensors={},{}", sensors[0], sensors[2]);
    let mut expected = vec![sensors[0].as_str(), &sensors[2]];
    expected.sort_unstable();
    assert_eq!(members(&api.get(&some).await.expect(200), "identifier"), expected);
    assert_eq!(members(&api.get("/api/v1/activity").await.expect(200), "identifier").len(), 3);
    for bad in ["", "x", &format!("{},", sensors[0])] {
        let problem = api.get(&format!("/api/v1/activity?sensors={bad}")).await.expect(400);
        assert_eq!(problem["parameter"], "sensors", "{bad}");
    }
}

#[actix_rt::test]
async fn the_dashboard_is_one_page_that_loads_nothing_from_elsewhere() {
    let api = Api::start_guarded().await;
    for view in ["/", "/logs", "/rejections", "/ingest", "/access", "/sensors/any"] {
        let page = api.get(view).await;
        assert_eq!(page.status, 200, "{view}");
        assert!(page.header("content-type").starts_with("text/html"), "{view}");
        assert_eq!(page.header("cache-control"), "no-store", "{view}");
        assert_eq!(
            page.header("content-security-policy"),
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        assert!(page.text.contains("Tributary"), "{view}: {}", page.text);
        assert!(!page.text.contains("%AUTH%"), "{view}: {}", page.text);
    }
    api.get("/assets/nothing.js").await.expect_status(404);
    api.get("/assets/..%2findex.html").await.expect_status(404);
    let script = api.get("/").await.text;
    // Only if the dashboard was built.
    if let Some(path) = script.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()) {
        let asset = api.get(path).await;
        assert_eq!(asset.header("content-type"), "text/javascript; charset=utf-8");
        assert_eq!(asset.header("cache-control"), "public, max-age=31536000, immutable");
        let tag = asset.header("etag").to_owned();
        let known = api.send(Method::GET, path, &[("if-none-match", &tag)], "").await;
        assert_eq!((known.status, known.text.as_str()), (304, ""));
        let (headers, gzipped) = api.get_gzipped(path).await;
        assert_eq!(headers.get("content-encoding").unwrap(), "gzip");
        assert!(gzipped.len() < asset.text.len() / 2);
    }
}

#[actix_rt::test]
async fn without_the_dashboard_the_api_is_served_alone() {
    let postgres = crate::support::postgres::Postgres::shared().await;
    let api = Api::start_with(postgres, &[("AUTH", "off"), ("DASHBOARD", "off")]).await;
    api.get("/").await.expect_status(404);
    let sensors = api.get("/api/v1/sensors").await;
    assert_eq!(
        sensors.header("content-security-policy"),
        "default-src 'none'; frame-ancestors 'none'"
    );
    sensors.expect_status(200);
}
