//! `simulate --replay` with recorded weather: the API and the table return every value of the file.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

use crate::support::broker::Broker;
use crate::support::postgres::connect;
use crate::support::service::{Service, count, database};

const SERIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/seattle-weather.csv");

/// The cells of the file by day, without the date.
fn read_series() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut file = csv::Reader::from_path(SERIES).unwrap();
    let names = file.headers().unwrap().clone();
    file.records()
        .map(|record| {
            let record = record.unwrap();
            let cells = names.iter().zip(&record).skip(1);
            let cells = cells.map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect();
            (record[0].replace('/', "-"), cells)
        })
        .collect()
}

#[actix_rt::test]
async fn a_replayed_series_is_stored_and_served_without_changes() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let recorded = read_series();
    assert_eq!(recorded.len(), 1_461);

    let mut simulate = Command::new(env!("CARGO_BIN_EXE_tributary"));
    simulate
        .args([
            "simulate",
            "--quiet",
            "--replay",
            SERIES,
            "--per-message",
            "7",
            "--prefix",
            "weather",
        ])
        .args(["--api", &service.url()])
        .env_clear()
        .env("MQTT_URL", broker.url())
        .env("MQTT_TOPIC_PREFIX", &database.name)
        .current_dir(std::env::temp_dir());
    let output = actix_rt::task::spawn_blocking(move || simulate.output().unwrap()).await.unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("every item is accounted for"), "{stdout}");

    // From the table, as text.
    let client = connect(&database.url).await.unwrap();
    let rows = client
        .query(
            "select to_char(creation_timestamp at time zone 'UTC', 'YYYY-MM-DD'), key, member
             from measurement, jsonb_each_text(value) as pair (key, member)",
            &[],
        )
        .await
        .unwrap();
    let mut stored = BTreeMap::<String, BTreeMap<String, String>>::new();
    for row in rows {
        stored.entry(row.get(0)).or_default().insert(row.get(1), row.get(2));
    }
    assert_eq!(stored, recorded);

    // From the API, page by page.
    let (_, sensors) = service.get("/api/v1/sensors").await.unwrap();
    let sensor = sensors["items"][0]["identifier"].as_str().unwrap().to_owned();
    let mut served = BTreeMap::<String, BTreeMap<String, String>>::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/sensors/{sensor}/measurements?limit=1000{cursor}");
        let (status, page) = service.get(&path).await.unwrap();
        assert_eq!(status, 200, "{page}");
        for item in page["items"].as_array().unwrap() {
            let day = item["creation_timestamp"].as_str().unwrap()[..10].to_owned();
            let members = item["value"].as_object().unwrap().iter();
            let text = |member: &Value| match member {
                Value::String(text) => text.clone(),
                number => number.to_string(),
            };
            let members = members.map(|(name, member)| (name.clone(), text(member))).collect();
            served.insert(day, members);
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(served, recorded);
    assert_eq!(count(&database, "select count(*) from measurement").await, 1_461);
}
