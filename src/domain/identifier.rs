//! The identifier of a sensor in topics, the API and the tables: a UUID. Used everywhere. Only the
//! hyphenated form is accepted, because a sensor subscribes to the topic that it names.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A sensor's identifier, written as the 36 characters of RFC 9562, section 4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SensorIdentifier(pub Uuid);

impl SensorIdentifier {
    /// Version 4.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Reads the hyphenated form, in upper or lower case.
    pub fn parse(text: &str) -> Option<Self> {
        const HYPHENATED_LENGTH: usize = 36;
        if text.len() != HYPHENATED_LENGTH {
            return None;
        }
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl fmt::Display for SensorIdentifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hyphenated_form_is_an_identifier() {
        let text = "81bf7042-e20f-4a97-ac44-c15853e3618f";
        let identifier = SensorIdentifier::parse(text).unwrap();
        assert_eq!(identifier.to_string(), text);
        assert_eq!(SensorIdentifier::parse(&text.to_uppercase()), Some(identifier));

        for refused in [
            "",
            "81bf7042e20f4a97ac44c15853e3618f",
            "{81bf7042-e20f-4a97-ac44-c15853e3618f}",
            "urn:uuid:81bf7042-e20f-4a97-ac44-c15853e3618f",
            "81bf7042-e20f-4a97-ac44-c15853e3618g",
            "81bf7042-e20f-4a97-ac44-c15853e3618",
        ] {
            assert_eq!(SensorIdentifier::parse(refused), None, "{refused}");
        }
    }
}
