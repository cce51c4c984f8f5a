//! Any text: the fast pass accepts just what the careful one accepts whole, and reads the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_fuzz::{ITEMS_PER_MESSAGE, split, wire};

fuzz_target!(|input: &[u8]| {
    let Some((kind, payload)) = split(input) else { return };
    let Ok(payload) = std::str::from_utf8(payload) else { return };
    for nested_values in [wire::value::NestedValues::Reject, wire::value::NestedValues::Store] {
        let limits = (ITEMS_PER_MESSAGE, nested_values);
        if let Some(disagreement) = wire::disagreement(kind, payload, limits) {
            panic!("{disagreement}");
        }
    }
});
