//! Any topic under any prefix: no panic, and a topic built from a parsed kind and sensor is parsed to the same values.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_fuzz::wire::{TopicFlaw, Topics, check_prefix};

fuzz_target!(|input: &str| {
    let (prefix, topic) = input.split_once('\n').unwrap_or(("", input));
    if check_prefix(prefix).is_err() {
        return;
    }
    let topics = Topics::new(prefix);
    let Some((kind, sensor)) = topics.parse(topic) else {
        assert!(TopicFlaw::of(&topics, topic).detail.len() < 1_000 + 3 * prefix.len());
        return;
    };
    assert_eq!(topics.parse(&topics.of(kind, sensor)), Some((kind, sensor)));
    assert!(topic.ends_with(&sensor.to_string()));
});
