//! Measurements are aggregated by time bucket; roll-up and rows give the same result.

use serde_json::{Value, json};
use tributary::domain::{SensorIdentifier, Timestamp};
use tributary::store::{Rebuilder, Store};

use super::fixture::{Api, store_config};

/// 2023-11-13T00:00:00Z, a Monday.
const MONDAY: i64 = 1_699_833_600;

/// Creates a sensor with `count` measurements, one every 10 s; `n` is the measurement's number.
async fn sensor_with_measurements(api: &Api, name: &str, count: u32) -> (SensorIdentifier, String) {
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
async fn numbers_are_aggregated_and_other_values_are_ignored() {
    let api = Api::start().await;
    let (_, one) = sensor_with_measurements(&api, "one", 12).await;
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
    let in_default_range = aggregates(&api, &one, "bucket=1d&attributes=n").await;
    assert_eq!(in_default_range, json!({ "items": [], "next": null, "source": "rollup" }));
}

#[actix_rt::test]
async fn whole_hours_are_read_from_the_roll_up_and_partial_hours_from_the_rows() {
    let api = Api::start().await;
    let (_, one) = sensor_with_measurements(&api, "one", 4_320).await;
    let query = format!("attributes=n,mixed&from={MONDAY}&to={}&bucket=", MONDAY + 43_200);
    let (hours, day, odd) = (format!("{query}1h"), format!("{query}1d"), format!("{query}5000"));
    let read = async || {
        let (hours, day) =
            (aggregates(&api, &one, &hours).await, aggregates(&api, &one, &day).await);
        (hours, day, aggregates(&api, &one, &odd).await)
    };

    // Hours that are pending in rollup_rebuild are read from the rows.
    api.execute("insert into rollup_rebuild (from_hour, to_hour) values (0, 1)").await;
    let (mut hours_of_rows, mut day_of_rows, odd_of_rows) = read().await;
    assert_eq!(hours_of_rows["source"], "rows");
    assert_eq!(
        (counts(&hours_of_rows, "n"), counts(&day_of_rows, "n")),
        (vec![360; 12], vec![4_320])
    );

    roll_up(&api).await;
    hours_of_rows["source"] = "rollup".into();
    day_of_rows["source"] = "rollup".into();
    assert_eq!(read().await, (hours_of_rows, day_of_rows.clone(), odd_of_rows));

    // Whole hours remain after the rows are deleted, also for a part of a day; partial hours do not.
    api.execute("delete from measurement").await;
    let (hours_left, day_left, odd_left) = read().await;
    assert_eq!((counts(&hours_left, "n"), &day_left), (vec![360; 12], &day_of_rows));
    assert_eq!(odd_left, json!({ "items": [], "next": null, "source": "rows" }));
    let part = format!("bucket=1d&attributes=n&from={}&to={}", MONDAY + 1_800, MONDAY + 9_000);
    assert_eq!(counts(&aggregates(&api, &one, &part).await, "n"), [360]);
}

#[actix_rt::test]
async fn pages_of_hours_skip_empty_buckets() {
    let api = Api::start().await;
    let (identifier, one) = sensor_with_measurements(&api, "one", 1_440).await;
    api.execute(&format!(
        "insert into measurement values
         ('{identifier}', to_timestamp({MONDAY} + 86400 * 300 + 61), now(), 1, 0, '{{\"n\":5}}')"
    ))
    .await;
    roll_up(&api).await;
    let query =
        format!("bucket=1h&attributes=n&limit=3&from={MONDAY}&to={}", MONDAY + 86_400 * 400);
    let seen = pages(&api, &one, &query).await;
    assert_eq!(seen, [vec![0, 3_600, 7_200], vec![10_800, 86_400 * 300]]);
}

/// The bucket starts of each page, in seconds after [`MONDAY`].
async fn pages(api: &Api, one: &str, query: &str) -> Vec<Vec<i64>> {
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = aggregates(api, one, &format!("{query}{cursor}")).await;
        let starts = page["items"].as_array().unwrap().iter().map(|it| it["timestamp"].as_f64());
        seen.push(starts.map(|it| it.unwrap() as i64 - MONDAY).collect());
        let Some(next) = page["next"].as_str() else { return seen };
        cursor = format!("&cursor={next}");
    }
}

/// Rebuilds the roll-up from all rows.
async fn roll_up(api: &Api) {
    let config = store_config(&api.database.url, &[]);
    api.execute("delete from rollup_rebuild").await;
    let rebuilder = Rebuilder::new(Store::new(&config), &config);
    rebuilder.rebuild(Timestamp::default(), Timestamp::now(), |_| ()).await.unwrap();
}

#[actix_rt::test]
async fn pages_of_minutes_skip_empty_buckets() {
    let api = Api::start().await;
    let (identifier, one) = sensor_with_measurements(&api, "one", 30).await;
    api.execute(&format!(
        "insert into measurement values
         ('{identifier}', to_timestamp({MONDAY} + 86400 * 300 + 61), now(), 1, 0, '{{\"n\":5}}')"
    ))
    .await;
    let to = MONDAY + 86_400 * 400;
    let query = format!("bucket=60s&attributes=n&limit=3&from={MONDAY}&to={to}");

    let seen = pages(&api, &one, &query).await;
    let later = 86_400 * 300 + 60;
    assert_eq!(seen, [vec![0, 60, 120], vec![180, 240], vec![later]]);
}

#[actix_rt::test]
async fn numbers_outside_the_range_of_a_double_do_not_fail_the_query() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    api.execute(&format!(
        "insert into measurement select '{identifier}', to_timestamp({MONDAY} + n), now(), n, 0,
             jsonb_build_object('n', (array['1e131071', '1e299', '-1e299', '1e-16000'])[n]::numeric)
         from generate_series(1, 4) n"
    ))
    .await;
    roll_up(&api).await;
    for bucket in ["1s", "1h"] {
        let to = MONDAY + 3_600;
        let query = format!("bucket={bucket}&attributes=n&from={MONDAY}&to={to}");
        let page = aggregates(&api, &one, &query).await;
        assert_eq!(counts(&page, "n").iter().sum::<i64>(), 3, "{page}");
    }
}

#[actix_rt::test]
async fn an_unknown_sensor_has_no_aggregates() {
    let api = Api::start().await;
    let unknown_sensor = format!("/api/v1/sensors/{}", SensorIdentifier::random());
    for path in ["measurements/aggregates?bucket=1h&attributes=n", "log-messages/aggregates"] {
        let problem = api.get(&format!("{unknown_sensor}/{path}")).await.expect(404);
        assert_eq!(problem["type"], "/problems/sensor-not-found", "{path}");
    }
}
