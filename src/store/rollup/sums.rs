//! The sum of numbers, and the sums of all attributes of an hour as the roll-up stores them. Called by `recount` and
//! `aggregation`, value by value in any order. Pure. The rounding error does not grow with the number of rows; values
//! that are not numbers, or too large for a double, are ignored.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Numbers of this size or larger could overflow a sum.
const TOO_LARGE: f64 = 1e300;

/// The attributes of an hour as the roll-up stores them: count, minimum, sum and maximum.
pub(in crate::store) type StoredSums<'a> = BTreeMap<Cow<'a, str>, (i64, f64, f64, f64)>;

/// The hours of a day that were summed up: the number of measurements, and their sums unless there are too many.
pub(in crate::store) type StoredHours<'a> = BTreeMap<u8, (i32, Option<StoredSums<'a>>)>;

/// The days of a month with measurements, from 0: their sums, unless they are to be read by hour.
pub(in crate::store) type StoredMonth<'a> = BTreeMap<i32, Option<StoredSums<'a>>>;

/// Attributes of an hour in the roll-up. A sensor with more puts data into their names; its hours are read from the
/// rows.
const MAX_HOUR_ATTRIBUTES: usize = 128;

/// The sums of all attributes of one hour.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct HourSums {
    pub(in crate::store) row_count: i32,
    attributes: BTreeMap<String, Sum>,
}

impl HourSums {
    /// Adds the numbers of a value, which is a JSON object.
    pub(in crate::store) fn add(&mut self, value: &str) {
        self.row_count += 1;
        each_number(value, |name, number| {
            if let Some(sum) = self.attributes.get_mut(name) {
                sum.add(number);
            } else if self.attributes.len() <= MAX_HOUR_ATTRIBUTES {
                let mut sum = Sum::default();
                sum.add(number);
                self.attributes.insert(name.to_owned(), sum);
            }
        });
    }

    /// As the roll-up stores them.
    pub(in crate::store) fn stored(&self) -> Option<StoredSums<'static>> {
        stored(&self.attributes)
    }
}

fn stored<N: AsRef<str>>(sums: &BTreeMap<N, Sum>) -> Option<StoredSums<'static>> {
    let stored = |(name, sum): (&N, &Sum)| (Cow::Owned(name.as_ref().to_owned()), sum.stored());
    (sums.len() <= MAX_HOUR_ATTRIBUTES).then(|| sums.iter().map(stored).collect())
}

/// The hours of a day that have measurements, unless the sums of one of them do not hold.
pub(in crate::store) fn valid_hours<'a, 'b>(
    counts: &[Option<i32>],
    stored: &'b StoredHours<'a>,
) -> Option<Vec<&'b StoredSums<'a>>> {
    let counts = counts.iter().map(|count| count.unwrap_or(0)).zip(0u8..);
    let valid = |(count, hour): (i32, u8)| match stored.get(&hour) {
        Some((of, Some(sums))) if *of == count => Some(sums),
        _ => None,
    };
    counts.filter(|(count, _)| *count > 0).map(valid).collect()
}

/// The sums of a day from those of its hours, unless it has too many attributes.
pub(super) fn day_sums(hours: &[&StoredSums<'_>]) -> Option<StoredSums<'static>> {
    let mut sums = BTreeMap::<&str, Sum>::new();
    for (name, of_hour) in hours.iter().copied().flatten() {
        sums.entry(name).or_default().merge(*of_hour);
    }
    stored(&sums)
}

/// The sum of one attribute in one bucket.
#[derive(Clone, Debug)]
pub(super) struct Sum {
    pub(super) count: i64,
    pub(super) minimum: f64,
    pub(super) maximum: f64,
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
    pub(super) fn add(&mut self, number: f64) {
        self.count += 1;
        self.minimum = self.minimum.min(number);
        self.maximum = self.maximum.max(number);
        self.add_to_total(number);
    }

    /// Adds what was summed up before.
    pub(super) fn merge(&mut self, (count, minimum, total, maximum): (i64, f64, f64, f64)) {
        self.count += count;
        self.minimum = self.minimum.min(minimum);
        self.maximum = self.maximum.max(maximum);
        self.add_to_total(total);
    }

    fn add_to_total(&mut self, number: f64) {
        let total = self.total + number;
        self.lost += if self.total.abs() >= number.abs() {
            (self.total - total) + number
        } else {
            (number - total) + self.total
        };
        self.total = total;
    }

    fn total(&self) -> f64 {
        self.total + self.lost
    }

    pub(super) fn stored(&self) -> (i64, f64, f64, f64) {
        (self.count, self.minimum, self.total(), self.maximum)
    }

    pub(super) fn mean(&self) -> f64 {
        self.total() / self.count as f64
    }
}

/// Passes the numbers among the members of a value to `each`.
pub(super) fn each_number(value: &str, each: impl FnMut(&str, f64)) {
    let mut json = serde_json::Deserializer::from_str(value);
    if let Err(error) = json.deserialize_map(NumberVisitor(each)) {
        // Inserted by other means than the service, which stores only objects.
        tracing::debug!(column = error.column(), "value ignored: it is not a JSON object");
    }
}

struct NumberVisitor<F>(F);

impl<'de, F: FnMut(&str, f64)> Visitor<'de> for NumberVisitor<F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(MemberName(name)) = map.next_key()? {
            if let Some(number) = number(map.next_value::<&RawValue>()?.get()) {
                (self.0)(&name, number);
            }
        }
        Ok(())
    }
}

/// A name, borrowed unless it has an escape.
#[derive(serde::Deserialize)]
struct MemberName<'a>(#[serde(borrow)] Cow<'a, str>);

/// The member with this key as it stands, else at the path of keys and indices between its dots.
pub(super) fn at_path<'a>(value: &'a str, attribute: &str) -> Option<&'a RawValue> {
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
pub(super) fn number(json: &str) -> Option<f64> {
    let is_number = json.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let number: f64 = is_number.then(|| json.parse().ok()).flatten()?;
    (number.abs() < TOO_LARGE).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_with_too_many_attributes_is_not_stored() {
        let mut sums = HourSums::default();
        for number in 0..=MAX_HOUR_ATTRIBUTES {
            sums.add(&format!(r#"{{"a{number}": 1}}"#));
        }
        assert_eq!((sums.row_count, sums.stored()), (129, None));
    }
}
