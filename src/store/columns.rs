//! Parameters of statements, and columns of rows. Used by every statement that is not prepared
//! beforehand. The text of a `jsonb` is passed on as PostgreSQL prints it.

use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::domain::Timestamp;

/// Parameters with their types, so that preparing a statement costs no extra round trip.
pub(in crate::store) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

pub(in crate::store) fn timestamp(
    row: &Row,
    index: usize,
) -> Result<Timestamp, tokio_postgres::Error> {
    row.try_get::<_, jiff::Timestamp>(index).map(Into::into)
}

pub(in crate::store) fn optional_timestamp(
    row: &Row,
    index: usize,
) -> Result<Option<Timestamp>, tokio_postgres::Error> {
    Ok(row.try_get::<_, Option<jiff::Timestamp>>(index)?.map(Into::into))
}

pub(in crate::store) fn raw_json(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("PostgreSQL prints a jsonb as JSON")
}

/// The pattern for `ilike` that matches values containing this text, escaped.
pub(in crate::store) fn containing(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_escaped() {
        assert_eq!(containing(r"50%_\x"), r"%50\%\_\\x%");
    }
}
