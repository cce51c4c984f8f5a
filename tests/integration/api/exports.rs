//! Exports of measurements: as CSV and NDJSON, compressed or not; an export ends when its client
//! disconnects or stops reading.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use actix_web::http::Method;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tributary::domain::SensorIdentifier;

use super::fixture::Api;
use crate::support::postgres::Postgres;
use crate::support::wait::{TIMEOUT, eventually};

const DEFAULT_NETWORK: &str = "00000000-0000-0000-0000-000000000000";

const RUNNING: &str = "\
select count(*) from pg_stat_activity
where datname = current_database() and application_name = 'tributary-export'";

async fn insert_measurements(api: &Api, sensor: SensorIdentifier, count: u32) {
    api.execute(&format!(
        "insert into measurement select '{sensor}', to_timestamp(1700000000 + n), to_timestamp(1800000000.5),
             n, 3, jsonb_build_object('n', n, 'text', 'say \"µ\", \\ or' || chr(10) || 'else', 'x', 1.50)
         from generate_series(1, {count}) n"
    ))
    .await;
}

#[actix_rt::test]
async fn a_sensor_is_exported_as_csv() {
    let api = Api::start().await;
    let (sensor, one) = api.create_sensor("one").await;
    insert_measurements(&api, sensor, 3).await;

    let answer = api.get(&format!("{one}/measurements/export?from=1700000002")).await;

    assert_eq!((answer.status, answer.header("content-type")), (200, "text/csv; charset=utf-8"));
    assert!(answer.header("content-disposition").contains("measurements.csv"));
    let mut reader = csv::Reader::from_reader(answer.text.as_bytes());
    let names = "sensor_identifier,timestamp,creation_timestamp,receipt_timestamp,revision,value";
    let headers = reader.headers().unwrap().clone();
    assert_eq!(headers.iter().collect::<Vec<_>>().join(","), names);
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 2);
    let first: Vec<_> = rows[0].iter().take(5).collect();
    let sensor = sensor.to_string();
    let expected = [
        sensor.as_str(),
        "1700000002",
        "2023-11-14T22:13:22.000000Z",
        "2027-01-15T08:00:00.500000Z",
        "3",
    ];
    assert_eq!(first, expected);
    let value: Value = serde_json::from_str(&rows[0][5]).unwrap();
    assert_eq!(value, json!({ "n": 2, "text": "say \"µ\", \\ or\nelse", "x": 1.5 }));

    let path = format!("{one}/measurements/export?attributes=x,text,none&to=1700000002");
    let some = api.get(&path).await;
    let mut reader = csv::Reader::from_reader(some.text.as_bytes());
    let headers: Vec<_> = reader.headers().unwrap().iter().skip(5).map(str::to_owned).collect();
    assert_eq!(headers, ["x", "text", "none"]);
    let row = reader.records().next().unwrap().unwrap();
    let cells: Vec<_> = row.iter().skip(5).collect();
    assert_eq!(cells, ["1.50", "say \"µ\", \\ or\nelse", ""]);
}

#[actix_rt::test]
async fn csv_column_names_are_unique_and_safe_excel_escapes_formulas() {
    let api = Api::start().await;
    let (sensor, one) = api.create_sensor("one").await;
    let value = json!({
        "timestamp": "mine", "value.timestamp": -3.2, "=1+1": "=cmd|'/c calc'!A0", "cr": "\r=1",
        "quoted": "'@x", "plain": "a=1", "minus": "-3.2", "no": false, "lines": "a\nb",
    });
    api.execute(&format!(
        "insert into measurement values ('{sensor}', to_timestamp(1), to_timestamp(2), 1, 0,
             convert_from(decode('{}', 'hex'), 'UTF8')::jsonb)",
        value.to_string().bytes().map(|byte| format!("{byte:02x}")).collect::<String>()
    ))
    .await;
    let names = "timestamp,value.timestamp,%3D1%2B1,cr,quoted,plain,minus,no,lines";
    let path = format!("{one}/measurements/export?attributes={names}");
    // The CSV reader skips the byte order mark.
    let lines = async |safe: &str| {
        let answer = api.get(&format!("{path}{safe}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.text.matches("\r\n").count(), 2, "{answer:?}");
        assert!(answer.text.ends_with("\r\n"), "{answer:?}");
        let begin =
            if safe.is_empty() { "sensor_identifier," } else { "\u{feff}sensor_identifier," };
        assert!(answer.text.starts_with(begin), "{answer:?}");
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).from_reader(answer.text.as_bytes());
        let rows = reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect());
        rows.collect::<Vec<Vec<String>>>()
    };

    let plain = lines("").await;
    assert_eq!(plain[0][1], "timestamp");
    let names = ["value.timestamp", "value.value.timestamp", "=1+1", "cr", "quoted"];
    assert_eq!(plain[0][5..10], names);
    let cells =
        ["mine", "-3.2", "=cmd|'/c calc'!A0", "\r=1", "'@x", "a=1", "-3.2", "false", "a\nb"];
    assert_eq!(plain[1][5..], cells);

    let safe = lines("&safe=excel").await;
    let names = ["value.timestamp", "value.value.timestamp", "'=1+1", "cr", "quoted"];
    assert_eq!(safe[0][5..10], names);
    let cells =
        ["mine", "-3.2", "'=cmd|'/c calc'!A0", "'\r=1", "''@x", "a=1", "'-3.2", "false", "a\nb"];
    assert_eq!(safe[1][5..], cells);

    for safe in ["&safe=excel&format=ndjson", "&safe=calc", "&safe="] {
        let problem = api.get(&format!("{path}{safe}")).await.expect(400);
        assert_eq!(problem["parameter"], "safe", "{problem}");
    }
}

#[actix_rt::test]
async fn a_network_is_exported_as_ndjson() {
    let api = Api::start().await;
    let mut sensors = Vec::new();
    for name in ["one", "two"] {
        let (sensor, _) = api.create_sensor(name).await;
        insert_measurements(&api, sensor, 2).await;
        sensors.push(sensor.to_string());
    }
    sensors.sort();
    let path = format!("/api/v1/networks/{DEFAULT_NETWORK}/measurements/export");

    let answer =
        api.send(Method::GET, &path, &[("accept", "application/x-ndjson")], String::new()).await;

    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let lines: Vec<Value> =
        answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sensors_and_numbers: Vec<_> = lines
        .iter()
        .map(|it| (it["sensor_identifier"].as_str().unwrap(), it["value"]["n"].as_i64().unwrap()))
        .collect();
    let (first, second) = (sensors[0].as_str(), sensors[1].as_str());
    assert_eq!(sensors_and_numbers, [(first, 1), (first, 2), (second, 1), (second, 2)]);
    assert_eq!(
        lines[0],
        json!({
            "sensor_identifier": first,
            "timestamp": 1_700_000_001,
            "creation_timestamp": "2023-11-14T22:13:21.000000Z",
            "receipt_timestamp": "2027-01-15T08:00:00.500000Z",
            "revision": 3,
            "value": { "n": 1, "text": "say \"µ\", \\ or\nelse", "x": 1.5 },
        })
    );
    let some = api.get(&format!("{path}?format=ndjson&attributes=x&to=1700000002")).await;
    let values: Vec<Value> = some
        .text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["value"].clone())
        .collect();
    assert_eq!(values, [json!({ "x": 1.5 }), json!({ "x": 1.5 })]);

    let unknown = SensorIdentifier::random();
    for path in [format!("networks/{unknown}"), "networks/x".into()] {
        let problem = api.get(&format!("/api/v1/{path}/measurements/export")).await.expect(404);
        assert_eq!(problem["type"], "/problems/network-not-found");
    }
    let problem =
        api.get(&format!("/api/v1/sensors/{unknown}/measurements/export")).await.expect(404);
    assert_eq!(problem["type"], "/problems/sensor-not-found");
}

#[actix_rt::test]
async fn a_head_request_for_an_export_gets_the_headers_and_no_body() {
    let postgres = Postgres::shared().await;
    let api = Api::start_with(postgres, &[("AUTH", "off"), ("EXPORTS_AT_ONCE", "1")]).await;
    let (sensor, one) = api.create_sensor("one").await;
    insert_measurements(&api, sensor, 3).await;
    let random = SensorIdentifier::random();
    for (known, unknown) in [
        (one, format!("/api/v1/sensors/{random}")),
        (format!("/api/v1/networks/{DEFAULT_NETWORK}"), format!("/api/v1/networks/{random}")),
    ] {
        let path = format!("{known}/measurements/export?format=ndjson");
        let address = api.base.strip_prefix("http://").unwrap();
        for coding in [PLAIN, GZIP] {
            let request = format!(
                "HEAD {path} HTTP/1.1\r\nHost: {address}\r\n{coding}Connection: close\r\n\r\n"
            );
            let answer = String::from_utf8(raw(&api, &request, async || {}).await).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert!(answer.contains("content-type: application/x-ndjson\r\n"), "{answer}");
            assert!(answer.contains("measurements.ndjson"), "{answer}");
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            assert_eq!(body, "", "{answer}");
        }
        let path = format!("{unknown}/measurements/export");
        api.request(Method::HEAD, &path).await.expect_status(404);
    }
}

#[actix_rt::test]
async fn the_accept_header_selects_the_format_of_an_export() {
    let api = Api::start().await;
    let (sensor, one) = api.create_sensor("one").await;
    insert_measurements(&api, sensor, 1).await;
    let path = format!("{one}/measurements/export");
    let export = async |query: &str, accept: &str| {
        api.send(Method::GET, &format!("{path}{query}"), &[("accept", accept)], "").await
    };
    for (query, accept, media_type) in [
        ("", "*/*", "text/csv; charset=utf-8"),
        ("", "text/*", "text/csv; charset=utf-8"),
        ("", "application/*", "application/x-ndjson"),
        ("", "text/html", "text/csv; charset=utf-8"),
        ("", "application/json, application/jsonl", "application/x-ndjson"),
        ("", "application/x-ndjson;q=0.9, */*", "application/x-ndjson"),
        ("", "text/*, application/*", "text/csv; charset=utf-8"),
        // `format` in the query overrides the header.
        ("?format=csv", "application/json", "text/csv; charset=utf-8"),
    ] {
        let answer = export(query, accept).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, media_type), "{accept}");
    }
}

#[actix_rt::test]
async fn an_export_is_gzipped_if_the_client_accepts_gzip() {
    let api = Api::start().await;
    let (sensor, one) = api.create_sensor("one").await;
    insert_measurements(&api, sensor, 5_000).await;
    let path = format!("{one}/measurements/export");
    let plain = api.get(&path).await;
    assert_eq!(plain.header("content-encoding"), "");

    let (headers, bytes) = api.get_gzipped(&path).await;

    assert_eq!(headers.get("content-encoding").unwrap(), "gzip");
    assert!(bytes.len() < plain.text.len() / 4, "{} of {}", bytes.len(), plain.text.len());
    let mut gzip = Command::new("gzip");
    let mut child = gzip.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), plain.text);
}

#[actix_rt::test]
async fn an_export_whose_client_disconnects_ends_in_the_database() {
    let postgres = Postgres::shared().await;
    let api = Api::start_with(postgres, &[("AUTH", "off"), ("EXPORTS_AT_ONCE", "1")]).await;
    let (sensor, one) = api.create_sensor("one").await;
    // More than all buffers between the database and the client hold.
    api.execute(&format!(
        "insert into measurement select '{sensor}', to_timestamp(n), now(), n, 0,
             jsonb_build_object('text', repeat(md5(n::text), 100)) from generate_series(1, 20000) n"
    ))
    .await;
    let path = format!("{one}/measurements/export?format=ndjson");

    let mut export = api.get_streamed(&path).await;
    assert_eq!(export.status(), 200);
    let mut received_bytes = 0;
    while received_bytes < 100_000 {
        received_bytes += export.next().await.unwrap().unwrap().len();
    }
    assert_eq!(api.count(RUNNING).await, 1);
    let refused = api.get(&path).await;
    assert_eq!(refused.header("retry-after"), "10");
    assert_eq!(refused.expect(503)["type"], "/problems/busy");
    drop(export);

    eventually(TIMEOUT, async || match api.count(RUNNING).await {
        0 => Ok(()),
        other => Err(other),
    })
    .await;
    // The permit of the export is released, too.
    let length = eventually(TIMEOUT, async || match api.get_streamed(&path).await {
        mut answer if answer.status() == 200 => {
            let mut length = 0;
            while let Some(chunk) = answer.next().await {
                length += chunk.unwrap().len();
            }
            Ok(length)
        }
        other => Err(other.status()),
    })
    .await;
    assert!(length > 20_000 * 3_200, "{length}");
}

/// Inserts 64 MB that compress badly: more than all buffers between the database and the client hold.
async fn insert_64_mb(api: &Api, sensor: SensorIdentifier) {
    api.execute(&format!(
        "insert into measurement select '{sensor}', to_timestamp(n), now(), n, 0, jsonb_build_object('text',
             (select string_agg(md5(n::text || '-' || m), '') from generate_series(1, 100) m))
         from generate_series(1, 20000) n"
    ))
    .await;
}

/// Header lines that request an uncompressed and a compressed answer.
const PLAIN: &str = "";
const GZIP: &str = "Accept-Encoding: gzip\r\n";

/// Whether the answer ends with the empty last chunk ([RFC 9112, 7.1]), without which it is truncated.
fn is_complete(answer: &[u8]) -> bool {
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    answer.ends_with(b"\r\n0\r\n\r\n")
}

#[actix_rt::test]
async fn an_export_that_fails_has_no_last_chunk() {
    let api = Api::start().await;
    let (sensor, one) = api.create_sensor("one").await;
    insert_64_mb(&api, sensor).await;
    let path = format!("{one}/measurements/export");
    let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where datname = current_database() and application_name = 'tributary-export'";

    let complete = raw_answer(&api, &path, PLAIN, async || {}).await;
    let some = raw_answer(&api, &format!("{path}?to=10"), GZIP, async || {}).await;
    assert!(is_complete(&complete) && is_complete(&some));
    for coding in [PLAIN, GZIP] {
        let terminate = async || assert_eq!(api.count(terminate).await, 1);
        let truncated = raw_answer(&api, &path, coding, terminate).await;
        assert!(truncated.len() < complete.len() && !is_complete(&truncated), "{coding}");
    }
}

#[actix_rt::test]
#[cfg(target_os = "linux")]
async fn an_export_over_its_write_timeout_has_no_last_chunk() {
    let settings = [("AUTH", "off"), ("HTTP_WRITE_TIMEOUT_SECS", "1")];
    let api = Api::start_with(Postgres::shared().await, &settings).await;
    let (sensor, one) = api.create_sensor("one").await;
    insert_64_mb(&api, sensor).await;
    let path = format!("{one}/measurements/export");
    for coding in [PLAIN, GZIP] {
        let until_ended = async || {
            eventually(TIMEOUT, async || match api.count(RUNNING).await {
                0 => Ok(()),
                other => Err(other),
            })
            .await;
        };
        let truncated = raw_answer(&api, &path, coding, until_ended).await;
        assert!(!is_complete(&truncated), "{coding}");
    }
}

/// Pauses longer than the timeouts that once ended such an export: the database's, after 20 s for a client
/// that reads nothing, and the service's, after 30 s.
#[actix_rt::test]
async fn a_client_that_pauses_for_35_seconds_gets_the_whole_export() {
    let api = Api::start().await;
    let (sensor, one) = api.create_sensor("one").await;
    insert_64_mb(&api, sensor).await;
    let pause = async || tokio::time::sleep(Duration::from_secs(35)).await;
    let path = format!("{one}/measurements/export?format=ndjson");
    let answer = raw_answer(&api, &path, PLAIN, pause).await;
    assert!(is_complete(&answer));
    let lines = answer.windows(2).filter(|pair| *pair == b"}\n").count();
    assert_eq!(lines, 20_000);
}

/// All bytes of an answer until the server closes the connection; `hook` runs after the first read.
async fn raw_answer(api: &Api, path: &str, headers: &str, hook: impl AsyncFnOnce()) -> Vec<u8> {
    let address = api.base.strip_prefix("http://").unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n");
    raw(api, &request, hook).await
}

async fn raw(api: &Api, request: &str, hook: impl AsyncFnOnce()) -> Vec<u8> {
    let address = api.base.strip_prefix("http://").unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.writable().await.unwrap();
    assert_eq!(stream.try_write(request.as_bytes()).unwrap(), request.len());
    let (mut bytes, mut buffer, mut hook) = (Vec::new(), vec![0; 1 << 16], Some(hook));
    loop {
        stream.readable().await.unwrap();
        match stream.try_read(&mut buffer) {
            Ok(0) => return bytes,
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(_cut_off) => return bytes,
        }
        if let Some(hook) = hook.take() {
            hook().await;
        }
    }
}
