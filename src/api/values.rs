//! The values of members and parameters, read from their text. Called by `fields.rs`, which names what
//! each takes. Pure.

use serde::Deserialize;
use tracing_subscriber::filter::LevelFilter;

use crate::domain::Timestamp;
use crate::wire::value::{MAX_DEPTH, MAX_KEY_CHARACTERS};

pub(super) const MAX_NAME_CHARACTERS: usize = 200;

pub(super) const MAX_TEXT_CHARACTERS: usize = 1_000;

/// A log filter of every module is shorter.
pub(super) const MAX_FILTER_BYTES: usize = 1_000;

const MAX_BUCKET_SECS: u32 = 30 * 86_400;

pub(super) fn usable_name(name: String) -> Option<String> {
    let is_usable = (1..=MAX_NAME_CHARACTERS).contains(&name.chars().count())
        && !name.chars().any(char::is_control);
    is_usable.then_some(name)
}

pub(super) fn search_text(text: String) -> Option<String> {
    let is_usable = (1..=MAX_TEXT_CHARACTERS).contains(&text.chars().count());
    (is_usable && !text.contains('\0')).then_some(text)
}

pub(super) fn revision(text: &str) -> Option<i32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

pub(super) fn future(text: String) -> Option<Timestamp> {
    let time = text.parse::<jiff::Timestamp>().ok()?;
    (time > jiff::Timestamp::now()).then(|| time.into())
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum NumberOrText {
    Number(f64),
    Text(String),
}

impl NumberOrText {
    pub(super) fn time(self) -> Option<Timestamp> {
        match self {
            Self::Number(seconds) => Timestamp::from_unix_seconds(seconds),
            Self::Text(text) => time(&text),
        }
    }
}

/// A time that PostgreSQL and the calendar know.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Timestamp::from_unix_seconds(seconds);
    }
    // A plus that was not encoded in the URL has become a space.
    let parsed = text.parse().or_else(|_| text.replace(' ', "+").parse::<jiff::Timestamp>());
    let time = Timestamp::from(parsed.ok()?);
    let last = Timestamp::from_unix_seconds(Timestamp::MAX_UNIX_SECONDS)?;
    (Timestamp::default()..=last).contains(&time).then_some(time)
}

/// `a,b\,c` names a and "b,c".
pub(super) fn names(text: &str) -> Option<Vec<String>> {
    let mut names = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let name = names.last_mut()?;
        match character {
            ',' => names.push(String::new()),
            '\\' => name.push(characters.next()?),
            '\0' => return None,
            other => name.push(other),
        }
    }
    let fits = |level: &str| level.chars().count() <= MAX_KEY_CHARACTERS;
    // A path with a dot between its keys, which may hold dots themselves.
    let usable = |name: &String| {
        !name.is_empty() && name.split('.').count() <= MAX_DEPTH && name.split('.').all(fits)
            || (1..=MAX_KEY_CHARACTERS).contains(&name.chars().count())
    };
    names.iter().all(usable).then_some(names)
}

/// Seconds, or a number and its unit.
pub(super) fn bucket(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(|it: char| it.is_ascii_lowercase());
    let unit = match text.strip_prefix(digits)? {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: u32 = digits.parse().ok().filter(|_| is_number)?;
    count.checked_mul(unit).filter(|secs| (1..=MAX_BUCKET_SECS).contains(secs))
}

/// The parser reads a word that is not a level as the name of a module, which is never meant.
pub(super) fn usable_filter(filter: String) -> Option<String> {
    // The parser takes no word at all for `error`.
    let is_level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
    let is_directive = |text: &str| text.contains('=') || is_level(text.trim());
    let usable = filter.len() <= MAX_FILTER_BYTES && filter.split(',').all(is_directive);
    usable.then_some(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_filter_is_made_of_levels_and_targets() {
        for filter in ["info", "OFF", "warn,tributary=debug", "tributary::mqtt=trace, error"] {
            assert!(usable_filter(filter.into()).is_some(), "{filter}");
        }
        for filter in ["", "verbose", "info,", "info,loud", &"a=info,".repeat(200)] {
            assert!(usable_filter(filter.into()).is_none(), "{filter}");
        }
    }

    #[test]
    fn a_name_has_no_control_characters() {
        for name in ["a", "Grünfläche 7", &"é".repeat(200)] {
            assert!(usable_name(name.into()).is_some(), "{name}");
        }
        for name in ["", "a\0b", "a\nb", &"é".repeat(201)] {
            assert!(usable_name(name.into()).is_none(), "{name}");
        }
    }

    #[test]
    fn a_bucket_has_a_unit() {
        for (text, secs) in [
            ("1", 1),
            ("60", 60),
            ("90s", 90),
            ("5m", 300),
            ("1h", 3_600),
            ("1d", 86_400),
            ("2w", 1_209_600),
            ("30d", 2_592_000),
        ] {
            assert_eq!(bucket(text), Some(secs), "{text}");
        }
        for text in
            ["", "0", "0s", "s", "31d", "5w", "1y", "1.5h", "-1", "+1", "1 h", "99999999999"]
        {
            assert_eq!(bucket(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_is_rfc_3339_or_unix_seconds() {
        let expected = Timestamp::from_unix_microseconds(1_782_896_400_250_000);
        for text in [
            "1782896400.25",
            "2026-07-01T09:00:00.25Z",
            "2026-07-01T11:00:00.25+02:00",
            "2026-07-01T11:00:00.25 02:00",
        ] {
            assert_eq!(time(text), Some(expected), "{text}");
        }
        for text in ["", "-1", "NaN", "inf", "1e300", "2026-07-01", "today", "1969-12-31T23:59:59Z"]
        {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_separated_by_unescaped_commas() {
        let parsed = |text| names(text).map(|names| names.join("|"));
        assert_eq!(parsed("a").as_deref(), Some("a"));
        assert_eq!(parsed(r"a b,c\,d,\\").as_deref(), Some(r"a b|c,d|\"));
        let long = "x".repeat(65);
        for text in ["", "a,", ",a", "a\\", "a\0", &long] {
            assert_eq!(parsed(text), None, "{text:?}");
        }
    }
}
