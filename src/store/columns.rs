//! Parameters of statements, and columns of rows. Used by every statement that is not prepared
//! beforehand. The text of a `jsonb` is passed on as PostgreSQL prints it.

use std::error::Error;

use bytes::BytesMut;
use serde_json::value::RawValue;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use crate::domain::{NetworkIdentifier, Role, Scope, SensorIdentifier, Timestamp};
use crate::store::ConfigurationState;

/// Parameters with their types, so that preparing a statement costs no extra round trip.
pub(in crate::store) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// Makes each of our types a parameter and a column: `$of` is how a type of the driver is made of its value, and
/// `$from` the reverse.
macro_rules! stored_as {
    ($($own:ty as $driver:ty: |$value:ident| $of:expr, |$stored:ident| $from:expr;)+) => {$(
        impl ToSql for $own {
            fn to_sql(
                &self,
                column: &Type,
                out: &mut BytesMut,
            ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
                let $value = *self;
                <$driver as ToSql>::to_sql(&$of, column, out)
            }

            fn accepts(column: &Type) -> bool {
                <$driver as ToSql>::accepts(column)
            }

            to_sql_checked!();
        }

        impl<'a> FromSql<'a> for $own {
            fn from_sql(
                column: &Type,
                raw: &'a [u8],
            ) -> Result<Self, Box<dyn Error + Sync + Send>> {
                let $stored = <$driver as FromSql>::from_sql(column, raw)?;
                $from
            }

            fn from_sql_null(column: &Type) -> Result<Self, Box<dyn Error + Sync + Send>> {
                let $stored = <$driver as FromSql>::from_sql_null(column)?;
                $from
            }

            fn accepts(column: &Type) -> bool {
                <$driver as FromSql>::accepts(column)
            }
        }
    )+};
}

stored_as! {
    SensorIdentifier as Uuid: |sensor| sensor.0, |uuid| Ok(Self(uuid));
    NetworkIdentifier as Uuid: |network| network.0, |uuid| Ok(Self(uuid));
    Timestamp as jiff::Timestamp: |time| time.to_jiff(), |time| Ok(time.into());
    Scope as Option<NetworkIdentifier>: |scope| scope.network(), |network| Ok(Self::of(network));
    Role as &str: |role| role.name(), |name| Ok(name.parse()?);
    ConfigurationState as &str: |state| state.name(), |name| Ok(name.parse()?);
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
    fn text_is_escaped() {
        assert_eq!(containing(r"50%_\x"), r"%50\%\_\\x%");
    }
}
