//! What a rebuild counts at a time, and which hours it must not lower. Called by `rebuild`, once in each transaction.
//! What the database records of deletions by age counts as much as the retention set now.

use std::time::Duration;

use tokio_postgres::Transaction;

use super::hours::hour_of;
use crate::domain::{Kind, Timestamp};
use crate::store::StoreError;

/// The range is counted in parts of eight weeks, the newest first, because a transaction holds its hours in memory.
const PART_HOURS: i32 = 56 * 24;

/// What was created before 2015 is one part: mostly of sensors without a clock, in a few hours of 1970.
const FIRST_PART: i32 = 394_464;

/// The first hour of each table whose rows were not deleted by their age. The lock lets the housekeeping delete no more
/// until this transaction ends; if it did since our snapshot, PostgreSQL refuses, and we begin again.
const DELETED: &str = "\
select table_name, ceil(extract(epoch from limit_timestamp) / 3600)::integer
from retention_limit for share";

/// The hours whose rows may have been deleted by their age.
pub(super) struct DroppedHours {
    /// By kind.
    pub(super) before: [i32; Kind::ALL.len()],
    /// Later ones are of sensors whose clock is wrong; such rows are deleted by the time of their receipt.
    pub(super) present: i32,
}

impl DroppedHours {
    pub(super) const fn contains(&self, kind: Kind, hour: i32) -> bool {
        hour < self.before[kind as usize] || hour > self.present
    }

    pub(super) async fn read(
        transaction: &Transaction<'_>,
        retention_days: [Option<u32>; Kind::ALL.len()],
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let mut before = retention_days.map(|days| {
            let length = days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
            // Of the hour in which the retention begins, some rows have expired.
            length.map_or(i32::MIN, |length| hour_of(now.saturating_sub(length)) + 1)
        });
        for row in transaction.query_typed(DELETED, &[]).await? {
            let (name, deleted): (&str, i32) = (row.try_get(0)?, row.try_get(1)?);
            if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name) {
                before[kind as usize] = before[kind as usize].max(deleted);
            }
        }
        Ok(Self { before, present: hour_of(now) })
    }
}

/// The first hour of the newest part of a range.
pub(super) fn part((from, to): (i32, i32), present: i32) -> i32 {
    let begin = to.min(present + 1) - PART_HOURS;
    if begin < FIRST_PART { from } else { begin.max(from) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_counted_in_parts_from_its_end() {
        const PRESENT: i32 = 500_000;
        let parts = |from, mut to| {
            let mut begins = Vec::new();
            while from < to {
                to = part((from, to), PRESENT);
                begins.push(to);
            }
            begins
        };
        let newest = PRESENT + 1 - PART_HOURS;
        assert_eq!(parts(newest - 5, i32::MAX), [newest, newest - 5]);
        assert_eq!(parts(PRESENT - 3, PRESENT), [PRESENT - 3]);
        assert_eq!(parts(PRESENT + 9, PRESENT + 20), [PRESENT + 9]);
        let all = parts(0, i32::MAX);
        assert_eq!(all.len(), 79, "{all:?}");
        assert!(all[all.len() - 2] >= FIRST_PART);
    }
}
