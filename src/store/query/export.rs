//! Measurements by the million, as CSV or a JSON object a line, by COPY … TO STDOUT. Called by the
//! API. Promises constant memory, the rows of one sensor in the order of its clock, all of it as the
//! tables stood at the beginning, and that PostgreSQL stops when nobody reads any more.
//!
//! Invariant: the stream ends without an error only behind [`Piece::Whole`], which is sent when every
//! row was. However else its task ends, the reader gets an error.
//!
//! Invariant: an export holds a connection of its own and one of `EXPORTS_AT_ONCE` permits. Both are
//! given back when it is through, and when its reader is dropped. No clock runs here: how long a
//! reader may take nothing is `HTTP_WRITE_TIMEOUT_SECS`, and the system sees to it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use tracing::{info, warn};
use uuid::Uuid;

use super::callers::CallersExport;
use super::csv;
use super::rows::TimeRange;
use crate::domain::{NetworkIdentifier, SensorIdentifier};
use crate::store::connections::pooled_client::PooledClient;
use crate::store::sensors::lookups::SENSOR_EXISTS;
use crate::store::{Store, StoreError};

/// What is handed on at once; the lines themselves are short.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks that wait for the reader. Behind them waits PostgreSQL.
const CHUNKS_WAITING: usize = 2;

/// One caller may run this fraction of the exports.
const CALLER_SHARE_DIVISOR: u32 = 2;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Sensors of a network that are known ahead.
const SENSORS_AHEAD: i64 = 1_000;

const BEGIN: &str = "begin isolation level repeatable read read only";

const SENSORS: &str = "\
select identifier from sensor where identifier = $1
union all
select identifier from sensor
where network_identifier = $2 and ($3::uuid is null or identifier > $3)
order by identifier
limit $4";

const NETWORK_EXISTS: &str = "select 1 from network where identifier = $1";

/// Whose measurements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportOf {
    /// Of one sensor.
    Sensor(SensorIdentifier),
    /// Of all sensors of a network, one after the other.
    Network(NetworkIdentifier),
}

/// How a line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExportFormat {
    /// RFC 4180, with a header.
    #[default]
    Csv,
    /// A JSON object in each line.
    NdJson,
}

/// What to export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    /// Whose measurements.
    pub of: ExportOf,
    /// When they were taken.
    pub range: TimeRange,
    /// Only measurements that have one of these members, and only these; none: all of it.
    pub attributes: Option<Vec<String>>,
    /// How a line looks.
    pub format: ExportFormat,
    /// CSV that a person opens with Excel: with a byte order mark, and no cell that is a formula.
    pub for_excel: bool,
}

/// Why an export does not begin.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// So many exports run that another has to wait.
    #[error("{0} exports run, and there may be no more")]
    Busy(u32),
    /// The caller runs as many as one caller may.
    #[error("the caller runs {0} exports, and there may be no more")]
    CallerBusy(u32),
    /// Anything else.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for ExportError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What an export hands to its reader.
#[derive(Debug)]
enum Piece {
    /// Some lines.
    Lines(Bytes),
    /// Nothing more comes, and that is all of it.
    Whole,
    /// Nothing more comes, though there is more.
    Failed(StoreError),
}

/// Why the stream of an export ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum CutOff {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its task was stopped.
    #[error("the export was stopped before its end")]
    Stopped,
}

/// The lines, in chunks. Dropping it ends the export.
pub struct ExportStream {
    first: Option<Piece>,
    rest: mpsc::Receiver<Piece>,
    is_whole: bool,
}

impl Stream for ExportStream {
    type Item = Result<Bytes, CutOff>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_whole {
            return Poll::Ready(None);
        }
        let piece = match self.first.take() {
            Some(first) => Some(first),
            None => ready!(self.rest.poll_recv(context)),
        };
        Poll::Ready(match piece {
            Some(Piece::Lines(lines)) => Some(Ok(lines)),
            Some(Piece::Whole) => {
                self.is_whole = true;
                None
            }
            Some(Piece::Failed(error)) => Some(Err(error.into())),
            None => Some(Err(CutOff::Stopped)),
        })
    }
}

impl Store {
    async fn export_connection(&self) -> Result<PooledClient, StoreError> {
        let client = self.export_connector.connect_within(CONNECT_TIMEOUT).await?;
        // Cut when it is dropped: the driver would read to the end what a COPY under way still sends.
        client.set_abandoned(true);
        Ok(client)
    }

    /// Begins an export; none if there is no such sensor or network. Its first chunk is there when
    /// this returns.
    ///
    /// # Errors
    /// When too many run, or the database is unavailable.
    pub async fn export(
        &self,
        export: Export,
        caller: Option<Uuid>,
    ) -> Result<Option<ExportStream>, ExportError> {
        let most = (self.max_exports / CALLER_SHARE_DIVISOR).max(1);
        let share = CallersExport::begin(&self.exporting_callers, caller, most);
        let share = share.ok_or(ExportError::CallerBusy(most))?;
        let permit = Arc::clone(&self.export_permits).try_acquire_owned();
        let permit = permit.map_err(|_none_left| ExportError::Busy(self.max_exports))?;
        let client = self.export_connection().await?;
        let exists = tokio::time::timeout(CONNECT_TIMEOUT, begin(&client, export.of)).await;
        let silence = StoreError::Silence { waited: CONNECT_TIMEOUT };
        if !exists.map_err(|_elapsed| silence)?? {
            return Ok(None);
        }
        let (chunks, mut rest) = mpsc::channel(CHUNKS_WAITING);
        let work =
            Work { client, export, chunks, gathered: BytesMut::new(), _permit: (permit, share) };
        actix_rt::spawn(work.run());
        let first = match rest.recv().await {
            Some(Piece::Failed(error)) => return Err(error.into()),
            first => first,
        };
        Ok(Some(ExportStream { first, rest, is_whole: false }))
    }
}

/// Whether there is what is to be exported.
async fn begin(client: &Client, of: ExportOf) -> Result<bool, tokio_postgres::Error> {
    client.batch_execute(BEGIN).await?;
    let (statement, identifier) = match of {
        ExportOf::Sensor(sensor) => (SENSOR_EXISTS, sensor.0),
        ExportOf::Network(network) => (NETWORK_EXISTS, network.0),
    };
    Ok(client.query_typed_opt(statement, &[(&identifier, Type::UUID)]).await?.is_some())
}

/// An export under way.
struct Work {
    client: PooledClient,
    export: Export,
    chunks: mpsc::Sender<Piece>,
    gathered: BytesMut,
    _permit: (OwnedSemaphorePermit, CallersExport),
}

/// Why an export ends before its time.
enum Halt {
    Failed(StoreError),
    /// Nobody reads.
    Gone,
}

impl From<tokio_postgres::Error> for Halt {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Work {
    async fn run(mut self) {
        let gone = self.chunks.clone();
        let outcome = tokio::select! {
            outcome = self.all() => outcome,
            () = gone.closed() => Err(Halt::Gone),
        };
        let last = match outcome {
            Ok(()) => Piece::Whole,
            Err(Halt::Gone) => {
                info!("an export ended early: its reader has gone, or was cut off");
                return;
            }
            Err(Halt::Failed(error)) => {
                warn!(%error, "an export failed: its reader is cut off");
                Piece::Failed(error)
            }
        };
        // If its reader goes meanwhile, nobody waits for it.
        gone.send(last).await.ok();
    }

    async fn all(&mut self) -> Result<(), Halt> {
        self.gathered.extend_from_slice(self.export.header().as_bytes());
        let (sensor, network) = match self.export.of {
            ExportOf::Sensor(sensor) => (Some(sensor.0), None),
            ExportOf::Network(network) => (None, Some(network.0)),
        };
        let mut after: Option<Uuid> = None;
        loop {
            let rows = self
                .client
                .query_typed(
                    SENSORS,
                    &[
                        (&sensor, Type::UUID),
                        (&network, Type::UUID),
                        (&after, Type::UUID),
                        (&SENSORS_AHEAD, Type::INT8),
                    ],
                )
                .await?;
            for row in &rows {
                let sensor: Uuid = row.try_get(0)?;
                self.one(SensorIdentifier(sensor)).await?;
                after = Some(sensor);
            }
            if network.is_none() || rows.is_empty() {
                break;
            }
        }
        // Before the last lines wait for their reader: nothing is read from the tables any more.
        self.client.batch_execute("commit").await?;
        self.hand_on().await
    }

    async fn one(&mut self, sensor: SensorIdentifier) -> Result<(), Halt> {
        let lines = self.client.copy_out(&self.export.statement(sensor)).await?;
        tokio::pin!(lines);
        // PostgreSQL sends each row by itself, and ends it with a newline.
        while let Some(line) = lines.next().await {
            let line = line?;
            match self.export.format {
                ExportFormat::Csv => {
                    self.gathered.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(&line));
                    self.gathered.extend_from_slice(csv::LINE_END.as_bytes());
                }
                ExportFormat::NdJson => self.gathered.extend_from_slice(&line),
            }
            if self.gathered.len() >= CHUNK_BYTES {
                self.hand_on().await?;
            }
        }
        Ok(())
    }

    async fn hand_on(&mut self) -> Result<(), Halt> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let chunk = self.gathered.split().freeze();
        self.chunks.send(Piece::Lines(chunk)).await.map_err(|_unread| Halt::Gone)
    }
}

const RFC3339: &str = r#"'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"#;

impl Export {
    fn header(&self) -> String {
        match self.format {
            ExportFormat::Csv => csv::header(self.attributes.as_deref(), self.for_excel),
            ExportFormat::NdJson => String::new(),
        }
    }

    /// COPY takes no parameters. What is put into the text are numbers, moments and identifiers in
    /// a form of ours, and the names of attributes as literals.
    fn statement(&self, sensor: SensorIdentifier) -> String {
        let rfc3339 = |column| format!("to_char({column} at time zone 'UTC', {RFC3339})");
        let (created, received) = (rfc3339("creation_timestamp"), rfc3339("receipt_timestamp"));
        let unix = "trim_scale(extract(epoch from creation_timestamp))";
        let attributes = self
            .attributes
            .as_ref()
            .map(|attributes| attributes.iter().map(|name| literal(name)).collect::<Vec<_>>());
        let columns = match (self.format, &attributes) {
            (ExportFormat::Csv, None) => {
                format!("sensor_identifier, {unix}, {created}, {received}, revision, value")
            }
            (ExportFormat::Csv, Some(attributes)) => {
                let members = attributes.iter().map(|name| csv::member(name, self.for_excel));
                let members: String = members.map(|member| format!(", {member}")).collect();
                format!("sensor_identifier, {unix}, {created}, {received}, revision{members}")
            }
            (ExportFormat::NdJson, attributes) => {
                let value = match attributes {
                    None => "value::text".to_owned(),
                    Some(attributes) => format!(
                        "(select jsonb_object_agg(key, member)::text \
                         from jsonb_each(value) as members (key, member) \
                         where key = any (array[{}]))",
                        attributes.join(", ")
                    ),
                };
                format!(
                    "'{{\"sensor_identifier\":\"' || sensor_identifier || '\",\"timestamp\":' || {unix} \
                     || ',\"creation_timestamp\":\"' || {created} || '\",\"receipt_timestamp\":\"' \
                     || {received} || '\",\"revision\":' || coalesce(revision::text, 'null') || ',\"value\":' || {value} || '}}'"
                )
            }
        };
        let mut filter = format!("sensor_identifier = '{sensor}'");
        if let Some(from) = self.range.from {
            filter += &format!(" and creation_timestamp >= '{}'", from.to_jiff());
        }
        if let Some(to) = self.range.to {
            filter += &format!(" and creation_timestamp < '{}'", to.to_jiff());
        }
        if let Some(attributes) = &attributes {
            filter += &format!(" and value ?| array[{}]", attributes.join(", "));
        }
        let options = match self.format {
            ExportFormat::Csv => "format csv",
            // No quotes around the line: what would call for them stands in no JSON text.
            ExportFormat::NdJson => "format csv, quote e'\\x01', delimiter e'\\x02'",
        };
        format!(
            "copy (select {columns} from measurement where {filter} \
             order by creation_timestamp, digest) to stdout with ({options})"
        )
    }
}

/// A text that stands for itself.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export(format: ExportFormat, attributes: Option<&[&str]>) -> Export {
        Export {
            of: ExportOf::Network(NetworkIdentifier::DEFAULT),
            range: TimeRange::default(),
            attributes: attributes.map(|names| names.iter().map(|&it| it.into()).collect()),
            format,
            for_excel: true,
        }
    }

    async fn read(pieces: Vec<Piece>) -> Vec<Result<Bytes, CutOff>> {
        let (chunks, rest) = mpsc::channel(8);
        for piece in pieces {
            chunks.send(piece).await.unwrap();
        }
        drop(chunks);
        let mut stream = ExportStream { first: None, rest, is_whole: false };
        let mut read = Vec::new();
        while let Some(taken) = stream.next().await {
            let is_last = taken.is_err();
            read.push(taken);
            if is_last {
                break;
            }
        }
        read
    }

    #[actix_rt::test]
    async fn only_what_is_whole_ends_without_an_error() {
        let lines = || Piece::Lines(Bytes::from_static(b"a\n"));
        let whole = read(vec![lines(), lines(), Piece::Whole]).await;
        assert!(whole.len() == 2 && whole.iter().all(Result::is_ok), "{whole:?}");
        // The task was dropped, or it panicked.
        for stopped in [read(vec![]).await, read(vec![lines(), lines()]).await] {
            assert!(matches!(stopped.last(), Some(Err(CutOff::Stopped))), "{stopped:?}");
        }
        let silence = StoreError::Silence { waited: CONNECT_TIMEOUT };
        let failed = read(vec![lines(), Piece::Failed(silence)]).await;
        assert!(matches!(failed.last(), Some(Err(CutOff::Store(_)))), "{failed:?}");
    }

    #[test]
    fn no_name_leaves_its_literal() {
        let hostile = "a', pg_sleep(9)) --";
        for format in [ExportFormat::Csv, ExportFormat::NdJson] {
            let statement =
                export(format, Some(&[hostile])).statement(SensorIdentifier(Uuid::nil()));
            assert!(statement.contains("'a'', pg_sleep(9)) --'"), "{statement}");
            assert!(!statement.replace("''", "").contains("'a'"), "{statement}");
        }
    }
}
