//! Sums up the numbers of a sensor's measurements by time bucket. Called by `aggregates`, row by row in
//! any order. Pure. The rounding error does not grow with the number of rows; values that are not
//! numbers, or too large for a double, are ignored.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::Timestamp;

/// Numbers of this size or larger could overflow a sum.
const TOO_LARGE: f64 = 1e300;

/// A Monday, so that buckets of a week begin on Mondays.
pub const BUCKET_ORIGIN: Timestamp = Timestamp::from_unix_microseconds(4 * 86_400_000_000);

/// A request for aggregates.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregation {
    /// Inclusive.
    pub from: Timestamp,
    /// Exclusive.
    pub to: Timestamp,
    /// The length of a bucket.
    pub bucket_secs: u32,
    /// The members of `value` to aggregate.
    pub attributes: Vec<String>,
}

/// The aggregate of one attribute in one bucket. Doubles, like the numbers of most JSON readers.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregate {
    /// The beginning of the bucket.
    pub bucket: Timestamp,
    /// The member of `value`.
    pub attribute: String,
    /// The number of measurements in which it is a number.
    pub count: i64,
    /// The minimum.
    pub minimum: f64,
    /// The arithmetic mean.
    pub mean: f64,
    /// The maximum.
    pub maximum: f64,
}

/// The sums of a sensor's rows.
#[derive(Debug)]
pub(in crate::store) struct Sums<'a> {
    attributes: &'a [String],
    length: i64,
    buckets: BTreeMap<i64, Vec<Sum>>,
}

impl<'a> Sums<'a> {
    pub(in crate::store) fn new(aggregation: &'a Aggregation) -> Self {
        let length = i64::from(aggregation.bucket_secs) * 1_000_000;
        Self { attributes: &aggregation.attributes, length, buckets: BTreeMap::new() }
    }

    /// Adds the numbers of a value, which is a JSON object.
    pub(in crate::store) fn add(&mut self, created: Timestamp, value: &str) {
        let since = created.unix_microseconds() - BUCKET_ORIGIN.unix_microseconds();
        let bucket = since.div_euclid(self.length);
        let attributes = self.attributes;
        let sums = self.buckets.entry(bucket);
        let sums = sums.or_insert_with(|| vec![Sum::default(); attributes.len()]);
        for (index, attribute) in attributes.iter().enumerate().filter(|(_, it)| it.contains('.')) {
            if let Some(number) = at_path(value, attribute).and_then(|it| number(it.get())) {
                sums[index].add(number);
            }
        }
        let mut json = serde_json::Deserializer::from_str(value);
        if let Err(error) = json.deserialize_map(Members { attributes, sums }) {
            // Inserted by other means than the service, which stores only objects.
            tracing::debug!(column = error.column(), "value ignored: it is not a JSON object");
        }
    }

    /// By bucket, then in the order of the attributes; attributes without a number are omitted.
    pub(in crate::store) fn finish(self) -> Vec<Aggregate> {
        let begin = |bucket| {
            let origin = BUCKET_ORIGIN.unix_microseconds();
            Timestamp::from_unix_microseconds(bucket * self.length + origin)
        };
        let mut aggregates = Vec::new();
        for (bucket, sums) in &self.buckets {
            for (attribute, sum) in self.attributes.iter().zip(sums) {
                if sum.count > 0 {
                    aggregates.push(Aggregate {
                        bucket: begin(*bucket),
                        attribute: attribute.clone(),
                        count: sum.count,
                        minimum: sum.minimum,
                        mean: sum.mean(),
                        maximum: sum.maximum,
                    });
                }
            }
        }
        aggregates
    }
}

/// The sum of one attribute in one bucket.
#[derive(Clone, Debug)]
struct Sum {
    count: i64,
    minimum: f64,
    maximum: f64,
    total: f64,
    /// The accumulated rounding error (Neumaier's summation).
    lost: f64,
}

impl Default for Sum {
    fn default() -> Self {
        let (minimum, maximum) = (f64::INFINITY, f64::NEG_INFINITY);
        Self { count: 0, minimum, maximum, total: 0.0, lost: 0.0 }
    }
}

impl Sum {
    fn add(&mut self, number: f64) {
        self.count += 1;
        self.minimum = self.minimum.min(number);
        self.maximum = self.maximum.max(number);
        let total = self.total + number;
        self.lost += if self.total.abs() >= number.abs() {
            (self.total - total) + number
        } else {
            (number - total) + self.total
        };
        self.total = total;
    }

    fn mean(&self) -> f64 {
        (self.total + self.lost) / self.count as f64
    }
}

/// Reads the numbers of a value.
struct Members<'a> {
    attributes: &'a [String],
    sums: &'a mut [Sum],
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(wanted) = map.next_key_seed(Name(self.attributes))? {
            let Some(index) = wanted else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if let Some(number) = number(map.next_value::<&RawValue>()?.get()) {
                self.sums[index].add(number);
            }
        }
        Ok(())
    }
}

/// Finds the index of an attribute by a member's name.
struct Name<'a>(&'a [String]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Option<usize>, D::Error> {
        name.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Option<usize>, E> {
        // A name with a dot is looked up by itself: it may be a path.
        Ok(self.0.iter().position(|wanted| wanted == name && !wanted.contains('.')))
    }
}

/// The member with this key as it stands, else at the path of keys and indices between its dots.
fn at_path<'a>(value: &'a str, attribute: &str) -> Option<&'a RawValue> {
    let mut members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(value).ok()?;
    if let Some(member) = members.get(attribute) {
        return Some(member);
    }
    let mut steps = attribute.split('.');
    let first = members.remove(steps.next()?)?;
    steps.try_fold(first, |value, step| {
        if value.get().starts_with('[') {
            let elements: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
            return elements.get(step.parse::<usize>().ok()?).copied();
        }
        let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(value.get()).ok()?;
        members.get(step).copied()
    })
}

/// The number, if the JSON value is one.
fn number(json: &str) -> Option<f64> {
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let number: f64 = is_number.then(|| json.parse().ok()).flatten()?;
    (number.abs() < TOO_LARGE).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summed(attributes: &[&str], values: &[(i64, &str)]) -> Vec<Aggregate> {
        let aggregation = Aggregation {
            from: Timestamp::default(),
            to: Timestamp::default(),
            bucket_secs: 60,
            attributes: attributes.iter().map(ToString::to_string).collect(),
        };
        let mut sums = Sums::new(&aggregation);
        for (secs, value) in values {
            sums.add(Timestamp::from_unix_microseconds(secs * 1_000_000), value);
        }
        sums.finish()
    }

    #[test]
    fn only_numbers_that_a_double_holds_count() {
        let values = [
            (0, r#"{"a": 1, "b": "1"}"#),
            (1, r#"{"a": -2.5, "b": true}"#),
            (2, r#"{"a": null, "\u0062": 7}"#),
            (3, r#"{"a": 1e300}"#),
            (4, r#"{"a": 1e131071}"#),
            (5, r#"{"a": {"a": 5}}"#),
            (6, r#"["a", 5]"#),
        ];
        let told: Vec<_> = summed(&["a", "b"], &values)
            .into_iter()
            .map(|it| (it.attribute, it.count, it.minimum, it.mean, it.maximum))
            .collect();
        assert_eq!(told, [("a".into(), 2, -2.5, -0.75, 1.0), ("b".into(), 1, 7.0, 7.0, 7.0)]);
    }

    #[test]
    fn a_path_leads_to_a_nested_number_and_a_key_with_a_dot_comes_first() {
        let values = [
            (0, r#"{"a": {"b": 1, "c": [5, {"d": 6}]}}"#),
            (1, r#"{"a": {"b": 3}, "a.b": 2}"#),
            (2, r#"{"a": {"b": 8}, "a.b": "x"}"#),
            (3, r#"{"a": 7, "a.c": {"0": 1}}"#),
        ];
        let told: Vec<_> = summed(&["a", "a.b", "a.c.0", "a.c.1.d", "a.x"], &values)
            .into_iter()
            .map(|it| (it.attribute, it.count, it.minimum, it.maximum))
            .collect();
        let expected = [
            ("a", 1, 7.0, 7.0),
            ("a.b", 2, 1.0, 2.0),
            ("a.c.0", 1, 5.0, 5.0),
            ("a.c.1.d", 1, 6.0, 6.0),
        ];
        assert_eq!(told, expected.map(|(name, count, min, max)| (name.into(), count, min, max)));
    }

    #[test]
    fn buckets_are_counted_from_monday() {
        let monday = BUCKET_ORIGIN.unix_microseconds() / 1_000_000;
        let values = [(monday + 60, r#"{"a":1}"#), (monday - 1, r#"{"a":2}"#), (monday, "{}")];
        let told: Vec<_> = summed(&["a"], &values)
            .iter()
            .map(|it| (it.bucket.unix_microseconds() / 1_000_000 - monday, it.count))
            .collect();
        assert_eq!(told, [(-60, 1), (60, 1)]);
    }

    #[test]
    fn a_mean_does_not_wear_off() {
        let values: Vec<_> = (0..10).map(|_| (0, r#"{"a":0.1}"#)).collect();
        assert_eq!(summed(&["a"], &values)[0].mean, 0.1);
        let values = [(0, r#"{"a":1e299}"#), (0, r#"{"a":1}"#), (0, r#"{"a":-1e299}"#)];
        assert_eq!(summed(&["a"], &values)[0].mean, 1.0 / 3.0);
    }
}
