//! The metadata of a sensor: any JSON object of a bounded size that `jsonb` can hold. Pure. Called by
//! `sensors.rs`. The text is kept; an error points to the member at fault.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::field_error::pointer;
use super::problem::Problem;

/// Bounds a page of a thousand sensors.
const MAX_METADATA_BYTES: usize = 16 << 10;

/// The text of a JSON object, if the database can hold it.
pub(super) fn usable_metadata(json: &str) -> Result<String, Problem> {
    let mut look = Look { at: pointer("metadata"), flaw: None };
    if json.len() > MAX_METADATA_BYTES {
        return Err(Problem::member(look.at, "it is larger than 16 KiB"));
    }
    if !json.trim_start().starts_with('{') {
        return Err(Problem::member(look.at, "it takes a JSON object"));
    }
    match serde_json::Deserializer::from_str(json).deserialize_any(&mut look) {
        Ok(()) => Ok(json.to_owned()),
        // A number or string that the parser refuses is refused by the database too.
        Err(_) => Err(Problem::member(
            look.at,
            look.flaw.unwrap_or("it holds a number or a string that cannot be parsed"),
        )),
    }
}

/// Visits all of a value. On failure, `at` points to the member at fault.
struct Look {
    at: String,
    flaw: Option<&'static str>,
}

impl Look {
    fn refuse<E: Error>(&mut self, flaw: &'static str) -> E {
        self.flaw = Some(flaw);
        E::custom(flaw)
    }

    fn text<E: Error>(&mut self, text: &str) -> Result<(), E> {
        match text.contains('\0') {
            true => Err(self.refuse("it holds \\u0000, which the database cannot hold")),
            false => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for &mut Look {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Look {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let length = self.at.len();
        for index in 0_usize.. {
            self.at += &pointer(&index.to_string());
            let there = items.next_element_seed(&mut *self)?;
            self.at.truncate(length);
            if there.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let length = self.at.len();
        let mut names = foldhash::HashSet::default();
        while let Some(name) = members.next_key::<String>()? {
            self.at += &pointer(&name);
            self.text(&name)?;
            if !names.insert(name) {
                return Err(self.refuse("it is given twice"));
            }
            members.next_value_seed(&mut *self)?;
            self.at.truncate(length);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_any_object_that_the_database_can_hold() {
        for json in ["{}", r#" {"a":{"b":[1.50,null,"ä",{"c":true}],"a":1}}"#] {
            assert_eq!(usable_metadata(json).unwrap(), json);
        }
        let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_METADATA_BYTES));
        for json in [
            "[]",
            "7",
            "null",
            r#"{"a":[{"b":"\u0000"}]}"#,
            r#"{"a\u0000":1}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1e400}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":[{"b":1,"\u0062":2}]}"#,
            &large,
        ] {
            assert!(usable_metadata(json).is_err(), "{json}");
        }
    }
}
