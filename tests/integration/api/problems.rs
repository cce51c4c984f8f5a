//! Invalid requests get a problem document that names the invalid part.

use actix_web::http::Method;
use serde_json::json;
use tributary::domain::SensorIdentifier;

use super::fixture::{Answer, Api};

#[track_caller]
fn assert_problem(answer: Answer, status: u16, kind: &str) -> serde_json::Value {
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
    let identifier = answer.header("x-request-id").to_owned();
    let problem = answer.expect(status);
    assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(problem["request_id"], identifier, "{problem}");
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    problem
}

#[actix_rt::test]
async fn an_invalid_member_is_named_by_a_json_pointer() {
    let api = Api::start().await;
    let long = "x".repeat(201);
    for (body, pointer) in [
        ("{}".to_owned(), "/name"),
        ("[]".into(), ""),
        ("\"name\"".into(), ""),
        (r#"["name"]"#.into(), ""),
        ("7".into(), ""),
        (r#"{"name":""}"#.into(), "/name"),
        (r#"{"name":7}"#.into(), "/name"),
        (r#"{"name":null}"#.into(), "/name"),
        (r#"{"name":"a\u0000"}"#.into(), "/name"),
        (r#"{"name":"\ud800"}"#.into(), "/name"),
        (format!(r#"{{"name":"{long}"}}"#), "/name"),
        (r#"{"name":"a","name":"b"}"#.into(), "/name"),
        (r#"{"name":"a","n\u0061me":"b"}"#.into(), "/name"),
        (r#"{"name":"a","nam/e~":1}"#.into(), "/nam~1e~0"),
        (r#"{"name":"a","identifier":"7"}"#.into(), "/identifier"),
        (r#"{"name":"a","identifier":7}"#.into(), "/identifier"),
    ] {
        let answer = api.post("/api/v1/sensors", &body).await;
        let problem = assert_problem(answer, 422, "invalid-member");
        assert_eq!(problem["pointer"], pointer, "{body}");
    }
    assert_eq!(api.count("select count(*) from sensor").await, 0);
}

#[actix_rt::test]
async fn an_invalid_configuration_is_rejected_with_its_reason() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    let long_key = "ä".repeat(65);
    let long = format!(r#"{{"b":1,"{long_key}":2}}"#);
    for (body, pointer, reason) in [
        ("[1]", "", "invalid_value"),
        ("null", "", "invalid_value"),
        (r#"{"a":{"b":1}}"#, "/a", "nested_value"),
        (r#"{"a":1,"a":2}"#, "/a", "duplicate_key"),
        (r#"{"":1}"#, "/", "invalid_key"),
        (&long, &format!("/{long_key}"), "invalid_key"),
        (r#"{"b":1,"a/b":"\u0000"}"#, "/a~1b", "nul_character"),
        (r#"{"a\u0000":1}"#, "", "nul_character"),
        (r#"{"a":"\udc00"}"#, "/a", "invalid_text"),
        (r#"{"a":1e200000}"#, "/a", "invalid_number"),
    ] {
        let answer = api.post(&format!("{one}/configurations"), body).await;
        let problem = assert_problem(answer, 422, "invalid-configuration");
        assert_eq!((&problem["pointer"], &problem["reason"]), (&json!(pointer), &json!(reason)));
        if body == "null" {
            continue;
        }
        let nested = format!(r#"{{"name":"two","configuration":{body}}}"#);
        let answer = api.post("/api/v1/sensors", nested).await;
        let problem = assert_problem(answer, 422, "invalid-configuration");
        assert_eq!(problem["pointer"], format!("/configuration{pointer}"));
    }
    assert_eq!(api.count("select count(*) from configuration").await, 0);
    assert_eq!(api.count("select count(*) from sensor").await, 1);
    let unknown = format!("/api/v1/sensors/{}/configurations", SensorIdentifier::random());
    assert_problem(api.post(&unknown, "{}").await, 404, "sensor-not-found");
}

#[actix_rt::test]
async fn unknown_query_parameters_get_400() {
    let api = Api::start().await;
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/status", "/api/v1/openapi.json"] {
        api.get(path).await.expect_status(200);
        let problem = api.get(&format!("{path}?verbose=1")).await.expect(400);
        assert_eq!(problem["parameter"], "verbose", "{path}: {problem}");
    }
}

#[actix_rt::test]
async fn an_invalid_parameter_is_named() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    for (path, parameter) in [
        ("/api/v1/sensors?limit=0", "limit"),
        ("/api/v1/sensors?limit=1001", "limit"),
        ("/api/v1/sensors?limit=x", "limit"),
        ("/api/v1/sensors?limit=", "limit"),
        ("/api/v1/sensors?Limit=1", "Limit"),
        ("/api/v1/sensors?cursor=", "cursor"),
        ("/api/v1/sensors?cursor=%00", "cursor"),
        ("/api/v1/sensors?name=%00", "name"),
        ("/api/v1/sensors?unknown=1", "unknown"),
        ("/api/v1/sensors?limit=1&limit=1", "limit"),
        ("/api/v1/status?x", "x"),
        ("/api/v1/rejections?sensor=7", "sensor"),
        ("/api/v1/rejections?reason=whim", "reason"),
        (&format!("{one}?x=1"), "x"),
        (&format!("{one}/measurements?cursor=bm8"), "cursor"),
        (&format!("{one}/heartbeats?limit=-1"), "limit"),
    ] {
        let problem = assert_problem(api.get(path).await, 400, "invalid-parameter");
        assert_eq!(problem["parameter"], parameter, "{path}");
    }
}

#[actix_rt::test]
async fn unknown_paths_and_sensors_are_not_found() {
    let api = Api::start().await;
    for path in ["/nothing", "/api", "/api/v1", "/api/v1/nothing", "/api/v1/sensors/", "/healthz/x"]
    {
        assert_problem(api.get(path).await, 404, "route-not-found");
    }
    let unknown = SensorIdentifier::random().to_string();
    for identifier in [unknown.as_str(), "7", "%ff", &unknown.replace('-', "")] {
        let path = format!("/api/v1/sensors/{identifier}");
        let problem = assert_problem(api.get(&path).await, 404, "sensor-not-found");
        let explains_the_form = problem["detail"].as_str().unwrap().contains("hyphenated form");
        assert_eq!(explains_the_form, identifier != unknown, "{problem}");
        assert_problem(api.request(Method::DELETE, &path).await, 404, "sensor-not-found");
    }
    assert_problem(api.get(&format!("/api/v1/sensors/{unknown}/x")).await, 404, "route-not-found");
}

#[actix_rt::test]
async fn other_methods_get_405_with_the_allowed_methods() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    for (method, path, allowed) in [
        (Method::POST, "/healthz", "GET, HEAD"),
        (Method::DELETE, "/api/v1/sensors", "GET, HEAD, POST"),
        (Method::POST, one.as_str(), "GET, HEAD, PATCH, DELETE"),
        (Method::PUT, &format!("{one}/configurations"), "GET, HEAD, POST"),
        (Method::POST, &format!("{one}/measurements"), "GET, HEAD"),
    ] {
        let answer = api.request(method, path).await;
        assert_eq!(answer.header("allow"), allowed, "{path}");
        assert_problem(answer, 405, "method-not-allowed");
    }
    let head = api.request(Method::HEAD, "/healthz").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
}

#[actix_rt::test]
async fn a_body_is_json_of_a_bounded_size() {
    let api = Api::start().await;
    let path = "/api/v1/sensors";
    let good = r#"{"name":"one"}"#;
    for media_type in
        ["text/plain", "application/merge-patch+json", "application/json; charset=latin1"]
    {
        let answer = api.send(Method::POST, path, &[("content-type", media_type)], good).await;
        assert_eq!(answer.header("accept"), "application/json");
        assert_problem(answer, 415, "unsupported-media-type");
    }
    let headers = [("content-type", "application/json"), ("content-encoding", "br")];
    let answer = api.send(Method::POST, path, &headers, good).await;
    assert_problem(answer, 415, "unsupported-media-type");
    for body in ["", "{", "name", r#"{"name":"x""#, r#"{"name":"x"} {}"#] {
        assert_problem(api.post(path, body).await, 400, "invalid-json");
    }
    let headers = [("content-type", "application/json")];
    let answer = api.send(Method::POST, path, &headers, b"{\"name\":\"\xff\"}".as_slice()).await;
    assert_problem(answer, 400, "invalid-json");
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(1 << 20));
    assert_problem(api.post(path, large).await, 413, "payload-too-large");
    let headers = [("content-type", "Application/JSON; Charset=\"UTF-8\"")];
    assert_eq!(api.send(Method::POST, path, &headers, good).await.status, 201);
}

#[actix_rt::test]
async fn a_valid_request_identifier_is_echoed_and_an_invalid_one_is_replaced() {
    let api = Api::start().await;
    let request_id_for = async |given: &str| {
        let answer = api.send(Method::GET, "/x", &[("x-request-id", given)], "").await;
        assert_problem(answer, 404, "route-not-found")["request_id"].as_str().unwrap().to_owned()
    };
    assert_eq!(request_id_for("trace-7/a").await, "trace-7/a");
    for given in ["", "a b", "a\"c", "ä", &"x".repeat(129)] {
        let generated = request_id_for(given).await;
        assert!(SensorIdentifier::parse(&generated).is_some(), "{given}: {generated}");
    }
    let healthz = api.get("/healthz").await;
    assert_eq!(healthz.header("x-request-id").len(), 36);
}

#[actix_rt::test]
async fn identifiers_are_accepted_only_in_hyphenated_form() {
    let api = Api::start().await;
    for list in ["networks", "tokens", "users"] {
        for identifier in ["7", &SensorIdentifier::random().to_string().replace('-', "")] {
            let answer = api.get(&format!("/api/v1/{list}/{identifier}")).await;
            let kind = format!("{}-not-found", list.trim_end_matches('s'));
            let problem = assert_problem(answer, 404, &kind);
            assert!(problem["detail"].as_str().unwrap().contains("hyphenated form"), "{problem}");
        }
    }
    let (_, one) = api.create_sensor("one").await;
    let answer = api.get(&format!("{one}/configurations/abc")).await;
    let problem = assert_problem(answer, 404, "configuration-not-found");
    assert!(problem["detail"].as_str().unwrap().ends_with("or newest"), "{problem}");
}

#[actix_rt::test]
async fn null_is_rejected_where_the_document_does_not_allow_it() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    let user = json!({ "name": "ada", "role": "viewer", "password": "correct horse" });
    let user = api.post("/api/v1/users", user).await.expect(201);
    let user = format!("/api/v1/users/{}", user["identifier"].as_str().unwrap());
    let (sensors, replay) = ("/api/v1/sensors", "/api/v1/rejections/replay");
    let network = api.get("/api/v1/networks").await.expect(200)["items"][0]["identifier"].clone();
    let network = format!("/api/v1/networks/{}", network.as_str().unwrap());
    for (method, path, body, member) in [
        (Method::PATCH, one.as_str(), json!({}), "name"),
        (Method::PATCH, &one, json!({}), "network"),
        (Method::PATCH, &one, json!({}), "metadata"),
        (Method::PATCH, &user, json!({}), "role"),
        (Method::PATCH, &user, json!({}), "password"),
        (Method::PATCH, &network, json!({}), "name"),
        (Method::POST, sensors, json!({ "name": "x" }), "identifier"),
        (Method::POST, sensors, json!({ "name": "x" }), "network"),
        (Method::POST, sensors, json!({ "name": "x" }), "configuration"),
        (Method::POST, sensors, json!({ "name": "x" }), "metadata"),
        (Method::POST, replay, json!({ "all": true }), "sensor"),
        (Method::POST, replay, json!({ "all": true }), "limit"),
        (Method::POST, replay, json!({ "reason": "not_json" }), "all"),
    ] {
        let mut body = body;
        body[member] = json!(null);
        let problem = api.send_json(method, path, body.to_string()).await.expect(422);
        assert_eq!(problem["pointer"], format!("/{member}"), "{path} {body}");
    }
    assert_eq!(api.count("select count(*) from sensor").await, 1);
    // Members that the document declares nullable accept null.
    let token = json!({ "name": "t", "role": "viewer", "network": null, "expiry_timestamp": null });
    api.post("/api/v1/tokens", token).await.expect(201);
    api.send_json(Method::PATCH, &user, r#"{"network":null}"#).await.expect(200);
    let body = json!({ "name": "x", "network": "y" });
    let problem = api.post(sensors, body).await.expect(422);
    assert_eq!(problem["detail"], "it takes the identifier of a network");
}

#[actix_rt::test]
async fn the_document_declares_which_members_are_nullable() {
    let api = Api::start().await;
    let document = api.get("/api/v1/openapi.json").await.expect(200);
    for (schema, nullable) in [
        ("NewSensorBody", &[][..]),
        ("SensorChangeBody", &[]),
        ("NewTokenBody", &["network", "expiry_timestamp"]),
        ("NewUserBody", &["network"]),
        ("UserChangeBody", &["network"]),
        ("ReplayOrder", &["cursor"]),
    ] {
        let properties = &document["components"]["schemas"][schema]["properties"];
        for (name, property) in properties.as_object().unwrap() {
            let may_be_null = property.to_string().contains("\"null\"");
            assert_eq!(may_be_null, nullable.contains(&name.as_str()), "{schema} {property}");
        }
        let required = document["components"]["schemas"][schema]["required"].to_string();
        assert!(
            !required.contains("metadata") && !required.contains("configuration"),
            "{required}"
        );
    }
}

#[actix_rt::test]
async fn an_invalid_part_of_metadata_is_named_by_a_json_pointer() {
    let api = Api::start().await;
    for (metadata, pointer) in [
        (r#"{"a":1,"\u0061":2}"#, "/metadata/a"),
        (r#"{"a":[0,{"b/c":1,"b/c":1}]}"#, "/metadata/a/1/b~1c"),
        (r#"{"a":["x","\u0000"]}"#, "/metadata/a/1"),
        ("7", "/metadata"),
    ] {
        let body = format!(r#"{{"name":"x","metadata":{metadata}}}"#);
        let problem = api.post("/api/v1/sensors", body).await.expect(422);
        assert_eq!(problem["pointer"], pointer, "{problem}");
    }
}

#[actix_rt::test]
async fn a_body_on_a_route_without_a_body_is_rejected() {
    let api = Api::start().await;
    let (_, one) = api.create_sensor("one").await;
    api.post(&format!("{one}/configurations"), "{}").await.expect(202);
    for path in [
        format!("{one}/configurations/newest/republish"),
        "/api/v1/ingest/pause".into(),
        "/api/v1/ingest/resume".into(),
    ] {
        assert_problem(api.post(&path, r#"{"a":1}"#).await, 400, "bad-request");
        let answer = api.request(Method::POST, &path).await;
        assert!(answer.status == 200 || answer.status == 202, "{path}: {answer:?}");
    }
}
