//! The sums per day of a month: they are read instead of the hours, until a row of that month changes.

use super::*;
use crate::support::postgres::skipped_on;

const DAY_SECS: u32 = 86_400;

/// The first second of last month.
async fn last_month(fixture: &Fixture) -> i64 {
    let first =
        "select extract(epoch from date_trunc('month', now(), 'UTC') - interval '1 month')::bigint";
    count(&fixture.database, first).await
}

/// A sensor with rows on five days of last month and today, all of them summed up.
async fn with_monthly_sums() -> (Fixture, SensorIdentifier, i64) {
    let fixture = Fixture::new().await;
    let (sensor, begin) = (fixture.sensor().await, last_month(&fixture).await);
    let items: Vec<_> = (0..5)
        .flat_map(|day| [0, 5, 23].map(|hour| (begin + (day * 24 + hour) * HOUR_SECS, day + hour)))
        .chain([(Timestamp::now().unix_seconds() as i64, 7)])
        .collect();
    fixture.commit(sensor, &items).await;
    fixture.fold().await;
    fixture.recount().await;
    fixture.recount_months().await;
    (fixture, sensor, begin)
}

fn without_months() -> bool {
    skipped_on(&[EngineName::Citus], "it has no monthly sums")
}

async fn months(fixture: &Fixture, condition: &str) -> i64 {
    let months = format!("select count(*) from sensor_month where {condition}");
    count(&fixture.database, &months).await
}

#[actix_rt::test]
async fn monthly_sums_are_read_until_one_of_their_days_changes() {
    if without_months() {
        return;
    }
    let (fixture, sensor, begin) = with_monthly_sums().await;
    assert_eq!(months(&fixture, "recount_at is null").await, 1);
    fixture.assert_aggregates(sensor, "summed up").await;
    // The changed sum shows whether the aggregates come from the month.
    let assert_month_is_read = async || {
        fixture
            .execute("update sensor_month set sums = replace(sums::text, '27.0]', '77.0]')::json")
            .await;
        let days = fixture.aggregates(sensor, DAY_SECS).await;
        assert_eq!((days.rows.len(), days.rows[4].maximum), (6, 77.0));
    };
    assert_month_is_read().await;
    assert_eq!(fixture.aggregates(sensor, 3_600).await.rows[14].maximum, 27.0, "from the hours");

    fixture.commit(sensor, &[(begin + 4 * 24 * HOUR_SECS + 1, 3)]).await;
    fixture.assert_aggregates(sensor, "the journal contains a late item").await;
    fixture.fold().await;
    fixture.assert_aggregates(sensor, "the monthly sums are outdated").await;
    fixture.recount_months().await;
    assert_eq!(months(&fixture, "recount_at is null").await, 0, "the sums of an hour are outdated");
    fixture.recount().await;
    fixture.execute("update sensor_month set recount_at = now()").await;
    fixture.recount_months().await;
    assert_month_is_read().await;
    fixture.rebuild(begin, begin + HOUR_SECS).await;
    fixture.assert_aggregates(sensor, "rebuilt").await;

    fixture.store.delete_sensor(sensor).await.unwrap();
    assert_eq!(months(&fixture, "true").await, 0);
}

#[actix_rt::test]
async fn a_day_with_an_hour_without_sums_is_read_by_hour() {
    if without_months() {
        return;
    }
    let (fixture, sensor, _) = with_monthly_sums().await;
    fixture
        .execute("update sensor_hour set sums = sums - '5' where sums->'5'->1->'n'->>1 = '7.0'")
        .await;
    fixture.recount_months().await;
    assert_eq!(months(&fixture, r#"recount_at is null and sums::text like '%"2":null%'"#).await, 1);
    fixture.assert_aggregates(sensor, "one day is not in the month").await;
}

#[actix_rt::test]
async fn pages_of_days_are_equal_with_and_without_monthly_sums() {
    if without_months() {
        return;
    }
    let (fixture, sensor, begin) = with_monthly_sums().await;
    // The first day is partial.
    let first = Timestamp::from_unix_microseconds((begin + HOUR_SECS) * 1_000_000);
    let pages = async || {
        let (mut from, mut pages) = (Some(first), Vec::new());
        while let Some(begin) = from {
            let aggregation = Aggregation {
                from: begin,
                to: Timestamp::now(),
                bucket_secs: DAY_SECS,
                attributes: vec!["n".into()],
                limit: 2,
            };
            let page =
                fixture.store.aggregate_measurements(sensor, &aggregation).await.unwrap().unwrap();
            from = page.next;
            pages.push(page.rows);
        }
        pages
    };
    let with_months = pages().await;
    assert_eq!(with_months.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 2]);
    fixture.execute("delete from sensor_month").await;
    assert_eq!(pages().await, with_months);
}

#[actix_rt::test]
async fn a_past_month_is_summed_up_for_each_sensor_with_rows_in_it() {
    if without_months() {
        return;
    }
    let (mut fixture, sensor, begin) = with_monthly_sums().await;
    let without_rows = fixture.sensor().await;
    fixture
        .execute(&format!(
            "delete from sensor_month;
             update sensor_month_progress set month = (to_timestamp({begin}) at time zone 'utc')::date - interval '1 month'"
        ))
        .await;
    fixture.recount_months().await;
    let is_past = "date_trunc('month', (now() at time zone 'utc') - interval '3 days') > month";
    let (expected, all) = (
        months(&fixture, &format!("recount_at is null and {is_past}")).await,
        months(&fixture, "true").await,
    );
    assert_eq!(expected, all);
    let day =
        count(&fixture.database, "select extract(day from now() at time zone 'utc')::bigint").await;
    assert_eq!(all, i64::from(day > 3), "three days after its end");
    assert_eq!(months(&fixture, &format!("sensor_identifier = '{without_rows}'")).await, 0);
    fixture.assert_aggregates(sensor, "summed up").await;

    fixture.config.rollup_retention_days = Some(0);
    Housekeeper::new(fixture.store.clone(), &fixture.config).round().await.unwrap();
    assert_eq!(months(&fixture, "true").await, 0);
}
