//! The fast pass: decodes a valid message in one pass, straight into the domain's items. Called first for
//! every message. Gives up at the first doubt, without saying why.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected,
    Visitor,
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
    let array = ItemArray::<W, C> {
        member: Some(kind.envelope_member()),
        payload,
        rules,
        reads: PhantomData,
    };
    let text = std::str::from_utf8(trim_payload(payload)).ok()?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let items = array.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(items)
}

/// `{"<member>": [ … ]}`, or the array by itself; other members are tolerated.
struct ItemArray<'a, W, C> {
    /// None within an envelope, where only the array is accepted.
    member: Option<&'static str>,
    payload: &'a [u8],
    rules: Rules,
    reads: PhantomData<(W, C)>,
}

impl<'de, W, C> DeserializeSeed<'de> for ItemArray<'de, W, C>
where
    W: WireItem<'de>,
    C: Default + Extend<W::Item>,
{
    type Value = C;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<C, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, W, C> Visitor<'de> for ItemArray<'de, W, C>
where
    W: WireItem<'de>,
    C: Default + Extend<W::Item>,
{
    type Value = C;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of items")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<C, M::Error> {
        let Some(member) = self.member else {
            return Err(M::Error::invalid_type(Unexpected::Map, &self));
        };
        let mut items = None;
        while let Some(KeyName(name)) = map.next_key()? {
            if name != member {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if items.replace(map.next_value_seed(Self { member: None, ..self })?).is_some() {
                return Err(M::Error::duplicate_field(member));
            }
        }
        items.ok_or_else(|| M::Error::missing_field(member))
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

#[derive(Deserialize)]
struct KeyName<'a>(#[serde(borrow)] Cow<'a, str>);
