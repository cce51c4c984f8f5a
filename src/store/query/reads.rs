//! What the reads have in common, and the rejections, page by page. Called by the API. Promises newest
//! first, one row more than a page holds if there are more, and the text of a value as PostgreSQL
//! prints it.

use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::rows::{Page, RejectionFilter, RejectionRow, RowPage};
use super::stored_rejections::{CONDITIONS, Conditions};
use crate::domain::{SensorIdentifier, Timestamp};
use crate::store::{Store, StoreError};

/// Parameters and their types, so that a statement needs no round trip of its own to be prepared.
pub(in crate::store) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

pub(in crate::store) const SENSOR_EXISTS: &str = "select 1 from sensor where identifier = $1";

/// A page of rejections ends where it holds so many bytes of what was refused.
const PAGE_BYTES: u32 = 4 << 20;

impl Store {
    /// Rejections, newest first; no more than a response may hold, and the first whatever it holds.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn list_rejections(
        &self,
        page: &Page<i64>,
        filter: &RejectionFilter,
    ) -> Result<RowPage<RejectionRow>, StoreError> {
        // The size of a stored value is known without reading it.
        let statement = format!(
            "select identifier, receipt_timestamp, topic, sensor_identifier, kind, item_index,
                    item_count, reason, detail, raw, found
             from (
                 select *, count(*) over () as found,
                        sum(octet_length(raw)) over (order by identifier desc) - octet_length(raw)
                            as ahead
                 from (
                     select * from rejection
                     where {CONDITIONS} and ($8::bigint is null or identifier < $8)
                     order by identifier desc limit $9
                 ) as page
             ) as measured
             where ahead < {PAGE_BYTES} order by identifier desc limit $9 - 1"
        );
        let limit = page.row_count();
        let conditions = Conditions::of(filter);
        let parameters = conditions.with(&[(&page.after, Type::INT8), (&limit, Type::INT8)]);
        self.within(async {
            let rows = self.connection().await?.query_typed(&statement, &parameters).await?;
            let found: i64 = rows.first().map_or(Ok(0), |row| row.try_get(10))?;
            let more = found > rows.len() as i64;
            let rows = rows.iter().map(rejection).collect::<Result<_, _>>()?;
            Ok(RowPage { rows, more })
        })
        .await
    }

    /// Rows that belong to a sensor; none if there is no such sensor.
    pub(in crate::store) async fn rows_of_sensor<T>(
        &self,
        sensor: SensorIdentifier,
        statement: &str,
        parameters: Parameters<'_>,
        read: impl Fn(&Row) -> Result<T, tokio_postgres::Error>,
    ) -> Result<Option<Vec<T>>, StoreError> {
        self.within(async {
            let connection = self.connection().await?;
            let identifier: Parameters<'_> = &[(&sensor.0, Type::UUID)];
            // Both are under way at once, one behind the other on the connection.
            let (exists, rows) = tokio::try_join!(
                connection.query_typed_opt(SENSOR_EXISTS, identifier),
                connection.query_typed(statement, parameters),
            )?;
            if exists.is_none() {
                return Ok(None);
            }
            Ok(Some(rows.iter().map(read).collect::<Result<_, _>>()?))
        })
        .await
    }
}

fn rejection(row: &Row) -> Result<RejectionRow, tokio_postgres::Error> {
    Ok(RejectionRow {
        identifier: row.try_get(0)?,
        received_at: moment(row, 1)?,
        topic: row.try_get(2)?,
        sensor: row.try_get::<_, Option<uuid::Uuid>>(3)?.map(SensorIdentifier),
        kind: row.try_get(4)?,
        item_index: row.try_get(5)?,
        item_count: row.try_get(6)?,
        reason: row.try_get(7)?,
        detail: row.try_get(8)?,
        raw: row.try_get(9)?,
    })
}

/// A time of ours or of a sensor's.
pub(in crate::store) fn moment(
    row: &Row,
    index: usize,
) -> Result<Timestamp, tokio_postgres::Error> {
    row.try_get::<_, jiff::Timestamp>(index).map(Into::into)
}

/// The text of a `jsonb`, to be handed on as it is.
pub(in crate::store) fn raw_json(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("PostgreSQL prints a jsonb as JSON")
}
