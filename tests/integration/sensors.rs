//! Known, unknown and deleted sensors, and their actors.

use serde_json::json;
use tributary::app::App;
use tributary::config::Config;
use tributary::domain::Faults;
use tributary::telemetry::LogFilterHandle;
use uuid::Uuid;

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement, measurements};
use crate::support::postgres::Database;
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

#[actix_rt::test]
async fn an_unknown_sensor_is_rejected_until_it_is_created() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let identifier = Uuid::new_v4();
    let topic = format!("{}/measurements/{identifier}", database.name);

    client.publish(&topic, measurements([1.0, 2.0, 3.0])).await.unwrap();
    let entry = service.wait_for_ledger(|entry| entry.received == 3 && entry.in_flight == 0).await;
    assert_eq!(entry.rejected, 3, "three items");
    let (_, page) = service.get("/api/v1/rejections").await.unwrap();
    assert_eq!(page["items"][0]["reason"], "unknown_sensor", "{page}");
    assert_eq!(page["items"][0]["sensor_identifier"], json!(identifier), "{page}");

    let body = json!({ "name": "late", "identifier": identifier });
    assert_eq!(service.post("/api/v1/sensors", &body).await.unwrap().0, 201);
    client.publish(&topic, measurement(4.0)).await.unwrap();
    let entry = service.wait_for_ledger(|entry| entry.received == 4 && entry.in_flight == 0).await;
    assert_eq!(entry.committed, 1, "the sensor exists");
}

#[actix_rt::test]
async fn an_unknown_sensor_is_created_if_the_setting_is_register() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[("UNKNOWN_SENSOR", "register")]).await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let identifier = Uuid::new_v4();
    let topic = format!("{}/measurements/{identifier}", database.name);

    client.publish(&topic, measurements([1.0, 2.0])).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 2).await;
    let (status, sensor) = service.get(&format!("/api/v1/sensors/{identifier}")).await.unwrap();
    assert_eq!((status, &sensor["name"]), (200, &json!(identifier)), "{sensor}");
    assert_eq!(sensor["live"]["measurements"]["items"], 2, "{sensor}");
}

#[actix_rt::test]
async fn a_deleted_sensor_has_no_rows_and_its_messages_are_rejected() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[]).await;
    let sensor = service.create_sensor("gone").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish(&topic, measurements((0..100).map(f64::from))).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 100).await;

    let path = format!("/api/v1/sensors/{sensor}");
    assert_eq!(service.request("DELETE", &path, None).await.unwrap().0, 204);
    assert_eq!(count(&database, "select count(*) from measurement").await, 0);
    client.publish(&topic, measurement(1_000.0)).await.unwrap();
    let entry =
        service.wait_for_ledger(|entry| entry.received == 101 && entry.in_flight == 0).await;
    assert_eq!(entry.rejected, 1);
    assert_eq!(count(&database, "select count(*) from measurement").await, 0);
}

#[actix_rt::test]
async fn a_known_sensor_gets_an_actor_if_it_is_looked_up_with_an_unknown_one() {
    let broker = Broker::shared().await;
    let database = database().await;
    let mut service = Service::start(&database, broker, &[]).await;
    let known = service.create_sensor("known").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    // Both messages are queued when the service starts again, so that both sensors are looked up together.
    assert!(service.terminate().await.success());
    for sensor in [known.as_str(), &Uuid::new_v4().to_string()] {
        let topic = format!("{}/measurements/{sensor}", database.name);
        client.publish(&topic, measurement(1.0)).await.unwrap();
    }
    service.start_again().await;
    let entry = service.wait_for_ledger(|entry| entry.received == 2 && entry.in_flight == 0).await;
    assert_eq!((entry.committed, entry.rejected), (1, 1));
    let (_, sensor) = service.get(&format!("/api/v1/sensors/{known}")).await.unwrap();
    assert_eq!(sensor["live"]["measurements"]["items"], 1, "{sensor}");
}

#[actix_rt::test]
async fn an_idle_actor_stops_and_a_new_one_loads_its_state_from_the_database() {
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[("SENSOR_IDLE_SECS", "1")]).await;
    let (_, created) = service
        .post("/api/v1/sensors", &json!({ "name": "sleepy", "configuration": { "interval": 1 } }))
        .await
        .unwrap();
    let sensor = created["identifier"].as_str().unwrap();
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let heartbeats = format!("{}/heartbeats/{sensor}", database.name);
    let published = "select count(*) from configuration where publication_timestamp is not null";
    eventually(TIMEOUT, async || match count(&database, published).await {
        1 => Ok(()),
        count => Err(count),
    })
    .await;
    client.publish(&heartbeats, heartbeat(1, 1.0, true)).await.unwrap();

    let live = async || {
        let (_, sensor) = service.get(&format!("/api/v1/sensors/{sensor}")).await.unwrap();
        sensor["live"].clone()
    };
    eventually(TIMEOUT, async || match live().await["last_acknowledged_revision"].as_i64() {
        Some(1) => Ok(()),
        other => Err(other),
    })
    .await;
    eventually(TIMEOUT, async || {
        let live = live().await;
        if live.is_null() { Ok(()) } else { Err(live) }
    })
    .await;
    // A newer revision without an acknowledgement does not hide the older acknowledgement.
    let configurations = format!("/api/v1/sensors/{sensor}/configurations");
    let (status, _) = service.post(&configurations, &json!({ "interval": 2 })).await.unwrap();
    assert_eq!(status, 202);
    let measurements = format!("{}/measurements/{sensor}", database.name);
    client.publish(&measurements, measurement(2.0)).await.unwrap();
    let live = eventually(TIMEOUT, async || {
        let live = live().await;
        if live["measurements"]["messages"] == 1 { Ok(live) } else { Err(live) }
    })
    .await;
    assert_eq!(live["desired_revision"], 2, "{live}");
    assert_eq!(live["last_acknowledged_revision"], 1, "{live}");
    assert_eq!(live["last_acknowledged_success"], true, "{live}");
    assert_eq!(live["heartbeats"]["messages"], 0, "{live}");
}

#[actix_rt::test]
async fn ten_thousand_sensors_have_one_actor_each() {
    const SENSORS: u128 = 10_000;
    let broker = Broker::shared().await;
    let database = database().await;
    let service = Service::start(&database, broker, &[("UNKNOWN_SENSOR", "register")]).await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    for round in 0..2 {
        let publishes = (0..SENSORS).map(|number| {
            let topic = format!("{}/measurements/{}", database.name, Uuid::from_u128(number + 1));
            let client = &client;
            async move { client.publish(&topic, measurement(f64::from(round))).await }
        });
        for outcome in futures_util::future::join_all(publishes).await {
            outcome.unwrap();
        }
    }
    service.wait_for_ledger(|entry| entry.committed == 2 * SENSORS as u64).await;
    let (_, status) = service.get("/api/v1/status").await.unwrap();
    assert_eq!(status["actors"]["alive"], json!(SENSORS as u64), "{status}");
    assert_eq!(count(&database, "select count(*) from sensor").await, SENSORS as i64);
}

const PANICS: &str = r#"{"measurements":[{"revision":0,"timestamp":1,"value":{"poison":1}}]}"#;

/// Starts a service in this process whose actors panic on `PANICS`.
async fn start_with_faults(database: &Database, broker: &Broker, unknown_sensor: &str) -> App {
    let settings = |name: &str| {
        Some(match name {
            "DATABASE_URL" => database.url.clone(),
            "MQTT_URL" => broker.url().to_owned(),
            "MQTT_CLIENT_ID" | "MQTT_TOPIC_PREFIX" => database.name.clone(),
            "HTTP_ADDR" => "127.0.0.1:0".into(),
            "UNKNOWN_SENSOR" => unknown_sensor.into(),
            "MIGRATE_ON_START" => "true".into(),
            "AUTH" => "off".into(),
            _ => return None,
        })
    };
    let faults = Faults::actor_panics(|uplink| {
        uplink.message.payload().windows(6).any(|it| it == b"poison")
    });
    App::start(Config::read(settings).unwrap(), faults, LogFilterHandle::nothing()).await.unwrap()
}

/// A stop of the actor makes the broker redeliver all its messages in flight, so it must happen only once.
#[actix_rt::test]
async fn a_replayed_message_stops_its_actor_once() {
    let broker = Broker::shared().await;
    let database = database().await;
    let app = start_with_faults(&database, broker, "reject").await;
    let (ledger, url) = (app.ledger(), format!("http://{}/api/v1", app.address()));
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let running = actix_rt::spawn(app.run_until(async move || drop((&mut stopped).await)));
    let post = async |path: &str, body: serde_json::Value| {
        let request = awc::Client::default().post(format!("{url}{path}")).timeout(TIMEOUT);
        request.send_json(&body).await.unwrap().json::<serde_json::Value>().await.unwrap()
    };
    let sensor = Uuid::new_v4();
    let topic = format!("{}/measurements/{sensor}", database.name);
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    // The service is subscribed once it receives a message.
    let unknown_sensor = format!("{}/log-messages/{}", database.name, Uuid::new_v4());
    eventually(TIMEOUT, async || {
        client.publish(&unknown_sensor, "{").await.unwrap();
        match ledger.snapshot().log_messages.rejected {
            0 => Err(ledger.snapshot().log_messages),
            _ => Ok(()),
        }
    })
    .await;
    client.publish(&topic, PANICS).await.unwrap();
    eventually(TIMEOUT, async || match ledger.snapshot().measurements {
        entry if entry.rejected == 1 => Ok(()),
        entry => Err(entry),
    })
    .await;
    post("/sensors", json!({ "name": "poisoned", "identifier": sensor })).await;

    let replay = async || {
        let report = post("/rejections/replay", json!({ "sensor": sensor })).await;
        ["replayed", "failed", "kept", "refused_items"].map(|name| report[name].as_u64().unwrap())
    };
    assert_eq!(replay().await, [1, 1, 0, 0], "the actor panics");
    for _ in 0..2 {
        assert_eq!(replay().await, [1, 0, 1, 1], "the message bypasses the actor");
    }

    let reasons = "select count(*) from rejection where reason = 'actor_failed'";
    assert_eq!(count(&database, reasons).await, 1);
    client.publish(&topic, measurement(2.0)).await.unwrap();
    eventually(TIMEOUT, async || {
        let entry = ledger.snapshot().measurements;
        assert!(entry.balances(), "{entry:?}");
        if entry.committed == 1 && entry.in_flight == 0 { Ok(()) } else { Err(entry) }
    })
    .await;
    drop(stop);
    running.await.unwrap().unwrap();
}

/// The actor is started again, the other messages in flight are redelivered and stored, and the message that causes
/// two panics is rejected.
#[actix_rt::test]
async fn a_panic_in_an_actor_loses_no_message_except_the_one_that_causes_it() {
    let broker = Broker::shared().await;
    let database = database().await;
    let app = start_with_faults(&database, broker, "register").await;
    let ledger = app.ledger();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let running = actix_rt::spawn(app.run_until(async move || drop((&mut stopped).await)));

    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{}", database.name, Uuid::new_v4());
    // The service is subscribed once it receives a message.
    eventually(TIMEOUT, async || {
        client.publish(&topic, measurement(0.0)).await.unwrap();
        match ledger.snapshot().measurements.committed {
            0 => Err(ledger.snapshot().measurements),
            _ => Ok(()),
        }
    })
    .await;
    for second in 1..50 {
        client.publish(&topic, measurement(f64::from(second))).await.unwrap();
        if second == 25 {
            client.publish(&topic, PANICS).await.unwrap();
        }
    }

    eventually(TIMEOUT, async || {
        let entry = ledger.snapshot().measurements;
        assert!(entry.balances(), "{entry:?}");
        let done = entry.committed == 50 && entry.rejected == 1 && entry.in_flight == 0;
        if done { Ok(()) } else { Err(entry) }
    })
    .await;
    assert!(ledger.snapshot().measurements.released >= 2);
    assert_eq!(count(&database, "select count(*) from measurement").await, 50);
    let reasons = "select count(*) from rejection where reason = 'actor_failed'";
    assert_eq!(count(&database, reasons).await, 1);
    drop(stop);
    running.await.unwrap().unwrap();
}
