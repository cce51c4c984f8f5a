//! What is exported, and the COPY statement that does it. Called by `export.rs` for each sensor. Pure.

use super::rows::TimeRange;
use super::{csv, members};
use crate::domain::{NetworkIdentifier, SensorIdentifier};

/// The sensors whose measurements are exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportOf {
    /// One sensor.
    Sensor(SensorIdentifier),
    /// All sensors of a network, one after the other.
    Network(NetworkIdentifier),
}

/// The format of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExportFormat {
    /// RFC 4180, with a header.
    #[default]
    Csv,
    /// One JSON object per line.
    NdJson,
}

/// A request for an export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    /// The sensors whose measurements are exported.
    pub of: ExportOf,
    /// The measurements' timestamps.
    pub range: TimeRange,
    /// Only measurements that have one of these members of `value`, and only these; none for all.
    pub attributes: Option<Vec<String>>,
    /// The format of a line.
    pub format: ExportFormat,
    /// CSV for Excel: with a byte order mark, and without cells that Excel evaluates as formulas.
    pub for_excel: bool,
}

const RFC3339: &str = r#"'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'"#;

impl Export {
    pub(super) fn header(&self) -> String {
        match self.format {
            ExportFormat::Csv => csv::header(self.attributes.as_deref(), self.for_excel),
            ExportFormat::NdJson => String::new(),
        }
    }

    /// COPY has no parameters. The text contains only numbers, timestamps and identifiers that we format,
    /// and the names of attributes as escaped literals.
    pub(super) fn statement(&self, sensor: SensorIdentifier) -> String {
        let rfc3339 = |column| format!("to_char({column} at time zone 'UTC', {RFC3339})");
        let (created, received) = (rfc3339("creation_timestamp"), rfc3339("receipt_timestamp"));
        let unix = "trim_scale(extract(epoch from creation_timestamp))";
        let has_paths = self.attributes.as_deref().is_some_and(members::has_paths);
        let array = |literals: &[String]| format!("array[{}]", literals.join(", "));
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
                    Some(attributes) => members::some(&array(attributes), has_paths),
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
            filter += &format!(" and {}", members::has_one(&array(attributes), has_paths));
        }
        let options = match self.format {
            ExportFormat::Csv => "format csv",
            // No quotes around a line: JSON text contains none of these characters.
            ExportFormat::NdJson => "format csv, quote e'\\x01', delimiter e'\\x02'",
        };
        format!(
            "copy (select {columns} from measurement where {filter} \
             order by creation_timestamp, digest) to stdout with ({options})"
        )
    }
}

/// An SQL string literal.
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

    #[test]
    fn names_are_quoted_in_the_statement() {
        let hostile = "a', pg_sleep(9)) --";
        for format in [ExportFormat::Csv, ExportFormat::NdJson] {
            let statement =
                export(format, Some(&[hostile])).statement(SensorIdentifier(uuid::Uuid::nil()));
            assert!(statement.contains("'a'', pg_sleep(9)) --'"), "{statement}");
            assert!(!statement.replace("''", "").contains("'a'"), "{statement}");
        }
    }
}
