//! Reads the times that stand in recorded series. Called by `replay` for the time column; whoever
//! wrote the file meant UTC where no zone is named.

use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::domain::Timestamp;

/// A date, a date and time, with a zone or without, with `-` or `/` between the parts of the date.
pub(super) fn from_calendar(text: &str) -> Option<Timestamp> {
    // Whoever parses dates of unknown form takes a bare number for one: jiff reads 20120101.
    if text.parse::<f64>().is_ok() {
        return None;
    }
    let text = text.replace('/', "-");
    // The zoned form first: the civil one reads past an offset.
    let moment = jiff::Timestamp::from_str(&text).ok().or_else(|| {
        let civil = DateTime::from_str(&text).ok()?;
        TimeZone::UTC.to_timestamp(civil).ok()
    })?;
    in_range(moment.as_microsecond())
}

/// Unix seconds, with a fraction or without.
pub(super) fn from_unix_seconds(text: &str) -> Option<Timestamp> {
    Timestamp::from_unix_seconds(text.parse().ok()?)
}

/// Either.
pub(super) fn from_text(text: &str) -> Option<Timestamp> {
    from_calendar(text).or_else(|| from_unix_seconds(text))
}

fn in_range(unix_microseconds: i64) -> Option<Timestamp> {
    let moment = Timestamp::from_unix_microseconds(unix_microseconds);
    // What the service takes: nothing before 1970.
    Timestamp::from_unix_seconds(moment.unix_seconds()).map(|_| moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form_that_is_promised() {
        for (text, seconds) in [
            ("2012-01-01", 1_325_376_000.0),
            ("2012/01/01", 1_325_376_000.0),
            ("2010/01/01 00:00", 1_262_304_000.0),
            ("2010/01/01 01:30", 1_262_309_400.0),
            ("2012-01-01 00:00:00", 1_325_376_000.0),
            ("2012-01-01 00:00:00.25", 1_325_376_000.25),
            ("2012-01-01T00:00:00Z", 1_325_376_000.0),
            ("2012-01-01T01:00:00+01:00", 1_325_376_000.0),
            ("2012-01-01 01:00:00+01:00", 1_325_376_000.0),
            ("1325376000", 1_325_376_000.0),
            ("1325376000.5", 1_325_376_000.5),
            ("0", 0.0),
        ] {
            let expected = Timestamp::from_unix_seconds(seconds);
            assert_eq!(from_text(text), expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in ["", "drizzle", "2012-13-01", "2012-01-01 25:00", "1969-12-31", "-1", "NaN"] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }

    #[test]
    fn a_number_is_no_date() {
        assert_eq!(from_calendar("20120101"), None);
        assert_eq!(from_calendar("12.8"), None);
    }
}
