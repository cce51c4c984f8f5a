//! The types of members of bodies and parameters of queries. Each deserializes itself, names the accepted values
//! in its error, and has its schema. Pure.

use std::borrow::Cow;
use std::sync::LazyLock;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, Schema, SchemaFormat, Type,
};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

use super::values::{
    MAX_FILTER_BYTES, MAX_NAME_CHARACTERS, MAX_TEXT_CHARACTERS, NumberOrText, bucket, future,
    names, revision, search_text, usable_filter, usable_name,
};
use crate::domain::{
    Kind, NetworkIdentifier, Reason, SensorIdentifier, Severity, Timestamp, is_usable_password,
};
use crate::store::{ConfigurationState, ExportFormat, Order, SensorOrder};

/// A larger page would occupy memory and a connection for long.
pub(super) const MAX_LIMIT: u32 = 1_000;

/// No name or password is longer.
const MAX_CREDENTIAL_BYTES: usize = 800;

/// A page of the list of sensors, as the dashboard shows it.
const MAX_SENSORS: usize = 100;

/// Rejections deleted in one request, well within the statement timeout.
pub(super) const MAX_DELETED: u32 = 10_000;

/// The most severe first, as summaries are sorted.
pub(super) const SEVERITIES: [&str; 3] = ["error", "warning", "info"];

/// Deserializes a `T` and converts it; `expected` completes "it takes …".
fn read_as<'de, D: Deserializer<'de>, T: Deserialize<'de>, U>(
    deserializer: D,
    expected: &str,
    read: impl FnOnce(T) -> Option<U>,
) -> Result<U, D::Error> {
    let read = match T::deserialize(deserializer) {
        // For a missing member serde asks the type whether it is optional.
        Err(error) if error.to_string().starts_with("missing field `") => return Err(error),
        outcome => outcome.ok().and_then(read),
    };
    read.ok_or_else(|| D::Error::custom(format_args!("it takes {expected}")))
}

/// For an optional member that cannot be null: `#[serde(default, deserialize_with = "not_null")]`.
pub(super) fn not_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Each has the name of its schema, the type that it is deserialized from, the accepted values, the conversion,
/// and the schema.
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
    /// The name of a network, sensor, token or user.
    Name(String) is "Name", from String:
        "a string of 1 to 200 characters, none of them a control character", usable_name,
        text().min_length(Some(1)).max_length(Some(MAX_NAME_CHARACTERS)).examples(["roof"]);

    /// A new password.
    Password(SecretString) is "Password", from String:
        "a string of 12 to 200 characters", |it| is_usable_password(&it).then(|| it.into()),
        secret().min_length(Some(12)).max_length(Some(200));

    /// A name to sign in with.
    GivenName(String) is "GivenName", from String:
        "a string",
        |it| (it.len() <= MAX_CREDENTIAL_BYTES && !it.contains('\0')).then_some(it),
        text().examples(["ada"]);

    /// A password to sign in with.
    GivenPassword(SecretString) is "GivenPassword", from String:
        "a string", |it| (it.len() <= MAX_CREDENTIAL_BYTES).then(|| it.into()), secret();

    /// An identifier.
    Identifier(Uuid) is "Identifier", from String:
        "a UUID in its hyphenated form", |it| SensorIdentifier::parse(&it).map(|it| it.0), uuid();

    /// A sensor.
    Sensor(SensorIdentifier) is "SensorIdentifier", from String:
        "a UUID in its hyphenated form", |it| SensorIdentifier::parse(&it), uuid();

    /// Several sensors.
    SensorIdentifiers(Vec<Uuid>) is "SensorIdentifiers", from String:
        "1 to 100 UUIDs in their hyphenated form, with commas between them",
        |it| sensor_identifiers(&it),
        ArrayBuilder::new().items(uuid()).min_items(Some(1)).max_items(Some(100));

    /// A network.
    Network(NetworkIdentifier) is "NetworkIdentifier", from String:
        "the identifier of a network", |it| NetworkIdentifier::parse(&it), uuid();

    /// A time.
    Time(Timestamp) is "Time", from NumberOrText:
        "a time as RFC 3339, or as Unix seconds from 0 on", NumberOrText::time,
        OneOfBuilder::new()
            .item(text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))))
            .item(ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)));

    /// An expiry, in the future.
    Expiry(Timestamp) is "Expiry", from String:
        "a time in the future, as in 2030-01-01T00:00:00Z", future,
        text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));

    /// A text to search for.
    SearchText(String) is "SearchText", from String:
        "1 to 1000 characters", search_text,
        text().min_length(Some(1)).max_length(Some(MAX_TEXT_CHARACTERS));

    /// Names of members of values.
    Attributes(Vec<String>) is "Attributes", from String:
        "names of members of the values, with a comma between them (and \\, for a comma in a name); a.b is the member a.b, else b in a",
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

    /// A revision; `None` is the newest.
    RevisionOrNewest(Option<i32>) is "RevisionOrNewest", from String:
        "a revision: a whole number from 0 on, or newest",
        |it| if it == "newest" { Some(None) } else { revision(&it).map(Some) },
        text().examples(["newest"]);

    /// The code of a rejection.
    ReasonCode(&'static str) is "RejectionReason", from String:
        &REASONS_EXPECTED, |it| reasons().into_iter().find(|known| *known == it),
        words(reasons()).description(Some("Why it was rejected: stable, compare this one"));

    /// A kind of item.
    KindName(&'static str) is "Kind", from String:
        "measurement, log_message or heartbeat",
        |it| kinds().into_iter().find(|known| *known == it),
        words(kinds()).description(Some("What a sensor sends"));

    /// A log filter.
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

    /// A numeric identifier.
    Number(i64) is "Number", from i64:
        "a whole number", Some,
        ObjectBuilder::new().schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));

    /// Numeric identifiers.
    Identifiers(Vec<i64>) is "Identifiers", from Vec<i64>:
        "1 to 1000 whole numbers",
        |it| (1..=MAX_LIMIT as usize).contains(&it.len()).then_some(it),
        ArrayBuilder::new().items(Number::schema()).min_items(Some(1)).max_items(Some(1_000));

    /// The maximum number of items of a page.
    Limit(u32) is "Limit", from u32:
        "a whole number from 1 to 1000", |it| (1..=MAX_LIMIT).contains(&it).then_some(it),
        whole(MAX_LIMIT);

    /// The maximum number of rejections to delete.
    DeletionLimit(u32) is "DeletionLimit", from u32:
        "a whole number from 1 to 10000", |it| (1..=MAX_DELETED).contains(&it).then_some(it),
        whole(MAX_DELETED);

    /// The state of a sensor's newest configuration.
    State(ConfigurationState) is "State", from String:
        "none, pending, published, acknowledged, failed or stale", |it| it.parse().ok(),
        ConfigurationState::schema();

    /// The order of a list of rows.
    RowOrder(Order) is "RowOrder", from String:
        "desc (newest first) or asc",
        |it| match &*it {
            "desc" => Some(Order::NewestFirst),
            "asc" => Some(Order::OldestFirst),
            _ => None,
        },
        words(vec!["desc", "asc"]);

    /// The order of a list of sensors.
    Sort(SensorOrder) is "Sort", from String:
        "name, last_seen or -last_seen",
        |it| match &*it {
            "name" => Some(SensorOrder::Name),
            "last_seen" => Some(SensorOrder::LastSeen),
            "-last_seen" => Some(SensorOrder::LastSeenDescending),
            _ => None,
        },
        words(vec!["name", "last_seen", "-last_seen"]);

    /// The format of an export.
    Format(ExportFormat) is "Format", from String:
        "csv or ndjson",
        |it| match &*it {
            "csv" => Some(ExportFormat::Csv),
            "ndjson" => Some(ExportFormat::NdJson),
            _ => None,
        },
        words(vec!["csv", "ndjson"]);

    /// For which program CSV is made harmless.
    SafeFor(()) is "SafeFor", from String:
        "excel", |it| (it == "excel").then_some(()), words(vec!["excel"]);
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

static REASONS_EXPECTED: LazyLock<String> =
    LazyLock::new(|| format!("one of the codes of rejections: {}", reasons().join(", ")));

fn sensor_identifiers(text: &str) -> Option<Vec<Uuid>> {
    let parse = |text| SensorIdentifier::parse(text).map(|sensor| sensor.0);
    let sensors: Option<Vec<Uuid>> = text.split(',').map(parse).collect();
    sensors.filter(|sensors| sensors.len() <= MAX_SENSORS)
}

fn severity(text: &str) -> Option<SeverityName> {
    SEVERITIES.into_iter().find(|known| *known == text).map(SeverityName)
}

fn severities(text: &str) -> Option<Vec<SeverityName>> {
    text.split(',').map(severity).collect()
}
