//! `mqtts://`: which brokers are trusted, the error messages for the others, and the whole service over TLS.

use std::collections::HashMap;

use tributary::config::read_mqtt;
use tributary::mqtt::{self, ConnectOptions};

use crate::support::broker::{Broker, Settings};
use crate::support::certificates::{Authority, Files, ServerTls};
use crate::support::client::Client;
use crate::support::payloads::{heartbeat, measurement};
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

/// Connects with these settings; returns `connected` or the error message.
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

async fn start_broker(tls: ServerTls) -> Broker {
    Broker::start_with(Settings { tls: Some(tls), ..Settings::default() }).await
}

#[actix_rt::test]
async fn a_broker_is_trusted_only_with_a_valid_certificate() {
    let ours = Authority::new("ours");
    let others = Authority::new("others");
    let files = Files::new();
    let authority = files.write("ours.pem", ours.certificate());
    let wrong_authority = files.write("others.pem", others.certificate());
    let names = ["localhost", "127.0.0.1"];

    let valid = start_broker(ServerTls::new(ours.server(&names))).await;
    let expired = start_broker(ServerTls::new(ours.expired_server(&names))).await;
    let wrong_name = start_broker(ServerTls::new(ours.server(&["elsewhere.example"]))).await;
    let url = valid.tls_url();
    let by_name = url.replace("127.0.0.1", "localhost");
    let plain_port = valid.url().replace("mqtt://", "mqtts://");
    let mqtt_scheme = url.replace("mqtts://", "mqtt://");

    let ca_file = ("MQTT_CA_FILE", authority.as_str());
    for (settings, expected) in [
        (vec![("MQTT_URL", url.as_str()), ca_file], "connected"),
        (vec![("MQTT_URL", &by_name), ca_file], "connected"),
        (
            vec![("MQTT_URL", &url), ("MQTT_CA_FILE", &wrong_authority)],
            "not signed by a trusted authority",
        ),
        (vec![("MQTT_URL", &url)], "not signed by a trusted authority"),
        (vec![("MQTT_URL", &expired.tls_url()), ca_file], "expired, on 2020-01-01T"),
        (
            vec![("MQTT_URL", &wrong_name.tls_url()), ca_file],
            "is for elsewhere.example, not for 127.0.0.1",
        ),
        (vec![("MQTT_URL", &plain_port), ca_file], "does it speak TLS on this port?"),
        (vec![("MQTT_URL", &mqtt_scheme), ca_file], "MQTT_CA_FILE is set, but MQTT_URL"),
        (
            vec![("MQTT_URL", &url), ("MQTT_CA_FILE", "/no/such.pem")],
            "MQTT_CA_FILE: /no/such.pem cannot be read: No such file",
        ),
    ] {
        let outcome = attempt(&settings).await;
        assert!(outcome.contains(expected), "{settings:?}: {outcome}");
    }
    assert_ne!(attempt(&[("MQTT_URL", &mqtt_scheme)]).await, "connected");
}

#[actix_rt::test]
async fn the_service_sends_its_certificate_to_a_broker_that_requires_one() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let files = Files::new();
    let authority = files.write("ours.pem", ours.certificate());
    let client = ours.client("tributary");
    let certificate = files.write("client.pem", &client.certificate);
    let key = files.write("client.key", &client.key);
    let other = others.client("tributary");
    let other_certificate = files.write("stranger.pem", &other.certificate);
    let other_key = files.write("stranger.key", &other.key);

    let tls =
        ServerTls { pair: ours.server(&["127.0.0.1"]), client_authority: Some(ours.certificate()) };
    let broker = start_broker(tls).await;
    let url = broker.tls_url();
    let base = [("MQTT_URL", url.as_str()), ("MQTT_CA_FILE", authority.as_str())];
    for (identity, expected) in [
        (
            vec![("MQTT_CERTIFICATE_FILE", certificate.as_str()), ("MQTT_KEY_FILE", &key)],
            "connected",
        ),
        (vec![], "the server requires a client certificate"),
        (
            vec![("MQTT_CERTIFICATE_FILE", &other_certificate), ("MQTT_KEY_FILE", &other_key)],
            "does not trust the authority of our client certificate",
        ),
        (
            vec![("MQTT_CERTIFICATE_FILE", &certificate), ("MQTT_KEY_FILE", &other_key)],
            "stranger.key does not belong to the certificate",
        ),
        (vec![("MQTT_CERTIFICATE_FILE", &certificate)], "is set without MQTT_KEY_FILE"),
    ] {
        let settings: Vec<_> = base.iter().copied().chain(identity).collect();
        let outcome = attempt(&settings).await;
        assert!(outcome.contains(expected), "{settings:?}: {outcome}");
    }
}

/// Both MQTT connections of the service, those of the simulated fleet, and HTTPS; the broker also requires a password.
#[actix_rt::test]
async fn the_service_and_a_simulated_fleet_run_over_tls() {
    let ours = Authority::new("ours");
    let files = Files::new();
    let authority = files.write("ours.pem", ours.certificate());
    let client = ours.client("tributary");
    let certificate = files.write("client.pem", &client.certificate);
    let key = files.write("client.key", &client.key);
    let http = ours.server(&["127.0.0.1"]);
    let http_certificate = files.write("http.pem", &http.certificate);
    let http_key = files.write("http.key", &http.key);
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
    // Otherwise the summary of the fleet would include this heartbeat.
    eventually(TIMEOUT, async || match service.ledger_entry("heartbeats").await {
        Ok(entry) if entry.committed == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    // Many messages, so that TLS records split messages at many offsets.
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
    let output = format!("{run:?}");
    assert!(run.status.success() && output.contains("every item is accounted for"), "{output}");
    let run = simulate(&["--api-ca", "client.pem"]);
    assert!(!run.status.success(), "another authority");
    let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(stderr.contains("not signed by a trusted authority"), "{stderr}");
}

#[actix_rt::test]
async fn the_reason_of_a_failed_handshake_is_in_the_log_and_in_readiness() {
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let files = Files::new();
    let authority = files.write("authority.pem", others.certificate());
    let broker = start_broker(ServerTls::new(ours.server(&["127.0.0.1"]))).await;
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

    // The service reads the corrected file without a restart.
    files.write("authority.pem", ours.certificate());
    service.wait_until_ready().await;
}
