//! Topics: `<prefix>/<kind>/<sensor-identifier>`, with an optional prefix. Parsed for every PUBLISH, built
//! for subscriptions and configurations. What is built is parsed back to the same kind and sensor.

use std::sync::Arc;

use crate::domain::{Kind, SensorIdentifier};

/// The first level of the topics that sensors publish on, ours before those of Hermes' sensors and of the
/// `tenta` package.
pub(super) const LEVELS: [(&str, Kind); 5] = [
    (Kind::Measurement.topic_level(), Kind::Measurement),
    (Kind::LogMessage.topic_level(), Kind::LogMessage),
    (Kind::Heartbeat.topic_level(), Kind::Heartbeat),
    ("logs", Kind::LogMessage),
    ("acknowledgments", Kind::Heartbeat),
];

/// The topics of one deployment.
#[derive(Clone, Debug)]
pub struct Topics {
    /// Empty, or ends with `/`.
    prefix: Arc<str>,
}

impl Topics {
    /// `prefix`: without a trailing `/`; may be empty.
    pub fn new(prefix: &str) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Self { prefix: prefix.into() }
    }

    /// The topic filters to subscribe to. They match near misses, which are then recorded as rejected.
    pub fn filters(&self) -> Vec<String> {
        LEVELS.iter().map(|(level, _)| format!("{}{level}/#", self.prefix)).collect()
    }

    /// The same as shared subscriptions of this group: each message goes to one member [MQTT-4.8.2].
    pub fn shared_filters(&self, group: &str) -> Vec<String> {
        self.filters().iter().map(|filter| format!("$share/{group}/{filter}")).collect()
    }

    /// The topic filters of releases before these. A session may still have them, and a broker may then
    /// deliver each message twice.
    pub fn former_filters(&self) -> Vec<String> {
        Kind::ALL.iter().map(|kind| self.below(*kind, "+")).collect()
    }

    /// The topic of a sensor's configuration.
    pub fn configuration(&self, sensor: SensorIdentifier) -> String {
        format!("{}configurations/{sensor}", self.prefix)
    }

    /// Whether this is the topic of a sensor's configuration.
    pub fn is_configuration(&self, topic: &str) -> bool {
        let level = topic.rsplit('/').next().and_then(SensorIdentifier::parse);
        level.is_some_and(|sensor| self.configuration(sensor) == topic)
    }

    /// The topic that a sensor publishes on.
    pub fn of(&self, kind: Kind, sensor: SensorIdentifier) -> String {
        self.below(kind, &sensor.to_string())
    }

    pub(super) fn below(&self, kind: Kind, level: &str) -> String {
        format!("{}{}/{level}", self.prefix, kind.topic_level())
    }

    /// The reverse of [`Self::of`], which also takes the topics of other clients; none if the topic is another one, or
    /// names no sensor. An identifier in upper case is refused, because a sensor that subscribes to
    /// its configuration in the same way would never receive it.
    pub fn parse(&self, topic: &str) -> Option<(Kind, SensorIdentifier)> {
        let is_upper = |text: &str| text.bytes().any(|byte| byte.is_ascii_uppercase());
        self.kind_of(topic)
            .filter(|(_, identifier)| !is_upper(identifier))
            .and_then(|(kind, identifier)| Some((kind, SensorIdentifier::parse(identifier)?)))
    }

    /// The kind, and the levels behind it.
    pub(super) fn kind_of<'a>(&self, topic: &'a str) -> Option<(Kind, &'a str)> {
        let levels = topic.strip_prefix(&*self.prefix)?;
        LEVELS.into_iter().find_map(|(level, kind)| {
            let rest = levels.strip_prefix(level)?;
            if rest.is_empty() { Some((kind, rest)) } else { Some((kind, rest.strip_prefix('/')?)) }
        })
    }
}

/// Validates a topic prefix.
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

/// Validates the name of a group of shared subscriptions.
pub fn check_group(name: &str) -> Result<(), &'static str> {
    if name.contains(['/', '+', '#', '\0']) {
        return Err("the name of a group must not contain /, +, # or U+0000 [MQTT-4.8.2-2]");
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
                assert_eq!(topics.parse(&topics.of(kind, sensor)), Some((kind, sensor)));
            }
        }
        assert_eq!(Topics::new("a").filters()[0], "a/measurements/#");
        assert_eq!(Topics::new("a").shared_filters("g")[0], "$share/g/a/measurements/#");
        let sensor = SensorIdentifier::parse(SENSOR).unwrap();
        let topics = Topics::new("site-a");
        for (level, kind) in [("logs", Kind::LogMessage), ("acknowledgments", Kind::Heartbeat)] {
            let topic = format!("site-a/{level}/{SENSOR}");
            assert_eq!(topics.parse(&topic), Some((kind, sensor)));
            assert!(topics.filters().contains(&format!("site-a/{level}/#")));
        }
        assert_eq!(Topics::new("").configuration(sensor), format!("configurations/{SENSOR}"));
    }

    #[test]
    fn similar_topics_are_refused() {
        let bare = Topics::new("");
        let upper = SENSOR.to_uppercase();
        for topic in [
            "",
            "measurements",
            "measurements/",
            "heartbeats/station-1",
            &format!("measurements/{upper}"),
            &format!("measurements/{SENSOR}/"),
            &format!("configurations/{SENSOR}"),
            &format!("/measurements/{SENSOR}"),
            &format!("measurementsx/{SENSOR}"),
        ] {
            assert!(bare.parse(topic).is_none(), "{topic}");
        }
        assert!(Topics::new("site-a").parse(&format!("measurements/{SENSOR}")).is_none());
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
            if let Some((kind, sensor)) = Topics::new(&prefix).parse(&topic) {
                let again = Topics::new(&prefix).of(kind, sensor);
                prop_assert_eq!(Topics::new(&prefix).parse(&again), Some((kind, sensor)));
                prop_assert!(topic.ends_with(&sensor.to_string()));
            }
        }
    }
}
