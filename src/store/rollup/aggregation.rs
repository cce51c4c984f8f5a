//! Sums up the numbers of a sensor's measurements by time bucket. Called by `aggregates`, in any order, row by row or
//! hour by hour. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::sums::{StoredSums, Sum, at_path, each_number, number};
use crate::domain::Timestamp;

/// A Monday, so that buckets of a week begin on Mondays.
const BUCKET_ORIGIN: Timestamp = Timestamp::from_unix_microseconds(4 * 86_400_000_000);

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
    /// The maximum number of buckets, at least 1.
    pub limit: u32,
}

impl Aggregation {
    /// Whether each day is in one bucket.
    pub(in crate::store) const fn has_whole_days(&self) -> bool {
        self.bucket_secs.is_multiple_of(86_400)
    }

    fn length(&self) -> i64 {
        i64::from(self.bucket_secs) * 1_000_000
    }

    /// The number of the bucket that contains a timestamp.
    fn bucket(&self, timestamp: Timestamp) -> i64 {
        let since = timestamp.unix_microseconds() - BUCKET_ORIGIN.unix_microseconds();
        since.div_euclid(self.length())
    }

    fn begin(&self, bucket: i64) -> Timestamp {
        let since = bucket.saturating_mul(self.length());
        Timestamp::from_unix_microseconds(since.saturating_add(BUCKET_ORIGIN.unix_microseconds()))
    }

    /// The beginning of the bucket that contains a timestamp.
    pub(in crate::store) fn floor(&self, timestamp: Timestamp) -> Timestamp {
        self.begin(self.bucket(timestamp))
    }

    /// The beginning of the bucket this many after the one that contains a timestamp.
    pub(in crate::store) fn after(&self, timestamp: Timestamp, buckets: u32) -> Timestamp {
        self.begin(self.bucket(timestamp).saturating_add(buckets.into()))
    }

    /// The timestamp this many buckets before another.
    pub fn before(to: Timestamp, bucket_secs: u32, buckets: u32) -> Timestamp {
        to.saturating_sub(Duration::from_secs(u64::from(bucket_secs) * u64::from(buckets)))
    }
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
    of: &'a Aggregation,
    buckets: BTreeMap<i64, Vec<Sum>>,
}

impl<'a> Sums<'a> {
    pub(in crate::store) const fn new(of: &'a Aggregation) -> Self {
        Self { of, buckets: BTreeMap::new() }
    }

    fn bucket(&mut self, timestamp: Timestamp) -> &mut Vec<Sum> {
        let bucket = self.buckets.entry(self.of.bucket(timestamp));
        bucket.or_insert_with(|| vec![Sum::default(); self.of.attributes.len()])
    }

    /// Adds the numbers of a value, which is a JSON object.
    pub(in crate::store) fn add(&mut self, created: Timestamp, value: &str) {
        let attributes = &self.of.attributes;
        let sums = self.bucket(created);
        for (index, attribute) in attributes.iter().enumerate().filter(|(_, it)| it.contains('.')) {
            if let Some(number) = at_path(value, attribute).and_then(|it| number(it.get())) {
                sums[index].add(number);
            }
        }
        // A name with a dot is looked up by itself: it may be a path.
        each_number(value, |name, number| {
            let mut wanted = attributes.iter().zip(sums.iter_mut());
            if let Some((_, sum)) = wanted.find(|(it, _)| *it == name && !it.contains('.')) {
                sum.add(number);
            }
        });
    }

    /// Adds what was summed up of an hour or day.
    pub(in crate::store) fn add_stored(&mut self, begin: Timestamp, stored: &StoredSums<'_>) {
        let attributes = &self.of.attributes;
        let sums = self.bucket(begin);
        for (attribute, sum) in attributes.iter().zip(sums) {
            if let Some(stored) = stored.get(attribute.as_str()) {
                sum.merge(*stored);
            }
        }
    }

    /// Adds what was summed up of the hours of a day: first to each other, as in the row of its month, so that the
    /// answer does not depend on which of them is read.
    pub(in crate::store) fn add_day(&mut self, begin: Timestamp, hours: &[&StoredSums<'_>]) {
        let attributes = &self.of.attributes;
        for (attribute, sum) in attributes.iter().zip(self.bucket(begin)) {
            let mut of_day = Sum::default();
            for of_hour in hours.iter().filter_map(|hour| hour.get(attribute.as_str())) {
                of_day.merge(*of_hour);
            }
            if of_day.count > 0 {
                sum.merge(of_day.stored());
            }
        }
    }

    /// Removes the buckets from this one on.
    pub(in crate::store) fn cut(&mut self, at: Timestamp) {
        self.buckets.split_off(&self.of.bucket(at));
    }

    /// Notes that the bucket of a timestamp is not empty.
    pub(in crate::store) fn mark_not_empty(&mut self, timestamp: Timestamp) {
        self.bucket(timestamp);
    }

    /// The beginning of the bucket after the last allowed one, if there are more.
    pub(in crate::store) fn first_over_limit(&self) -> Option<Timestamp> {
        self.buckets.keys().nth(self.of.limit as usize).map(|bucket| self.of.begin(*bucket))
    }

    /// By bucket, then in the order of the attributes; attributes without a number are omitted, and so are buckets
    /// over the limit.
    pub(in crate::store) fn finish(self) -> Vec<Aggregate> {
        let mut aggregates = Vec::new();
        for (bucket, sums) in self.buckets.iter().take(self.of.limit as usize) {
            for (attribute, sum) in self.of.attributes.iter().zip(sums) {
                if sum.count > 0 {
                    aggregates.push(Aggregate {
                        bucket: self.of.begin(*bucket),
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

#[cfg(test)]
mod tests {
    use super::super::sums::{HourSums, day_sums};
    use super::*;

    fn summed(attributes: &[&str], values: &[(i64, &str)]) -> Vec<Aggregate> {
        let aggregation = Aggregation {
            from: Timestamp::default(),
            to: Timestamp::default(),
            bucket_secs: 60,
            attributes: attributes.iter().map(ToString::to_string).collect(),
            limit: 1_000,
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
        let found: Vec<_> = summed(&["a", "b"], &values)
            .into_iter()
            .map(|it| (it.attribute, it.count, it.minimum, it.mean, it.maximum))
            .collect();
        assert_eq!(found, [("a".into(), 2, -2.5, -0.75, 1.0), ("b".into(), 1, 7.0, 7.0, 7.0)]);
    }

    #[test]
    fn a_path_leads_to_a_nested_number_and_a_key_with_a_dot_comes_first() {
        let values = [
            (0, r#"{"a": {"b": 1, "c": [5, {"d": 6}]}}"#),
            (1, r#"{"a": {"b": 3}, "a.b": 2}"#),
            (2, r#"{"a": {"b": 8}, "a.b": "x"}"#),
            (3, r#"{"a": 7, "a.c": {"0": 1}}"#),
        ];
        let found: Vec<_> = summed(&["a", "a.b", "a.c.0", "a.c.1.d", "a.x"], &values)
            .into_iter()
            .map(|it| (it.attribute, it.count, it.minimum, it.maximum))
            .collect();
        let expected = [
            ("a", 1, 7.0, 7.0),
            ("a.b", 2, 1.0, 2.0),
            ("a.c.0", 1, 5.0, 5.0),
            ("a.c.1.d", 1, 6.0, 6.0),
        ];
        assert_eq!(found, expected.map(|(name, count, min, max)| (name.into(), count, min, max)));
    }

    #[test]
    fn a_week_begins_on_monday_and_a_day_at_midnight() {
        let at = |text: &str| Timestamp::from(text.parse::<jiff::Timestamp>().unwrap());
        let floor = |bucket_secs, text| {
            let (from, attributes) = (Timestamp::default(), Vec::new());
            Aggregation { from, to: from, bucket_secs, attributes, limit: 1 }.floor(at(text))
        };
        assert_eq!(floor(7 * 86_400, "2026-11-24T12:00:00Z"), at("2026-11-23T00:00:00Z"));
        assert_eq!(floor(86_400, "2026-11-24T12:00:00Z"), at("2026-11-24T00:00:00Z"));
        assert_eq!(floor(86_400, "1970-01-01T12:00:00Z"), at("1970-01-01T00:00:00Z"));
        assert_eq!(floor(1, "2026-11-24T12:00:00.9Z"), at("2026-11-24T12:00:00Z"));
    }

    #[test]
    fn a_week_is_the_same_from_the_hours_and_from_the_days_of_its_months() {
        let (from, attributes) = (Timestamp::default(), vec!["a".into()]);
        let aggregation =
            Aggregation { from, to: from, bucket_secs: 7 * 86_400, attributes, limit: 1 };
        let (mut by_hour, mut by_day) = (Sums::new(&aggregation), Sums::new(&aggregation));
        for day in 4..11 {
            let hours = [0.1, 1e16, 0.3, -1e16, 1e-9].map(|number| {
                let mut of_hour = HourSums::default();
                of_hour.add(&format!(r#"{{"a":{}}}"#, number * f64::from(day)));
                of_hour.stored().unwrap()
            });
            let begin = Timestamp::from_unix_microseconds(i64::from(day) * 86_400_000_000);
            by_hour.add_day(begin, &hours.each_ref()[..]);
            by_day.add_stored(begin, &day_sums(&hours.each_ref()[..]).unwrap());
        }
        let (by_hour, by_day) = (by_hour.finish(), by_day.finish());
        assert_eq!((by_hour.len(), by_hour), (1, by_day));
    }

    #[test]
    fn a_mean_has_no_rounding_error() {
        let values: Vec<_> = (0..10).map(|_| (0, r#"{"a":0.1}"#)).collect();
        assert_eq!(summed(&["a"], &values)[0].mean, 0.1);
        let values = [(0, r#"{"a":1e299}"#), (0, r#"{"a":1}"#), (0, r#"{"a":-1e299}"#)];
        assert_eq!(summed(&["a"], &values)[0].mean, 1.0 / 3.0);
    }
}
