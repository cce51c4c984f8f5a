//! Limits on request bodies: their size, compressed and decompressed, over HTTP/1.1 and HTTP/2, with and
//! without authentication.

use std::io::Write as _;
use std::process::Command;

use actix_web::http::Method;
use flate2::write::{GzEncoder, ZlibEncoder};
use flate2::{Compress, Compression, FlushCompress};
use serde_json::{Value, json};

use super::fixture::Api;
use crate::support::broker::Broker;
use crate::support::certificates::{Authority, Files};
use crate::support::service::{Service, database};

const SESSIONS: &str = "/api/v1/sessions";

/// Limit for one request: its bytes, the parsed body, and the buffers of the connection.
const MAX_GROWTH_KIB: u64 = 64 << 10;

/// About 900 KiB that decompress to 900 MiB: one compressed block of zeros, repeated.
fn bomb() -> Vec<u8> {
    const GZIP_HEAD: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut block = Vec::with_capacity(1 << 20);
    let mut deflate = Compress::new(Compression::best(), false);
    deflate.compress_vec(&vec![b'0'; 1 << 20], &mut block, FlushCompress::Full).unwrap();
    let bomb = [GZIP_HEAD, &block.repeat(900)].concat();
    assert!((500 << 10..1000 << 10).contains(&bomb.len()), "{}", bomb.len());
    bomb
}

/// The peak resident memory of the process.
fn peak_kib(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Sends a file with `curl`; returns the HTTP version, the status and the problem.
fn send(url: &str, file: &str, options: &[&str]) -> (String, u16, Value) {
    let sent = Command::new("curl")
        .args(["-sk", "-X", "POST", "-H", "content-type: application/json", "-H", "expect:"])
        .args(["-w", "\n%{http_version} %{http_code}", "--data-binary", &format!("@{file}")])
        .args(options)
        .arg(url)
        .output()
        .unwrap();
    let text = String::from_utf8(sent.stdout).unwrap();
    let (body, write_out) = text.rsplit_once('\n').unwrap();
    let (version, status) = write_out.split_once(' ').unwrap();
    (version.into(), status.parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
}

#[actix_rt::test]
async fn a_small_body_that_decompresses_to_900_mib_gets_413_with_little_memory() {
    let files = Files::new();
    let bomb = files.write("bomb.gz", bomb());
    let pair = Authority::new("ours").server(&["127.0.0.1"]);
    let certificate = files.write("http.pem", &pair.certificate);
    let key = files.write("http.key", &pair.key);
    let settings = [
        ("AUTH", "on"),
        ("HTTP_CERTIFICATE_FILE", certificate.as_str()),
        ("HTTP_KEY_FILE", key.as_str()),
    ];
    let broker = Broker::shared().await;
    let guarded = Service::start(&database().await, broker, &settings).await;
    let open = Service::start(&database().await, broker, &[]).await;
    // Before sign-in; and on an open service, where a body may have the full size.
    for (service, path, protocols) in [
        (&guarded, SESSIONS, &["--http1.1", "--http2"][..]),
        (&open, "/api/v1/sensors", &["--http1.1"]),
        (&open, "/api/v1/rejections/replay", &["--http1.1"]),
    ] {
        let url = format!("{}{path}", service.url());
        for protocol in protocols {
            // A chunked body has no Content-Length that could be checked first.
            for framing in ["x-framing: length", "transfer-encoding: chunked"] {
                let before = peak_kib(service);
                let options = [protocol, "-H", "content-encoding: gzip", "-H", framing];
                let (version, status, problem) = send(&url, &bomb, &options);
                let growth = peak_kib(service).saturating_sub(before);
                assert!(growth < MAX_GROWTH_KIB, "{path} {protocol} {framing}: {growth} KiB");
                assert_eq!(status, 413, "{path} {protocol} {framing}: {problem}");
                assert_eq!(problem["type"], "/problems/payload-too-large");
                assert!(protocol.ends_with(&version), "{protocol} {version}");
            }
        }
    }
}

#[actix_rt::test]
async fn a_compressed_body_is_decompressed() {
    let api = Api::start().await;
    for (encoding, name) in [("gzip", "packed"), ("deflate", "deflated")] {
        let body = json!({ "name": name }).to_string();
        let compressed = match encoding {
            "gzip" => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body.as_bytes()).unwrap();
                encoder.finish().unwrap()
            }
            _ => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body.as_bytes()).unwrap();
                encoder.finish().unwrap()
            }
        };
        let headers = [("content-type", "application/json"), ("content-encoding", encoding)];
        let sensors = "/api/v1/sensors";
        let created =
            api.send(Method::POST, sensors, &headers, compressed.clone()).await.expect(201);
        assert_eq!(created["name"], name);
        // A truncated body, and one that is not compressed.
        for body in [&compressed[..compressed.len() - 6], b"{}"] {
            let refused = api.send(Method::POST, sensors, &headers, body).await.expect(400);
            assert_eq!(refused["type"], "/problems/bad-request", "{refused}");
        }
    }
}

#[actix_rt::test]
async fn an_unauthenticated_body_is_limited_to_8_kib() {
    let api = Api::start_guarded().await;
    // The longest allowed name and password, with each character escaped.
    let long = "\\ud83d\\ude00".repeat(200);
    let body = format!(r#"{{"name":"{long}","password":"{long}"}}"#);
    let refused = api.post(SESSIONS, body).await.expect(401);
    assert_eq!(refused["type"], "/problems/sign-in-failed");
    let body = json!({ "name": "x".repeat(8 << 10), "password": "x" });
    let refused = api.post(SESSIONS, body).await.expect(413);
    assert_eq!(refused["detail"], "a body has at most 8192 bytes");
}
