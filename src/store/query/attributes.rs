//! The members of a sensor's values, with their types and when they occurred. Called by the API. The result
//! matches the present rows; its size is bounded.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::{Store, StoreError};

/// A sensor with more members puts data into their names, of which a list would be useless.
const MAX_ATTRIBUTES: usize = 1_000;

/// A member of a sensor's values.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[expect(missing_docs, reason = "the members of the answer")]
pub struct Attribute {
    #[schema(example = "temperature")]
    pub name: String,
    /// The JSON types of its values.
    #[schema(value_type = Vec<AttributeType>)]
    pub types: BTreeSet<&'static str>,
    /// The number of measurements in the range that have it.
    pub count: u64,
    /// Its first measurement in the range, by the sensor's clock.
    pub first_creation_timestamp: jiff::Timestamp,
    /// Its last measurement in the range, by the sensor's clock.
    pub last_creation_timestamp: jiff::Timestamp,
}

/// A JSON type.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "it describes the names of the types")]
enum AttributeType {
    String,
    Number,
    Boolean,
    Null,
    Object,
    Array,
}

/// The members of the values in a range.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FoundAttributes {
    /// By name.
    pub items: Vec<Attribute>,
    /// Whether there are more than 1,000.
    pub more: bool,
}

impl Store {
    /// The members of a sensor's values in a range; none if the sensor does not exist.
    pub async fn list_attributes(
        &self,
        sensor: SensorIdentifier,
        range: (Timestamp, Timestamp),
    ) -> Result<Option<FoundAttributes>, StoreError> {
        let mut seen = Seen::default();
        let read =
            self.each_value(sensor, range, |created, value| seen.add(created.to_jiff(), value));
        let exists = read.await?.is_some();
        Ok(exists.then(|| seen.finish()))
    }
}

#[derive(Default)]
struct Seen {
    by_name: BTreeMap<String, Attribute>,
    more: bool,
}

impl Seen {
    /// Adds the members of a value, which is a JSON object.
    fn add(&mut self, created: jiff::Timestamp, value: &str) {
        let members: BTreeMap<Cow<'_, str>, &RawValue> = match serde_json::from_str(value) {
            Ok(members) => members,
            Err(error) => {
                // Inserted by other means than the service, which stores only objects.
                tracing::debug!(column = error.column(), "value ignored: it is not a JSON object");
                return;
            }
        };
        for (name, member) in members {
            let of_type = type_of(member.get());
            if let Some(known) = self.by_name.get_mut(&*name) {
                known.types.insert(of_type);
                known.count += 1;
                known.first_creation_timestamp = known.first_creation_timestamp.min(created);
                known.last_creation_timestamp = known.last_creation_timestamp.max(created);
            } else if self.by_name.len() == MAX_ATTRIBUTES {
                self.more = true;
            } else {
                let (name, types) = (name.into_owned(), BTreeSet::from([of_type]));
                let new = Attribute {
                    name: name.clone(),
                    types,
                    count: 1,
                    first_creation_timestamp: created,
                    last_creation_timestamp: created,
                };
                self.by_name.insert(name, new);
            }
        }
    }

    fn finish(self) -> FoundAttributes {
        FoundAttributes { items: self.by_name.into_values().collect(), more: self.more }
    }
}

fn type_of(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        Some(b'{') => "object",
        Some(b'[') => "array",
        _ => "number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn names_over_the_limit_are_omitted_and_reported() {
        let mut seen = Seen::default();
        for number in 0..=MAX_ATTRIBUTES {
            seen.add(at(1), &format!(r#"{{"a{number}": 1}}"#));
        }
        let attributes = seen.finish();
        assert_eq!((attributes.items.len(), attributes.more), (MAX_ATTRIBUTES, true));
    }
}
