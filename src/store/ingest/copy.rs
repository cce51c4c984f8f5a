//! Encodes rows for COPY, straight from the messages into the send buffer. Called by the commit. The
//! format is "Binary Format" in PostgreSQL's documentation of COPY; the order of the fields is that of
//! the column lists below.

use bytes::{BufMut, Bytes, BytesMut};

use crate::domain::{
    Batch, Heartbeat, Items, Kind, LogMessage, Measurement, RowRef, Timestamp, Uplink,
};

pub(in crate::store) const MEASUREMENT_COLUMNS: &str =
    "sensor_identifier, creation_timestamp, receipt_timestamp, digest, revision, value";

const LOG_MESSAGE_COLUMNS: &str = "sensor_identifier, creation_timestamp, \
     receipt_timestamp, digest, revision, severity, subject, details";

const HEARTBEAT_COLUMNS: &str =
    "sensor_identifier, creation_timestamp, receipt_timestamp, digest, revision, success";

/// Whether the timestamp is that of the receipt: true or null. Written only with `TIMESTAMP_MISSING=receipt`, which
/// leaves the COPY of all others as it is.
const TIMED_AT_RECEIPT: &str = ", timed_at_receipt";

/// The columns of a kind's rows, in the order of their fields.
pub(in crate::store) fn columns(kind: Kind, receipt_times: bool) -> String {
    let columns = match kind {
        Kind::Measurement => MEASUREMENT_COLUMNS,
        Kind::LogMessage => LOG_MESSAGE_COLUMNS,
        Kind::Heartbeat => HEARTBEAT_COLUMNS,
    };
    let more = if receipt_times { TIMED_AT_RECEIPT } else { "" };
    format!("{columns}{more}")
}

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const JSONB_VERSION: u8 = 1;
/// In place of a length.
const NULL: i32 = -1;

/// The field count and the five fields that every kind has, with their lengths.
const COMMON_BYTES: usize = 2 + (4 + 16) + (4 + 8) * 3 + (4 + 4);

/// A COPY stream in parts, so that PostgreSQL processes one while the next is encoded, and the buffer
/// stays small enough to be reused.
pub(in crate::store) struct Encoder {
    buffer: BytesMut,
    /// See [`columns`].
    receipt_times: bool,
}

impl Encoder {
    pub(in crate::store) fn begin(receipt_times: bool) -> Self {
        let mut buffer = BytesMut::with_capacity(64);
        buffer.put_slice(SIGNATURE);
        buffer.put_i32(0); // no flags
        buffer.put_i32(0); // no header extension
        Self { buffer, receipt_times }
    }

    pub(in crate::store) fn rows(&mut self, kind: Kind, batch: &Batch, rows: &[RowRef]) -> Bytes {
        for row in rows {
            match kind {
                Kind::Measurement => self.measurement(batch, row),
                Kind::LogMessage => self.log_message(batch, row),
                Kind::Heartbeat => self.heartbeat(batch, row),
            }
        }
        self.buffer.split().freeze()
    }

    pub(in crate::store) fn end(mut self) -> Bytes {
        self.buffer.put_i16(-1);
        self.buffer.freeze()
    }

    fn measurement(&mut self, batch: &Batch, row: &RowRef) {
        let (uplink, item) = measurement(batch, row);
        let value = uplink.message.bytes(item.value);
        self.buffer.reserve(COMMON_BYTES + 5 + value.len() + 5);
        self.common(6, row, uplink.message.received_at, item.head.revision);
        self.length(1 + value.len());
        self.buffer.put_u8(JSONB_VERSION);
        self.buffer.put_slice(value);
        self.timed_at_receipt(item.head.timed_at_receipt);
    }

    fn log_message(&mut self, batch: &Batch, row: &RowRef) {
        let (uplink, item) = log_message(batch, row);
        self.common(8, row, uplink.message.received_at, item.head.revision);
        self.text(item.severity.name());
        self.text(&item.subject);
        match &item.details {
            Some(details) => self.text(details),
            None => self.buffer.put_i32(NULL),
        }
        self.timed_at_receipt(item.head.timed_at_receipt);
    }

    fn heartbeat(&mut self, batch: &Batch, row: &RowRef) {
        let (uplink, item) = heartbeat(batch, row);
        self.common(6, row, uplink.message.received_at, item.head.revision);
        self.length(1);
        self.buffer.put_u8(u8::from(item.success));
        self.timed_at_receipt(item.head.timed_at_receipt);
    }

    fn timed_at_receipt(&mut self, is_so: bool) {
        match (self.receipt_times, is_so) {
            (false, _) => {}
            (true, false) => self.buffer.put_i32(NULL),
            (true, true) => {
                self.length(1);
                self.buffer.put_u8(1);
            }
        }
    }

    /// The start of every row, assembled on the stack and copied once.
    fn common(
        &mut self,
        columns: i16,
        reference: &RowRef,
        received_at: Timestamp,
        revision: Option<i32>,
    ) {
        let mut row = [0; COMMON_BYTES];
        let mut rest = &mut row[..];
        rest.put_i16(columns + i16::from(self.receipt_times));
        rest.put_i32(16);
        rest.put_slice(reference.sensor.0.as_bytes());
        rest.put_i32(8);
        rest.put_i64(reference.timestamp.postgres_microseconds());
        rest.put_i32(8);
        rest.put_i64(received_at.postgres_microseconds());
        rest.put_i32(8);
        rest.put_i64(reference.digest.cast_signed());
        match revision {
            Some(revision) => {
                rest.put_i32(4);
                rest.put_i32(revision);
            }
            None => rest.put_i32(NULL),
        }
        let unused = rest.len();
        self.buffer.put_slice(&row[..COMMON_BYTES - unused]);
    }

    fn length(&mut self, bytes: usize) {
        self.buffer.put_i32(i32::try_from(bytes).expect("a payload is far smaller than 2 GiB"));
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.buffer.put_slice(text.as_bytes());
    }
}

const ROW_FITS: &str = "a row refers to an item of its own kind";

pub(in crate::store) fn measurement<'a>(
    batch: &'a Batch,
    row: &RowRef,
) -> (&'a Uplink, &'a Measurement) {
    let uplink = &batch.uplinks()[row.uplink as usize];
    let Items::Measurements(items) = &uplink.items else { unreachable!("{ROW_FITS}") };
    (uplink, &items[row.item as usize])
}

pub(in crate::store) fn log_message<'a>(
    batch: &'a Batch,
    row: &RowRef,
) -> (&'a Uplink, &'a LogMessage) {
    let uplink = &batch.uplinks()[row.uplink as usize];
    let Items::LogMessages(items) = &uplink.items else { unreachable!("{ROW_FITS}") };
    (uplink, &items[row.item as usize])
}

pub(in crate::store) fn heartbeat<'a>(
    batch: &'a Batch,
    row: &RowRef,
) -> (&'a Uplink, &'a Heartbeat) {
    let uplink = &batch.uplinks()[row.uplink as usize];
    let Items::Heartbeats(items) = &uplink.items else { unreachable!("{ROW_FITS}") };
    (uplink, &items[row.item as usize])
}
