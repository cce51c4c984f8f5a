//! The bytes of a request's body, decompressed as they arrive. Called by `body.rs`. A body never occupies more
//! memory than its limit, however well it is compressed.

use std::io::{self, Write};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::dev::Payload;
use actix_web::http::header::CONTENT_ENCODING;
use flate2::write::{GzDecoder, ZlibDecoder};
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
    unpacker: Unpacker,
    max_bytes: usize,
    announced_bytes: Option<usize>,
) -> Result<Vec<u8>, Problem> {
    let unpacked = match announced_bytes.is_some_and(|bytes| bytes > max_bytes) {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => unpack(&mut payload, unpacker, max_bytes).await,
    };
    let error = match unpacked {
        Ok(bytes) => return Ok(bytes),
        Err(error) => error,
    };
    Err(match error.kind() {
        io::ErrorKind::FileTooLarge => {
            drain(payload).await;
            Problem::payload_too_large(format!("a body has at most {max_bytes} bytes"))
        }
        io::ErrorKind::ConnectionAborted => Problem::new(Kind::BadRequest, "the body ended early"),
        _ => Problem::new(Kind::BadRequest, "the body is not packed as Content-Encoding says"),
    })
}

async fn unpack(
    payload: &mut Payload,
    mut unpacker: Unpacker,
    max_bytes: usize,
) -> io::Result<Vec<u8>> {
    // Bounded too: a compressed stream can be endless and decompress to nothing.
    let mut received_bytes = 0;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_broken_off| io::ErrorKind::ConnectionAborted)?;
        received_bytes += chunk.len();
        if received_bytes > max_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        unpacker.write(&chunk)?;
    }
    unpacker.finish()
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

/// Of the content codings that a body may have ([RFC 9110, 8.4]).
pub(super) enum Unpacker {
    Identity(Bounded),
    Gzip(Box<GzDecoder<Bounded>>),
    Deflate(Box<ZlibDecoder<Bounded>>),
}

impl Unpacker {
    /// # Errors
    /// 415 for any other coding, and for several.
    pub(super) fn of(request: &HttpRequest, max_bytes: usize) -> Result<Self, Problem> {
        let unpacked = Bounded { bytes: Vec::new(), max_bytes };
        let mut headers = request.headers().get_all(CONTENT_ENCODING);
        let named = match (headers.next(), headers.next()) {
            (None, _) => return Ok(Self::Identity(unpacked)),
            (Some(one), None) => one.to_str().unwrap_or("?").trim().to_ascii_lowercase(),
            (Some(_), Some(_)) => "several".into(),
        };
        match &*named {
            "identity" => Ok(Self::Identity(unpacked)),
            "gzip" => Ok(Self::Gzip(Box::new(GzDecoder::new(unpacked)))),
            "deflate" => Ok(Self::Deflate(Box::new(ZlibDecoder::new(unpacked)))),
            _ => Err(Problem::unsupported_media_type("a body is plain, gzip or deflate")),
        }
    }

    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        match self {
            Self::Identity(unpacked) => unpacked.write_all(chunk),
            Self::Gzip(decoder) => decoder.write_all(chunk),
            Self::Deflate(decoder) => decoder.write_all(chunk),
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        let unpacked = match self {
            Self::Identity(unpacked) => unpacked,
            Self::Gzip(decoder) => decoder.finish()?,
            Self::Deflate(decoder) => decoder.finish()?,
        };
        Ok(unpacked.bytes)
    }
}

/// Accepts at most `max_bytes`. The decoders write 32 KiB at a time.
pub(super) struct Bounded {
    bytes: Vec<u8>,
    max_bytes: usize,
}

impl Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if part.len() > self.max_bytes - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn no_more_is_unpacked_than_may_be() {
        let packed = |length: usize| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            encoder.write_all(&vec![b'0'; length]).unwrap();
            encoder.finish().unwrap()
        };
        let unpack = |packed: &[u8]| {
            let request = TestRequest::default().insert_header((CONTENT_ENCODING, "gzip"));
            let mut unpacker = Unpacker::of(&request.to_http_request(), 100_000).unwrap();
            unpacker.write(packed)?;
            unpacker.finish()
        };
        assert_eq!(unpack(&packed(100_000)).unwrap().len(), 100_000);
        let too_large = unpack(&packed(100_001)).unwrap_err();
        assert_eq!(too_large.kind(), io::ErrorKind::FileTooLarge);
        let cut_off = unpack(&packed(100)[..20]).unwrap_err();
        assert_ne!(cut_off.kind(), io::ErrorKind::FileTooLarge);
    }
}
