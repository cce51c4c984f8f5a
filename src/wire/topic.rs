//! Topics: `<prefix>/<kind>/<sensor-identifier>`, with an optional prefix. Parsed for every PUBLISH, built
//! for subscriptions and configurations. What is built is parsed back to the same kind and sensor.

use std::sync::Arc;

use crate::domain::{Kind, Reason, SensorIdentifier};

/// The topics of one deployment.
#[derive(Clone, Debug)]
pub struct Topics {
    /// Empty, or ends with `/`.
    prefix: Arc<str>,
}

/// Why a topic is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopicFlaw {
    /// Not a topic that sensors publish on.
    #[error(
        "the topic is not measurements/, log-messages/ or heartbeats/<sensor-identifier> under the topic prefix"
    )]
    Unknown,
    /// The last level is not an identifier.
    #[error("the topic's last level is not a UUID in hyphenated form")]
    Identifier(Kind),
}

impl TopicFlaw {
    /// The code under which it is recorded.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Unknown => Reason::UnknownTopic,
            Self::Identifier(_) => Reason::InvalidIdentifier,
        }
    }

    /// The kind that the topic names, if any.
    #[must_use]
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Self::Unknown => None,
            Self::Identifier(kind) => Some(kind),
        }
    }
}

impl Topics {
    /// `prefix`: without a trailing `/`; may be empty.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { prefix: prefix.into() }
    }

    /// The topic filters to subscribe to.
    #[must_use]
    pub fn filters(&self) -> Vec<String> {
        Kind::ALL.iter().map(|kind| format!("{}{}/+", self.prefix, kind.topic_level())).collect()
    }

    /// The topic of a sensor's configuration.
    #[must_use]
    pub fn configuration(&self, sensor: SensorIdentifier) -> String {
        format!("{}configurations/{sensor}", self.prefix)
    }

    /// The topic that a sensor publishes on.
    #[must_use]
    pub fn of(&self, kind: Kind, sensor: SensorIdentifier) -> String {
        format!("{}{}/{sensor}", self.prefix, kind.topic_level())
    }

    /// The reverse of [`Self::of`].
    ///
    /// # Errors
    /// When the topic is another one, or names no sensor.
    pub fn parse(&self, topic: &str) -> Result<(Kind, SensorIdentifier), TopicFlaw> {
        let levels = topic.strip_prefix(&*self.prefix).ok_or(TopicFlaw::Unknown)?;
        let (kind, identifier) = Kind::ALL
            .into_iter()
            .find_map(|kind| {
                let rest = levels.strip_prefix(kind.topic_level())?;
                Some((kind, rest.strip_prefix('/')?))
            })
            .ok_or(TopicFlaw::Unknown)?;
        let sensor = SensorIdentifier::parse(identifier).ok_or(TopicFlaw::Identifier(kind))?;
        Ok((kind, sensor))
    }
}

/// Validates a topic prefix.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_prefix(prefix: &str) -> Result<(), &'static str> {
    if prefix.contains(['+', '#']) {
        return Err("a topic prefix must not contain a wildcard, + or # [MQTT-4.7.1-1]");
    }
    if prefix.contains('\0') {
        return Err("a topic prefix must not contain U+0000 [MQTT-4.7.3-2]");
    }
    if prefix.starts_with('/') || prefix.ends_with('/') || prefix.starts_with('$') {
        return Err("a topic prefix must not begin with / or $, nor end with /");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SENSOR: &str = "81bf7042-e20f-4a97-ac44-c15853e3618f";

    #[test]
    fn topics_are_parsed_back() {
        let sensor = SensorIdentifier::parse(SENSOR).unwrap();
        for prefix in ["", "site-a", "site-a/roof"] {
            let topics = Topics::new(prefix);
            for kind in Kind::ALL {
                assert_eq!(topics.parse(&topics.of(kind, sensor)), Ok((kind, sensor)));
            }
        }
        assert_eq!(Topics::new("a").filters()[0], "a/measurements/+");
        assert_eq!(Topics::new("").configuration(sensor), format!("configurations/{SENSOR}"));
    }

    #[test]
    fn other_topics_are_refused() {
        let bare = Topics::new("");
        for (topic, flaw) in [
            ("", TopicFlaw::Unknown),
            ("measurements", TopicFlaw::Unknown),
            ("configurations/81bf7042-e20f-4a97-ac44-c15853e3618f", TopicFlaw::Unknown),
            ("/measurements/81bf7042-e20f-4a97-ac44-c15853e3618f", TopicFlaw::Unknown),
            ("measurements/", TopicFlaw::Identifier(Kind::Measurement)),
            ("heartbeats/station-1", TopicFlaw::Identifier(Kind::Heartbeat)),
            (
                "log-messages/81bf7042-e20f-4a97-ac44-c15853e3618f/x",
                TopicFlaw::Identifier(Kind::LogMessage),
            ),
        ] {
            assert_eq!(bare.parse(topic), Err(flaw), "{topic}");
        }
        assert_eq!(
            Topics::new("site-a").parse(&format!("measurements/{SENSOR}")),
            Err(TopicFlaw::Unknown)
        );
    }

    #[test]
    fn a_prefix_is_validated() {
        for refused in ["a/#", "+", "/a", "a/", "$share", "a\0"] {
            assert!(check_prefix(refused).is_err(), "{refused}");
        }
        for accepted in ["", "site-a", "site a/roof"] {
            assert_eq!(check_prefix(accepted), Ok(()));
        }
    }

    proptest! {
        #[test]
        fn no_topic_makes_it_panic(topic in "\\PC*", prefix in "[a-z/]*") {
            if let Ok((kind, sensor)) = Topics::new(&prefix).parse(&topic) {
                prop_assert_eq!(Topics::new(&prefix).of(kind, sensor), topic.to_lowercase());
            }
        }
    }
}
