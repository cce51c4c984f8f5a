//! The reckoning: what the broker acknowledged to the fleet, held against the tables. Called when all is at rest.
//! Promises that an item is counted wherever it is, and that one in two places is counted twice.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use tokio_postgres::Client;
use uuid::Uuid;

use super::said::{FIRST_MILLISECOND, Fate, Message, REVISION_OFFSET, WEEK_SECONDS, marks};

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Reckoning {
    pub(crate) items: u64,
    pub(crate) rows: u64,
    pub(crate) rejections: u64,
    pub(crate) lost: Vec<u64>,
    pub(crate) doubled: Vec<u64>,
    /// In a table where it had to be rejected, or the other way round.
    pub(crate) misplaced: Vec<String>,
    /// Nobody said it.
    pub(crate) invented: Vec<u64>,
}

/// Where one item is.
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

/// Compares. `lenient` reasons are right for good items, too.
pub(crate) async fn reckon(
    client: &Client,
    said: &[Rc<Message>],
    lenient: &[&str],
) -> Result<Reckoning, tokio_postgres::Error> {
    let mut found: HashMap<u64, Found> = HashMap::new();
    let offset = i64::try_from(REVISION_OFFSET).expect("it is small");
    let week = (WEEK_SECONDS * 1_000).cast_signed();
    let mut reckoning = Reckoning::default();
    for row in client.query(ROWS, &[&offset, &FIRST_MILLISECOND, &week]).await? {
        let number: i64 = row.get(0);
        found.entry(number.cast_unsigned()).or_default().rows += 1;
        reckoning.rows += 1;
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
            reckoning.rejections += 1;
        }
    }
    let mut expected: BTreeMap<u64, Fate> = BTreeMap::new();
    for message in said {
        expected.extend(message.items.iter().map(|item| (item.number, item.fate)));
    }
    reckoning.items = expected.len() as u64;
    for (number, fate) in expected {
        let place = found.remove(&number).unwrap_or_default();
        let rejected = place.reasons.len() as u32;
        match place.rows + rejected {
            0 if fate != Fate::MayGo => reckoning.lost.push(number),
            0 | 1 => {}
            _ => {
                eprintln!("item {number}: {} rows, rejections {:?}", place.rows, place.reasons);
                reckoning.doubled.push(number);
            }
        }
        let wrong = match fate {
            Fate::Row => place.reasons.iter().any(|reason| !lenient.contains(&reason.as_str())),
            Fate::Rejection => place.rows > 0,
            Fate::MayGo => false,
        };
        if wrong {
            reckoning.misplaced.push(format!("{number}: {} {:?}", place.rows, place.reasons));
        }
    }
    reckoning.invented = found.into_keys().collect();
    Ok(reckoning)
}

/// Sensors whose newest configuration is not published or not acknowledged, or is older than one that was promised.
pub(crate) async fn lagging(
    client: &Client,
    promised: &BTreeMap<Uuid, i64>,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let mut lagging = Vec::new();
    for (sensor, revision) in promised {
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
            other => lagging.push(format!("{sensor}: {revision} was promised, {other:?} is there")),
        }
    }
    Ok(lagging)
}
