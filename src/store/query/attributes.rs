//! The members of a sensor's values: which there are, of which types, and when they were seen. Called by
//! the API. Promises what the rows of the range say at this moment, and a bound on what is kept.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::{Store, StoreError};

/// A sensor with more puts data into names; a list of them helps nobody.
const MAX_ATTRIBUTES: usize = 1_000;

/// One member of the values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// The JSON types of its values, sorted.
    pub types: BTreeSet<&'static str>,
    /// How many measurements have it.
    pub count: u64,
    /// When it was measured for the first time in the range, by the sensor's clock.
    pub first_at: Timestamp,
    /// And for the last time.
    pub last_at: Timestamp,
}

/// The members of a range.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attributes {
    /// By name.
    pub items: Vec<Attribute>,
    /// Whether there are more than a list holds.
    pub more: bool,
}

impl Store {
    /// The members of a sensor's values in a range; none if there is no such sensor.
    ///
    /// # Errors
    /// When the database is unavailable, or it takes too long.
    pub async fn list_attributes(
        &self,
        sensor: SensorIdentifier,
        range: (Timestamp, Timestamp),
    ) -> Result<Option<Attributes>, StoreError> {
        let mut seen = Seen::default();
        let read = self.each_value(sensor, range, |made, value| seen.add(made.into(), value));
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
    fn add(&mut self, made: Timestamp, value: &str) {
        let members: BTreeMap<Cow<'_, str>, &RawValue> = match serde_json::from_str(value) {
            Ok(members) => members,
            Err(error) => {
                // Somebody wrote it into the table by hand: the wire lets only objects in.
                tracing::debug!(column = error.column(), "a value is no object and has no members");
                return;
            }
        };
        for (name, member) in members {
            let of_type = type_of(member.get());
            if let Some(known) = self.by_name.get_mut(&*name) {
                known.types.insert(of_type);
                known.count += 1;
                known.first_at = known.first_at.min(made);
                known.last_at = known.last_at.max(made);
            } else if self.by_name.len() == MAX_ATTRIBUTES {
                self.more = true;
            } else {
                let (name, types) = (name.into_owned(), BTreeSet::from([of_type]));
                let new = Attribute { name, types, count: 1, first_at: made, last_at: made };
                self.by_name.insert(new.name.clone(), new);
            }
        }
    }

    fn finish(self) -> Attributes {
        Attributes { items: self.by_name.into_values().collect(), more: self.more }
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

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_microseconds(seconds * 1_000_000)
    }

    #[test]
    fn members_are_counted_with_their_types_and_times() {
        let mut seen = Seen::default();
        seen.add(at(2), r#"{"wind": -3.5, "sky": "clear", "on": true}"#);
        seen.add(at(1), r#"{"wind": null, "a \"b\"": 1}"#);
        seen.add(at(3), "[]");
        let attributes = seen.finish();
        let names: Vec<&str> = attributes.items.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["a \"b\"", "on", "sky", "wind"]);
        let wind = &attributes.items[3];
        assert_eq!(wind.types, BTreeSet::from(["null", "number"]));
        assert_eq!((wind.count, wind.first_at, wind.last_at), (2, at(1), at(2)));
        assert!(!attributes.more);
    }

    #[test]
    fn names_beyond_the_bound_are_left_out_and_told_of() {
        let mut seen = Seen::default();
        for number in 0..=MAX_ATTRIBUTES {
            seen.add(at(1), &format!(r#"{{"a{number}": 1}}"#));
        }
        let attributes = seen.finish();
        assert_eq!((attributes.items.len(), attributes.more), (MAX_ATTRIBUTES, true));
    }
}
