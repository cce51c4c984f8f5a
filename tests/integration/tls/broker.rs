//! `mqtts://`: who is trusted, who is not and in which words, and the whole service over it.

use std::collections::HashMap;

use tributary::config::read_mqtt;
use tributary::mqtt::{self, ConnectOptions};

use crate::support::broker::{Broker, Settings};
use crate::support::certificates::{Authority, Files, ServerTls};
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement};
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

/// How a connection with these settings goes: `connected`, or why not.
async fn attempt(settings: &[(&str, &str)]) -> String {
    let settings: HashMap<&str, &str> = settings.iter().copied().collect();
    let config = match read_mqtt(|name| settings.get(name).map(ToString::to_string)) {
        Ok(config) => config,
        Err(problem) => return problem.to_string(),
    };
    let options = ConnectOptions {
        client_id: "attempt".into(),
        clean_start: true,
        session_expiry_secs: 0,
        receive_maximum: None,
        keep_alive_secs: 10,
        delay_reads: Some(tributary::mqtt::DelayedReads::default()),
    };
    match mqtt::connect(&config.broker, &options).await {
        Ok(_) => "connected".into(),
        Err(failure) => failure.to_string(),
    }
}

async fn broker_showing(tls: ServerTls) -> Broker {
    Broker::start_with(Settings { tls: Some(tls), ..Settings::default() }).await
}

#[actix_rt::test]
async fn a_broker_is_trusted_by_its_certificate_and_by_nothing_else() {
    let ours = Authority::new("ours");
    let others = Authority::new("others");
    let files = Files::new();
    let authority = files.put("ours.pem", ours.certificate());
    let wrong_authority = files.put("others.pem", others.certificate());
    let here = ["localhost", "127.0.0.1"];

    let right = broker_showing(ServerTls::showing(ours.server(&here))).await;
    let expired = broker_showing(ServerTls::showing(ours.expired_server(&here))).await;
    let elsewhere = broker_showing(ServerTls::showing(ours.server(&["elsewhere.example"]))).await;
    let url = right.tls_url();
    let by_name = url.replace("127.0.0.1", "localhost");
    let without_tls = right.url().replace("mqtt://", "mqtts://");
    let with_too_little = url.replace("mqtts://", "mqtt://");

    let trusting_us = ("MQTT_CA_FILE", authority.as_str());
    for (settings, says) in [
        (vec![("MQTT_URL", url.as_str()), trusting_us], "connected"),
        (vec![("MQTT_URL", &by_name), trusting_us], "connected"),
        (
            vec![("MQTT_URL", &url), ("MQTT_CA_FILE", &wrong_authority)],
            "not signed by a trusted authority",
        ),
        (vec![("MQTT_URL", &url)], "not signed by a trusted authority"),
        (vec![("MQTT_URL", &expired.tls_url()), trusting_us], "expired, on 2020-01-01T"),
        (
            vec![("MQTT_URL", &elsewhere.tls_url()), trusting_us],
            "is for elsewhere.example, not for 127.0.0.1",
        ),
        (vec![("MQTT_URL", &without_tls), trusting_us], "does it speak TLS on this port?"),
        (vec![("MQTT_URL", &with_too_little), trusting_us], "MQTT_CA_FILE is set, but MQTT_URL"),
        (
            vec![("MQTT_URL", &url), ("MQTT_CA_FILE", "/no/such.pem")],
            "MQTT_CA_FILE: /no/such.pem cannot be read: No such file",
        ),
    ] {
        let said = attempt(&settings).await;
        assert!(said.contains(says), "{settings:?}: {said}");
    }
    assert_ne!(attempt(&[("MQTT_URL", &with_too_little)]).await, "connected");
}

#[actix_rt::test]
async fn a_broker_that_asks_for_a_certificate_gets_ours() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let files = Files::new();
    let authority = files.put("ours.pem", ours.certificate());
    let client = ours.client("tributary");
    let certificate = files.put("client.pem", &client.certificate);
    let key = files.put("client.key", &client.key);
    let stranger = others.client("tributary");
    let strange_certificate = files.put("stranger.pem", &stranger.certificate);
    let strange_key = files.put("stranger.key", &stranger.key);

    let tls =
        ServerTls { pair: ours.server(&["127.0.0.1"]), client_authority: Some(ours.certificate()) };
    let broker = broker_showing(tls).await;
    let url = broker.tls_url();
    let base = [("MQTT_URL", url.as_str()), ("MQTT_CA_FILE", authority.as_str())];
    for (identity, says) in [
        (
            vec![("MQTT_CERTIFICATE_FILE", certificate.as_str()), ("MQTT_KEY_FILE", &key)],
            "connected",
        ),
        (vec![], "the server requires a client certificate"),
        (
            vec![("MQTT_CERTIFICATE_FILE", &strange_certificate), ("MQTT_KEY_FILE", &strange_key)],
            "does not trust the authority of our client certificate",
        ),
        (
            vec![("MQTT_CERTIFICATE_FILE", &certificate), ("MQTT_KEY_FILE", &strange_key)],
            "stranger.key does not belong to the certificate",
        ),
        (vec![("MQTT_CERTIFICATE_FILE", &certificate)], "is set without MQTT_KEY_FILE"),
    ] {
        let settings: Vec<_> = base.iter().copied().chain(identity).collect();
        let said = attempt(&settings).await;
        assert!(said.contains(says), "{settings:?}: {said}");
    }
}

/// Both connections of the service, the simulated fleet's, and HTTPS, with passwords besides.
#[actix_rt::test]
async fn the_service_and_a_fleet_run_over_tls() {
    let ours = Authority::new("ours");
    let files = Files::new();
    let authority = files.put("ours.pem", ours.certificate());
    let client = ours.client("tributary");
    let certificate = files.put("client.pem", &client.certificate);
    let key = files.put("client.key", &client.key);
    let http = ours.server(&["127.0.0.1"]);
    let http_certificate = files.put("http.pem", &http.certificate);
    let http_key = files.put("http.key", &http.key);
    let broker = Broker::start_with(Settings {
        account: Some(("tributary", "s3cret")),
        tls: Some(ServerTls {
            pair: ours.server(&["127.0.0.1"]),
            client_authority: Some(ours.certificate()),
        }),
        ..Settings::default()
    })
    .await;
    let database = database().await;
    let url = broker.tls_url();
    let settings = [
        ("MQTT_URL", url.as_str()),
        ("MQTT_CA_FILE", &authority),
        ("MQTT_CERTIFICATE_FILE", &certificate),
        ("MQTT_KEY_FILE", &key),
        ("HTTP_CERTIFICATE_FILE", &http_certificate),
        ("HTTP_KEY_FILE", &http_key),
    ];
    let service = Service::start(&database, &broker, &settings).await;

    // Up, and down again.
    let sensor = service.create_sensor("secured").await;
    let sensor_client = Client::connect(broker.url(), "sensor").await;
    let topic = |kind: &str| format!("{}/{kind}/{sensor}", database.name);
    sensor_client.publish(&topic("measurements"), measurement(1.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;
    sensor_client.subscribe(&topic("configurations")).await;
    let path = format!("/api/v1/sensors/{sensor}/configurations");
    service.post(&path, &serde_json::json!({ "interval": 5 })).await.unwrap();
    let messages = sensor_client.wait_for_messages(1).await;
    assert!(messages[0].payload.contains("interval"), "{messages:?}");
    sensor_client.publish(&topic("heartbeats"), heartbeat(0, 2.0, true)).await.unwrap();
    // What comes later would be counted with what the fleet says.
    eventually(TIMEOUT, async || match service.ledger_entry("heartbeats").await {
        Ok(entry) if entry.committed == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    // Many messages, so that records are cut and joined anywhere.
    let simulate = |more: &'static [&'static str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_tributary"))
            .args(["simulate", "--api", &service.url(), "--quiet", "--sensors", "5"])
            .args(["--per-message", "20", "--rate", "1000", "--messages", "2000"])
            .args(more)
            .env_clear()
            .envs(settings)
            .env("MQTT_TOPIC_PREFIX", &database.name)
            .current_dir(files.directory())
            .output()
            .unwrap()
    };
    let run = simulate(&["--api-ca", "ours.pem"]);
    let said = format!("{run:?}");
    assert!(run.status.success() && said.contains("every item is accounted for"), "{said}");
    let run = simulate(&["--api-ca", "client.pem"]);
    assert!(!run.status.success(), "it trusts another authority");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(said.contains("not signed by a trusted authority"), "{said}");
}

#[actix_rt::test]
async fn the_reason_of_a_failed_handshake_is_in_the_log_and_in_readiness() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let files = Files::new();
    let authority = files.put("authority.pem", others.certificate());
    let broker = broker_showing(ServerTls::showing(ours.server(&["127.0.0.1"]))).await;
    let database = database().await;
    let url = broker.tls_url();
    let settings = [("MQTT_URL", url.as_str()), ("MQTT_CA_FILE", &authority)];
    let mut service = Service::start_unready(&database, &broker, &settings);

    let reason =
        "the TLS handshake failed: the server's certificate is not signed by a trusted authority";
    eventually(TIMEOUT, async || match service.get("/readyz").await {
        Ok((503, problem)) if problem.to_string().matches(reason).count() == 2 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(service.log().contains(reason), "{}", service.log());

    // The right file in its place is taken without a restart.
    files.put("authority.pem", ours.certificate());
    service.ready().await;
}
