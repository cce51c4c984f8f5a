//! Bulk export of measurements, as CSV or one JSON object per line, by COPY … TO STDOUT. Called by the
//! API. It uses constant memory, reads one snapshot, returns the rows of a sensor in the order of its
//! clock, and PostgreSQL stops when the reader disconnects.
//!
//! Invariant: the stream ends without an error only after [`Piece::Whole`], which is sent after the last
//! row. If its task ends in any other way, the reader gets an error.
//!
//! Invariant: an export holds its own connection and one of `EXPORTS_AT_ONCE` permits. Both are released
//! when it ends, and when its reader is dropped. There is no timeout here: a reader that reads nothing
//! is disconnected after `HTTP_WRITE_TIMEOUT_SECS`.

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

use super::csv;
use super::export_statement::{Export, ExportFormat, ExportOf};
use crate::domain::SensorIdentifier;
use crate::store::connections::pooled_client::{PooledClient, in_time};
use crate::store::sensors::lookups::SENSOR_EXISTS;
use crate::store::{Store, StoreError};

/// A chunk is sent once it has this size.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks that wait for the reader; PostgreSQL waits while there are this many.
const CHUNKS_WAITING: usize = 2;

const EXPORT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Sensors of a network per look-up.
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

/// Why an export cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The limit of concurrent exports is reached.
    #[error("{0} exports are running, which is the limit")]
    Busy(u32),
    /// The caller's limit is reached.
    #[error("the caller is running {0} exports, which is the limit")]
    CallerBusy(u32),
    /// Any other error.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for ExportError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A message from an export to its reader.
#[derive(Debug)]
enum Piece {
    /// Some lines.
    Lines(Bytes),
    /// The end: all lines have been sent.
    Whole,
    /// The end: lines are missing.
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
        let client = self.export_connector.connect_within(EXPORT_CONNECT_TIMEOUT).await?;
        // Closes the connection when it is dropped: otherwise the driver would read the rest of the COPY.
        client.set_abandoned(true);
        Ok(client)
    }

    /// Starts an export, and waits for its first chunk; none if the sensor or network does not exist.
    /// Fails if a limit is reached.
    pub async fn export(
        &self,
        export: Export,
        caller: Option<Uuid>,
    ) -> Result<Option<ExportStream>, ExportError> {
        let callers = &self.exports_of_callers;
        let share = caller.map(|caller| callers.of(caller).try_acquire_owned()).transpose();
        let share = share.map_err(|_none_left| ExportError::CallerBusy(callers.share))?;
        let permit = Arc::clone(&self.export_permits).try_acquire_owned();
        let permit = permit.map_err(|_none_left| ExportError::Busy(self.max_exports))?;
        let client = self.export_connection().await?;
        if !in_time(EXPORT_CONNECT_TIMEOUT, begin(&client, export.of)).await? {
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

/// Begins the transaction, and returns whether the sensor or network exists.
async fn begin(client: &Client, of: ExportOf) -> Result<bool, tokio_postgres::Error> {
    client.batch_execute(BEGIN).await?;
    let (statement, identifier) = match of {
        ExportOf::Sensor(sensor) => (SENSOR_EXISTS, sensor.0),
        ExportOf::Network(network) => (NETWORK_EXISTS, network.0),
    };
    Ok(client.query_typed_opt(statement, &[(&identifier, Type::UUID)]).await?.is_some())
}

/// A running export.
struct Work {
    client: PooledClient,
    export: Export,
    chunks: mpsc::Sender<Piece>,
    gathered: BytesMut,
    _permit: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

/// Why an export ends early.
enum Halt {
    Failed(StoreError),
    ReaderDisconnected,
}

impl From<tokio_postgres::Error> for Halt {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Work {
    async fn run(mut self) {
        let chunks = self.chunks.clone();
        let outcome = tokio::select! {
            outcome = self.all() => outcome,
            () = chunks.closed() => Err(Halt::ReaderDisconnected),
        };
        let last = match outcome {
            Ok(()) => Piece::Whole,
            Err(Halt::ReaderDisconnected) => {
                info!("export ended early: its reader has disconnected, or was disconnected");
                return;
            }
            Err(Halt::Failed(error)) => {
                warn!(%error, "export failed; its reader is disconnected");
                Piece::Failed(error)
            }
        };
        // Fails only if the reader has disconnected.
        chunks.send(last).await.ok();
    }

    async fn all(&mut self) -> Result<(), Halt> {
        self.gathered.extend_from_slice(self.export.header().as_bytes());
        let (sensor, network) = match self.export.of {
            ExportOf::Sensor(sensor) => (Some(sensor), None),
            ExportOf::Network(network) => (None, Some(network)),
        };
        let mut after = None;
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
                let sensor: SensorIdentifier = row.try_get(0)?;
                self.one(sensor).await?;
                after = Some(sensor);
            }
            if network.is_none() || rows.is_empty() {
                break;
            }
        }
        // Before waiting for the reader of the last lines, because the tables are no longer read.
        self.client.batch_execute("commit").await?;
        self.send_chunk().await
    }

    async fn one(&mut self, sensor: SensorIdentifier) -> Result<(), Halt> {
        let lines = self.client.copy_out(&self.export.statement(sensor)).await?;
        tokio::pin!(lines);
        // PostgreSQL sends each row as one message, which ends with a newline.
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
                self.send_chunk().await?;
            }
        }
        Ok(())
    }

    async fn send_chunk(&mut self) -> Result<(), Halt> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let chunk = self.gathered.split().freeze();
        self.chunks.send(Piece::Lines(chunk)).await.map_err(|_unread| Halt::ReaderDisconnected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    async fn only_a_complete_export_ends_without_an_error() {
        let lines = || Piece::Lines(Bytes::from_static(b"a\n"));
        let whole = read(vec![lines(), lines(), Piece::Whole]).await;
        assert!(whole.len() == 2 && whole.iter().all(Result::is_ok), "{whole:?}");
        // The task was dropped, or it panicked.
        for stopped in [read(vec![]).await, read(vec![lines(), lines()]).await] {
            assert!(matches!(stopped.last(), Some(Err(CutOff::Stopped))), "{stopped:?}");
        }
        let silence = StoreError::Silence { waited: EXPORT_CONNECT_TIMEOUT };
        let failed = read(vec![lines(), Piece::Failed(silence)]).await;
        assert!(matches!(failed.last(), Some(Err(CutOff::Store(_)))), "{failed:?}");
    }
}
