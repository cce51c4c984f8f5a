//! Sums up the days of each sensor's month that is over, and again when one of them has changed: table `sensor_month`.
//! Called in the background by `recount`, when all hours are summed up. Bounded, and continued after a crash.
//!
//! Invariant: the sums of a month hold while it has no `recount_at`. Triggers of `sensor_hour` set it, or delete the
//! month, in the transaction that changes a day.

use futures_util::future::try_join_all;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::lock::{LOCK, ROLLUP_LOCK};
use super::recount::{RECOUNT_TIMEOUT, STATEMENT_TIMEOUT};
use super::sums::{StoredHours, StoredMonth, day_sums, valid_hours};
use crate::domain::Timestamp;
use crate::store::columns::Parameters;
use crate::store::{Store, StoreError};

/// Months of one transaction: at most 31 days each. A fold of late items waits for it.
const MAX_MONTHS: i64 = 16;

/// Sensors that get a row for a month in one transaction. A fold waits for it.
const MAX_SENSORS: i64 = 500;

/// Locked before their days are read: a transaction that changes a day meanwhile waits, and then ends the sums.
/// Parameters: now, number.
const DUE: &str = "\
select sensor_identifier, month - date '1970-01-01', (month + interval '1 month')::date - date '1970-01-01'
from sensor_month where recount_at <= $1
order by recount_at limit $2 for update skip locked";

/// Parameters: sensor, first day, first day of the next month.
const DAYS: &str = "\
select day - date '1970-01-01' - $2, measurement_counts, sums::text, recount_at is not null
from sensor_hour
where sensor_identifier = $1
  and day >= date '1970-01-01' + $2 and day < date '1970-01-01' + $3";

/// Hours of the month are not summed up yet. Parameters: sensor, first day.
const POSTPONE: &str = "\
update sensor_month set recount_at = now() + interval '1 hour'
where sensor_identifier = $1 and month = date '1970-01-01' + $2";

const DELETE: &str = "\
delete from sensor_month where sensor_identifier = $1 and month = date '1970-01-01' + $2";

/// Parameters: sensor, first day, sums.
const STORE: &str = "\
update sensor_month set sums = $3::text::json, recount_at = null
where sensor_identifier = $1 and month = date '1970-01-01' + $2";

/// The month whose sensors get a row next, if it ended more than three days ago: most late items have arrived by then;
/// and the last sensor that got one. None ever is on Citus, which refuses [`INSERT_NEXT`].
const NEXT: &str = "\
select month - date '1970-01-01', last_sensor from sensor_month_progress
where month < date_trunc('month', (now() at time zone 'utc') - interval '3 days')";

/// Inserts the rows of some sensors for this month. Parameters: first day, the last sensor that has one, number of
/// sensors.
const INSERT_NEXT: &str = "\
with next as (
    select date '1970-01-01' + $1 as month
), part as (
    select identifier from sensor where identifier > $2 order by identifier limit $3
), added as (
    insert into sensor_month (sensor_identifier, month, recount_at)
    select identifier, month, now() from part cross join next
    where exists (
        select from sensor_hour
        where sensor_identifier = identifier and day >= month and day < month + interval '1 month'
    )
    on conflict do nothing
), last as (
    select identifier from part order by identifier desc limit 1
)
update sensor_month_progress
set month = case when exists (select from last) then month else month + interval '1 month' end,
    last_sensor = coalesce((select identifier from last), '00000000-0000-0000-0000-000000000000')
where month = (select month from next) and last_sensor = $2";

impl Store {
    /// Sums up some of the months that are due, in one transaction. Returns whether none was left.
    pub async fn recount_months(&self, now: Timestamp) -> Result<bool, StoreError> {
        Self::answered_within(RECOUNT_TIMEOUT, async {
            let mut connection = self.connection().await?;
            let transaction = connection.transaction().await?;
            transaction.batch_execute(STATEMENT_TIMEOUT).await?;
            let parameters: Parameters<'_> =
                &[(&now, Type::TIMESTAMPTZ), (&MAX_MONTHS, Type::INT8)];
            let due = transaction.query_typed(DUE, parameters).await?;
            let done = if !due.is_empty() {
                try_join_all(due.iter().map(|row| recount(transaction.client(), row))).await?;
                false
            } else if let Some(next) = transaction.query_typed_opt(NEXT, &[]).await? {
                let (month, last_sensor): (i32, Uuid) = (next.try_get(0)?, next.try_get(1)?);
                transaction.query_typed(LOCK, &[(&ROLLUP_LOCK, Type::INT8)]).await?;
                let parameters: Parameters<'_> =
                    &[(&month, Type::INT4), (&last_sensor, Type::UUID), (&MAX_SENSORS, Type::INT8)];
                transaction.execute_typed(INSERT_NEXT, parameters).await? == 0
            } else {
                true
            };
            transaction.commit().await?;
            Ok(done)
        })
        .await
    }
}

async fn recount(client: &Client, due: &Row) -> Result<(), StoreError> {
    let (sensor, first, end): (Uuid, i32, i32) =
        (due.try_get(0)?, due.try_get(1)?, due.try_get(2)?);
    let days: Parameters<'_> = &[(&sensor, Type::UUID), (&first, Type::INT4), (&end, Type::INT4)];
    let days = client.query_typed(DAYS, days).await?;
    let month: Parameters<'_> = &[(&sensor, Type::UUID), (&first, Type::INT4)];
    if days.is_empty() {
        client.execute_typed(DELETE, month).await?;
        return Ok(());
    }
    let mut sums = StoredMonth::new();
    for day in &days {
        if day.try_get(3)? {
            client.execute_typed(POSTPONE, month).await?;
            return Ok(());
        }
        let (number, counts): (i32, Vec<Option<i32>>) = (day.try_get(0)?, day.try_get(1)?);
        if counts.iter().any(|count| count.is_some_and(|count| count > 0)) {
            let hours: Option<&str> = day.try_get(2)?;
            let hours: StoredHours<'_> =
                hours.and_then(|hours| serde_json::from_str(hours).ok()).unwrap_or_default();
            let of_day = valid_hours(&counts, &hours).and_then(|hours| day_sums(&hours));
            sums.insert(number, of_day);
        }
    }
    let sums = serde_json::to_string(&sums).expect("finite numbers under names are JSON");
    let parameters: Parameters<'_> =
        &[(&sensor, Type::UUID), (&first, Type::INT4), (&sums, Type::TEXT)];
    client.execute_typed(STORE, parameters).await?;
    Ok(())
}
