//! Compares what the broker acknowledged with the tables. Called when nothing is in flight. Each item is counted in every
//! table, so that an item that is stored twice is counted twice.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use tokio_postgres::Client;
use uuid::Uuid;

use super::messages::{Expected, FIRST_MILLISECOND, Message, REVISION_OFFSET, WEEK_SECONDS, marks};

#[derive(Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) items: u64,
    pub(crate) rows: u64,
    pub(crate) rejections: u64,
    pub(crate) lost: Vec<u64>,
    pub(crate) doubled: Vec<u64>,
    /// Valid items that were rejected, and invalid ones that were stored.
    pub(crate) misplaced: Vec<String>,
    /// Items that are stored, but were never published.
    pub(crate) invented: Vec<u64>,
}

/// Where one item is stored.
#[derive(Default)]
struct Found {
    rows: u32,
    reasons: Vec<String>,
}

const ROWS: &str = "
    select (value ->> 'n')::bigint from measurement
    union all
    select trim(both '#' from subject)::bigint from log_message
    union all
    select revision - $1::bigint from heartbeat where revision >= $1::bigint
    union all
    select mod(round(extract(epoch from creation_timestamp) * 1000)::bigint - $2::bigint + 100 * $3::bigint, $3::bigint)
    from heartbeat where revision is null";

const REJECTIONS: &str = "select reason, item_index, raw from rejection";

/// Valid items may be rejected for one of the `lenient` reasons.
pub(crate) async fn compare_rows(
    client: &Client,
    published: &[Rc<Message>],
    lenient: &[&str],
) -> Result<Comparison, tokio_postgres::Error> {
    let mut found: HashMap<u64, Found> = HashMap::new();
    let offset = i64::try_from(REVISION_OFFSET).expect("the offset fits in an i64");
    let week = (WEEK_SECONDS * 1_000).cast_signed();
    let mut comparison = Comparison::default();
    for row in client.query(ROWS, &[&offset, &FIRST_MILLISECOND, &week]).await? {
        let number: i64 = row.get(0);
        found.entry(number.cast_unsigned()).or_default().rows += 1;
        comparison.rows += 1;
    }
    for row in client.query(REJECTIONS, &[]).await? {
        let (reason, item_index, raw): (String, Option<i32>, &[u8]) =
            (row.get(0), row.get(1), row.get(2));
        let numbers = marks(raw);
        // The raw bytes are those of the item, or of its whole message.
        let numbers = match (item_index, numbers.len()) {
            (Some(index), 2..) => {
                vec![numbers[usize::try_from(index).expect("an index is not negative")]]
            }
            _ => numbers,
        };
        for number in numbers {
            found.entry(number).or_default().reasons.push(reason.clone());
            comparison.rejections += 1;
        }
    }
    let mut expected: BTreeMap<u64, Expected> = BTreeMap::new();
    for message in published {
        expected.extend(message.items.iter().map(|item| (item.number, item.expected)));
    }
    comparison.items = expected.len() as u64;
    for (number, expected) in expected {
        let stored = found.remove(&number).unwrap_or_default();
        let rejected = stored.reasons.len() as u32;
        match stored.rows + rejected {
            0 if matches!(expected, Expected::Row | Expected::Rejection) => {
                comparison.lost.push(number);
            }
            0 | 1 => {}
            _ => {
                eprintln!("item {number}: {} rows, rejections {:?}", stored.rows, stored.reasons);
                comparison.doubled.push(number);
            }
        }
        let wrong = match expected {
            Expected::Row | Expected::MaybeLost => {
                stored.reasons.iter().any(|reason| !lenient.contains(&reason.as_str()))
            }
            Expected::Rejection => stored.rows > 0,
            Expected::MaybeDeleted => false,
        };
        if wrong {
            comparison.misplaced.push(format!("{number}: {} {:?}", stored.rows, stored.reasons));
        }
    }
    comparison.invented = found.into_keys().collect();
    Ok(comparison)
}

/// Sensors whose newest configuration is not published, not acknowledged, or older than an accepted one (202).
pub(crate) async fn lagging(
    client: &Client,
    accepted: &BTreeMap<Uuid, i64>,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut lagging = Vec::new();
    for (sensor, revision) in accepted {
        let newest = client
            .query_opt(
                "select revision, publication_timestamp is not null, acknowledgement_timestamp is not null
                 from configuration where sensor_identifier = $1 order by revision desc limit 1",
                &[sensor],
            )
            .await?;
        let state = newest.map(|row| (row.get::<_, i32>(0), row.get(1), row.get(2)));
        match state {
            Some((newest, true, true)) if i64::from(newest) >= *revision => {}
            other => {
                lagging.push(format!("{sensor}: {revision} was accepted, {other:?} is stored"))
            }
        }
    }
    Ok(lagging)
}
