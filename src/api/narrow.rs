//! What a list of a sensor's rows is narrowed to: a span of time, a direction, some attributes. Used
//! by the handlers of measurements, log messages, heartbeats and exports. Pure. Promises that a time
//! is understood as RFC 3339 and as Unix seconds, and that what PostgreSQL could not take is refused.

use super::cursor;
use super::page::{DEFAULT_LIMIT, Parameters};
use super::problem::Problem;
use crate::domain::Timestamp;
use crate::store::{Order, RowKey, Selection, Span};
use crate::wire::value::MAX_KEY_CHARACTERS;

pub(super) const MOMENT_EXPECTED: &str = "a time as RFC 3339, or as Unix seconds from 0 on";
const ATTRIBUTES_EXPECTED: &str =
    "names of members of the values, with a comma between them (and \\, for a comma in a name)";

/// Longer texts find nothing.
const MAX_TEXT_CHARACTERS: usize = 1_000;

impl Parameters {
    /// `from` (in it) and `to` (not in it).
    pub(super) fn span(&mut self) -> Result<Span, Problem> {
        let from = self.take_as("from", MOMENT_EXPECTED, moment)?;
        let to = self.take_as("to", MOMENT_EXPECTED, moment)?;
        if let (Some(from), Some(to)) = (from, to)
            && to <= from
        {
            return Err(Problem::parameter("to", "it lies behind from"));
        }
        Ok(Span { from, to })
    }

    /// `from`, `to`, `order`, `limit` and `cursor`, of a sensor's rows of the kind of this tag.
    pub(super) fn selection(&mut self, kind: u8) -> Result<Selection, Problem> {
        let order = self.take_as("order", "desc (newest first) or asc", |text| match text {
            "desc" => Some(Order::NewestFirst),
            "asc" => Some(Order::OldestFirst),
            _ => None,
        })?;
        let order = order.unwrap_or_default();
        let span = self.span()?;
        let page = self.page_in::<RowKey>(cursor::rows(kind, order), DEFAULT_LIMIT)?;
        Ok(Selection { span, order, page })
    }

    /// `attributes`, no more than so many.
    pub(super) fn attributes(&mut self, most: usize) -> Result<Option<Vec<String>>, Problem> {
        let names = self.take_as("attributes", ATTRIBUTES_EXPECTED, names)?;
        let Some(names) = names else { return Ok(None) };
        let refusal = |detail| Err(Problem::parameter("attributes", detail));
        if names.len() > most {
            return refusal(format!("it takes {most} names at the most"));
        }
        match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            Some((_, twice)) => refusal(format!("it names {twice:?} twice")),
            None => Ok(Some(names)),
        }
    }

    /// `text`, which is looked for.
    pub(super) fn text(&mut self) -> Result<Option<String>, Problem> {
        self.take_as("text", "1 to 1000 characters", |text| {
            let usable = (1..=MAX_TEXT_CHARACTERS).contains(&text.chars().count());
            (usable && !text.contains('\0')).then(|| text.to_owned())
        })
    }
}

/// A moment that PostgreSQL and the calendar know.
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Timestamp::from_unix_seconds(seconds);
    }
    // A plus that was not encoded in the URL has become a space.
    let parsed = text.parse().or_else(|_| text.replace(' ', "+").parse::<jiff::Timestamp>());
    let moment = Timestamp::from(parsed.ok()?);
    let last = Timestamp::from_unix_seconds(Timestamp::MAX_UNIX_SECONDS)?;
    (Timestamp::default()..=last).contains(&moment).then_some(moment)
}

/// A time: RFC 3339, or Unix seconds.
#[derive(serde::Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum Moment {
    Seconds(f64),
    Text(String),
}

impl Moment {
    pub(super) fn read(self) -> Option<Timestamp> {
        match self {
            Self::Seconds(seconds) => Timestamp::from_unix_seconds(seconds),
            Self::Text(text) => moment(&text),
        }
    }
}

/// `a,b\,c` names a and "b,c".
fn names(text: &str) -> Option<Vec<String>> {
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
    let usable = names.iter().all(|name| (1..=MAX_KEY_CHARACTERS).contains(&name.chars().count()));
    usable.then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_either_way() {
        let expected = Timestamp::from_unix_microseconds(1_782_896_400_250_000);
        for text in [
            "1782896400.25",
            "2026-07-01T09:00:00.25Z",
            "2026-07-01T11:00:00.25+02:00",
            "2026-07-01T11:00:00.25 02:00",
        ] {
            assert_eq!(moment(text), Some(expected), "{text}");
        }
        for text in ["", "-1", "NaN", "inf", "1e300", "2026-07-01", "today", "1969-12-31T23:59:59Z"]
        {
            assert_eq!(moment(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_told_apart() {
        let told = |text| names(text).map(|names| names.join("|"));
        assert_eq!(told("a").as_deref(), Some("a"));
        assert_eq!(told(r"a b,c\,d,\\").as_deref(), Some(r"a b|c,d|\"));
        let long = "x".repeat(65);
        for text in ["", "a,", ",a", "a\\", "a\0", &long] {
            assert_eq!(told(text), None, "{text:?}");
        }
    }
}
