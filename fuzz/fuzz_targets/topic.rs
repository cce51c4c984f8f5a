//! Any topic under any prefix: no panic, and what is read from a topic leads back to it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tributary_fuzz::wire::{Topics, check_prefix};

fuzz_target!(|input: &str| {
    let (prefix, topic) = input.split_once('\n').unwrap_or(("", input));
    if check_prefix(prefix).is_err() {
        return;
    }
    let topics = Topics::new(prefix);
    if let Ok((kind, sensor)) = topics.parse(topic) {
        // A UUID is read in either case, and written in lower case.
        assert!(topics.of(kind, sensor).eq_ignore_ascii_case(topic));
        assert!(topic.starts_with(prefix));
        assert_eq!(topics.parse(&topics.of(kind, sensor)), Ok((kind, sensor)));
    }
});
