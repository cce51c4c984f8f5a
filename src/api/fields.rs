//! What members of bodies and parameters of queries may hold. Each type reads itself, names what it
//! takes in its error, and describes itself in the document. Pure.

use std::borrow::Cow;
use std::sync::LazyLock;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use tracing_subscriber::filter::LevelFilter;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type,
};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use crate::domain::{
    Kind, NetworkIdentifier, Reason, SensorIdentifier, Severity, Timestamp, is_usable_password,
};
use crate::store::{ConfigurationState, ExportFormat, Order, SensorOrder};
use crate::wire::value::MAX_KEY_CHARACTERS;

/// More would make a response that helps nobody and holds memory and a connection.
pub(super) const MAX_LIMIT: u32 = 1_000;

const MAX_NAME_CHARACTERS: usize = 200;

/// Longer names and passwords nobody has.
const MAX_CREDENTIAL_BYTES: usize = 800;

/// Longer texts find nothing.
const MAX_TEXT_CHARACTERS: usize = 1_000;

/// A log filter of every module is shorter.
const MAX_FILTER_BYTES: usize = 1_000;

const MAX_BUCKET_SECS: u32 = 30 * 86_400;

/// So many rejections are deleted in one request: well within the time that a statement may take.
pub(super) const MAX_DELETED: u32 = 10_000;

/// The gravest first, as summaries are sorted.
pub(super) const SEVERITIES: [&str; 3] = ["error", "warning", "info"];

/// A value of another type, if it is one that is taken; `expected` completes "it takes …".
fn read_as<'de, D: Deserializer<'de>, T: Deserialize<'de>, U>(
    deserializer: D,
    expected: &str,
    read: impl FnOnce(T) -> Option<U>,
) -> Result<U, D::Error> {
    let read = match T::deserialize(deserializer) {
        // serde asks the type of a member that is missing whether it can do without.
        Err(error) if error.to_string().starts_with("missing field `") => return Err(error),
        outcome => outcome.ok().and_then(read),
    };
    read.ok_or_else(|| D::Error::custom(format_args!("it takes {expected}")))
}

/// A member that may be left out and is never null: `#[serde(default, deserialize_with = "not_null")]`.
pub(super) fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Each has the name of its schema, the type that it is read from, what it takes, how it is read, and
/// its schema.
macro_rules! fields {
    ($($(#[$doc:meta])+ $name:ident($inner:ty) is $title:literal, from $from:ty:
        $expected:expr, $read:expr, $schema:expr;)+) => {$(
        $(#[$doc])+
        #[derive(Debug)]
        pub(super) struct $name(pub(super) $inner);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let read: fn($from) -> Option<$inner> = $read;
                read_as(deserializer, $expected, read).map(Self)
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $schema.into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                $title.into()
            }
        }
    )+}
}

fields! {
    /// What networks, sensors, tokens and users are called.
    Name(String) is "Name", from String:
        "a string of 1 to 200 characters, none of them a control character", usable_name,
        text().min_length(Some(1)).max_length(Some(MAX_NAME_CHARACTERS)).examples(["roof"]);

    /// A new password.
    Password(SecretString) is "Password", from String:
        "a string of 12 to 200 characters", |it| is_usable_password(&it).then(|| it.into()),
        secret().min_length(Some(12)).max_length(Some(200));

    /// A name that somebody gives to sign in.
    GivenName(String) is "GivenName", from String:
        "a string",
        |it| (it.len() <= MAX_CREDENTIAL_BYTES && !it.contains('\0')).then_some(it),
        text().examples(["ada"]);

    /// A password that somebody gives to sign in.
    GivenPassword(SecretString) is "GivenPassword", from String:
        "a string", |it| (it.len() <= MAX_CREDENTIAL_BYTES).then(|| it.into()), secret();

    /// An identifier.
    Identifier(Uuid) is "Identifier", from String:
        "a UUID in its hyphenated form", |it| SensorIdentifier::parse(&it).map(|it| it.0), uuid();

    /// A sensor.
    Sensor(SensorIdentifier) is "SensorIdentifier", from String:
        "a UUID in its hyphenated form", |it| SensorIdentifier::parse(&it), uuid();

    /// A network.
    Network(NetworkIdentifier) is "NetworkIdentifier", from String:
        "the identifier of a network", |it| NetworkIdentifier::parse(&it), uuid();

    /// A time.
    Time(Timestamp) is "Time", from NumberOrText:
        "a time as RFC 3339, or as Unix seconds from 0 on", NumberOrText::time,
        OneOfBuilder::new()
            .item(text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))))
            .item(ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)));

    /// When something ends: in the future.
    Expiry(Timestamp) is "Expiry", from String:
        "a time in the future, as in 2030-01-01T00:00:00Z", future,
        text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));

    /// A text that is looked for.
    SearchText(String) is "SearchText", from String:
        "1 to 1000 characters", search_text,
        text().min_length(Some(1)).max_length(Some(MAX_TEXT_CHARACTERS));

    /// Names of members of values.
    Attributes(Vec<String>) is "Attributes", from String:
        "names of members of the values, with a comma between them (and \\, for a comma in a name)",
        |it| names(&it), text();

    /// The length of a bucket of time, in seconds.
    Bucket(u32) is "Bucket", from String:
        "a time from 1s to 30d, as in 60, 90s, 5m, 1h, 1d or 1w", |it| bucket(&it),
        text().examples(["1h"]);

    /// One severity, or several.
    Severities(Vec<SeverityName>) is "Severities", from String:
        "error, warning or info; several with a comma between them", |it| severities(&it),
        ArrayBuilder::new().items(SeverityName::schema());

    /// How severe a log message is.
    SeverityName(&'static str) is "Severity", from String:
        "error, warning or info", |it| severity(&it).map(|it| it.0),
        words(Severity::ALL.into_iter().map(Severity::name).collect());

    /// A revision.
    Revision(i32) is "Revision", from String:
        "a revision: a whole number from 0 on", |it| revision(&it),
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(i32::MAX));

    /// A revision; none: the newest.
    RevisionOrNewest(Option<i32>) is "RevisionOrNewest", from String:
        "a revision: a whole number from 0 on, or newest",
        |it| if it == "newest" { Some(None) } else { revision(&it).map(Some) },
        text().examples(["newest"]);

    /// The code of a rejection.
    ReasonCode(&'static str) is "RejectionReason", from String:
        &REASONS_EXPECTED, |it| reasons().into_iter().find(|known| *known == it),
        words(reasons()).description(Some("Why it was rejected: stable, compare this one"));

    /// What a sensor sends.
    KindName(&'static str) is "Kind", from String:
        "measurement, log_message or heartbeat",
        |it| kinds().into_iter().find(|known| *known == it),
        words(kinds()).description(Some("What a sensor sends"));

    /// What is logged.
    LogFilterText(String) is "LogFilterText", from String:
        "levels (off, error, warn, info, debug, trace) and target=level, parted by commas",
        usable_filter, text().max_length(Some(MAX_FILTER_BYTES)).examples(["info,tributary=debug"]);

    /// `true`, and nothing else.
    True(()) is "True", from bool:
        "true", |it| it.then_some(()),
        ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([true]));

    /// `true` or `false`.
    Flag(bool) is "Flag", from bool:
        "true or false", Some, ObjectBuilder::new().schema_type(Type::Boolean);

    /// A number that tells one of many.
    Number(i64) is "Number", from i64:
        "a whole number", Some,
        ObjectBuilder::new().schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));

    /// Numbers, each of which tells one of many.
    Identifiers(Vec<i64>) is "Identifiers", from Vec<i64>:
        "1 to 1000 whole numbers",
        |it| (1..=MAX_LIMIT as usize).contains(&it.len()).then_some(it),
        ArrayBuilder::new().items(Number::schema()).min_items(Some(1)).max_items(Some(1_000));

    /// How many items a page has at most.
    Limit(u32) is "Limit", from u32:
        "a whole number from 1 to 1000", |it| (1..=MAX_LIMIT).contains(&it).then_some(it),
        whole(MAX_LIMIT);

    /// How many rejections are deleted at most.
    DeletionLimit(u32) is "DeletionLimit", from u32:
        "a whole number from 1 to 10000", |it| (1..=MAX_DELETED).contains(&it).then_some(it),
        whole(MAX_DELETED);

    /// How far a sensor's newest configuration has come.
    State(ConfigurationState) is "State", from String:
        "none, pending, published, acknowledged, failed or stale", |it| it.parse().ok(),
        ConfigurationState::schema();

    /// In which direction a list of rows goes.
    RowOrder(Order) is "RowOrder", from String:
        "desc (newest first) or asc",
        |it| match &*it {
            "desc" => Some(Order::NewestFirst),
            "asc" => Some(Order::OldestFirst),
            _ => None,
        },
        words(vec!["desc", "asc"]);

    /// In which order a list of sensors goes.
    Sort(SensorOrder) is "Sort", from String:
        "name, last_seen or -last_seen",
        |it| match &*it {
            "name" => Some(SensorOrder::Name),
            "last_seen" => Some(SensorOrder::LastSeen),
            "-last_seen" => Some(SensorOrder::LastSeenDescending),
            _ => None,
        },
        words(vec!["name", "last_seen", "-last_seen"]);

    /// As what an export comes.
    Format(ExportFormat) is "Format", from String:
        "csv or ndjson",
        |it| match &*it {
            "csv" => Some(ExportFormat::Csv),
            "ndjson" => Some(ExportFormat::NdJson),
            _ => None,
        },
        words(vec!["csv", "ndjson"]);
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn secret() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Password)))
}

fn uuid() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
}

fn words(words: Vec<&'static str>) -> ObjectBuilder {
    text().enum_values(Some(words))
}

fn whole(max: u32) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(max))
}

fn reasons() -> Vec<&'static str> {
    Reason::ALL.iter().map(|reason| reason.code()).collect()
}

fn kinds() -> Vec<&'static str> {
    Kind::ALL.into_iter().map(Kind::name).collect()
}

/// Whoever has misspelt one learns of all.
static REASONS_EXPECTED: LazyLock<String> =
    LazyLock::new(|| format!("one of the codes of rejections: {}", reasons().join(", ")));

fn usable_name(name: String) -> Option<String> {
    let is_usable = (1..=MAX_NAME_CHARACTERS).contains(&name.chars().count())
        && !name.chars().any(char::is_control);
    is_usable.then_some(name)
}

fn search_text(text: String) -> Option<String> {
    let is_usable = (1..=MAX_TEXT_CHARACTERS).contains(&text.chars().count());
    (is_usable && !text.contains('\0')).then_some(text)
}

fn severity(text: &str) -> Option<SeverityName> {
    SEVERITIES.into_iter().find(|known| *known == text).map(SeverityName)
}

fn severities(text: &str) -> Option<Vec<SeverityName>> {
    text.split(',').map(severity).collect()
}

fn revision(text: &str) -> Option<i32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

fn future(text: String) -> Option<Timestamp> {
    let time = text.parse::<jiff::Timestamp>().ok()?;
    (time > jiff::Timestamp::now()).then(|| time.into())
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(f64),
    Text(String),
}

impl NumberOrText {
    fn time(self) -> Option<Timestamp> {
        match self {
            Self::Number(seconds) => Timestamp::from_unix_seconds(seconds),
            Self::Text(text) => time(&text),
        }
    }
}

/// A time that PostgreSQL and the calendar know.
fn time(text: &str) -> Option<Timestamp> {
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

/// Seconds, or a number and its unit.
fn bucket(text: &str) -> Option<u32> {
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

/// The parser takes a word that is no level for a module of which everything is logged; whoever
/// sends one means something else.
fn usable_filter(filter: String) -> Option<String> {
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
    fn a_filter_is_made_of_levels() {
        for filter in ["info", "OFF", "warn,tributary=debug", "tributary::mqtt=trace, error"] {
            assert!(usable_filter(filter.into()).is_some(), "{filter}");
        }
        for filter in ["", "verbose", "info,", "info,loud", &"a=info,".repeat(200)] {
            assert!(usable_filter(filter.into()).is_none(), "{filter}");
        }
    }

    #[test]
    fn a_name_can_be_printed() {
        for name in ["a", "Grünfläche 7", &"é".repeat(200)] {
            assert!(usable_name(name.into()).is_some(), "{name}");
        }
        for name in ["", "a\0b", "a\nb", &"é".repeat(201)] {
            assert!(usable_name(name.into()).is_none(), "{name}");
        }
    }

    #[test]
    fn severities_are_told_apart() {
        let named: Vec<_> = severities("error,info").unwrap().iter().map(|it| it.0).collect();
        assert_eq!(named, ["error", "info"]);
        for text in ["", "error,", "Error", "debug", "error, info"] {
            assert!(severities(text).is_none(), "{text:?}");
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
    fn a_time_is_written_in_either_way() {
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
