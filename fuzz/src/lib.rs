//! The code under test of the fuzzers: the service's `domain` and `wire` modules, included by path. They depend on
//! no other module of the service, so the fuzzers are built without the rest of it.

#![allow(dead_code, reason = "the fuzzers use a part of the modules")]

#[path = "../../src/domain/mod.rs"]
pub mod domain;
#[path = "../../src/wire/mod.rs"]
pub mod wire;

use domain::{AckTokens, Kind, RawMessage, Timestamp, Uplink};
use wire::{Decoder, Limits, Topics};

/// Small, so that the fuzzer exceeds the limit soon.
pub const ITEMS_PER_MESSAGE: usize = 8;

/// An arbitrary sensor.
pub const SENSOR: &str = "81bf7042-e20f-4a97-ac44-c15853e3618f";

/// The first byte of an input chooses the kind, the rest is the payload.
pub fn split(input: &[u8]) -> Option<(Kind, &[u8])> {
    let (first, payload) = input.split_first()?;
    Some((Kind::ALL[usize::from(*first) % Kind::ALL.len()], payload))
}

/// Decodes a payload in the same way as the inbound loop.
pub fn decode(kind: Kind, payload: &[u8]) -> Box<Uplink> {
    let (ack_tokens, _lost) = AckTokens::new();
    let topic = format!("{}/{SENSOR}", kind.topic_level());
    let message = RawMessage::new(&topic, payload, Timestamp::default(), false);
    let limits = Limits { items_per_message: ITEMS_PER_MESSAGE, ..Limits::DEFAULT };
    Decoder::new(Topics::new(""), limits).decode(message, ack_tokens.issue(0))
}
