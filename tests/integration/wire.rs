//! PostgreSQL accepts everything that the decoder accepts: the test commits the corpus of the fuzzers, and generated
//! values at the limits of JSON and `jsonb`.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tributary::domain::{AckTokens, Batch, Kind, RawMessage, Timestamp, Uplink};
use tributary::store::{self, Committer, CopyMode};
use tributary::wire::{Decoder, Limits, Topics};

use crate::support::service::{count, database};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");
const GENERATED: usize = 1_000;

/// As in the fuzz targets, the first byte of an input selects the kind, and the rest is the payload.
fn corpus() -> Vec<(Kind, Vec<u8>)> {
    let mut inputs = Vec::new();
    for target in ["decode", "passes"] {
        for entry in std::fs::read_dir(format!("{CORPUS}/{target}")).unwrap() {
            let input = std::fs::read(entry.unwrap().path()).unwrap();
            if let Some((first, payload)) = input.split_first() {
                let kind = Kind::ALL[usize::from(*first) % Kind::ALL.len()];
                inputs.push((kind, payload.to_vec()));
            }
        }
    }
    assert!(inputs.len() > 100, "the corpus is missing");
    inputs
}

/// Texts and numbers, valid and invalid ones.
fn generated() -> Vec<(Kind, Vec<u8>)> {
    let text =
        "(\\\\u[0-9a-fA-F]{4}|\\\\ud83d\\\\ude00|\\\\[bfnrt\"/\\\\]|[^\"\\\\\\x00-\\x1f]){0,12}";
    let number = prop_oneof![
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,6})?",
        Just("1e131071".to_owned()),
        Just("9.99e131070".to_owned()),
        Just("1e-16383".to_owned()),
        Just("-0.0e-16382".to_owned()),
        Just("0.".to_owned() + &"1".repeat(16_000)),
        Just("9".repeat(16_383)),
    ];
    let scalar = prop_oneof![
        number,
        text.prop_map(|text| format!("\"{text}\"")),
        Just("null".to_owned()),
        Just("true".to_owned()),
    ];
    let value = proptest::collection::vec((text, scalar), 0..6).prop_map(|members| {
        let members: Vec<_> =
            members.into_iter().map(|(key, value)| format!("\"{key}\" : {value}")).collect();
        format!("{{ {} }}", members.join(","))
    });
    let measurement = (0..253_402_207_200_i64, value).prop_map(|(at, value)| {
        let item = format!(r#"{{"revision":0,"timestamp":{at}.5,"value":{value}}}"#);
        (Kind::Measurement, format!(r#"{{"measurements":[{item}]}}"#).into_bytes())
    });
    let log_message = (0..4_000_000_000_u32, text, text).prop_map(|(at, subject, details)| {
        let item = format!(
            r#"{{"severity":"info","revision":1,"timestamp":{at},"subject":"{subject}","details":"{details}"}}"#
        );
        (Kind::LogMessage, format!(r#"{{"log_messages":[{item}]}}"#).into_bytes())
    });
    let strategy = prop_oneof![3 => measurement, 1 => log_message];
    let mut runner = TestRunner::deterministic();
    (0..GENERATED).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

fn decode(ack_tokens: &AckTokens, (kind, payload): &(Kind, Vec<u8>)) -> Box<Uplink> {
    let topic = format!("{}/81bf7042-e20f-4a97-ac44-c15853e3618f", kind.topic_level());
    let message = RawMessage::new(&topic, payload, Timestamp::now(), false);
    let limits = Limits { payload_bytes: 1 << 20, items_per_message: 100, ..Limits::DEFAULT };
    let mut uplink = Decoder::new(Topics::new(""), limits).decode(message, ack_tokens.issue(0));
    uplink.rejections.clear();
    uplink
}

#[actix_rt::test]
async fn postgresql_accepts_every_item_that_the_decoder_accepts() {
    let database = database().await;
    let url = database.url.clone();
    let read = |name: &str| (name == "DATABASE_URL").then(|| url.clone());
    let config = tributary::config::read_store(read).unwrap();
    store::migrate(&config).await.unwrap();
    let committer = Committer::new(&config, 1);

    let (ack_tokens, _lost) = AckTokens::new();
    let inputs = [corpus(), generated()].concat();
    let mut keys = BTreeSet::new();
    let mut accepted = 0;
    for part in inputs.chunks(500) {
        let uplinks: Vec<_> = part
            .iter()
            .map(|input| decode(&ack_tokens, input))
            .filter(|it| !it.items.is_empty())
            .collect();
        accepted += uplinks.len();
        for uplink in &uplinks {
            for item in 0..uplink.items.len() {
                let (timestamp, digest) = uplink.items.identity(item);
                keys.insert((uplink.kind.unwrap().name(), timestamp, digest));
            }
        }
        if let Err(failed) = committer.commit(Batch::new(uplinks), CopyMode::Staged).await {
            for uplink in failed.batch.into_uplinks() {
                let payload = String::from_utf8_lossy(uplink.message.payload()).into_owned();
                let refused = committer.isolate(&Batch::new(vec![uplink])).await.unwrap();
                assert!(refused.is_empty(), "{refused:?} of {payload:.2000}");
            }
            panic!(
                "PostgreSQL refuses the batch, but none of its messages alone: {}",
                failed.error
            );
        }
    }
    assert!(accepted > 500, "only {accepted} of {} are accepted", inputs.len());
    let rows = "select (select count(*) from measurement) + (select count(*) from log_message) \
         + (select count(*) from heartbeat)";
    assert_eq!(count(&database, rows).await, keys.len() as i64);
    // The stored values can be read.
    let read = "select count(length(value::text)) from measurement";
    assert!(count(&database, read).await > 0);
}
