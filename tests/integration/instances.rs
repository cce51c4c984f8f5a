//! Several instances of one group: each message is delivered to one of them, and no message of a stopped one is lost.

mod drain;
mod leader;
mod streams;

use serde_json::{Value, json};

use crate::metrics::MetricsSnapshot;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement};
use crate::support::postgres::Database;
use crate::support::scripted::{ScriptedAnswer, ScriptedBroker};
use crate::support::service::{LedgerEntry, Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

/// Starts an instance of the group that is named after the database.
async fn instance(
    database: &Database,
    broker: &Broker,
    name: &str,
    additional: &[(&str, &str)],
) -> Service {
    let client_id = client_id(database, name);
    let mut settings =
        vec![("MQTT_SHARED_GROUP", database.name.as_str()), ("MQTT_CLIENT_ID", &client_id)];
    settings.extend(additional);
    Service::start(database, broker, &settings).await
}

fn client_id(database: &Database, name: &str) -> String {
    format!("{}-{name}", database.name)
}

/// Waits until the instances together have settled `count` measurements.
async fn wait_until_settled(instances: &[&Service], count: u64) -> Vec<LedgerEntry> {
    eventually(TIMEOUT, async || {
        let mut entries = Vec::new();
        for instance in instances {
            entries.push(instance.ledger_entry("measurements").await?);
        }
        assert!(entries.iter().all(|it| it.balances()), "{entries:?}");
        let settled: u64 = entries.iter().map(|it| it.received - it.in_flight).sum();
        if settled == count { Ok(entries) } else { Err(format!("{entries:?}")) }
    })
    .await
}

async fn publish(client: &Client, topic: &str, timestamps: std::ops::Range<u32>) {
    for timestamp in timestamps {
        client.publish(topic, measurement(f64::from(timestamp))).await.unwrap();
    }
}

/// Waits until each instance lists all of them.
async fn wait_until_all_are_listed(instances: &[&Service]) -> Vec<Value> {
    eventually(TIMEOUT, async || {
        let mut lists = Vec::new();
        for instance in instances {
            let known =
                MetricsSnapshot::of(instance).await.sum("tributary_instances", &[]) as usize;
            let (_, list) = instance.get("/api/v1/instances").await?;
            if known != instances.len() || list["items"].as_array().map(Vec::len) != Some(known) {
                return Err(format!("{known} known: {list}"));
            }
            lists.push(list);
        }
        Ok(lists)
    })
    .await
}

#[actix_rt::test]
async fn each_message_of_a_group_is_delivered_to_one_instance() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let other = instance(&database, broker, "2", &[]).await;
    let sensor = one.create_sensor("shared").await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    let topic = format!("{}/measurements/{sensor}", database.name);

    publish(&client, &topic, 1..101).await;

    let entries = wait_until_settled(&[&one, &other], 100).await;
    let committed: Vec<_> = entries.iter().map(|it| it.committed).collect();
    assert_eq!(committed.iter().sum::<u64>(), 100, "{entries:?}");
    assert!(committed.iter().all(|it| *it > 20), "both receive a share: {entries:?}");
    assert_eq!(count(&database, "select count(*) from measurement").await, 100);
}

/// A session with subscriptions that are not shared receives each message once after it joins a group.
#[actix_rt::test]
async fn an_instance_that_joins_a_group_unsubscribes_from_its_former_filters() {
    let (broker, database) = (Broker::shared().await, database().await);
    let name = client_id(&database, "1");
    let mut single = Service::start(&database, broker, &[("MQTT_CLIENT_ID", &name)]).await;
    let sensor = single.create_sensor("joined").await;
    single.terminate().await;
    let one = instance(&database, broker, "1", &[]).await;
    let other = instance(&database, broker, "2", &[]).await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    // The service is ready after the SUBACK; the UNSUBSCRIBE follows.
    eventually(TIMEOUT, async || {
        let log = one.log();
        if log.contains("left former subscriptions") { Ok(()) } else { Err(log) }
    })
    .await;

    publish(&client, &format!("{}/measurements/{sensor}", database.name), 1..101).await;

    let entries = wait_until_settled(&[&one, &other], 100).await;
    assert_eq!(entries.iter().map(|it| it.duplicate).sum::<u64>(), 0, "{entries:?}");
}

#[actix_rt::test]
async fn a_broker_without_shared_subscriptions_is_reported() {
    let scripted = ScriptedBroker::start(&[0x2a, 0], |_| ScriptedAnswer::Puback(0));
    let (broker, database) = (Broker::shared().await, database().await);
    let settings = [
        ("MQTT_URL", scripted.url()),
        ("MQTT_SHARED_GROUP", database.name.as_str()),
        ("MQTT_CLIENT_ID", &database.name),
    ];
    let service = Service::start_unready(&database, broker, &settings);
    eventually(TIMEOUT, async || {
        let (status, answer) = service.get("/readyz").await?;
        let sentence = "the broker has no shared subscriptions, which MQTT_SHARED_GROUP requires";
        if status == 503 && answer.to_string().contains(sentence) {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    })
    .await;
}

/// A revision that was posted at the other instance, and its acknowledgement.
#[actix_rt::test]
async fn an_actor_learns_of_changes_through_another_instance() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let other = instance(&database, broker, "2", &[]).await;
    wait_until_all_are_listed(&[&one, &other]).await;
    let sensor = one.create_sensor("known").await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.subscribe(&format!("{}/configurations/{sensor}", database.name)).await;
    // Both instances have an actor of the sensor.
    publish(&client, &topic, 1..11).await;
    wait_until_settled(&[&one, &other], 10).await;

    let configurations = format!("/api/v1/sensors/{sensor}/configurations");
    let (status, _) = other.post(&configurations, &json!({ "interval": 1 })).await.unwrap();
    assert_eq!(status, 202);
    client.wait_for_messages(1).await;
    let heartbeats = format!("{}/heartbeats/{sensor}", database.name);
    client.publish(&heartbeats, heartbeat(1, 20.0, true)).await.unwrap();

    for instance in [&one, &other] {
        eventually(TIMEOUT, async || {
            let path = format!("/api/v1/sensors/{sensor}/live");
            let (_, live) = instance.get(&path).await?;
            let revisions = ["desired_revision", "last_acknowledged_revision"];
            if revisions.iter().all(|it| live["live"][it] == 1) {
                Ok(())
            } else {
                Err(live.to_string())
            }
        })
        .await;
    }
}

#[actix_rt::test]
async fn failed_sign_ins_count_over_all_instances() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[("AUTH", "on")]).await;
    let other = instance(&database, broker, "2", &[("AUTH", "on")]).await;
    let guess = async |at: &Service, name: &str| {
        let body = json!({ "name": name, "password": "a guess of a password" });
        at.post("/api/v1/sessions", &body).await.unwrap().0
    };
    for _ in 0..5 {
        assert_eq!(guess(&one, "someone").await, 401);
    }
    assert_eq!(guess(&other, "someone").await, 429);
    assert_eq!(guess(&other, "another").await, 401, "another name is not limited");
}

#[actix_rt::test]
async fn an_instance_with_another_topic_prefix_is_reported() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let same = instance(&database, broker, "2", &[]).await;
    let prefix = format!("{}/site", database.name);
    let other = instance(&database, broker, "3", &[("MQTT_TOPIC_PREFIX", &prefix)]).await;

    let lists = wait_until_all_are_listed(&[&one, &same, &other]).await;

    let differing: Vec<_> = lists
        .iter()
        .map(|list| {
            let items = list["items"].as_array().unwrap();
            items.iter().map(|it| it["differs"].as_bool().unwrap()).collect::<Vec<_>>()
        })
        .collect();
    let of_first = vec![false, false, true];
    assert_eq!(differing, [of_first.clone(), of_first, vec![true, true, false]], "{lists:?}");
    let sentence = "has another MQTT_TOPIC_PREFIX or broker";
    assert!(one.log().contains(sentence) && other.log().contains(sentence), "{}", one.log());
}
