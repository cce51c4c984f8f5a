//! A recorded series: a CSV file becomes the rows that a sensor plays. Read once, at start; what
//! cannot be played is refused there, with its line. Numbers stay as they are written in the file.

use std::collections::HashSet;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use super::{moment, text};
use crate::domain::Timestamp;

/// Why a file is no series.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum SeriesError {
    /// The file is no CSV.
    #[error("{0}")]
    Csv(String),
    /// There is a header at most.
    #[error("it holds no row below its header")]
    Empty,
    /// The service would reject every row.
    #[error("column {0} has no usable name: it takes 1 to 64 characters, each name once")]
    Name(usize),
    /// No column reads as a time.
    #[error("no column of its first row reads as a date and time: name it with --time-column")]
    NoTime,
    /// The named column is not there.
    #[error("it has no column {0:?}")]
    NoSuchColumn(String),
    /// One row has no usable time.
    #[error("line {line}: {cell:?} is no time from 1970 to 9999")]
    Time {
        /// In the file, from 1.
        line: u64,
        /// What stands there.
        cell: String,
    },
}

/// The rows of a file, in its order, each written as the end of an item.
#[derive(Debug)]
pub(super) struct Series {
    rows: Vec<Row>,
    text: Vec<u8>,
}

#[derive(Debug)]
struct Row {
    moment: Timestamp,
    item: Range<usize>,
}

/// As the service has it.
const MAX_NAME_CHARACTERS: usize = 64;

impl Series {
    /// Reads a whole file. The time is in the named column, or in the first that reads as one.
    pub(super) fn parse(file: &str, time_column: Option<&str>) -> Result<Self, SeriesError> {
        let file = file.strip_prefix('\u{feff}').unwrap_or(file);
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file.as_bytes());
        let header = reader.headers().map_err(refused)?.clone();
        check_names(&header)?;

        let mut series = Self { rows: Vec::new(), text: Vec::with_capacity(file.len() * 2) };
        let mut time_index = match time_column {
            Some(name) => Some(
                header
                    .iter()
                    .position(|known| known == name)
                    .ok_or_else(|| SeriesError::NoSuchColumn(name.to_owned()))?,
            ),
            None => None,
        };
        for record in reader.records() {
            let record = record.map_err(refused)?;
            let index = match time_index {
                Some(index) => index,
                None => *time_index.insert(find_time(&header, &record)?),
            };
            series.push(&header, &record, index)?;
        }
        if series.rows.is_empty() {
            return Err(SeriesError::Empty);
        }
        Ok(series)
    }

    fn push(
        &mut self,
        header: &csv::StringRecord,
        record: &csv::StringRecord,
        time_index: usize,
    ) -> Result<(), SeriesError> {
        let cell = &record[time_index];
        let moment = moment::from_text(cell).ok_or_else(|| SeriesError::Time {
            line: record.position().map_or(0, csv::Position::line),
            cell: cell.to_owned(),
        })?;
        let start = self.text.len();
        self.text.extend_from_slice(br#""timestamp":"#);
        text::seconds(moment.unix_microseconds(), &mut self.text);
        self.text.extend_from_slice(br#","value":{"#);
        let members = header.iter().zip(record).enumerate();
        let members = members.filter(|(index, (_, cell))| *index != time_index && !cell.is_empty());
        for (position, (_, (name, cell))) in members.enumerate() {
            if position > 0 {
                self.text.push(b',');
            }
            text::string(name, &mut self.text);
            self.text.push(b':');
            if text::is_json_number(cell) {
                self.text.extend_from_slice(cell.as_bytes());
            } else {
                text::string(cell, &mut self.text);
            }
        }
        self.text.push(b'}');
        self.rows.push(Row { moment, item: start..self.text.len() });
        Ok(())
    }

    /// How many rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// `"timestamp":…,"value":{…}` of one row.
    pub(super) fn item(&self, index: usize) -> &[u8] {
        &self.text[self.rows[index].item.clone()]
    }

    /// When each batch of so many rows is complete, from the first row on. A row that is older
    /// than its forerunner is played at once.
    pub(super) fn offsets(&self, per_message: usize) -> Rc<[Duration]> {
        let first = self.rows.first().map_or(0, |row| row.moment.unix_microseconds());
        let mut latest = 0;
        let batches = self.rows.chunks(per_message).map(|rows| {
            for row in rows {
                latest = latest.max(row.moment.unix_microseconds() - first);
            }
            Duration::from_micros(latest.unsigned_abs())
        });
        batches.collect()
    }
}

fn check_names(header: &csv::StringRecord) -> Result<(), SeriesError> {
    let mut seen = HashSet::new();
    for (index, name) in header.iter().enumerate() {
        let usable = (1..=MAX_NAME_CHARACTERS).contains(&name.chars().count());
        if !usable || name.contains('\0') || !seen.insert(name) {
            return Err(SeriesError::Name(index + 1));
        }
    }
    Ok(())
}

/// A column that holds a date is one in any file; a bare number is a time only if the header says
/// so.
fn find_time(header: &csv::StringRecord, record: &csv::StringRecord) -> Result<usize, SeriesError> {
    const NAMES: [&str; 4] = ["timestamp", "time", "date", "datetime"];
    let calendar = record.iter().position(|cell| moment::from_calendar(cell).is_some());
    let named = || {
        header.iter().zip(record).position(|(name, cell)| {
            NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
                && moment::from_unix_seconds(cell).is_some()
        })
    };
    calendar.or_else(named).ok_or(SeriesError::NoTime)
}

fn refused(error: csv::Error) -> SeriesError {
    SeriesError::Csv(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn items(file: &str, time_column: Option<&str>) -> Vec<String> {
        let series = Series::parse(file, time_column).unwrap();
        let text = |index| String::from_utf8(series.item(index).to_vec()).unwrap();
        (0..series.len()).map(text).collect()
    }

    #[test]
    fn numbers_stay_as_written_and_words_stay_words() {
        let file = "\u{feff}date, a ,b,c,d\n2012/01/01,0.0,12.80,drizzle,\n2012/01/02,-1e3,007,\"say \"\"x\"\"\",true\n";
        assert_eq!(
            items(file, None),
            [
                r#""timestamp":1325376000,"value":{"a":0.0,"b":12.80,"c":"drizzle"}"#,
                r#""timestamp":1325462400,"value":{"a":-1e3,"b":"007","c":"say \"x\"","d":"true"}"#,
            ]
        );
    }

    #[test]
    fn the_time_column_is_found_or_named() {
        assert_eq!(
            items("a,when\n1,2012-01-01\n", None)[0],
            r#""timestamp":1325376000,"value":{"a":1}"#
        );
        assert_eq!(items("a,Time\n1,5.5\n", None)[0], r#""timestamp":5.500000,"value":{"a":1}"#);
        assert_eq!(items("a,b\n1,5\n", Some("a"))[0], r#""timestamp":1,"value":{"b":5}"#);
    }

    #[test]
    fn what_cannot_be_played_is_refused_with_its_line() {
        let refused = |file, column| Series::parse(file, column).unwrap_err();
        assert_eq!(refused("a,b\n1,2\n", None), SeriesError::NoTime);
        assert_eq!(refused("a,b\n1,2\n", Some("c")), SeriesError::NoSuchColumn("c".into()));
        assert_eq!(refused("date,b\n", None), SeriesError::Empty);
        assert_eq!(refused("", None), SeriesError::Empty);
        assert_eq!(refused("date,,b\n", None), SeriesError::Name(2));
        assert_eq!(refused("date,b,b\n", None), SeriesError::Name(3));
        assert_eq!(
            refused("date,b\n2012-01-01,1\nyesterday,2\n", None),
            SeriesError::Time { line: 3, cell: "yesterday".into() }
        );
        assert!(matches!(refused("date,b\n2012-01-01,1,2\n", None), SeriesError::Csv(_)));
    }

    #[test]
    fn offsets_never_fall() {
        let series =
            Series::parse("t,b\n2012-01-01,1\n2012-01-03,1\n2012-01-02,1\n", None).unwrap();
        let days = |offsets: Rc<[Duration]>| {
            offsets.iter().map(|it| it.as_secs() / 86_400).collect::<Vec<_>>()
        };
        assert_eq!(days(series.offsets(1)), [0, 2, 2]);
        assert_eq!(days(series.offsets(2)), [2, 2]);
    }

    /// The two real files: every row, and every number as the file has it.
    #[test]
    fn the_real_series_are_read_whole() {
        let weather = items(include_str!("../../tests/data/seattle-weather.csv"), None);
        assert_eq!(weather.len(), 1_461);
        assert_eq!(
            weather[0],
            r#""timestamp":1325376000,"value":{"precipitation":0.0,"temp_max":12.8,"temp_min":5.0,"wind":4.7,"weather":"drizzle"}"#
        );
        let temperatures = items(include_str!("../../tests/data/seattle-temps.csv"), None);
        assert_eq!(temperatures.len(), 8_759);
        assert_eq!(temperatures[0], r#""timestamp":1262304000,"value":{"temp":39.4}"#);
        assert_eq!(temperatures[8_758], r#""timestamp":1293836400,"value":{"temp":39.6}"#);
    }

    proptest! {
        #[test]
        fn every_item_is_json_and_holds_every_cell(
            cells in prop::collection::vec("[ -~äöü\n]{0,12}", 1..8),
        ) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            let names = (0..cells.len()).map(|index| format!("c{index}"));
            writer.write_record(std::iter::once("t".to_owned()).chain(names)).unwrap();
            writer.write_record(std::iter::once("2012-01-01").chain(cells.iter().map(String::as_str))).unwrap();
            let file = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            let item = format!("{{{}}}", items(&file, Some("t"))[0]);
            let item: serde_json::Value = serde_json::from_str(&item).unwrap();
            let value = item["value"].as_object().unwrap();
            for (index, cell) in cells.iter().enumerate() {
                let cell = cell.trim();
                let held = value.get(&format!("c{index}"));
                prop_assert_eq!(held.is_none(), cell.is_empty());
                if let Some(serde_json::Value::String(text)) = held {
                    prop_assert_eq!(text, cell);
                }
            }
        }
    }
}
