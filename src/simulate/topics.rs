//! Where the sensors of a line publish, and where they listen. Asked by the line for every message.

use ntex_bytes::ByteString;

use super::sensor::Sensor;
use crate::domain::{Kind, SensorIdentifier};

/// The topics of some sensors. The hot ones are kept, the others made when they are needed.
#[derive(Debug)]
pub(super) struct Topics {
    /// Empty, or with a slash behind it.
    prefix: String,
    measurements: Vec<ByteString>,
}

impl Topics {
    /// Those of these sensors, under `MQTT_TOPIC_PREFIX`.
    pub(super) fn new(prefix: &str, sensors: &[Sensor]) -> Self {
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        let mut topics = Self { prefix, measurements: Vec::with_capacity(sensors.len()) };
        for sensor in sensors {
            let topic = topics.topic(Kind::Measurement.topic_level(), sensor.identifier);
            topics.measurements.push(topic);
        }
        topics
    }

    /// Where a sensor, the one with this index, publishes this kind.
    pub(super) fn of(&self, kind: Kind, index: usize, sensor: &Sensor) -> ByteString {
        match kind {
            Kind::Measurement => self.measurements[index].clone(),
            _ => self.topic(kind.topic_level(), sensor.identifier),
        }
    }

    /// Where a sensor listens.
    pub(super) fn configuration(&self, sensor: &Sensor) -> ByteString {
        self.topic("configurations", sensor.identifier)
    }

    fn topic(&self, level: &str, identifier: SensorIdentifier) -> ByteString {
        format!("{}{level}/{identifier}", self.prefix).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_stands_before_every_topic() {
        let identifier = SensorIdentifier::random();
        let sensors = [Sensor::new(identifier, 1, 1)];
        let topics = Topics::new("site-a", &sensors);
        let written = |kind| topics.of(kind, 0, &sensors[0]).to_string();
        assert_eq!(written(Kind::Measurement), format!("site-a/measurements/{identifier}"));
        assert_eq!(written(Kind::LogMessage), format!("site-a/log-messages/{identifier}"));
        assert_eq!(written(Kind::Heartbeat), format!("site-a/heartbeats/{identifier}"));
        let topic = Topics::new("", &sensors).configuration(&sensors[0]);
        assert_eq!(topic.to_string(), format!("configurations/{identifier}"));
    }
}
