//! A panic of a task is logged and counted. Then the task continues, or the process ends with an error message; in both
//! cases no message is lost.

use serde_json::json;
use tributary::domain::Task;

use crate::metrics::MetricsSnapshot;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::events::Events;
use crate::support::payloads::{heartbeat, measurement};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

/// A panic of one of these ends the process.
const ESSENTIAL: [Task; 4] = [Task::Ingest, Task::Supervisor, Task::Writer, Task::Outbox];

fn one_panic_of_each(tasks: impl IntoIterator<Item = Task>) -> String {
    let faults: Vec<_> = tasks.into_iter().map(|task| format!("{}=1", task.name())).collect();
    faults.join(",")
}

async fn count_panics(service: &Service, task: Task) -> f64 {
    MetricsSnapshot::of(service).await.sum("tributary_task_panics_total", &[("task", task.name())])
}

#[actix_rt::test]
async fn every_non_essential_task_continues_after_a_panic() {
    let broker = Broker::shared().await;
    let database = database().await;
    let non_essential = || Task::ALL.into_iter().filter(|task| !ESSENTIAL.contains(task));
    let faults = one_panic_of_each(non_essential());
    let settings = [("TRIBUTARY_FAULTS", faults.as_str()), ("SENSOR_IDLE_SECS", "3600")];
    let service = Service::start(&database, broker, &settings).await;
    let sensor = service.create_sensor("steady").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = |level: &str| format!("{}/{level}/{sensor}", database.name);
    client.subscribe(&topic("configurations")).await;
    let _fleet = Events::open(&service.url(), "/api/v1/streams/sensors", "").await;
    let stream = format!("/api/v1/sensors/{sensor}/stream");
    let mut events = Events::open(&service.url(), &stream, "").await;
    assert_eq!(events.status(), 200);

    // The outbox and the publisher each panic once on this configuration.
    let configurations = format!("/api/v1/sensors/{sensor}/configurations");
    let (status, answer) = service.post(&configurations, &json!({"interval": 1})).await.unwrap();
    assert_eq!(status, 202, "{answer}");
    let published = client.wait_for_messages(1).await;
    assert!(published[0].payload.contains("interval"), "{published:?}");

    // The actor, the delivery and the socket each panic once on these messages.
    let mut sent = 0_u32;
    eventually(TIMEOUT, async || {
        for _ in 0..50 {
            sent += 1;
            client.publish(&topic("measurements"), measurement(f64::from(sent))).await.unwrap();
        }
        match count_panics(&service, Task::BrokerSocket).await {
            1.0 => Ok(()),
            panics => Err(panics),
        }
    })
    .await;
    client.publish(&topic("heartbeats"), heartbeat(1, 1.0, true)).await.unwrap();
    let committed = u64::from(sent);
    let entry = service.wait_for_ledger(|it| it.committed == committed && it.in_flight == 0).await;
    assert_eq!(
        count(&database, "select count(*) from measurement").await,
        i64::from(sent),
        "{entry:?}"
    );

    // After a panic of the hub, which loses events, it closes its streams.
    while events.next().await.is_some() {}
    let mut events = Events::open(&service.url(), &stream, "").await;
    client.publish(&topic("measurements"), measurement(0.5)).await.unwrap();
    while events.next().await.expect("the stream is open").name != "measurement" {}

    // The first replay panics and fails, and the next one succeeds.
    client.publish(&topic("measurements"), "no JSON").await.unwrap();
    eventually(TIMEOUT, async || {
        let stored = count(&database, "select count(*) from rejection").await;
        if stored == 1 { Ok(()) } else { Err(stored) }
    })
    .await;
    let replay = async || {
        service.post("/api/v1/rejections/replay", &json!({"reason": "not_json"})).await.unwrap()
    };
    let (status, answer) = replay().await;
    assert_eq!(status, 500, "{answer}");
    let (status, answer) = replay().await;
    assert_eq!((status, &answer["kept"]), (200, &json!(1)), "{answer}");

    for task in non_essential() {
        eventually(TIMEOUT, async || match count_panics(&service, task).await {
            1.0 => Ok(()),
            panics => Err((task, panics)),
        })
        .await;
        let line = format!("a task panicked task=\"{}\"", task.name());
        let log = service.log();
        assert!(log.lines().any(|it| it.contains("ERROR") && it.contains(&line)), "{task:?}");
    }
    assert_eq!(service.get("/readyz").await.unwrap().0, 200);
}

#[actix_rt::test]
async fn a_panic_of_an_essential_task_ends_the_process_with_an_error_message() {
    let broker = Broker::shared().await;
    for task in ESSENTIAL {
        let database = database().await;
        let faults = one_panic_of_each([task]);
        let settings = [("TRIBUTARY_FAULTS", faults.as_str())];
        let mut service = Service::start_unready(&database, broker, &settings);
        let topics = format!("{}/measurements", database.name);
        let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
        // The inbound loop panics at its SUBACK, and the outbox in its first round, possibly before the service is
        // ready.
        let mut sensor = None;
        if !matches!(task, Task::Ingest | Task::Outbox) {
            service.wait_until_ready().await;
            let created = service.post("/api/v1/sensors", &json!({"name": "x"})).await.unwrap().1;
            let created = created["identifier"].as_str().unwrap().to_owned();
            client.publish(&format!("{topics}/{created}"), measurement(1.0)).await.unwrap();
            sensor = Some(created);
        }
        assert_eq!(service.wait_for_exit().await.code(), Some(1), "{}", service.log());
        let message = format!("tributary: {} panicked: a fault injected", task.name());
        assert!(service.log().lines().any(|it| it.starts_with(&message)), "{}", service.log());
        drop(service);

        // The broker redelivers messages without a PUBACK.
        let _service = Service::start(&database, broker, &[]).await;
        if sensor.is_some() {
            eventually(TIMEOUT, async || {
                match count(&database, "select count(*) from measurement").await {
                    1 => Ok(()),
                    stored => Err((task, stored)),
                }
            })
            .await;
        }
    }
}
