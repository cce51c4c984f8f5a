//! Counts, an example and the verdict for each topic that was published to. Filled and printed by
//! `listen`. Pure; its memory is bounded, whatever is published.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::domain::{AckTokens, RawMessage, Uplink};
use crate::wire::{Decoder, TopicFlaw};

/// Topics that are counted separately; with the bounds below at most 10 MB.
const MAX_TOPICS: usize = 5_000;

/// Of a topic. Longer ones that begin alike count as one.
const MAX_TOPIC_BYTES: usize = 512;

/// Of an example.
const MAX_EXAMPLE_BYTES: usize = 160;

/// Of a sentence; the wire's are shorter, unless a key of a value is long.
const MAX_VERDICT_BYTES: usize = 1_000;

/// What was observed.
pub(super) struct Observed {
    decoder: Decoder,
    ack_tokens: AckTokens,
    topics: BTreeMap<String, Topic>,
    messages: u64,
    /// On topics over the limit.
    others: u64,
}

struct Topic {
    messages: u64,
    retained: u64,
    example: String,
    verdict: Verdict,
}

#[derive(PartialEq, Eq)]
enum Verdict {
    Taken,
    /// Tributary publishes there.
    Configuration,
    /// Why not.
    Rejected(String),
}

impl Observed {
    pub(super) fn new(decoder: Decoder) -> Self {
        let (ack_tokens, _lost) = AckTokens::new();
        Self { decoder, ack_tokens, topics: BTreeMap::new(), messages: 0, others: 0 }
    }

    pub(super) fn add(&mut self, message: &RawMessage) {
        let (topic, payload) = (message.topic(), message.payload());
        self.messages += 1;
        let name = beginning(topic, MAX_TOPIC_BYTES);
        let is_full = self.topics.len() >= MAX_TOPICS;
        let known = match self.topics.get_mut(&name) {
            Some(known) => known,
            None if is_full => {
                self.others += 1;
                return;
            }
            None => self.topics.entry(name).or_insert(Topic {
                messages: 0,
                retained: 0,
                example: shown(payload),
                verdict: Verdict::Taken,
            }),
        };
        known.messages += 1;
        known.retained += u64::from(message.retained);
        // The first rejected message is the example.
        if known.verdict == Verdict::Taken {
            let verdict = verdict(&self.decoder, &self.ack_tokens, message);
            if verdict != Verdict::Taken {
                (known.verdict, known.example) = (verdict, shown(payload));
            }
        }
    }

    /// Rejected topics first.
    pub(super) fn report(&self, period: &str) -> String {
        let topics = count(self.topics.len() as u64, "topic");
        let mut report = format!("{} on {topics} {period}\n", count(self.messages, "message"));
        if self.messages == 0 {
            report.push_str(
                "\nNothing was published, or the account of MQTT_URL may not read it. \
                 Are the sensors connected to this broker?\n",
            );
        }
        let (taken, others): (Vec<_>, Vec<_>) =
            self.topics.iter().partition(|(_, topic)| topic.verdict == Verdict::Taken);
        for (name, topic) in others.into_iter().chain(taken) {
            // Writing into a String cannot fail.
            write!(report, "\n{}\n{topic}", escaped(name.as_bytes())).ok();
        }
        if self.others > 0 {
            let others = count(self.others, "message");
            write!(
                report,
                "\n{others} on further topics, of which only {MAX_TOPICS} are told apart\n"
            )
            .ok();
        }
        report
    }
}

impl std::fmt::Display for Topic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "  {}", count(self.messages, "message"))?;
        if self.retained > 0 {
            write!(formatter, ", {} of them retained", self.retained)?;
        }
        writeln!(formatter, ", such as {}", self.example)?;
        match &self.verdict {
            Verdict::Taken => writeln!(formatter, "  taken"),
            Verdict::Configuration => {
                writeln!(formatter, "  a configuration, from Tributary to the sensor")
            }
            Verdict::Rejected(why) => writeln!(formatter, "  not taken: {why}"),
        }
    }
}

fn verdict(decoder: &Decoder, ack_tokens: &AckTokens, message: &RawMessage) -> Verdict {
    let (topic, payload) = (message.topic(), message.payload());
    let topics = decoder.topics();
    if topics.is_configuration(topic) {
        return Verdict::Configuration;
    }
    let why = if topics.parse(topic).is_none() {
        TopicFlaw::of(topics, topic).detail
    } else if payload.len() > decoder.limits().payload_bytes {
        let (size, limit) = (payload.len(), decoder.limits().payload_bytes);
        format!("the payload has {size} bytes; at most {limit} are accepted (MAX_PAYLOAD_BYTES)")
    } else {
        match rejected(&decoder.decode(message.clone(), ack_tokens.issue(0))) {
            Some(why) => why,
            None => return Verdict::Taken,
        }
    };
    Verdict::Rejected(beginning(&why, MAX_VERDICT_BYTES))
}

fn rejected(uplink: &Uplink) -> Option<String> {
    let first = uplink.rejections.first()?;
    let (code, detail) = (first.reason.code(), &first.detail);
    Some(match first.item_index {
        None => format!("{code}: {detail}"),
        Some(index) => {
            let (rejected, items) = (uplink.rejections.len(), uplink.item_count());
            format!("{rejected} of {items} items; item {index}: {code}: {detail}")
        }
    })
}

fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn beginning(text: &str, max_bytes: usize) -> String {
    let end = text.floor_char_boundary(max_bytes);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

fn shown(payload: &[u8]) -> String {
    let part = &payload[..payload.len().min(MAX_EXAMPLE_BYTES)];
    let more = if part.len() < payload.len() { "…" } else { "" };
    format!("{}{more}", escaped(part))
}

/// Text as it is, and anything that could confuse a terminal as `\x..`.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        text.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use crate::wire::{Limits, Topics};

    fn observed() -> Observed {
        let limits = Limits { payload_bytes: 1_000, items_per_message: 10, ..Limits::DEFAULT };
        Observed::new(Decoder::new(Topics::new("a"), limits))
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped(b"\xff\x1b[2J \xc3\xa9"), r"\xff\u{1b}[2J é");
    }

    #[test]
    fn the_memory_of_observations_is_bounded() {
        let mut observed = observed();
        let long = "x".repeat(60_000);
        for number in 0..MAX_TOPICS + 7 {
            let topic = format!("{number}/{long}");
            observed.add(&RawMessage::new(&topic, long.as_bytes(), Timestamp::now(), false));
        }
        assert_eq!(observed.topics.len(), MAX_TOPICS);
        let size = |(name, topic): (&String, &Topic)| match &topic.verdict {
            Verdict::Rejected(why) => name.len() + topic.example.len() + why.len(),
            _ => panic!("it is no topic of ours"),
        };
        assert!(observed.topics.iter().map(size).sum::<usize>() < 10 << 20);
        assert!(
            observed
                .report("")
                .ends_with("7 messages on further topics, of which only 5000 are told apart\n")
        );
    }

    #[test]
    fn the_absence_of_messages_is_explained() {
        assert!(observed().report("in 1 s").contains("account of MQTT_URL may not read it"));
    }
}
