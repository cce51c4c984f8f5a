//! The example ACL on mosquitto: a sensor publishes only on its own topics and receives only its own
//! configuration, and the rights of Tributary's account suffice.

use rumqttc::v5::mqttbytes::v5::PubAckReason;

use crate::support::broker::{Broker, Settings};
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

const ACL: &str = include_str!("../../scripts/mosquitto-acl.conf");
const SENSOR: &str = "81bf7042-e20f-4a97-ac44-c15853e3618f";
const OTHER_SENSOR: &str = "0d4ff1a9-5a60-4f6e-9f5c-0d7d8c1f8d11";

#[actix_rt::test]
async fn a_sensor_publishes_only_on_its_own_topics_and_reads_only_its_own_configuration() {
    let account = |sensor: &str| (sensor.to_owned(), format!("password-of-{sensor}"));
    let broker = Broker::start_with(Settings {
        account: Some(("tributary", "s3cret")),
        more_accounts: vec![account(SENSOR), account(OTHER_SENSOR)],
        access: Some(ACL.to_owned()),
        ..Settings::default()
    })
    .await;
    let database = database().await;
    // The ACL of the example has topics without a prefix.
    let service = Service::start(&database, &broker, &[("MQTT_TOPIC_PREFIX", "")]).await;
    for (name, identifier) in [("ours", SENSOR), ("another", OTHER_SENSOR)] {
        let sensor = serde_json::json!({ "name": name, "identifier": identifier });
        assert_eq!(service.post("/api/v1/sensors", &sensor).await.unwrap().0, 201);
    }
    let as_sensor = |sensor: &str| {
        let mut url: url::Url = broker.url().parse().unwrap();
        url.set_username(sensor).unwrap();
        url.set_password(Some(&account(sensor).1)).unwrap();
        url.to_string()
    };
    let sensor = Client::connect(&as_sensor(SENSOR), "ours").await;

    // Its own topics.
    for (kind, text) in [
        ("measurements", measurement(1.0)),
        ("heartbeats", heartbeat(0, 2.0, true)),
        ("log-messages", r#"{"log_messages":[]}"#.into()),
        ("logs", "[]".into()),
        ("acknowledgments", "[]".into()),
    ] {
        let reason = sensor.publish(&format!("{kind}/{SENSOR}"), text).await.unwrap();
        assert!(accepted(reason), "{kind}: {reason:?}");
    }
    // Topics of another sensor, of configurations, and any other topic.
    for topic in [
        format!("measurements/{OTHER_SENSOR}"),
        format!("heartbeats/{OTHER_SENSOR}"),
        format!("log-messages/{OTHER_SENSOR}"),
        format!("logs/{OTHER_SENSOR}"),
        format!("acknowledgments/{OTHER_SENSOR}"),
        format!("configurations/{SENSOR}"),
        format!("configurations/{OTHER_SENSOR}"),
        "anything".into(),
    ] {
        assert!(is_rejected(&as_sensor(SENSOR), &topic).await, "{topic}");
    }
    // The broker accepts a malformed topic of the sensor; Tributary records it as rejected.
    assert!(accepted(sensor.publish(&format!("measurements/{SENSOR}/roof"), "{}").await.unwrap()));
    service.wait_for_ledger(|entry| entry.committed == 1 && entry.rejected == 1).await;
    let of_other_sensor =
        format!("select count(*) from measurement where sensor_identifier = '{OTHER_SENSOR}'");
    assert_eq!(count(&database, &of_other_sensor).await, 0);

    // It subscribes to all configurations and receives only its own.
    sensor.subscribe("configurations/#").await;
    for identifier in [OTHER_SENSOR, SENSOR] {
        let path = format!("/api/v1/sensors/{identifier}/configurations");
        let configuration = serde_json::json!({ "for": identifier });
        assert_eq!(service.post(&path, &configuration).await.unwrap().0, 202);
        let published = format!(
            "select count(*) from configuration \
             where sensor_identifier = '{identifier}' and publication_timestamp is not null"
        );
        eventually(TIMEOUT, async || match count(&database, &published).await {
            1 => Ok(()),
            count => Err((count, service.log())),
        })
        .await;
    }
    let received = sensor.wait_for_messages(1).await;
    assert_eq!(received.len(), 1, "{received:?}");
    assert_eq!(received[0].topic, format!("configurations/{SENSOR}"));
    let other_sensor = Client::connect(&as_sensor(OTHER_SENSOR), "another").await;
    other_sensor.subscribe("#").await;
    let retained = other_sensor.wait_for_messages(1).await;
    assert_eq!(retained.len(), 1, "{retained:?}");
    assert_eq!(retained[0].topic, format!("configurations/{OTHER_SENSOR}"));

    // Tributary's account may not publish as a sensor.
    assert!(is_rejected(broker.url(), &format!("measurements/{SENSOR}")).await);
}

fn accepted(reason: PubAckReason) -> bool {
    matches!(reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers)
}

/// Whether the broker rejects a PUBLISH: with its PUBACK or, as mosquitto 2.0.11 does, by closing the
/// connection.
async fn is_rejected(url: &str, topic: &str) -> bool {
    let client = Client::connect(url, "refused").await;
    match client.publish(topic, measurement(3.0)).await {
        Ok(reason) => reason == PubAckReason::NotAuthorized,
        Err(_end) => true,
    }
}
