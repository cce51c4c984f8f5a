//! The fast pass: decodes a valid message in one pass, straight into the domain's items. Called first for
//! every message. Gives up at the first doubt, without saying why.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::Rules;
use super::item::{WireHeartbeat, WireItem, WireLogMessage, WireMeasurement};
use crate::domain::{Items, Kind, trim_payload};

/// None if anything about the message is in doubt.
pub(super) fn decode(kind: Kind, payload: &[u8], rules: Rules) -> Option<Items> {
    match kind {
        Kind::Measurement => {
            read::<WireMeasurement<'_>, _>(kind, payload, rules).map(Items::Measurements)
        }
        Kind::LogMessage => {
            read::<WireLogMessage<'_>, _>(kind, payload, rules).map(Items::LogMessages)
        }
        Kind::Heartbeat => read::<WireHeartbeat, _>(kind, payload, rules).map(Items::Heartbeats),
    }
}

fn read<'de, W, C>(kind: Kind, payload: &'de [u8], rules: Rules) -> Option<C>
where
    W: WireItem<'de>,
    C: Default + Extend<W::Item>,
{
    let envelope =
        Envelope::<W, C> { member: kind.envelope_member(), payload, rules, reads: PhantomData };
    let text = std::str::from_utf8(trim_payload(payload)).ok()?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let items = if text.trim_ascii_start().starts_with('[') {
        let Envelope { payload, rules, reads, .. } = envelope;
        Array { payload, rules, reads }.deserialize(&mut deserializer)
    } else {
        envelope.deserialize(&mut deserializer)
    };
    let items = items.ok()?;
    deserializer.end().ok()?;
    Some(items)
}

/// `{"<member>": [ … ]}`, or the array by itself; other members are tolerated.
struct Envelope<'a, W, C> {
    member: &'static str,
    payload: &'a [u8],
    rules: Rules,
    reads: PhantomData<(W, C)>,
}

/// The array of the envelope.
struct Array<'a, W, C> {
    payload: &'a [u8],
    rules: Rules,
    reads: PhantomData<(W, C)>,
}

impl<'de, W, C> DeserializeSeed<'de> for Envelope<'de, W, C>
where
    W: WireItem<'de>,
    C: Default + Extend<W::Item>,
{
    type Value = C;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<C, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, W, C> Visitor<'de> for Envelope<'de, W, C>
where
    W: WireItem<'de>,
    C: Default + Extend<W::Item>,
{
    type Value = C;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "an object with the array `{}`", self.member)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<C, M::Error> {
        let mut items = None;
        while let Some(is_wanted) = map.next_key_seed(IsName(self.member))? {
            if !is_wanted {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let array =
                Array::<W, C> { payload: self.payload, rules: self.rules, reads: PhantomData };
            if items.replace(map.next_value_seed(array)?).is_some() {
                return Err(M::Error::duplicate_field(self.member));
            }
        }
        items.ok_or_else(|| M::Error::missing_field(self.member))
    }
}

impl<'de, W, C> DeserializeSeed<'de> for Array<'de, W, C>
where
    W: WireItem<'de>,
    C: Default + Extend<W::Item>,
{
    type Value = C;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<C, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, W, C> Visitor<'de> for Array<'de, W, C>
where
    W: WireItem<'de>,
    C: Default + Extend<W::Item>,
{
    type Value = C;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut sequence: S) -> Result<C, S::Error> {
        let mut items = C::default();
        let mut count = 0_u32;
        while let Some(item) = sequence.next_element::<W>()? {
            if count as usize == self.rules.items {
                return Err(S::Error::custom("more items than the limit"));
            }
            let accepted = item.accept(self.payload, self.rules.of_item(count));
            count += 1;
            items.extend(Some(accepted.ok_or_else(|| S::Error::custom("an item breaks a rule"))?));
        }
        if count == 0 { Err(S::Error::custom("no item")) } else { Ok(items) }
    }
}

/// Compares a key without keeping it.
struct IsName(&'static str);

impl<'de> DeserializeSeed<'de> for IsName {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName {
    type Value = bool;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}
