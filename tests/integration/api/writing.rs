//! Sensors and configurations are created and changed, and the supervisor is notified.

use actix_web::http::Method;
use serde_json::json;
use tributary::domain::SensorIdentifier;
use tributary::sensor::{ReceiptStats, Snapshot};

use super::fixture::{Api, SupervisorMessage};

#[actix_rt::test]
async fn a_sensor_is_created_with_its_first_configuration() {
    let api = Api::start().await;
    let body = r#"{"name":"one","configuration":{"rate":1.0,"big":12345678901234567890.5}}"#;

    let created = api.post("/api/v1/sensors", body).await;

    let location = created.header("location").to_owned();
    let created = created.expect(201);
    let identifier = SensorIdentifier::parse(created["identifier"].as_str().unwrap()).unwrap();
    assert_eq!(location, format!("/api/v1/sensors/{identifier}"));
    assert_eq!(api.supervisor_messages(), [SupervisorMessage::Configured(identifier, 1)]);
    let one = api.get(&location).await.expect(200);
    assert_eq!(one["name"], "one");
    assert_eq!(one["newest_revision"], 1);
    assert_eq!(one["configuration_state"], "pending");
    assert_eq!(one["live"], json!(null));
    let configurations = api.get(&format!("{location}/configurations")).await;
    let stored_configuration = r#""configuration":{"big": 12345678901234567890.5, "rate": 1.0}"#;
    assert!(configurations.text.contains(stored_configuration), "{configurations:?}");
}

#[actix_rt::test]
async fn a_client_may_choose_the_identifier() {
    let api = Api::start().await;
    let identifier = SensorIdentifier::random();
    let body = json!({ "name": "one", "identifier": identifier });

    let created = api.post("/api/v1/sensors", &body).await.expect(201);

    assert_eq!(created["identifier"], json!(identifier));
    assert_eq!(created["newest_revision"], json!(null));
    assert_eq!(created["configuration_state"], "none");
    assert_eq!(api.supervisor_messages(), []);
    for (body, kind, pointer) in [
        (json!({ "name": "one" }), "/problems/name-taken", "/name"),
        (
            json!({ "name": "other", "identifier": identifier }),
            "/problems/identifier-taken",
            "/identifier",
        ),
    ] {
        let problem = api.post("/api/v1/sensors", body).await.expect(409);
        assert_eq!((&problem["type"], &problem["pointer"]), (&json!(kind), &json!(pointer)));
    }
    assert_eq!(api.count("select count(*) from sensor").await, 1);
}

#[actix_rt::test]
async fn a_sensor_is_renamed() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    api.create_sensor("two").await;

    let renamed = api.send_json(Method::PATCH, &one, r#"{"name":"Größe µ"}"#).await.expect(200);

    assert_eq!(renamed["name"], "Größe µ");
    assert_eq!(api.get(&one).await.expect(200)["name"], "Größe µ");
    let taken = api.send_json(Method::PATCH, &one, r#"{"name":"two"}"#).await.expect(409);
    assert_eq!(taken["pointer"], "/name");
    let unknown_sensor = format!("/api/v1/sensors/{}", SensorIdentifier::random());
    api.send_json(Method::PATCH, &unknown_sensor, r#"{"name":"x"}"#).await.expect(404);
}

#[actix_rt::test]
async fn a_sensor_shows_the_live_state_of_its_actor() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    *api.live.lock().unwrap() = Some(Snapshot {
        last_acknowledged_revision: Some(3),
        measurements: ReceiptStats { items: 5, ..ReceiptStats::default() },
        ..Snapshot::default()
    });

    let live = api.get(&one).await.expect(200)["live"].clone();

    assert_eq!(live["last_acknowledged_revision"], 3);
    assert_eq!(live["measurements"]["items"], 5);
}

#[actix_rt::test]
async fn concurrent_configurations_get_consecutive_revisions() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    let path = format!("{one}/configurations");

    let posts = (0..20).map(|n| api.post(&path, json!({ "n": n })));
    let answers = futures_util::future::join_all(posts).await;

    let mut revisions: Vec<_> = answers
        .into_iter()
        .map(|answer| {
            let answer = answer.expect(202);
            assert_eq!(answer["sensor_identifier"], json!(identifier));
            answer["revision"].as_i64().unwrap()
        })
        .collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=20).collect::<Vec<_>>());
    let mut messages: Vec<_> = api.supervisor_messages();
    messages.sort_by_key(|messages| match messages {
        SupervisorMessage::Configured(_, revision) => *revision,
        SupervisorMessage::Republish(_) | SupervisorMessage::Deleted(_) => -1,
    });
    assert_eq!(
        messages,
        (1..=20).map(|r| SupervisorMessage::Configured(identifier, r)).collect::<Vec<_>>()
    );
}

#[actix_rt::test]
async fn the_configuration_history_shows_the_state_of_each_revision() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    let path = format!("{one}/configurations");
    for n in 0..4 {
        api.post(&path, json!({ "n": n })).await.expect(202);
    }
    api.execute(&format!(
        "update configuration set publication_timestamp = '2024-01-01T00:00:00Z' where revision < 4;
         update configuration set acknowledgement_timestamp = to_timestamp(1.5),
             acknowledgement_receipt_timestamp = '2024-01-01T00:00:01.000002Z', success = revision = 2
         where revision < 3 and sensor_identifier = '{identifier}'"
    ))
    .await;

    let first = api.get(&format!("{path}?limit=3")).await.expect(200);

    let brief = |page: &serde_json::Value| -> Vec<(i64, String)> {
        let items = page["items"].as_array().unwrap().iter();
        items
            .map(|item| {
                (item["revision"].as_i64().unwrap(), item["state"].as_str().unwrap().to_owned())
            })
            .collect()
    };
    let expected = [(4, "pending"), (3, "published"), (2, "acknowledged"), (1, "failed")]
        .map(|(revision, state)| (revision, state.to_owned()));
    assert_eq!(brief(&first), expected[..3]);
    let acknowledged = &first["items"][2];
    assert_eq!(acknowledged["publication_timestamp"], "2024-01-01T00:00:00Z");
    assert_eq!(acknowledged["acknowledgement_timestamp"], "1970-01-01T00:00:01.5Z");
    assert_eq!(acknowledged["acknowledgement_receipt_timestamp"], "2024-01-01T00:00:01.000002Z");
    assert_eq!(acknowledged["success"], true);
    let next = first["next"].as_str().unwrap();
    let last = api.get(&format!("{path}?limit=3&cursor={next}")).await.expect(200);
    assert_eq!(brief(&last), expected[3..]);
    assert_eq!(last["next"], json!(null));
    let one = api.get(&one).await.expect(200);
    assert_eq!(one["newest_revision"], 4);
    assert_eq!(one["last_acknowledged_revision"], 2);
}

#[actix_rt::test]
async fn a_change_is_completed_even_if_the_client_disconnects() {
    let api = Api::start().await;
    let (identifier, one) = api.create_sensor("one").await;
    let mut holder = crate::support::postgres::connect(&api.database.url).await.unwrap();
    let lock = holder.transaction().await.unwrap();
    lock.batch_execute("select 1 from sensor for update").await.unwrap();

    let path = format!("{one}/configurations");
    let post = api.post(&path, r#"{"n":1}"#);
    let disconnected = tokio::time::timeout(std::time::Duration::from_millis(300), post).await;
    assert!(disconnected.is_err(), "the sensor's row is locked");
    lock.commit().await.unwrap();

    crate::support::wait::eventually(crate::support::wait::TIMEOUT, async || {
        let messages = api.supervisor_messages();
        if messages == [SupervisorMessage::Configured(identifier, 1)] {
            Ok(())
        } else {
            Err(messages)
        }
    })
    .await;
}
