//! A page of aggregates from the roll-up: which hours its sums hold for, and which ranges are read from the rows.
//! Called by `aggregates`. Pure but for the rows that it is given.

use std::collections::BTreeSet;

use tokio_postgres::Row;

use crate::domain::Timestamp;
use crate::store::StoreError;
use crate::store::rollup::aggregation::{Aggregation, Sums};
use crate::store::rollup::hours::{SETTLED, hour_begin, hour_of};
use crate::store::rollup::sums::{StoredHours, StoredMonth, valid_hours};

/// Ranges of rows that are read one after the other; more are read as one, whose other rows are ignored.
const MAX_RANGES: usize = 16;

pub(super) type Range = (Timestamp, Timestamp);

/// The state of a page.
pub(super) struct HourPage<'a> {
    of: &'a Aggregation,
    pub(super) sums: Sums<'a>,
    /// The whole hours of the page that are over; the end is exclusive.
    pub(super) hours: (i32, i32),
    /// The end of the page; what is later is not read.
    pub(super) end: Timestamp,
    /// Hours with measurements that are not counted yet.
    pub(super) journalled: BTreeSet<i32>,
    /// To be read from the rows, in any order.
    ranges: Vec<Range>,
    /// Whether the end was moved because there is more.
    is_cut: bool,
}

impl<'a> HourPage<'a> {
    /// The page ends with the present bucket: what is in the future is read from the rows.
    pub(super) fn new(of: &'a Aggregation, now: Timestamp) -> Self {
        let end = of.to.min(of.after(now, 1)).max(of.from);
        let first = hour_of(of.from) + i32::from(hour_begin(hour_of(of.from)) < of.from);
        let settled = hour_of(end.min(now.saturating_sub(SETTLED)));
        let hours = (first, settled.max(first));
        let (sums, journalled) = (Sums::new(of), BTreeSet::new());
        let mut page = Self { of, sums, hours, end, journalled, ranges: Vec::new(), is_cut: false };
        page.read_rows((of.from, hour_begin(first).min(end)));
        page
    }

    /// Days to read, so that there are more buckets than the limit unless those are all.
    pub(super) fn max_days(&self) -> i64 {
        let bucket_days = i64::from(self.of.bucket_secs).div_euclid(86_400);
        (i64::from(self.of.limit) + 1)
            * (bucket_days + if self.of.has_whole_days() { 0 } else { 2 })
    }

    /// Months to read, likewise.
    pub(super) fn max_months(&self) -> i64 {
        let bucket_months = i64::from(self.of.bucket_secs).div_euclid(28 * 86_400) + 1;
        (i64::from(self.of.limit) + 1) * bucket_months
    }

    /// The first days of the months to read; the last may end too late.
    pub(super) fn months(&self) -> (i32, i32) {
        (-(-self.hours.0).div_euclid(24), self.hours.1.div_euclid(24) - 28)
    }

    /// Adds the months in their order: first day, first day of the next month, `sums`. Returns the ranges of days to
    /// read otherwise, in their order; the last is inclusive.
    pub(super) fn add_months(&mut self, months: &[Row]) -> Result<Vec<(i32, i32)>, StoreError> {
        let (mut begin, last) = (self.hours.0.div_euclid(24), (self.hours.1 - 1).div_euclid(24));
        let mut ranges = Vec::new();
        for row in months {
            let (first, next): (i32, i32) = (row.try_get(0)?, row.try_get(1)?);
            let days: &str = row.try_get(2)?;
            let Ok(days) = serde_json::from_str(days) else { continue };
            if next * 24 > self.hours.1 {
                break;
            }
            ranges.push((begin, first - 1));
            ranges.extend(self.add_month(first, &days));
            begin = next;
        }
        if months.len() as i64 == self.max_months() {
            self.cut(hour_begin(begin * 24));
        } else {
            ranges.push((begin, last));
        }
        ranges.retain(|(first, last)| first <= last);
        Ok(ranges)
    }

    /// Returns the days to read otherwise.
    fn add_month(&mut self, first: i32, days: &StoredMonth<'_>) -> Vec<(i32, i32)> {
        let mut others = Vec::new();
        for (number, sums) in days {
            let day = first + number;
            match sums {
                Some(sums) if !self.is_journalled(day) => {
                    self.sums.add_stored(hour_begin(day * 24), sums);
                }
                _ => others.push((day, day)),
            }
        }
        others
    }

    /// Whether measurements of a day are not counted yet.
    fn is_journalled(&self, day: i32) -> bool {
        self.journalled.range(day * 24..day * 24 + 24).next().is_some()
    }

    /// Adds days in their order: `day`, `measurement_counts`, `sums`.
    pub(super) fn add_days(&mut self, days: &[Row]) -> Result<(), tokio_postgres::Error> {
        for row in days {
            let counts: Vec<Option<i32>> = row.try_get(1)?;
            self.add_day(row.try_get(0)?, &counts, row.try_get(2)?);
        }
        Ok(())
    }

    /// Ends the page after a day: later ones were not read.
    pub(super) fn end_after(&mut self, day: &Row) -> Result<(), tokio_postgres::Error> {
        let day: i32 = day.try_get(0)?;
        self.cut(hour_begin((day + 1) * 24));
        Ok(())
    }

    /// Completes the page when all days are added.
    pub(super) fn complete(&mut self) {
        for hour in std::mem::take(&mut self.journalled) {
            if (self.hours.0..self.hours.1).contains(&hour) && hour_begin(hour) < self.end {
                self.sums.mark_not_empty(hour_begin(hour));
                self.read_rows((hour_begin(hour), hour_begin(hour + 1)));
            }
        }
        if let Some(over) = self.sums.first_over_limit() {
            self.cut(over);
        }
        let (begin, end) = (hour_begin(self.hours.1), self.end);
        self.read_rows((begin.max(self.of.from), end));
    }

    fn add_day(&mut self, day: i32, counts: &[Option<i32>], sums: Option<&str>) {
        let stored: StoredHours<'_> =
            sums.and_then(|sums| serde_json::from_str(sums).ok()).unwrap_or_default();
        let begin = hour_begin(day * 24);
        let is_whole = self.of.has_whole_days()
            && self.hours.0 <= day * 24
            && (day + 1) * 24 <= self.hours.1
            && begin < self.end
            && !self.is_journalled(day);
        if let Some(hours) = is_whole.then(|| valid_hours(counts, &stored)).flatten() {
            if !hours.is_empty() {
                self.sums.add_day(begin, &hours);
            }
            return;
        }
        for (count, of_day) in counts.iter().zip(0u8..) {
            let (hour, count) = (day * 24 + i32::from(of_day), count.unwrap_or(0));
            let begin = hour_begin(hour);
            let is_journalled = self.journalled.contains(&hour);
            if count == 0
                || is_journalled
                || !(self.hours.0..self.hours.1).contains(&hour)
                || begin >= self.end
            {
                continue;
            }
            match stored.get(&of_day) {
                Some((of, Some(sums))) if *of == count => self.sums.add_stored(begin, sums),
                _ => {
                    self.sums.mark_not_empty(begin);
                    self.read_rows((begin, hour_begin(hour + 1)));
                }
            }
            if let Some(over) = self.sums.first_over_limit() {
                self.cut(over);
            }
        }
    }

    /// Ends the page earlier, with a whole bucket.
    fn cut(&mut self, at: Timestamp) {
        let at = self.of.floor(at);
        if at < self.end {
            (self.end, self.is_cut) = (at, true);
            self.sums.cut(at);
        }
    }

    fn read_rows(&mut self, (from, to): Range) {
        if from >= to {
            return;
        }
        self.ranges.push((from, to));
    }

    /// The ranges to read, and those whose rows count, in their order and adjacent ones joined.
    pub(super) fn ranges(&self) -> (Vec<Range>, Vec<Range>) {
        let mut ranges: Vec<Range> =
            self.ranges.iter().map(|&(from, to)| (from, to.min(self.end))).collect();
        ranges.retain(|(from, to)| from < to);
        ranges.sort_unstable();
        let mut wanted: Vec<Range> = Vec::new();
        for (from, to) in ranges {
            match wanted.last_mut() {
                Some(last) if last.1 == from => last.1 = to,
                _ => wanted.push((from, to)),
            }
        }
        match &wanted[..] {
            [first, .., last] if wanted.len() > MAX_RANGES => (vec![(first.0, last.1)], wanted),
            _ => (wanted.clone(), wanted),
        }
    }

    /// The beginning of the next page, unless this is the last.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.sums.first_over_limit().or_else(|| self.is_cut.then_some(self.end))
    }
}

/// Whether a timestamp is in one of the sorted ranges.
pub(super) fn is_in(ranges: &[Range], timestamp: Timestamp) -> bool {
    let after = ranges.partition_point(|(from, _)| *from <= timestamp);
    after.checked_sub(1).is_some_and(|at| timestamp < ranges[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i32 = 20_000;

    fn hour(hour: i32) -> Timestamp {
        hour_begin(DAY * 24 + hour)
    }

    fn aggregation(from: Timestamp, to: Timestamp, limit: u32) -> Aggregation {
        Aggregation { from, to, bucket_secs: 3_600, attributes: vec!["a".into()], limit }
    }

    fn late(from: Timestamp, minutes: u64) -> Timestamp {
        from.saturating_add(std::time::Duration::from_secs(60 * minutes))
    }

    #[test]
    fn partial_hours_and_hours_without_valid_sums_are_read_from_the_rows() {
        let of = aggregation(late(hour(1), 30), late(hour(9), 5), 100);
        let mut page = HourPage::new(&of, late(hour(9), 5));
        let sums = r#"{"2":[1,{"a":[1,5.0,5.0,5.0]}],"3":[1,{}],"4":[7,null],"6":[1,{}]}"#;
        page.add_day(
            DAY,
            &[Some(1), Some(1), Some(1), Some(2), Some(7), None, Some(1)],
            Some(sums),
        );
        page.complete();
        let expected = vec![
            (late(hour(1), 30), hour(2)),
            (hour(3), hour(5)),
            // Not settled: the hour is over for five minutes.
            (hour(8), late(hour(9), 5)),
        ];
        assert_eq!(page.ranges(), (expected.clone(), expected));
        let rows = page.sums.finish();
        assert_eq!((rows.len(), rows[0].bucket, rows[0].maximum), (1, hour(2), 5.0));
    }

    #[test]
    fn a_page_ends_with_its_last_bucket() {
        let of = aggregation(hour(0), hour(24), 2);
        let mut page = HourPage::new(&of, hour(100));
        page.add_day(DAY, &[Some(1), None, Some(1), Some(1), Some(1)], None);
        page.complete();
        assert_eq!(page.next(), Some(hour(3)));
        assert_eq!(page.ranges().0, [(hour(0), hour(1)), (hour(2), hour(3))]);
    }

    #[test]
    fn an_hour_in_the_journal_is_read_from_the_rows() {
        let of = aggregation(hour(0), hour(9), 100);
        let mut page = HourPage::new(&of, hour(100));
        page.journalled.extend([DAY * 24 + 1, DAY * 24 + 5, DAY * 24 + 20]);
        let sums = r#"{"0":[1,{"a":[1,5.0,5.0,5.0]}],"1":[1,{"a":[1,5.0,5.0,5.0]}]}"#;
        page.add_day(DAY, &[Some(1), Some(1)], Some(sums));
        page.complete();
        assert_eq!(page.ranges().1, [(hour(1), hour(2)), (hour(5), hour(6))]);
        assert_eq!(page.sums.finish().len(), 1);
    }

    #[test]
    fn a_day_of_a_month_is_read_by_hour_if_it_must_be() {
        let of = Aggregation { bucket_secs: 86_400, ..aggregation(hour(0), hour(96), 100) };
        let mut page = HourPage::new(&of, hour(200));
        page.journalled.insert((DAY + 2) * 24 + 23);
        let month = r#"{"0":{"a":[1,5.0,5.0,5.0]},"1":null,"2":{"a":[1,6.0,6.0,6.0]}}"#;
        let others = page.add_month(DAY, &serde_json::from_str(month).unwrap());
        assert_eq!(others, [(DAY + 1, DAY + 1), (DAY + 2, DAY + 2)]);
        page.complete();
        assert_eq!(page.ranges().1, [(hour(71), hour(72))]);
        assert_eq!(page.sums.finish().len(), 1);
    }

    #[test]
    fn many_ranges_are_read_as_one() {
        let of = aggregation(hour(0), hour(72), 100);
        let mut page = HourPage::new(&of, hour(100));
        for day in 0..3 {
            let counts = [0; 24].map(|_| None::<i32>);
            let counts: Vec<_> =
                counts.iter().enumerate().map(|(at, _)| Some(at as i32 % 2)).collect();
            page.add_day(DAY + day, &counts, None);
        }
        page.complete();
        let (read, wanted) = page.ranges();
        assert_eq!((read, wanted.len()), (vec![(hour(1), hour(72))], 36));
        assert!(
            is_in(&wanted, late(hour(1), 59))
                && !is_in(&wanted, hour(2))
                && !is_in(&wanted, hour(0))
        );
    }
}
