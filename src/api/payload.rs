//! The bytes of a request's body, decompressed once they have arrived. Called by `body.rs`. A body
//! occupies at most twice its limit, as received and as decompressed, however well it is compressed.

use std::io::Read;
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header::CONTENT_ENCODING;
use flate2::bufread::{GzDecoder, ZlibDecoder};
use futures_util::StreamExt as _;

use super::problem::{Kind, Problem};

/// Bytes of a too large body that are still read and discarded.
const MAX_DRAINED_BYTES: usize = 1 << 20;
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// # Errors
/// 413 where it exceeds the limit, compressed or decompressed; 400 where it ends early or does not match its
/// Content-Encoding.
pub(super) async fn read(
    mut payload: Payload,
    coding: Coding,
    max_bytes: usize,
    announced_bytes: Option<usize>,
) -> Result<Vec<u8>, Problem> {
    if announced_bytes.is_some_and(|bytes| bytes > max_bytes) {
        drain(payload).await;
        return Err(too_large(max_bytes));
    }
    let mut received = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk =
            chunk.map_err(|_broken_off| Problem::new(Kind::BadRequest, "the body ended early"))?;
        if chunk.len() > max_bytes - received.len() {
            drain(payload).await;
            return Err(too_large(max_bytes));
        }
        received.extend_from_slice(&chunk);
    }
    coding.decode(received, max_bytes)
}

fn too_large(max_bytes: usize) -> Problem {
    Problem::payload_too_large(format!("a body has at most {max_bytes} bytes"))
}

/// Reads on for a moment and discards it: many clients read no response before they have sent everything.
async fn drain(mut payload: Payload) {
    let drained = async {
        let mut bytes = 0;
        while bytes < MAX_DRAINED_BYTES
            && let Some(Ok(chunk)) = payload.next().await
        {
            bytes += chunk.len();
        }
    };
    // The response is the same whether everything arrived or not.
    drop(tokio::time::timeout(DRAIN_TIMEOUT, drained).await);
}

/// The content codings that a body may have ([RFC 9110, 8.4]).
#[derive(Clone, Copy, Debug)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Deflate,
}

impl Coding {
    /// # Errors
    /// 415 for any other coding, and for several.
    pub(super) fn of(request: &HttpRequest) -> Result<Self, Problem> {
        let mut headers = request.headers().get_all(CONTENT_ENCODING);
        let named = match (headers.next(), headers.next()) {
            (None, _) => return Ok(Self::Identity),
            (Some(one), None) => one.to_str().unwrap_or("?").trim().to_ascii_lowercase(),
            (Some(_), Some(_)) => "several".into(),
        };
        match &*named {
            "identity" => Ok(Self::Identity),
            "gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            _ => Err(Problem::unsupported_media_type("a body is plain, gzip or deflate")),
        }
    }

    fn decode(self, received: Vec<u8>, max_bytes: usize) -> Result<Vec<u8>, Problem> {
        let mut rest = received.as_slice();
        let decoder: Box<dyn Read + '_> = match self {
            Self::Identity => return Ok(received),
            Self::Gzip => Box::new(GzDecoder::new(&mut rest)),
            Self::Deflate => Box::new(ZlibDecoder::new(&mut rest)),
        };
        let mut decoded = Vec::new();
        let outcome = decoder.take(max_bytes as u64 + 1).read_to_end(&mut decoded);
        if decoded.len() > max_bytes {
            return Err(too_large(max_bytes));
        }
        // What follows the end would be lost.
        if outcome.is_err() || !rest.is_empty() {
            let detail = "the body is not compressed as Content-Encoding says";
            return Err(Problem::new(Kind::BadRequest, detail));
        }
        Ok(decoded)
    }
}
