//! What the fuzzers look at: the service's own `domain` and `wire`, taken in by their path. They
//! need nothing else of the service, which is what lets them be built and run by themselves.

#![allow(dead_code, reason = "the fuzzers need a part of them")]

#[path = "../../src/domain/mod.rs"]
pub mod domain;
#[path = "../../src/wire/mod.rs"]
pub mod wire;

use domain::{Kind, RawMessage, AckTokens, Timestamp, Uplink};
use wire::{Decoder, Limits, Topics};

/// Small, so that the fuzzer finds its way beyond it.
pub const ITEMS_PER_MESSAGE: usize = 8;

/// Any sensor.
pub const SENSOR: &str = "81bf7042-e20f-4a97-ac44-c15853e3618f";

/// The first byte of an input chooses the kind, the rest is the payload.
pub fn split(input: &[u8]) -> Option<(Kind, &[u8])> {
    let (first, payload) = input.split_first()?;
    Some((Kind::ALL[usize::from(*first) % Kind::ALL.len()], payload))
}

/// As the inbound loop decodes it.
pub fn decode(kind: Kind, payload: &[u8]) -> Box<Uplink> {
    let (ack_tokens, _lost) = AckTokens::new();
    let topic = format!("{}/{SENSOR}", kind.topic_level());
    let message = RawMessage::new(&topic, payload, Timestamp::default(), false);
    let limits = Limits { items_per_message: ITEMS_PER_MESSAGE, ..Limits::DEFAULT };
    Decoder::new(Topics::new(""), limits).decode(message, ack_tokens.issue(0))
}
