//! Cursors of lists: opaque, URL-safe texts that hold the key of the last item. Written and read by `page.rs`.
//! A cursor of another list or order, or one that was changed, is refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::domain::Timestamp;
use crate::store::{FleetLogKey, Order, ReplayRange, RowKey, SensorKey};

/// Outside these years there is no row, and the database refuses the value.
pub(super) fn is_storable_time(at: Timestamp) -> bool {
    (0.0..=Timestamp::MAX_UNIX_SECONDS).contains(&at.unix_seconds())
}

/// The key by which a list is sorted.
pub(super) trait CursorKey: Serialize + DeserializeOwned {
    /// Distinguishes the cursors of different lists. Lists with the same key use tags of their own instead.
    const TAG: u8;

    /// Whether the database takes it.
    fn is_usable(&self) -> bool {
        true
    }
}

/// Tags of lists with the same key. A sensor's rows have two for each kind: see [`rows`].
pub(super) const USERS: u8 = b'a';
pub(super) const ACTIVITY: u8 = b'v';
pub(super) const MEASUREMENTS: u8 = b'm';
pub(super) const LOG_MESSAGES: u8 = b'g';
pub(super) const HEARTBEATS: u8 = b'h';
pub(super) const FLEET_LOG: u8 = b'w';

/// The tag of a sensor's rows of one kind, in one order.
pub(super) const fn rows(kind: u8, order: Order) -> u8 {
    match order {
        Order::NewestFirst => kind,
        Order::OldestFirst => kind.to_ascii_uppercase(),
    }
}

pub(super) fn encode<P: CursorKey>(position: &P) -> String {
    encode_in(P::TAG, position)
}

/// The cursor of a position in the list of this tag.
pub(super) fn encode_in<P: CursorKey>(list: u8, position: &P) -> String {
    let mut bytes = vec![list];
    serde_json::to_writer(&mut bytes, position).expect("a key is JSON, and a Vec takes it");
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn decode<P: CursorKey>(cursor: &str) -> Option<P> {
    decode_in(P::TAG, cursor)
}

/// The position of a cursor of the list of this tag.
pub(super) fn decode_in<P: CursorKey>(list: u8, cursor: &str) -> Option<P> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (_, rest) = bytes.split_first().filter(|(tag, _)| **tag == list)?;
    serde_json::from_slice(rest).ok().filter(P::is_usable)
}

/// Measurements, log messages and heartbeats.
impl CursorKey for RowKey {
    const TAG: u8 = b't';

    fn is_usable(&self) -> bool {
        is_storable_time(self.timestamp)
    }
}

/// Log messages of all sensors.
impl CursorKey for FleetLogKey {
    const TAG: u8 = FLEET_LOG;

    fn is_usable(&self) -> bool {
        self.row.is_usable()
    }
}

/// Configurations, by revision.
impl CursorKey for i32 {
    const TAG: u8 = b'r';
}

/// Rejections, by their number.
impl CursorKey for i64 {
    const TAG: u8 = b'j';
}

/// A replay.
impl CursorKey for ReplayRange {
    const TAG: u8 = b'p';
}

/// Networks, by name.
impl CursorKey for String {
    const TAG: u8 = b'n';

    fn is_usable(&self) -> bool {
        !self.contains('\0')
    }
}

/// Sensors, by name or by `last_seen`; the identifier is the tie-break.
impl CursorKey for SensorKey {
    const TAG: u8 = b's';

    fn is_usable(&self) -> bool {
        match self {
            Self::Name(name, _) => name.is_usable(),
            Self::LastSeen(at, _) => is_storable_time(*at),
        }
    }
}

/// Tokens and users, by identifier.
impl CursorKey for Uuid {
    const TAG: u8 = b'u';
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SensorIdentifier;

    #[test]
    fn invalid_cursors_are_refused() {
        let revision = encode(&7_i32);
        assert_eq!(decode::<i32>(&revision), Some(7));
        assert_eq!(decode::<i64>(&revision), None, "of another list");
        assert_eq!(decode::<RowKey>(&revision), None, "of another list");
        for cursor in ["", "=", "~", "cg", &revision[1..], &format!("{revision}AA")] {
            assert_eq!(decode::<i32>(cursor), None, "{cursor}");
        }
        assert_eq!(decode::<String>(&encode(&"a\0".to_owned())), None);
        let beyond = RowKey { timestamp: Timestamp::from_unix_microseconds(i64::MAX), digest: 0 };
        assert_eq!(decode::<RowKey>(&encode(&beyond)), None);
        let sensor = SensorIdentifier::random();
        for microseconds in [i64::MIN, -1, i64::MAX] {
            let beyond = Timestamp::from_unix_microseconds(microseconds);
            let beyond = SensorKey::LastSeen(beyond, sensor);
            assert_eq!(decode::<SensorKey>(&encode(&beyond)), None);
        }
    }
}
