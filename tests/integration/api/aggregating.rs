//! What a sensor measured is summed up by bucket of time, and always says what the rows say.

use serde_json::{Value, json};
use tributary::domain::SensorIdentifier;

use super::fixture::Api;
use crate::support::wait::{PATIENCE, eventually};

/// 2023-11-13T00:00:00Z, a Monday.
const MONDAY: i64 = 1_699_833_600;

/// A measurement every ten seconds for so many, with the number of the ten seconds in it.
async fn measured(api: &Api, name: &str, count: u32) -> (SensorIdentifier, String) {
    let (identifier, one) = api.create_sensor(name).await;
    api.execute(&format!(
        "insert into measurement select '{identifier}', to_timestamp({MONDAY} + n * 10), now(),
             hashint8extended(n, 7), 0,
             jsonb_build_object('n', n, 'half', n / 2.0, 'text', 'x', 'mixed',
                 case n % 3 when 0 then to_jsonb(n) when 1 then 'true'::jsonb else '\"7\"'::jsonb end)
         from generate_series(0, {count} - 1) n"
    ))
    .await;
    (identifier, one)
}

async fn aggregates(api: &Api, one: &str, query: &str) -> Value {
    api.get(&format!("{one}/measurements/aggregates?{query}")).await.expect(200)
}

fn counts(page: &Value, attribute: &str) -> Vec<i64> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|it| it["attributes"][attribute]["count"].as_i64().unwrap_or(0)).collect()
}

#[actix_rt::test]
async fn numbers_are_summed_up_and_others_left_out() {
    let api = Api::start().await;
    let (_, one) = measured(&api, "one", 12).await;
    let to = MONDAY + 600;

    let query = format!("bucket=1m&attributes=n,half,text,mixed&from={MONDAY}&to={to}");
    let page = aggregates(&api, &one, &query).await;

    assert_eq!(
        page["items"][1],
        json!({
            "timestamp": MONDAY as f64 + 60.0,
            "bucket_timestamp": "2023-11-13T00:01:00Z",
            "attributes": {
                "n": { "count": 6, "min": 6.0, "mean": 8.5, "max": 11.0 },
                "half": { "count": 6, "min": 3.0, "mean": 4.25, "max": 5.5 },
                "mixed": { "count": 2, "min": 6.0, "mean": 7.5, "max": 9.0 },
            },
        })
    );
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next"]), (2, &Value::Null));
    let cut = format!("bucket=1d&attributes=n&from={}&to={}", MONDAY + 15, MONDAY + 45);
    assert_eq!(counts(&aggregates(&api, &one, &cut).await, "n"), [3]);
    let none = aggregates(&api, &one, "bucket=1d&attributes=n").await;
    assert_eq!(none, json!({ "items": [], "next": null }), "nothing lately");
}

#[actix_rt::test]
async fn what_is_kept_is_what_the_rows_say() {
    let api = Api::start().await;
    let (identifier, one) = measured(&api, "one", 4_320).await;
    let to = MONDAY + 43_200;
    let query = format!("attributes=n,mixed&from={MONDAY}&to={to}&bucket=");
    let (hours, odd) = (format!("{query}1h"), format!("{query}5000"));
    let fresh = (aggregates(&api, &one, &hours).await, aggregates(&api, &one, &odd).await);
    assert_eq!(counts(&fresh.0, "n"), [360; 12]);

    // 4,320 rows by themselves are many, so they are bundled.
    let kept = "select count(*) from measurement_bundle where lines is not null";
    eventually(PATIENCE, async || match api.count(kept).await {
        3 => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(aggregates(&api, &one, &hours).await, fresh.0);
    assert_eq!(aggregates(&api, &one, &odd).await, fresh.1);
    // Falsified, so that it shows whether they are read.
    let falsify =
        r#"update measurement_bundle set lines = replace(lines, '"n": 3,', '"n": 99999,')"#;
    api.execute(falsify).await;
    let read = aggregates(&api, &one, &hours).await;
    assert_eq!(read["items"][0]["attributes"]["n"]["max"], 99_999.0, "the bundles are read");

    // Late rows; and one whose place another took.
    api.execute(&format!(
        "insert into measurement select '{identifier}', to_timestamp({MONDAY} + n * 600 + 1), now(),
             n, 0, '{{\"n\":-5}}' from generate_series(0, 5) n;
         update measurement set digest = digest + 1, value = '{{\"n\":1000000}}'
         where creation_timestamp = to_timestamp({MONDAY} + 3600)"
    ))
    .await;
    let late = aggregates(&api, &one, &hours).await;
    let first = &late["items"][0]["attributes"]["n"];
    assert_eq!(
        (&first["count"], &first["min"], &first["max"]),
        (&json!(366), &json!(-5.0), &json!(359.0))
    );
    assert_eq!(late["items"][1]["attributes"]["n"]["max"], 1_000_000.0);
}

#[actix_rt::test]
async fn pages_skip_what_is_empty() {
    let api = Api::start().await;
    let (identifier, one) = measured(&api, "one", 30).await;
    api.execute(&format!(
        "insert into measurement values
         ('{identifier}', to_timestamp({MONDAY} + 86400 * 300 + 61), now(), 1, 0, '{{\"n\":5}}')"
    ))
    .await;
    let to = MONDAY + 86_400 * 400;
    let query = format!("bucket=60s&attributes=n&limit=3&from={MONDAY}&to={to}");

    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = aggregates(&api, &one, &format!("{query}{cursor}")).await;
        let starts = page["items"].as_array().unwrap().iter().map(|it| it["timestamp"].as_f64());
        seen.push(starts.map(|it| it.unwrap() as i64 - MONDAY).collect::<Vec<_>>());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }

    let later = 86_400 * 300 + 60;
    assert_eq!(seen, [vec![0, 60, 120], vec![180, 240], vec![later]]);
}

#[actix_rt::test]
async fn numbers_beyond_a_double_break_nothing() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    api.execute(&format!(
        "insert into measurement select '{identifier}', to_timestamp({MONDAY} + n), now(), n, 0,
             jsonb_build_object('n', (array['1e131071', '1e299', '-1e299', '1e-16000'])[n]::numeric)
         from generate_series(1, 4) n"
    ))
    .await;
    for bucket in ["1s", "1h"] {
        let to = MONDAY + 60;
        let query = format!("bucket={bucket}&attributes=n&from={MONDAY}&to={to}");
        let page = aggregates(&api, &one, &query).await;
        assert_eq!(counts(&page, "n").iter().sum::<i64>(), 3, "{page}");
    }
}

#[actix_rt::test]
async fn a_sensor_that_is_not_there_has_no_aggregates() {
    let api = Api::start().await;
    let nobody = format!("/api/v1/sensors/{}", SensorIdentifier::random());
    for path in ["measurements/aggregates?bucket=1h&attributes=n", "log-messages/aggregates"] {
        let problem = api.get(&format!("{nobody}/{path}")).await.expect(404);
        assert_eq!(problem["type"], "/problems/sensor-not-found", "{path}");
    }
}
