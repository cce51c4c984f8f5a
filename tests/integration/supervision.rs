//! Nothing ends silently: each task panics once, which is logged and counted; it goes on, or the process ends with
//! a sentence, and in neither case is anything lost.

use serde_json::json;
use tributary::domain::Task;

use crate::metrics::Reading;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::events::Events;
use crate::support::payloads::{heartbeat, measurement};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

/// Those whose panic ends the process.
const ESSENTIAL: [Task; 4] = [Task::Ingest, Task::Supervisor, Task::Writer, Task::Outbox];

fn once(tasks: impl IntoIterator<Item = Task>) -> String {
    let faults: Vec<_> = tasks.into_iter().map(|task| format!("{}=1", task.name())).collect();
    faults.join(",")
}

async fn panics(service: &Service, task: Task) -> f64 {
    Reading::of(service).await.sum("tributary_task_panics_total", &[("task", task.name())])
}

#[actix_rt::test]
async fn every_other_task_panics_once_and_goes_on() {
    let broker = Broker::shared().await;
    let database = database().await;
    let others = || Task::ALL.into_iter().filter(|task| !ESSENTIAL.contains(task));
    let faults = once(others());
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

    // A configuration, which the outbox and the publisher each lose once.
    let configurations = format!("/api/v1/sensors/{sensor}/configurations");
    let (status, answer) = service.post(&configurations, &json!({"interval": 1})).await.unwrap();
    assert_eq!(status, 202, "{answer}");
    let published = client.wait_for_messages(1).await;
    assert!(published[0].payload.contains("interval"), "{published:?}");

    // Messages, of which the actor, the delivery and the socket each lose some once.
    let mut sent = 0_u32;
    eventually(TIMEOUT, async || {
        for _ in 0..50 {
            sent += 1;
            client.publish(&topic("measurements"), measurement(f64::from(sent))).await.unwrap();
        }
        match panics(&service, Task::BrokerSocket).await {
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

    // The hub has lost an event; its readers are told, and come again.
    while events.next().await.is_some() {}
    let mut events = Events::open(&service.url(), &stream, "").await;
    client.publish(&topic("measurements"), measurement(0.5)).await.unwrap();
    while events.next().await.expect("the stream goes on").name != "measurement" {}

    // A replay that fails says so, and the next one works.
    client.publish(&topic("measurements"), "no JSON").await.unwrap();
    service.wait_for_ledger(|_| true).await;
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

    for task in others() {
        eventually(TIMEOUT, async || match panics(&service, task).await {
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
async fn the_process_ends_with_a_sentence_where_a_task_cannot_go_on() {
    let broker = Broker::shared().await;
    for task in ESSENTIAL {
        let database = database().await;
        let faults = once([task]);
        let settings = [("TRIBUTARY_FAULTS", faults.as_str())];
        let mut service = Service::start_unready(&database, broker, &settings);
        let topics = format!("{}/measurements", database.name);
        let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
        // The inbound loop fails at its SUBACK, and the outbox in its first round: either may be before the
        // service is ready.
        let mut sensor = None;
        if !matches!(task, Task::Ingest | Task::Outbox) {
            service.ready().await;
            let created = service.post("/api/v1/sensors", &json!({"name": "x"})).await.unwrap().1;
            let created = created["identifier"].as_str().unwrap().to_owned();
            client.publish(&format!("{topics}/{created}"), measurement(1.0)).await.unwrap();
            sensor = Some(created);
        }
        assert_eq!(service.ended().await.code(), Some(1), "{}", service.log());
        let sentence = format!("tributary: {} panicked: a fault injected", task.name());
        assert!(service.log().lines().any(|it| it.starts_with(&sentence)), "{}", service.log());
        drop(service);

        // What was not acknowledged comes again.
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
