//! Several instances of one group: each message goes to one of them, and what one leaves behind is not lost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::brokers::server;
use crate::metrics::Reading;
use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::events::Events;
use crate::support::postgres::Database;
use crate::support::said::{heartbeat, measurement};
use crate::support::scripted::{ScriptedAnswer, ScriptedBroker};
use crate::support::service::{Account, Service, count, database};
use crate::support::wait::{PATIENCE, eventually};

/// An instance of the group that is named after the database.
async fn instance(
    database: &Database,
    broker: &Broker,
    name: &str,
    more: &[(&str, &str)],
) -> Service {
    let client_id = client_id(database, name);
    let mut settings =
        vec![("MQTT_SHARED_GROUP", database.name.as_str()), ("MQTT_CLIENT_ID", &client_id)];
    settings.extend(more);
    Service::start(database, broker, &settings).await
}

fn client_id(database: &Database, name: &str) -> String {
    format!("{}-{name}", database.name)
}

/// Waits until the instances have settled this many measurements between them.
async fn settled(instances: &[&Service], wanted: u64) -> Vec<Account> {
    eventually(PATIENCE, async || {
        let mut accounts = Vec::new();
        for instance in instances {
            accounts.push(instance.account("measurements").await?);
        }
        assert!(accounts.iter().all(|it| it.balances()), "{accounts:?}");
        let settled: u64 = accounts.iter().map(|it| it.received - it.in_flight).sum();
        if settled == wanted { Ok(accounts) } else { Err(format!("{accounts:?}")) }
    })
    .await
}

async fn publish(client: &Client, topic: &str, timestamps: std::ops::Range<u32>) {
    for timestamp in timestamps {
        client.publish(topic, measurement(f64::from(timestamp))).await.unwrap();
    }
}

#[actix_rt::test]
async fn each_message_of_a_group_goes_to_one_instance() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let other = instance(&database, broker, "2", &[]).await;
    let sensor = one.create_sensor("shared").await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    let topic = format!("{}/measurements/{sensor}", database.name);

    publish(&client, &topic, 1..101).await;

    let accounts = settled(&[&one, &other], 100).await;
    let committed: Vec<_> = accounts.iter().map(|it| it.committed).collect();
    assert_eq!(committed.iter().sum::<u64>(), 100, "{accounts:?}");
    assert!(committed.iter().all(|it| *it > 20), "both have a share: {accounts:?}");
    assert_eq!(count(&database, "select count(*) from measurement").await, 100);
}

/// A session that had subscriptions of its own gets each message once after the change to a group.
#[actix_rt::test]
async fn an_instance_that_joins_a_group_leaves_its_own_subscriptions() {
    let (broker, database) = (Broker::shared().await, database().await);
    let name = client_id(&database, "1");
    let mut alone = Service::start(&database, broker, &[("MQTT_CLIENT_ID", &name)]).await;
    let sensor = alone.create_sensor("joined").await;
    alone.terminate().await;
    let one = instance(&database, broker, "1", &[]).await;
    let other = instance(&database, broker, "2", &[]).await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    // The UNSUBSCRIBE follows the SUBACK that readiness tells of.
    eventually(PATIENCE, async || {
        let log = one.log();
        if log.contains("left former subscriptions") { Ok(()) } else { Err(log) }
    })
    .await;

    publish(&client, &format!("{}/measurements/{sensor}", database.name), 1..101).await;

    let accounts = settled(&[&one, &other], 100).await;
    assert_eq!(accounts.iter().map(|it| it.duplicate).sum::<u64>(), 0, "{accounts:?}");
}

#[actix_rt::test]
async fn a_killed_instances_session_is_drained_by_command() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let mut other = instance(&database, broker, "2", &[]).await;
    let sensor = one.create_sensor("drained").await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    other.kill();
    // Its kept session still gets a share.
    publish(&client, &topic, 1..301).await;
    let rows = "select count(*) from measurement";
    // mosquitto deals in turn.
    settled(&[&one], 150).await;

    other.start_command("drain");
    let status = other.ended().await;

    assert!(status.success(), "{status}:\n{}", other.log());
    assert_eq!(count(&database, rows).await, 300);
    let session = Client::resume(broker.url(), &client_id(&database, "2")).await;
    assert!(!session.session_present(), "the session is ended");
    publish(&client, &topic, 301..401).await;
    settled(&[&one], 250).await;
    assert_eq!(count(&database, rows).await, 400, "the last one has the group to itself");
}

#[actix_rt::test]
async fn an_instance_drains_on_sigterm_while_messages_arrive() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let mut other = instance(&database, broker, "2", &[("DRAIN_ON_STOP", "true")]).await;
    let sensor = one.create_sensor("busy").await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    let mut published = 0;
    let mut exit_status = None;
    eventually(PATIENCE, async || {
        publish(&client, &topic, published + 1..published + 51).await;
        published += 50;
        if published == 200 {
            other.tell_to_stop();
        }
        exit_status = other.exit_status();
        if exit_status.is_some() { Ok(()) } else { Err(format!("{published}: {}", other.log())) }
    })
    .await;

    assert!(exit_status.is_some_and(|it| it.success()), "{}", other.log());
    let session = Client::resume(broker.url(), &client_id(&database, "2")).await;
    assert!(!session.session_present(), "the session is ended");
    eventually(PATIENCE, async || {
        let stored = count(&database, "select count(*) from measurement").await;
        if stored == i64::from(published) { Ok(()) } else { Err((stored, published)) }
    })
    .await;
}

/// The one that has the session has its messages, too.
#[actix_rt::test]
async fn a_drain_whose_session_is_taken_over_fails() {
    // CONNACK with Session Present, and DISCONNECT with Session taken over as the answer to UNSUBSCRIBE.
    let taken_over = server(|first_byte| match first_byte {
        0x10 => Some(b"\x20\x03\x01\x00\x00"),
        0xa2 => Some(b"\xe0\x01\x8e"),
        _ => Some(b""),
    });
    let (broker, database) = (Broker::shared().await, database().await);
    let settings = [
        ("MQTT_URL", taken_over.as_str()),
        ("MQTT_SHARED_GROUP", &database.name),
        ("MQTT_CLIENT_ID", &database.name),
        ("MIGRATE_ON_START", "false"),
    ];
    let mut drain = Service::start_unready(&database, broker, &settings);
    drain.kill();
    drain.start_command("drain");

    let (status, log) = (drain.ended().await, drain.log());

    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("another process uses this client id"), "{log}");
}

/// A wrong client id would otherwise look like success.
#[actix_rt::test]
async fn a_drain_without_a_session_fails() {
    // CONNACK without Session Present.
    let empty = server(|first_byte| (first_byte == 0x10).then_some(b"\x20\x03\x00\x00\x00"));
    let (broker, database) = (Broker::shared().await, database().await);
    let settings = [("MQTT_URL", empty.as_str()), ("MQTT_SHARED_GROUP", &database.name)];
    let mut drain = Service::start_unready(&database, broker, &settings);
    drain.kill();
    drain.start_command("drain");
    let (status, log) = (drain.ended().await, drain.log());
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("nothing was drained"), "{log}");
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
    eventually(PATIENCE, async || {
        let (status, answer) = service.get("/readyz").await?;
        let sentence = "the broker has no shared subscriptions, which MQTT_SHARED_GROUP takes";
        if status == 503 && answer.to_string().contains(sentence) {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    })
    .await;
}

/// The measurements that the stream tells of, in order.
async fn told(stream: &mut Events, wanted: usize) -> Vec<f64> {
    let mut timestamps = Vec::new();
    while timestamps.len() < wanted {
        let event = stream.next().await.expect("it goes on");
        if event.name == "measurement" {
            timestamps.push(event.data["value"]["temperature"].as_f64().unwrap());
        }
    }
    timestamps
}

#[actix_rt::test]
async fn a_stream_tells_of_what_every_instance_commits() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let other = instance(&database, broker, "2", &[]).await;
    know_each_other(&[&one, &other]).await;
    let sensor = one.create_sensor("streamed").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut streams =
        [Events::open(&one.url(), &path, "").await, Events::open(&other.url(), &path, "").await];
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;

    publish(&client, &format!("{}/measurements/{sensor}", database.name), 1..41).await;

    for stream in &mut streams {
        let mut timestamps = told(stream, 40).await;
        timestamps.sort_by(f64::total_cmp);
        let all: Vec<f64> = (1..41).map(f64::from).collect();
        assert_eq!(timestamps, all, "each once, whoever committed it");
    }
    let accounts = settled(&[&one, &other], 40).await;
    assert!(accounts.iter().all(|it| it.committed > 0), "{accounts:?}");
}

/// Waits until each instance lists all.
async fn know_each_other(instances: &[&Service]) -> Vec<Value> {
    eventually(PATIENCE, async || {
        let mut lists = Vec::new();
        for instance in instances {
            let known = Reading::of(instance).await.sum("tributary_instances", &[]) as usize;
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

/// Waits until one of the instances leads, and returns its place.
async fn leader(instances: &[&Service]) -> usize {
    eventually(PATIENCE, async || {
        let mut leaders = Vec::new();
        for (place, instance) in instances.iter().enumerate() {
            if Reading::of(instance).await.sum("tributary_leader", &[]) == 1.0 {
                leaders.push(place);
            }
        }
        match leaders[..] {
            [leader] => Ok(leader),
            _ => Err(format!("{leaders:?}")),
        }
    })
    .await
}

#[actix_rt::test]
async fn a_configuration_is_published_once_by_whoever_leads() {
    let (broker, database) = (Broker::shared().await, database().await);
    let mut instances =
        [instance(&database, broker, "1", &[]).await, instance(&database, broker, "2", &[]).await];
    know_each_other(&instances.iter().collect::<Vec<_>>()).await;
    let sensor = instances[0].create_sensor("configured").await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    client.subscribe(&format!("{}/configurations/{sensor}", database.name)).await;
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    let led_by = leader(&instances.iter().collect::<Vec<_>>()).await;

    // Posted at the one that does not lead, again and again: each within a second or two, by the leader.
    for revision in 1..=5 {
        let began = Instant::now();
        let body = json!({ "interval": revision });
        let (status, answer) = instances[1 - led_by].post(&path, &body).await.unwrap();
        assert_eq!(status, 202, "{answer}");
        client.wait_for_messages(revision).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}: not by a poll", began.elapsed());
    }
    // The death of the leader.
    instances[led_by].kill();
    let survivor = &instances[1 - led_by];
    let began = Instant::now();
    leader(&[survivor]).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let (status, _) = survivor.post(&path, &json!({ "interval": 6 })).await.unwrap();
    assert_eq!(status, 202);

    let published = client.wait_for_messages(6).await;
    let revisions: Vec<Value> = published
        .iter()
        .map(|it| serde_json::from_str::<Value>(&it.payload).unwrap()["revision"].clone())
        .collect();
    assert_eq!(revisions, [1, 2, 3, 4, 5, 6].map(Value::from), "each once");
}

/// The actor of an instance learns of a revision, and of its acknowledgement, that went through the other one.
#[actix_rt::test]
async fn an_actor_knows_what_went_through_another_instance() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let other = instance(&database, broker, "2", &[]).await;
    know_each_other(&[&one, &other]).await;
    let sensor = one.create_sensor("known").await;
    let client = Client::connect(broker.url(), &client_id(&database, "sensor")).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.subscribe(&format!("{}/configurations/{sensor}", database.name)).await;
    // Both have an actor.
    publish(&client, &topic, 1..11).await;
    settled(&[&one, &other], 10).await;

    let configurations = format!("/api/v1/sensors/{sensor}/configurations");
    let (status, _) = other.post(&configurations, &json!({ "interval": 1 })).await.unwrap();
    assert_eq!(status, 202);
    client.wait_for_messages(1).await;
    let heartbeats = format!("{}/heartbeats/{sensor}", database.name);
    client.publish(&heartbeats, heartbeat(1, 20.0, true)).await.unwrap();

    for instance in [&one, &other] {
        eventually(PATIENCE, async || {
            let path = format!("/api/v1/sensors/{sensor}/live");
            let (_, live) = instance.get(&path).await?;
            let known = ["desired_revision", "last_acknowledged_revision"];
            if known.iter().all(|it| live["live"][it] == 1) {
                Ok(())
            } else {
                Err(live.to_string())
            }
        })
        .await;
    }
}

/// What an instance has committed may be untold when it dies: the streams of the others say so.
#[actix_rt::test]
async fn a_stream_ends_when_another_instance_dies_and_not_when_it_stops() {
    let (broker, database) = (Broker::shared().await, database().await);
    let one = instance(&database, broker, "1", &[]).await;
    let mut others =
        [instance(&database, broker, "2", &[]).await, instance(&database, broker, "3", &[]).await];
    know_each_other(&[&one, &others[0], &others[1]]).await;
    let sensor = one.create_sensor("bereft").await;
    let path = format!("/api/v1/sensors/{sensor}/stream");
    let mut stream = Events::open(&one.url(), &path, "").await;
    others[0].terminate().await;
    know_each_other(&[&one, &others[1]]).await;
    let before_death = one.log();
    assert!(!before_death.contains("an instance has died"), "{before_death}");
    others[1].kill();

    let last = loop {
        let event = stream.next().await.expect("it says why it ends");
        if event.name == "dropped" {
            break event;
        }
    };
    assert_eq!(last.data["reason"], "overrun", "{last:?}");
}

/// Whoever guesses at one instance is no newcomer at the other.
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
    assert_eq!(guess(&other, "another").await, 401, "only that name");
}
