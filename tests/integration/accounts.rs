//! The example of an ACL, on the broker: a sensor speaks for itself and for nobody else, and
//! Tributary needs no more than it is given there.

use rumqttc::v5::mqttbytes::v5::PubAckReason;

use crate::support::broker::{Broker, Settings};
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement};
use crate::support::service::{Service, count, database};
use crate::support::wait::{TIMEOUT, eventually};

const ACCESS: &str = include_str!("../../scripts/mosquitto-acl.conf");
const OURS: &str = "81bf7042-e20f-4a97-ac44-c15853e3618f";
const ANOTHER: &str = "0d4ff1a9-5a60-4f6e-9f5c-0d7d8c1f8d11";

#[actix_rt::test]
async fn a_sensor_speaks_for_itself_and_reads_its_own_configuration() {
    let account = |sensor: &str| (sensor.to_owned(), format!("password-of-{sensor}"));
    let broker = Broker::start_with(Settings {
        account: Some(("tributary", "s3cret")),
        more_accounts: vec![account(OURS), account(ANOTHER)],
        access: Some(ACCESS.to_owned()),
        ..Settings::default()
    })
    .await;
    let database = database().await;
    // The example has no prefix.
    let service = Service::start(&database, &broker, &[("MQTT_TOPIC_PREFIX", "")]).await;
    for (name, identifier) in [("ours", OURS), ("another", ANOTHER)] {
        let sensor = serde_json::json!({ "name": name, "identifier": identifier });
        assert_eq!(service.post("/api/v1/sensors", &sensor).await.unwrap().0, 201);
    }
    let as_sensor = |sensor: &str| {
        let mut url: url::Url = broker.url().parse().unwrap();
        url.set_username(sensor).unwrap();
        url.set_password(Some(&account(sensor).1)).unwrap();
        url.to_string()
    };
    let sensor = Client::connect(&as_sensor(OURS), "ours").await;

    // For itself.
    for (kind, text) in [
        ("measurements", measurement(1.0)),
        ("heartbeats", heartbeat(0, 2.0, true)),
        ("log-messages", r#"{"log_messages":[]}"#.into()),
        ("logs", "[]".into()),
        ("acknowledgments", "[]".into()),
    ] {
        let reason = sensor.publish(&format!("{kind}/{OURS}"), text).await.unwrap();
        assert!(taken(reason), "{kind}: {reason:?}");
    }
    // Not for another, not at all where configurations go, and not anywhere else.
    for topic in [
        format!("measurements/{ANOTHER}"),
        format!("heartbeats/{ANOTHER}"),
        format!("log-messages/{ANOTHER}"),
        format!("logs/{ANOTHER}"),
        format!("acknowledgments/{ANOTHER}"),
        format!("configurations/{OURS}"),
        format!("configurations/{ANOTHER}"),
        "anything".into(),
    ] {
        assert!(refused(&as_sensor(OURS), &topic).await, "{topic}");
    }
    // A near miss gets through, to be recorded.
    assert!(taken(sensor.publish(&format!("measurements/{OURS}/roof"), "{}").await.unwrap()));
    service.wait_for_ledger(|entry| entry.committed == 1 && entry.rejected == 1).await;
    let foreign = format!("select count(*) from measurement where sensor_identifier = '{ANOTHER}'");
    assert_eq!(count(&database, &foreign).await, 0);

    // It asks for every configuration, and gets its own.
    sensor.subscribe("configurations/#").await;
    for identifier in [ANOTHER, OURS] {
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
    let heard = sensor.wait_for_messages(1).await;
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0].topic, format!("configurations/{OURS}"));
    let late = Client::connect(&as_sensor(ANOTHER), "another").await;
    late.subscribe("#").await;
    let retained = late.wait_for_messages(1).await;
    assert_eq!(retained.len(), 1, "{retained:?}");
    assert_eq!(retained[0].topic, format!("configurations/{ANOTHER}"));

    // Tributary speaks for no sensor either.
    assert!(refused(broker.url(), &format!("measurements/{OURS}")).await);
}

fn taken(reason: PubAckReason) -> bool {
    matches!(reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers)
}

/// Whether the broker refuses a message there: by its PUBACK, or as mosquitto 2.0.11 does, by closing
/// the connection.
async fn refused(url: &str, topic: &str) -> bool {
    let client = Client::connect(url, "refused").await;
    match client.publish(topic, measurement(3.0)).await {
        Ok(reason) => reason == PubAckReason::NotAuthorized,
        Err(_end) => true,
    }
}
