//! Configurations are created once per idempotency key, read, compared and republished.

use actix_web::http::Method;
use serde_json::json;
use tributary::domain::SensorIdentifier;

use super::fixture::{Answer, Api, SupervisorMessage};

async fn create(api: &Api, one: &str, key: &str, body: &str) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    api.send(Method::POST, &format!("{one}/configurations"), &headers, body).await
}

#[actix_rt::test]
async fn a_repeated_request_with_the_same_idempotency_key_gets_the_first_answer() {
    let api = Api::start().await;
    let (sensor, one) = api.create_sensor("one").await;
    let (_, two) = api.create_sensor("two").await;

    let first = create(&api, &one, "\"a\"", r#"{"rate":1}"#).await;
    assert_eq!(first.header("location"), format!("{one}/configurations/1"));
    assert_eq!(first.header("idempotency-replayed"), "");
    let first = first.expect(202);
    let again = create(&api, &one, "a", r#"{"rate":1}"#).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.expect(202), first);
    let other = create(&api, &one, "a", r#"{"rate":1.0}"#).await.expect(422);
    assert_eq!(other["type"], "/problems/idempotency-key-reused");
    assert_eq!(create(&api, &one, "b", r#"{"rate":1}"#).await.expect(202)["revision"], 2);
    assert_eq!(create(&api, &two, "a", r#"{"rate":9}"#).await.expect(202)["revision"], 1);
    assert_eq!(
        api.supervisor_messages()[..2],
        [SupervisorMessage::Configured(sensor, 1), SupervisorMessage::Configured(sensor, 2)]
    );

    let api = api.start_again();
    assert_eq!(create(&api, &one, "a", r#"{"rate":1}"#).await.expect(202), first);
    assert_eq!(api.supervisor_messages(), []);
    assert_eq!(api.count("select count(*) from configuration").await, 3);

    api.execute("update idempotency_key set creation_timestamp = now() - interval '25 hours'")
        .await;
    assert_eq!(create(&api, &one, "a", r#"{"rate":5}"#).await.expect(202)["revision"], 3);
}

#[actix_rt::test]
async fn concurrent_requests_with_one_idempotency_key_create_one_configuration() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    let requests = (0..8).map(|_| create(&api, &one, "same", r#"{"rate":1}"#));

    let answers = futures_util::future::join_all(requests).await;

    for answer in answers {
        assert_eq!(answer.expect(202)["revision"], 1);
    }
    assert_eq!(api.count("select count(*) from configuration").await, 1);
}

#[actix_rt::test]
async fn an_invalid_idempotency_key_is_rejected() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    let long = "x".repeat(256);
    for key in ["", "\"a", &long] {
        let problem = create(&api, &one, key, "{}").await.expect(400);
        assert_eq!(problem["type"], "/problems/invalid-header", "{key}");
    }
    assert_eq!(api.count("select count(*) from configuration").await, 0);
}

#[actix_rt::test]
async fn one_configuration_is_read_with_its_state() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    for body in [r#"{"rate":1.50}"#, r#"{"rate":2}"#] {
        api.post(&format!("{one}/configurations"), body).await.expect(202);
    }
    api.execute(
        "update configuration set publication_timestamp = to_timestamp(10),
             acknowledgement_timestamp = to_timestamp(20), acknowledgement_receipt_timestamp = to_timestamp(21),
             success = false where revision = 1",
    )
    .await;

    let first = api.get(&format!("{one}/configurations/1")).await;
    assert!(first.text.contains(r#""configuration":{"rate": 1.50}"#), "{first:?}");
    let first = first.expect(200);
    assert_eq!((&first["state"], &first["success"]), (&json!("failed"), &json!(false)));
    assert_eq!(first["publication_timestamp"], "1970-01-01T00:00:10Z");
    assert_eq!(first["acknowledgement_timestamp"], "1970-01-01T00:00:20Z");
    assert_eq!(first["acknowledgement_receipt_timestamp"], "1970-01-01T00:00:21Z");
    let newest = api.get(&format!("{one}/configurations/newest")).await.expect(200);
    assert_eq!((&newest["revision"], &newest["state"]), (&json!(2), &json!("pending")));
    for revision in ["0", "3", "-1", "x", "99999999999"] {
        let problem = api.get(&format!("{one}/configurations/{revision}")).await.expect(404);
        assert_eq!(problem["type"], "/problems/configuration-not-found", "{revision}");
    }
    let unknown_sensor = format!("/api/v1/sensors/{}/configurations/0", SensorIdentifier::random());
    assert_eq!(api.get(&unknown_sensor).await.expect(404)["type"], "/problems/sensor-not-found");
}

#[actix_rt::test]
async fn two_configurations_are_compared() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    for body in [r#"{"a":1,"b":"x","c":null}"#, r#"{"a":1,"b":"y","d":true}"#, "{}"] {
        api.post(&format!("{one}/configurations"), body).await.expect(202);
    }
    let path = format!("{one}/configurations/diff");

    let diff = api.get(&format!("{path}?from=1&to=2")).await.expect(200);

    assert_eq!(
        diff,
        json!({
            "from": 1, "to": 2,
            "added": { "d": true },
            "removed": { "c": null },
            "changed": { "b": { "from": "x", "to": "y" } },
        })
    );
    let to_newest = api.get(&format!("{path}?from=2")).await.expect(200);
    assert_eq!((&to_newest["to"], &to_newest["added"]), (&json!(3), &json!({})));
    assert_eq!(api.get(&format!("{path}?from=2&to=newest")).await.expect(200), to_newest);
    let from_newest = api.get(&format!("{path}?from=newest&to=2")).await.expect(200);
    assert_eq!((&from_newest["from"], &from_newest["to"]), (&json!(3), &json!(2)));
    let problem = api.get(&format!("{path}?from=1&to=4")).await.expect(404);
    assert_eq!(problem["type"], "/problems/configuration-not-found");
}

#[actix_rt::test]
async fn only_the_newest_configuration_can_be_republished() {
    let api = Api::start().await;
    let (sensor, one) = api.create_sensor("one").await;
    let republish = async |revision: &str| {
        api.request(Method::POST, &format!("{one}/configurations/{revision}/republish")).await
    };
    let problem = republish("newest").await.expect(404);
    assert_eq!(problem["type"], "/problems/configuration-not-found");
    for body in [r#"{"a":1}"#, r#"{"a":2}"#] {
        api.post(&format!("{one}/configurations"), body).await.expect(202);
    }

    assert_eq!(republish("2").await.expect(202)["revision"], 2);
    assert_eq!(republish("newest").await.expect(202)["revision"], 2);

    let messages = api.supervisor_messages();
    assert_eq!(
        messages[2..],
        [SupervisorMessage::Republish(sensor), SupervisorMessage::Republish(sensor)]
    );
    assert_eq!(republish("1").await.expect(409)["type"], "/problems/not-newest");
    assert_eq!(republish("3").await.expect(404)["type"], "/problems/configuration-not-found");
    assert_eq!(api.supervisor_messages(), messages);
    let answer = api.get(&format!("{one}/configurations/1/republish")).await;
    assert_eq!(answer.header("allow"), "POST");
    answer.expect(405);
}
