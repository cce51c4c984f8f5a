//! The database's clock and ours, read at one time. Asked by whatever deletes by age, and once a
//! minute for the metrics. Promises that nothing is deleted by age while the two disagree: one of
//! them is wrong, and nobody knows which.

use std::time::Duration;

use tokio_postgres::Client;

use crate::domain::Timestamp;
use crate::store::columns::timestamp;
use crate::store::pool::ANSWER_TIMEOUT;
use crate::store::{Store, StoreError};

/// NTP keeps clocks within milliseconds. Retention is counted in days, so minutes do not matter to it.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// What both clocks show.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    ours: Timestamp,
    database: Timestamp,
}

impl Clocks {
    pub(in crate::store) async fn read(client: &Client) -> Result<Self, StoreError> {
        let asked_at = Timestamp::now();
        let row = client.query_typed_one("select clock_timestamp()", &[]).await?;
        // Half way, so that a slow answer does not count as a difference.
        let half = Duration::from_secs_f64(Timestamp::now().seconds_since(asked_at) / 2.0);
        Ok(Self { ours: asked_at.saturating_add(half), database: timestamp(&row, 0)? })
    }

    /// By how many seconds the database's clock is ahead of ours; negative where it is behind.
    #[must_use]
    pub fn database_ahead_secs(self) -> f64 {
        self.database.seconds_since(self.ours) - self.ours.seconds_since(self.database)
    }

    /// The earlier of the two, where they agree.
    pub(in crate::store) fn agreed(self) -> Option<Timestamp> {
        let agree = self.database_ahead_secs().abs() <= TOLERANCE.as_secs_f64();
        agree.then(|| self.ours.min(self.database))
    }
}

impl Store {
    /// Both clocks.
    ///
    /// # Errors
    /// When the database is unreachable.
    pub async fn clocks(&self) -> Result<Clocks, StoreError> {
        Self::answered_within(ANSWER_TIMEOUT, async {
            Clocks::read(&**self.connection().await?).await
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_agree_within_minutes_and_the_earlier_one_counts() {
        let at = |secs: i64| Timestamp::from_unix_microseconds(secs * 1_000_000);
        let read = |ours, database| Clocks { ours: at(ours), database: at(database) };
        assert_eq!(read(1_000, 1_299).agreed(), Some(at(1_000)));
        assert_eq!(read(1_299, 1_000).agreed(), Some(at(1_000)));
        assert_eq!(read(1_000, 1_301).agreed(), None);
        assert_eq!(read(1_301, 1_000).agreed(), None);
        assert!((read(1_000, 700).database_ahead_secs() + 300.0).abs() < 1e-6);
    }
}
