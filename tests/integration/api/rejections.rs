//! A rejection belongs to the network of its sensor; a page of rejections is limited in bytes.

use actix_web::http::Method;
use serde_json::{Value, json};
use tributary::domain::{NetworkIdentifier, Role, Scope, SensorIdentifier};

use super::fixture::Api;

const REJECTIONS: &str = "/api/v1/rejections";

/// Creates a sensor in this network, or only its identifier, and a rejection with a payload of `size` bytes.
async fn reject(api: &Api, network: Option<NetworkIdentifier>, size: u32) -> SensorIdentifier {
    let one = SensorIdentifier::random();
    if let Some(network) = network {
        api.execute(&format!(
            "insert into sensor (identifier, network_identifier, name) values ('{one}', '{network}', '{one}')"
        ))
        .await;
    }
    api.execute(&format!(
        "insert into rejection (receipt_timestamp, topic, sensor_identifier, kind, item_count, reason, detail, raw, digest)
         values (now(), 't', '{one}', 'measurement', 1, 'not_json', 'd', convert_to(repeat('x', {size}), 'UTF8'), '{one}')"
    ))
    .await;
    one
}

fn sensors(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|it| it["sensor_identifier"].as_str().unwrap().to_owned()).collect()
}

#[actix_rt::test]
async fn a_caller_of_one_network_sees_and_deletes_only_rejections_of_that_network() {
    let api = Api::start_guarded().await;
    let (here, elsewhere) = (api.network("here").await, api.network("elsewhere").await);
    let ours = reject(&api, Some(here), 10).await;
    let theirs = reject(&api, Some(elsewhere), 10).await;
    let unknown_sensor = reject(&api, None, 10).await;
    let token = api.token(Role::Operator, Scope::Network(here)).await;
    let all = api.token(Role::Operator, Scope::All).await;
    let get = async |token: &str, query: &str| {
        api.call(Some(token), Method::GET, &format!("{REJECTIONS}{query}"), None).await
    };
    let all_sensors = [unknown_sensor, theirs, ours].map(|it| it.to_string());
    assert_eq!(sensors(&get(&all, "").await.expect(200)), all_sensors);

    assert_eq!(sensors(&get(&token, "").await.expect(200)), [ours.to_string()]);
    assert_eq!(sensors(&get(&token, "?reason=not_json").await.expect(200)).len(), 1);
    let own = get(&token, &format!("?sensor={ours}")).await.expect(200);
    assert_eq!(sensors(&own), [ours.to_string()]);
    for other in [theirs, unknown_sensor] {
        let query = format!("?sensor={other}");
        let problem = get(&token, &query).await.expect(404);
        assert_eq!(problem["type"], "/problems/sensor-not-found");
        assert_eq!(problem["detail"], "no sensor has this identifier");
        assert_eq!(problem["parameter"], "sensor");
        let path = format!("{REJECTIONS}{query}");
        api.call(Some(&token), Method::DELETE, &path, None).await.expect(404);
        let order = json!({ "sensor": other.to_string() }).to_string();
        let path = format!("{REJECTIONS}/replay");
        let answer = api.call(Some(&token), Method::POST, &path, Some(&order)).await;
        assert_eq!(answer.expect(404)["pointer"], "/sensor");
    }

    let path = format!("{REJECTIONS}?all=true");
    let deleted = api.call(Some(&token), Method::DELETE, &path, None).await.expect(200);
    assert_eq!(deleted, json!({ "deleted": 1, "more": false }));
    assert_eq!(sensors(&get(&all, "").await.expect(200)), all_sensors[..2]);
}

#[actix_rt::test]
async fn a_page_of_large_rejections_ends_early() {
    let api = Api::start().await;
    for _ in 0..6 {
        reject(&api, None, 1_500_000).await;
    }
    let (mut sizes, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("{REJECTIONS}?limit=5{cursor}")).await.expect(200);
        sizes.push(page["items"].as_array().unwrap().len());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    // The third item starts within the limit, so it is included.
    assert_eq!(sizes, [3, 3]);
    for _ in 0..3 {
        reject(&api, None, 1).await;
    }
    let page = api.get(&format!("{REJECTIONS}?limit=2")).await.expect(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert!(page["next"].is_string());
}

#[actix_rt::test]
async fn since_and_until_accept_timestamps_in_all_forms() {
    let api = Api::start().await;
    reject(&api, None, 1).await;
    api.execute("update rejection set receipt_timestamp = to_timestamp(1795546800.5)").await;
    for (query, count) in [
        ("since=1795546800.5", 1),
        ("since=1795546801", 0),
        ("until=1795546800", 0),
        ("since=2026-11-24T19:00:00Z&until=2026-11-24T19:00:01Z", 1),
    ] {
        let page = api.get(&format!("{REJECTIONS}?{query}")).await.expect(200);
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{query}");
    }
    let problem = api.get(&format!("{REJECTIONS}?since=yesterday")).await.expect(400);
    assert_eq!(problem["parameter"], "since");
    for since in [json!(1_795_546_800.5), json!("1795546800"), json!("2026-11-24T19:00:00Z")] {
        // The fixture has no replayer: a valid order gets 503.
        let order = json!({ "since": since, "cursor": null });
        api.post(&format!("{REJECTIONS}/replay"), order).await.expect(503);
    }
    for since in [json!(-1), json!("yesterday"), json!(true), json!(null)] {
        let answer = api.post(&format!("{REJECTIONS}/replay"), json!({ "since": since })).await;
        assert_eq!(answer.expect(422)["pointer"], "/since");
    }
}
