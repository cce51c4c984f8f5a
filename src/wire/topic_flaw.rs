//! What is wrong with a topic that no sensor should publish on, and which topic was probably meant. Called for
//! each message on such a topic, and by `tributary listen`. Pure; promises a sentence of bounded length.

use uuid::Uuid;

use super::topic::{LEVELS, Topics};
use crate::domain::{Kind, Reason, SensorIdentifier};

/// Why a topic is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicFlaw {
    /// The code under which it is recorded.
    pub reason: Reason,
    /// The kind that the topic names, if any.
    pub kind: Option<Kind>,
    /// The sensor that the topic names, if any. Its rejections count for this sensor.
    pub sensor: Option<SensorIdentifier>,
    /// What is wrong, and the topic that is expected.
    pub detail: String,
}

const PLACEHOLDER: &str = "<sensor-identifier>";

impl TopicFlaw {
    /// Of a topic that `topics` does not parse.
    pub fn of(topics: &Topics, topic: &str) -> Self {
        Self::below_a_kind(topics, topic).unwrap_or_else(|| Self::elsewhere(topics, topic))
    }

    /// Under one of the subscriptions: only the identifier, or what follows it, can be wrong.
    fn below_a_kind(topics: &Topics, topic: &str) -> Option<Self> {
        let (kind, rest) = topics.kind_of(topic)?;
        let (identifier, more) = match rest.split_once('/') {
            Some((identifier, more)) => (identifier, Some(more)),
            None => (rest, None),
        };
        let sensor = Uuid::try_parse(identifier.trim()).ok().map(SensorIdentifier);
        let problem = match sensor {
            None if identifier.is_empty() => "the topic names no sensor",
            None => "the level behind the kind is not a UUID",
            Some(sensor) if identifier.eq_ignore_ascii_case(&sensor.to_string()) => {
                if more.is_some() {
                    "nothing may follow the sensor's identifier"
                } else {
                    "the sensor's identifier is not in lower case, as it is in the topic of its configuration"
                }
            }
            Some(_) => {
                "the sensor's identifier is not written with its four hyphens and nothing else"
            }
        };
        let expected = expected(topics, kind, sensor);
        let detail = format!("{problem}; expected {expected}");
        Some(Self { reason: Reason::InvalidIdentifier, kind: Some(kind), sensor, detail })
    }

    /// Under no subscription; the topic that it resembles.
    fn elsewhere(topics: &Topics, topic: &str) -> Self {
        let levels: Vec<&str> = topic.split('/').filter(|level| !level.is_empty()).collect();
        let resembled = levels.iter().enumerate().find_map(|(index, level)| {
            let identifier = levels.get(index + 1).and_then(|it| Uuid::try_parse(it.trim()).ok());
            Some((resembled_kind(level)?, identifier.map(SensorIdentifier)))
        });
        let expected = match resembled {
            Some((kind, sensor)) => expected(topics, kind, sensor),
            None => Kind::ALL.map(|kind| expected(topics, kind, None)).join(" or "),
        };
        Self {
            reason: Reason::UnknownTopic,
            kind: None,
            sensor: None,
            detail: format!("it is not a topic of Tributary; expected {expected}"),
        }
    }
}

fn expected(topics: &Topics, kind: Kind, sensor: Option<SensorIdentifier>) -> String {
    match sensor {
        Some(sensor) => topics.of(kind, sensor),
        None => topics.below(kind, PLACEHOLDER),
    }
}

/// `Measurements`, `measurement`, `log_messages`, `logmessages`, `Log`.
fn resembled_kind(level: &str) -> Option<Kind> {
    let letters = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphabetic).flat_map(char::to_lowercase).collect()
    };
    let level = letters(level);
    LEVELS.into_iter().find_map(|(known, kind)| {
        let plural = letters(known);
        (level == plural || plural.strip_suffix('s') == Some(&level)).then_some(kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENSOR: &str = "81bf7042-e20f-4a97-ac44-c15853e3618f";

    #[test]
    fn the_intended_topic_is_suggested() {
        let sensor = SensorIdentifier::parse(SENSOR);
        let measurement = Some(Kind::Measurement);
        for (topic, kind, named, says) in [
            (
                "a/measurements",
                measurement,
                None,
                "names no sensor; expected a/measurements/<sensor-identifier>",
            ),
            ("a/measurements/", measurement, None, "names no sensor"),
            (
                "a/heartbeats/station-1",
                Some(Kind::Heartbeat),
                None,
                "not a UUID; expected a/heartbeats/<sensor-identifier>",
            ),
            (
                "a/measurements/SENSOR/",
                measurement,
                sensor,
                "nothing may follow the sensor's identifier; expected a/measurements/SENSOR",
            ),
            ("a/measurements/SENSOR/roof", measurement, sensor, "nothing may follow"),
            (
                "a/log-messages/81BF7042-E20F-4A97-AC44-C15853E3618F",
                Some(Kind::LogMessage),
                sensor,
                "not in lower case, as it is in the topic of its configuration; expected a/log-messages/SENSOR",
            ),
            (
                "a/measurements/81bf7042e20f4a97ac44c15853e3618f",
                measurement,
                sensor,
                "four hyphens and nothing else; expected a/measurements/SENSOR",
            ),
            ("a/measurements/{SENSOR}", measurement, sensor, "four hyphens"),
            ("/a/measurements/SENSOR", None, None, "expected a/measurements/SENSOR"),
            ("measurements/SENSOR", None, None, "expected a/measurements/SENSOR"),
            ("a/Measurements/SENSOR", None, None, "expected a/measurements/SENSOR"),
            ("a/measurement/SENSOR", None, None, "expected a/measurements/SENSOR"),
            ("b/log_message/SENSOR", None, None, "expected a/log-messages/SENSOR"),
            ("heartbeat", None, None, "expected a/heartbeats/<sensor-identifier>"),
            (
                "zigbee/lamp",
                None,
                None,
                "not a topic of Tributary; expected a/measurements/<sensor-identifier> or a/log-messages/",
            ),
            ("", None, None, "not a topic of Tributary"),
        ] {
            let topic = topic.replace("SENSOR", SENSOR);
            let flaw = TopicFlaw::of(&Topics::new("a"), &topic);
            assert!(flaw.detail.contains(&says.replace("SENSOR", SENSOR)), "{topic}: {flaw:?}");
            assert_eq!((flaw.kind, flaw.sensor), (kind, named), "{topic}");
            let is_below = flaw.reason == Reason::InvalidIdentifier;
            assert_eq!(is_below, kind.is_some(), "{topic}");
        }
    }
}
