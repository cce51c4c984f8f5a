//! The database's clock and ours, read at the same moment. Used by everything that deletes by age, and
//! once a minute by the metrics. While the two disagree there is no [`Clocks::agreed`] time, so nothing
//! is deleted by age: one of them is wrong, and it is not known which.

use std::time::Duration;

use tokio_postgres::Client;

use crate::domain::Timestamp;
use crate::store::pool::BACKGROUND_TIMEOUT;
use crate::store::{Store, StoreError};

/// NTP keeps clocks within milliseconds. Retention is counted in days, so minutes do not matter.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// The times of both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    ours: Timestamp,
    database: Timestamp,
}

impl Clocks {
    pub(in crate::store) async fn read(client: &Client) -> Result<Self, StoreError> {
        let sent_at = Timestamp::now();
        let row = client.query_typed_one("select clock_timestamp()", &[]).await?;
        // The middle of the round trip, so that a slow answer does not count as a difference.
        let half = Duration::from_secs_f64(Timestamp::now().seconds_since(sent_at) / 2.0);
        Ok(Self { ours: sent_at.saturating_add(half), database: row.try_get(0)? })
    }

    /// How many seconds the database's clock is ahead of ours; negative if it is behind.
    pub fn database_ahead_secs(self) -> f64 {
        self.database.seconds_since(self.ours) - self.ours.seconds_since(self.database)
    }

    /// The earlier of the two, if they agree.
    pub(in crate::store) fn agreed(self) -> Option<Timestamp> {
        let agree = self.database_ahead_secs().abs() <= TOLERANCE.as_secs_f64();
        agree.then(|| self.ours.min(self.database))
    }
}

impl Store {
    /// Reads both clocks.
    pub async fn clocks(&self) -> Result<Clocks, StoreError> {
        Self::answered_within(BACKGROUND_TIMEOUT, async {
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
