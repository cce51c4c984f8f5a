//! Spans are exported to an OpenTelemetry collector. Needs the feature: `scripts/test --features otlp spans::`.

use std::sync::{Arc, Mutex};

use actix_web::{App, HttpResponse, HttpServer, web};

use crate::support::broker::Broker;
use crate::support::client::Client;
use crate::support::payloads::measurement;
use crate::support::service::{Service, database};
use crate::support::wait::{TIMEOUT, eventually};

type Bodies = Arc<Mutex<Vec<Vec<u8>>>>;

/// A span as the collector receives it.
#[derive(Clone, Debug)]
struct Span {
    identifier: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    attributes: Vec<String>,
}

/// The length-delimited fields of a protobuf message (messages, strings, bytes), with their numbers.
fn fields(mut message: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(message: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = message.split_first().unwrap();
            *message = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let length = match tag & 7 {
            0 => {
                varint(&mut message);
                continue;
            }
            1 => 8,
            5 => 4,
            _ => varint(&mut message) as usize,
        };
        let (content, rest) = message.split_at(length);
        message = rest;
        if tag & 7 == 2 {
            found.push((tag >> 3, content));
        }
    }
    found
}

fn children(message: &[u8], number: u64) -> Vec<&[u8]> {
    fields(message).into_iter().filter(|field| field.0 == number).map(|field| field.1).collect()
}

fn text(message: &[u8], number: u64) -> String {
    children(message, number)
        .first()
        .map(|it| String::from_utf8_lossy(it).into())
        .unwrap_or_default()
}

/// See opentelemetry/proto/trace/v1/trace.proto.
fn spans(bodies: &Bodies) -> Vec<Span> {
    let bodies = bodies.lock().unwrap();
    let resources = bodies.iter().flat_map(|body| children(body, 1));
    let scopes = resources.flat_map(|resource| children(resource, 2));
    scopes
        .flat_map(|scope| children(scope, 2))
        .map(|span| Span {
            identifier: children(span, 2).concat(),
            parent: children(span, 4).concat(),
            name: text(span, 5),
            attributes: children(span, 9).into_iter().map(|it| text(it, 1)).collect(),
        })
        .collect()
}

#[actix_rt::test]
async fn spans_of_a_batch_and_its_attempt_are_exported_to_the_collector() {
    let bodies = Bodies::default();
    let shared = web::Data::new(Arc::clone(&bodies));
    let receive = async |bodies: web::Data<Bodies>, body: web::Bytes| {
        bodies.lock().unwrap().push(body.to_vec());
        HttpResponse::Ok().content_type("application/x-protobuf").finish()
    };
    let collector = HttpServer::new(move || {
        App::new().app_data(shared.clone()).route("/v1/traces", web::post().to(receive))
    })
    .workers(1)
    .disable_signals()
    .bind("127.0.0.1:0")
    .unwrap();
    let endpoint = format!("http://{}", collector.addrs()[0]);
    actix_rt::spawn(collector.run());
    let broker = Broker::shared().await;
    let database = database().await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_SERVICE_NAME", "field-station"),
        ("LOG_FILTER", "info"),
    ];
    let mut service = Service::start(&database, broker, &settings).await;
    let sensor = service.create_sensor("traced").await;
    let client = Client::connect(broker.url(), &format!("{}-sensor", database.name)).await;
    let topic = format!("{}/measurements/{sensor}", database.name);
    client.publish(&topic, measurement(1.0)).await.unwrap();
    service.wait_for_ledger(|entry| entry.committed == 1).await;

    // The service exports the remaining spans when it ends.
    assert!(service.terminate().await.success());

    let (batch, attempt) = eventually(TIMEOUT, async || {
        let spans = spans(&bodies);
        let span_named = |name: &str| spans.iter().find(|span| span.name == name).cloned();
        span_named("batch").zip(span_named("attempt")).ok_or(spans)
    })
    .await;
    assert_eq!(attempt.parent, batch.identifier);
    for attribute in ["messages", "items"] {
        assert!(batch.attributes.contains(&attribute.to_owned()), "{batch:?}");
    }
    assert!(attempt.attributes.contains(&"connection".to_owned()), "{attempt:?}");
    assert!(spans(&bodies).iter().any(|span| span.name == "request"), "spans of HTTP requests");
    let has_service_name =
        bodies.lock().unwrap().iter().any(|it| it.windows(13).any(|it| it == b"field-station"));
    assert!(has_service_name);
    assert!(!service.log().contains("batch"), "LOG_FILTER still applies to the log");
}
