//! The metrics of the real service: the ledger, the latencies and the requests.

use serde_json::json;
use tributary::store::EngineName;
use uuid::Uuid;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement, measurements};
use crate::support::postgres::{Postgres, skipped_on};
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

/// The body of one response of `/metrics`.
#[derive(Debug)]
pub(crate) struct MetricsSnapshot(String);

impl MetricsSnapshot {
    pub(crate) async fn of(service: &Service) -> Self {
        let url = format!("{}/metrics", service.url());
        let mut answer = awc::Client::default().get(url).send().await.unwrap();
        let body = answer.body().limit(1 << 20).await.unwrap();
        Self(String::from_utf8(body.to_vec()).unwrap())
    }

    /// The sum of the series with this name and all of these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!(r#"{label}="{value}""#)).collect();
        self.0
            .lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    fn items(&self, kind: &str, outcome: &str) -> f64 {
        self.sum("tributary_items_total", &[("kind", kind), ("outcome", outcome)])
    }

    fn in_flight(&self, kind: &str) -> f64 {
        self.sum("tributary_items_in_flight", &[("kind", kind)])
    }

    fn balances(&self) -> bool {
        ["measurements", "log_messages", "heartbeats", "unknown"].iter().all(|kind| {
            let outcomes = ["committed", "duplicate", "rejected", "released"];
            let ended: f64 = outcomes.iter().map(|outcome| self.items(kind, outcome)).sum();
            self.items(kind, "received") == ended + self.in_flight(kind)
        })
    }
}

#[actix_rt::test]
async fn at_rest_the_metrics_account_for_every_item() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("counted").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = |level: &str| format!("{}/{level}/{sensor}", database.name);
    let twice = measurements([1.0, 2.0, 3.0]);
    for payload in [&twice, &twice, &r#"{"measurements":[{"revision":0}]}"#.to_owned()] {
        client.publish(&topic("measurements"), payload.clone()).await.unwrap();
    }
    client.publish(&topic("heartbeats"), heartbeat(0, 1.0, true)).await.unwrap();
    client.publish(&topic("measurements"), "no JSON").await.unwrap();
    let unknown_sensor = format!("{}/measurements/{}", database.name, Uuid::new_v4());
    client.publish(&unknown_sensor, measurement(1.0)).await.unwrap();

    let reading = eventually(TIMEOUT, async || {
        let reading = MetricsSnapshot::of(&service).await;
        assert!(reading.balances(), "{}", reading.0);
        let all = reading.sum("tributary_messages_total", &[("outcome", "settled")]);
        // The ledger is read before the other counters, so it can be behind them in one scrape.
        let settled = all == 6.0 && reading.in_flight("measurements") == 0.0;
        if settled && reading.sum("tributary_pubacks_sent_total", &[]) == 6.0 {
            Ok(reading)
        } else {
            Err(reading.0)
        }
    })
    .await;

    let items = |outcome| reading.items("measurements", outcome);
    let entry = service.ledger_entry("measurements").await.unwrap();
    assert_eq!(items("received"), entry.received as f64);
    assert_eq!([items("committed"), items("duplicate"), items("rejected")], [3.0, 3.0, 3.0]);
    assert_eq!(reading.items("heartbeats", "committed"), 1.0);
    assert_eq!(reading.sum("tributary_messages_total", &[("outcome", "received")]), 6.0);
    assert_eq!(reading.sum("tributary_puback_seconds_count", &[]), 6.0, "each message once");
    assert!(reading.sum("tributary_batch_items_sum", &[]) == 10.0, "{}", reading.0);
    assert_eq!(reading.sum("tributary_window_oldest_seconds", &[]), 0.0);
    assert_eq!(reading.sum("tributary_window_bytes", &[]), 0.0);
    assert_eq!(reading.sum("tributary_part_up", &[]), 3.0);
    assert_eq!(reading.sum("tributary_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    let writers = [("pool", "writers")];
    assert!(reading.sum("tributary_pool_connections", &writers) >= 1.0, "{}", reading.0);
    assert_eq!(reading.sum("tributary_pool_connections_limit", &writers), 2.0);
    let disk = reading.sum("tributary_table_bytes", &[("table", "measurement")]);
    assert!(disk > 0.0, "{}", reading.0);
}

#[actix_rt::test]
async fn a_known_duplicate_does_not_fail_the_copy_of_its_batch() {
    if skipped_on(&[EngineName::TimescaleDb], "it stores rows of 1970 through the staging table") {
        return;
    }
    let broker = Broker::shared().await;
    let database = database().await;
    let mut service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("repeating").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    let failed = [("cause", "duplicate")];
    client.publish(&topic, measurement(1.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;
    client.publish(&topic, measurement(1.0)).await.unwrap();
    client.publish(&topic, measurement(2.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 2 && entry.duplicate == 1).await;
    let reading = MetricsSnapshot::of(&service).await;
    assert_eq!(reading.sum("tributary_commit_retries_total", &failed), 0.0, "{}", reading.0);

    // After a restart, the service does not know the duplicate and needs the staging table.
    service.terminate().await;
    service.start_again().await;
    client.publish(&topic, measurement(2.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.duplicate == 1).await;
    let reading = MetricsSnapshot::of(&service).await;
    assert_eq!(reading.sum("tributary_commit_retries_total", &failed), 1.0, "{}", reading.0);
}

#[actix_rt::test]
async fn metrics_report_the_age_and_the_cause_of_a_waiting_message() {
    let broker = Broker::shared().await;
    let mut postgres = Postgres::start().await;
    let database = postgres.create_database(None).await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("patient").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish(&topic, measurement(1.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;

    postgres.stop_immediate().await;
    client.publish(&topic, measurement(2.0)).await.unwrap();
    eventually(TIMEOUT, async || {
        let reading = MetricsSnapshot::of(&service).await;
        assert!(reading.balances(), "{}", reading.0);
        let is_reported = reading.sum("tributary_window_oldest_seconds", &[]) > 1.0
            && reading.sum("tributary_window_messages", &[]) == 1.0
            && reading.sum("tributary_window_bytes", &[]) > 0.0
            && reading.sum("tributary_batches_writing", &[]) == 1.0
            && reading.sum("tributary_commit_retries_total", &[("cause", "unavailable")]) > 0.0
            && reading.sum("tributary_part_up", &[("part", "database_writing")]) == 0.0;
        if is_reported { Ok(()) } else { Err(reading.0) }
    })
    .await;

    postgres.start_again().await;
    service.wait_for_ledger(|entry| entry.committed == 2).await;
    let reading = MetricsSnapshot::of(&service).await;
    assert!(reading.sum("tributary_batch_seconds_sum", &[]) > 1.0, "{}", reading.0);
    assert_eq!(reading.sum("tributary_batches_writing", &[]), 0.0);
}

#[actix_rt::test]
async fn requests_are_counted_by_route_template() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("asked").await;
    for path in [
        format!("/api/v1/sensors/{sensor}/measurements"),
        format!("/api/v1/sensors/{}/measurements", Uuid::new_v4()),
        "/api/v1/sensors/nonsense/measurements".into(),
        "/nothing/here".into(),
        "/nothing/there".into(),
    ] {
        service.get(&path).await.unwrap();
    }
    service.request("PUT", "/api/v1/sensors", Some(&json!({}))).await.unwrap();

    let reading = MetricsSnapshot::of(&service).await;
    let requests = |route: &str, status: &str| {
        reading.sum("tributary_http_requests_total", &[("route", route), ("status", status)])
    };
    let template = "/api/v1/sensors/{identifier}/measurements";
    assert_eq!(requests(template, "200"), 1.0, "{}", reading.0);
    assert_eq!(requests(template, "404") + requests(template, "400"), 2.0, "{}", reading.0);
    assert_eq!(requests("none", "404"), 2.0, "{}", reading.0);
    assert_eq!(requests("/api/v1/sensors", "405"), 1.0, "{}", reading.0);
    assert!(!reading.0.contains(&sensor), "no identifier is a label");
    let timed = reading.sum("tributary_http_request_seconds_count", &[("route", template)]);
    assert_eq!(timed, 3.0, "{}", reading.0);
    assert_eq!(reading.sum("tributary_http_requests_in_flight", &[]), 1.0, "this request");
}

#[actix_rt::test]
async fn rows_from_the_future_are_stored_and_counted() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("ahead").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = |level: &str| format!("{}/{level}/{sensor}", database.name);
    let in_2099 = 4_070_908_800.0;
    // Twice: the metric does not count duplicates.
    for _ in 0..2 {
        let payload = measurements([1.0, in_2099, in_2099 + 1.0]);
        client.publish(&topic("measurements"), payload).await.unwrap();
        client.publish(&topic("heartbeats"), heartbeat(0, in_2099, true)).await.unwrap();
        service.wait_for_ledger(|entry| entry.in_flight == 0 && entry.committed == 3).await;
    }

    let reading = eventually(TIMEOUT, async || {
        let reading = MetricsSnapshot::of(&service).await;
        let items = |kind, outcome| reading.items(kind, outcome);
        let settled = items("measurements", "duplicate") == 3.0
            && items("heartbeats", "committed") + items("heartbeats", "duplicate") == 2.0;
        if settled { Ok(reading) } else { Err(reading.0) }
    })
    .await;

    let future = |kind| reading.sum("tributary_future_items_total", &[("kind", kind)]);
    assert_eq!((future("measurements"), future("heartbeats")), (2.0, 1.0), "{}", reading.0);
    let (_, live) = service.get(&format!("/api/v1/sensors/{sensor}/live")).await.unwrap();
    assert_eq!(live["live"]["future_items"], 6, "{live}");
}
