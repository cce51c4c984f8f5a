//! The codec of the publishing connection: ntex' own, except for PUBACK, of which ntex takes Reason Codes such
//! as 0x95 and 0x9A for malformed and would end the connection. Used by `outbound`. Pure; promises that a packet
//! reaches ntex' codec only as a whole.

use std::num::NonZeroU16;

use ntex_bytes::{Buf as _, BytePages, BytesMut};
use ntex_codec::{Decoder, Encoder};
use ntex_mqtt::v5::codec;

/// The broker sends acknowledgements only.
const MAX_PACKET_BYTES: usize = 64 << 10;

const PUBACK: u8 = 0x40;
const REASON_STRING: u8 = 0x1f;

/// A packet on the publishing connection.
#[derive(Debug)]
pub(super) enum Received {
    Puback(Puback),
    Other(codec::Decoded),
}

/// A PUBACK.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Puback {
    pub(super) packet_id: NonZeroU16,
    pub(super) reason: u8,
    pub(super) reason_string: Option<String>,
}

impl Puback {
    /// Success, or No matching subscribers.
    pub(super) const fn is_success(&self) -> bool {
        self.reason < 0x80
    }

    /// Why the broker refused the PUBLISH [MQTT-3.4.2.1].
    pub(super) fn refusal(&self) -> String {
        let name = match self.reason {
            0x83 => "Implementation specific error",
            0x87 => "Not authorized",
            0x90 => "Topic Name invalid",
            0x91 => "Packet identifier in use",
            0x95 => "Packet too large",
            0x97 => "Quota exceeded",
            0x99 => "Payload format invalid",
            0x9a => "Retain not supported",
            0x9b => "QoS not supported",
            _ => "Unspecified error",
        };
        let code = self.reason;
        match &self.reason_string {
            Some(text) => format!("the broker refused it: {name} (0x{code:02X}): {text}"),
            None => format!("the broker refused it: {name} (0x{code:02X})"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum MalformedPacket {
    #[error("a packet of {0} bytes on a connection without subscriptions")]
    TooLarge(usize),
    #[error("a malformed PUBACK")]
    Puback,
    #[error("{0}")]
    Other(ntex_mqtt::error::DecodeError),
}

/// See the top of the file.
pub(super) struct PublishingCodec(pub(super) codec::Codec);

impl Decoder for PublishingCodec {
    type Item = Received;
    type Error = MalformedPacket;

    fn decode(&self, source: &mut BytesMut) -> Result<Option<Received>, MalformedPacket> {
        let Some((header, length)) = packet_length(source.as_ref())? else { return Ok(None) };
        if length > MAX_PACKET_BYTES {
            return Err(MalformedPacket::TooLarge(length));
        }
        if source.len() < header + length {
            return Ok(None);
        }
        if source.as_ref()[0] == PUBACK {
            let packet = source.split_to(header + length);
            let puback = puback(&packet.as_ref()[header..]).ok_or(MalformedPacket::Puback)?;
            return Ok(Some(Received::Puback(puback)));
        }
        let decoded = self.0.decode(source).map_err(MalformedPacket::Other)?;
        Ok(decoded.map(Received::Other))
    }
}

impl Encoder for PublishingCodec {
    type Item = codec::Encoded;
    type Error = ntex_mqtt::error::EncodeError;

    fn encodev(&self, item: Self::Item, pages: &mut BytePages) -> Result<(), Self::Error> {
        self.0.encodev(item, pages)
    }
}

/// Bytes of the fixed header, and of what follows it.
fn packet_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, MalformedPacket> {
    let Some(rest) = bytes.get(1..) else { return Ok(None) };
    Ok(variable_byte_integer(rest, MalformedPacket::TooLarge(usize::MAX))?
        .map(|(length, size)| (1 + size, length)))
}

/// Its value and its size; none if it is incomplete.
fn variable_byte_integer<E>(bytes: &[u8], malformed: E) -> Result<Option<(usize, usize)>, E> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(malformed) }
}

fn puback(mut body: &[u8]) -> Option<Puback> {
    if body.len() < 2 {
        return None;
    }
    let packet_id = NonZeroU16::new(body.get_u16())?;
    let reason = body.first().copied().unwrap_or_default();
    let reason_string = body.get(1..).and_then(reason_string);
    Some(Puback { packet_id, reason, reason_string })
}

/// If it is the first property, as it is at the brokers that send it; one line, at most 200 characters.
fn reason_string(properties: &[u8]) -> Option<String> {
    let (_, size) = variable_byte_integer(properties, ()).ok()??;
    let [REASON_STRING, high, low, text @ ..] = properties.get(size..)? else { return None };
    let text = text.get(..usize::from(u16::from_be_bytes([*high, *low])))?;
    let text = std::str::from_utf8(text).ok()?;
    Some(text.chars().filter(|it| !it.is_control()).take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_codes_that_ntex_does_not_know_are_read() {
        let codec = PublishingCodec(codec::Codec::new());
        let mut bytes =
            BytesMut::from(&b"\x40\x02\x00\x07\x40\x09\x00\x08\x95\x05\x1f\x00\x02no\x40"[..]);
        let mut next = || match codec.decode(&mut bytes).unwrap() {
            Some(Received::Puback(puback)) => Some(puback),
            other => {
                assert!(other.is_none());
                None
            }
        };
        let first = next().unwrap();
        assert_eq!((first.packet_id.get(), first.is_success()), (7, true));
        let second = next().unwrap();
        assert_eq!(second.refusal(), "the broker refused it: Packet too large (0x95): no");
        assert!(!second.is_success());
        assert!(next().is_none(), "the third is incomplete");
    }
}
