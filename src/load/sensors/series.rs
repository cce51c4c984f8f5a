//! A recorded series: the rows of a CSV file become the items that a sensor publishes. Read once, at start; a
//! file that cannot be published is refused there, with its line. Numbers stay as they are written.

use std::collections::HashSet;
use std::io::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use csv::StringRecord;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::value::RawValue;

use super::payload::{Revision, UnixSeconds, measurements};
use crate::domain::Timestamp;

/// Members' names, as the service takes them.
const MAX_NAME_CHARACTERS: usize = 64;

/// The rows of a file, in its order: when, and `"timestamp":…,"value":{…}`.
#[derive(Debug)]
pub(crate) struct Series(Vec<(Timestamp, String)>);

impl Series {
    /// Reads a whole file. The time is in the named column, or in the first that reads as one.
    pub(crate) fn parse(file: &str, time_column: Option<&str>) -> anyhow::Result<Self> {
        let file = file.strip_prefix('\u{feff}').unwrap_or(file);
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file.as_bytes());
        let header = reader.headers()?.clone();
        check_names(&header)?;
        let mut time_index = None;
        if let Some(name) = time_column {
            let position = header.iter().position(|known| known == name);
            time_index = Some(position.with_context(|| format!("it has no column {name:?}"))?);
        }
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record?;
            let index = match time_index {
                Some(index) => index,
                None => *time_index.insert(find_time(&header, &record)?),
            };
            rows.push(row(&header, &record, index)?);
        }
        ensure!(!rows.is_empty(), "it has no row below its header");
        Ok(Self(rows))
    }

    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// A message of some rows.
    pub(super) fn message(&self, rows: Range<usize>, revision: Revision) -> Vec<u8> {
        let mut out = Vec::new();
        measurements(&mut out, |out| {
            for (_, item) in &self.0[rows] {
                write!(out, r#"{{"revision":{revision},{item}}},"#)
                    .expect("writing to memory succeeds");
            }
        });
        out
    }

    /// When each batch of `per_message` rows is complete, counted from the first row. A row that is older
    /// than its predecessor is due at once.
    pub(crate) fn offsets(&self, per_message: usize) -> Arc<[Duration]> {
        let first = self.0.first().map_or(0, |(first, _)| first.unix_microseconds());
        let mut latest = 0;
        let batches = self.0.chunks(per_message).map(|rows| {
            for (timestamp, _) in rows {
                latest = latest.max(timestamp.unix_microseconds() - first);
            }
            Duration::from_micros(latest.unsigned_abs())
        });
        batches.collect()
    }
}

fn row(
    header: &StringRecord,
    record: &StringRecord,
    time_index: usize,
) -> anyhow::Result<(Timestamp, String)> {
    let cell = &record[time_index];
    let timestamp = date(cell).or_else(|| unix_seconds(cell)).with_context(|| {
        let line = record.position().map_or(0, csv::Position::line);
        format!("line {line}: {cell:?} is not a time from 1970 to 9999")
    })?;
    let mut members = Vec::with_capacity(record.len());
    for (index, (name, cell)) in header.iter().zip(record).enumerate() {
        if index == time_index || cell.is_empty() {
            continue;
        }
        let name = serde_json::to_string(name)?;
        let value =
            if is_json_number(cell) { cell.to_owned() } else { serde_json::to_string(cell)? };
        members.push(format!("{name}:{value}"));
    }
    let (at, members) = (UnixSeconds(timestamp), members.join(","));
    Ok((timestamp, format!(r#""timestamp":{at},"value":{{{members}}}"#)))
}

fn check_names(header: &StringRecord) -> anyhow::Result<()> {
    let mut seen = HashSet::new();
    for (name, column) in header.iter().zip(1..) {
        let is_usable = (1..=MAX_NAME_CHARACTERS).contains(&name.chars().count())
            && !name.contains('\0')
            && seen.insert(name);
        ensure!(
            is_usable,
            "column {column} has no usable name: expected 1 to {MAX_NAME_CHARACTERS} characters, each name once"
        );
    }
    Ok(())
}

/// A column that holds a date is the time in any file; a bare number only if the header says so.
fn find_time(header: &StringRecord, record: &StringRecord) -> anyhow::Result<usize> {
    const NAMES: [&str; 4] = ["timestamp", "time", "date", "datetime"];
    let is_named = |name: &str| NAMES.iter().any(|known| name.eq_ignore_ascii_case(known));
    let named = || {
        let mut cells = header.iter().zip(record);
        cells.position(|(name, cell)| is_named(name) && unix_seconds(cell).is_some())
    };
    match record.iter().position(|cell| date(cell).is_some()).or_else(named) {
        Some(index) => Ok(index),
        None => bail!("no column of its first row reads as a date and time: use --time-column"),
    }
}

/// A date, or a date and time; with a zone, else UTC; `-` or `/` between the parts of the date.
fn date(text: &str) -> Option<Timestamp> {
    // jiff would read 20120101 as a date.
    if text.parse::<f64>().is_ok() {
        return None;
    }
    let text = text.replace('/', "-");
    // The zoned form first: the civil one ignores an offset.
    let read = text.parse().ok().or_else(|| {
        let civil: DateTime = text.parse().ok()?;
        TimeZone::UTC.to_timestamp(civil).ok()
    })?;
    let read = Timestamp::from(read);
    // Within what the service accepts: nothing before 1970.
    Timestamp::from_unix_seconds(read.unix_seconds()).map(|_| read)
}

fn unix_seconds(text: &str) -> Option<Timestamp> {
    Timestamp::from_unix_seconds(text.parse().ok()?)
}

/// Whether the text is a JSON number, so that it can be published as it is.
fn is_json_number(text: &str) -> bool {
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| raw.get() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn items(file: &str, time_column: Option<&str>) -> Vec<String> {
        let Series(rows) = Series::parse(file, time_column).unwrap();
        rows.into_iter().map(|(_, item)| item).collect()
    }

    #[test]
    fn numbers_keep_their_text_and_other_cells_are_strings() {
        let file = "\u{feff}date, a ,b,c,d\n2012/01/01,0.0,12.80,drizzle,\n2012/01/02,-1e3,007,\"say \"\"x\"\"\",true\n";
        assert_eq!(
            items(file, None),
            [
                r#""timestamp":1325376000,"value":{"a":0.0,"b":12.80,"c":"drizzle"}"#,
                r#""timestamp":1325462400,"value":{"a":-1e3,"b":"007","c":"say \"x\"","d":"true"}"#,
            ]
        );
        for word in ["", "-", "+5", ".5", "1.", "007", "1e", "NaN", "1_000", "0x1", "1 ", "true"] {
            assert!(!is_json_number(word), "{word}");
        }
    }

    #[test]
    fn every_documented_form_of_a_time_is_read() {
        for (text, seconds) in [
            ("2012/01/01", Some(1_325_376_000.0)),
            ("2010/01/01 01:30", Some(1_262_309_400.0)),
            ("2012-01-01 00:00:00.25", Some(1_325_376_000.25)),
            ("2012-01-01T00:00:00Z", Some(1_325_376_000.0)),
            ("2012-01-01 01:00:00+01:00", Some(1_325_376_000.0)),
            ("drizzle", None),
            ("2012-13-01", None),
            ("1969-12-31", None),
            ("20120101", None),
        ] {
            assert_eq!(date(text), seconds.and_then(Timestamp::from_unix_seconds), "{text}");
        }
        assert_eq!(items("a,Time\n1,5.5\n", None), [r#""timestamp":5.500000,"value":{"a":1}"#]);
        assert_eq!(items("a,b\n1,5\n", Some("a")), [r#""timestamp":1,"value":{"b":5}"#]);
    }

    #[test]
    fn an_unusable_file_is_refused_with_its_line() {
        for (file, column, expected) in [
            ("a,b\n1,2\n", None, "use --time-column"),
            ("a,b\n1,2\n", Some("c"), "it has no column \"c\""),
            ("date,b\n", None, "no row below its header"),
            ("", None, "no row below its header"),
            ("date,,b\n", None, "column 2 "),
            ("date,b,b\n", None, "column 3 "),
            ("date,b\n2012-01-01,1\nyesterday,2\n", None, "line 3: \"yesterday\" is not a time"),
            ("date,b\n2012-01-01,1,2\n", None, "3 fields"),
        ] {
            let refused = Series::parse(file, column).unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn offsets_never_fall() {
        let series = Series::parse("t,b\n2012-01-01,1\n2012-01-03,1\n2012-01-02,1\n", None);
        let series = series.unwrap();
        let days = |per_message| -> Vec<u64> {
            series.offsets(per_message).iter().map(|it| it.as_secs() / 86_400).collect()
        };
        assert_eq!((days(1), days(2)), (vec![0, 2, 2], vec![2, 2]));
    }

    proptest! {
        #[test]
        fn every_item_is_json_and_holds_every_cell(
            cells in prop::collection::vec("[ -~äöü\n]{0,12}|[-+0-9.eE]{0,8}", 1..8),
        ) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            let names = (0..cells.len()).map(|index| format!("c{index}"));
            writer.write_record(std::iter::once("t".to_owned()).chain(names)).unwrap();
            writer.write_record(std::iter::once("2012-01-01").chain(cells.iter().map(String::as_str))).unwrap();
            let file = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let item = format!("{{{}}}", items(&file, Some("t"))[0]);
            // Not as numbers of 64 bits, which do not hold every one that JSON allows.
            type Members = std::collections::HashMap<String, Box<serde_json::value::RawValue>>;
            let item: Members = serde_json::from_str(&item).unwrap();
            let value: Members = serde_json::from_str(item["value"].get()).unwrap();
            for (index, cell) in cells.iter().enumerate() {
                let cell = cell.trim();
                let held = value.get(&format!("c{index}"));
                prop_assert_eq!(held.is_none(), cell.is_empty());
                if let Some(Ok(text)) = held.map(|it| serde_json::from_str::<String>(it.get())) {
                    prop_assert_eq!(text, cell);
                }
            }
        }
    }
}
