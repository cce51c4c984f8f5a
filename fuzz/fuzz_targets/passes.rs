//! Any text: the fast decoder accepts exactly the payloads in which the careful one rejects nothing, with the same
//! result. The fast one may give up at a `\u` escape.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_fuzz::wire::value::NestedValues;
use tributary_fuzz::wire::{Limits, TimestampMissing, disagreement};
use tributary_fuzz::{ITEMS_PER_MESSAGE, split};

fuzz_target!(|input: &[u8]| {
    let Some((kind, payload)) = split(input) else { return };
    let Ok(payload) = std::str::from_utf8(payload) else { return };
    for (nested_values, timestamp_missing) in [
        (NestedValues::Reject, TimestampMissing::Receipt),
        (NestedValues::Store, TimestampMissing::Reject),
    ] {
        let limits = Limits {
            items_per_message: ITEMS_PER_MESSAGE,
            nested_values,
            timestamp_missing,
            ..Limits::DEFAULT
        };
        if let Some(disagreement) = disagreement(kind, payload, limits) {
            panic!("{disagreement}");
        }
    }
});
