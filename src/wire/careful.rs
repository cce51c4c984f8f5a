//! The careful pass: decodes a message that the fast one gave up on, rule by rule. Called by the decoder.
//! Each invalid item is refused by itself with its reason, and every valid one is kept.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::item::{
    accept_revision, heartbeat, holds_nul, log_message, measurement, range_of, split_message,
};
use super::receipt::MissingTimestamp;
use super::{ItemRefusal, MessageRefusal, RefusedItem, Rules, payload_format, value};
use crate::domain::{
    Heartbeat, ItemHead, Items, Kind, LogMessage, Measurement, ObjectMembers, Reason, Severity,
    Timestamp, elements, malformed_value,
};

/// The items that can be stored and those that cannot, or why the whole message is refused.
pub(super) fn decode(
    kind: Kind,
    payload: &[u8],
    rules: Rules,
) -> Result<(Items, Vec<RefusedItem>), MessageRefusal> {
    let elements = elements(kind, payload).map_err(|(reason, detail)| {
        let detail = match payload_format::guess(payload) {
            Some(format) if matches!(reason, Reason::NotUtf8 | Reason::NotJson) => {
                format!("the payload looks {format}; send plain JSON")
            }
            _ => detail,
        };
        whole(reason, detail)
    })?;
    if elements.is_empty() {
        let detail = format!("the array {:?} is empty", kind.envelope_member());
        return Err(whole(Reason::NoItems, detail));
    }
    if elements.len() > rules.items {
        return Err(MessageRefusal {
            refusal: (
                Reason::TooManyItems,
                format!(
                    "the array has {} items; at most {} are accepted",
                    elements.len(),
                    rules.items
                ),
            ),
            item_count: u32::try_from(elements.len()).unwrap_or(u32::MAX),
        });
    }
    let mut refused = Vec::new();
    let items = match kind {
        Kind::Measurement => Items::Measurements(
            partition(&elements, payload, &mut refused, |item, index| {
                read_measurement(item, payload, rules.of_item(index))
            })
            .collect(),
        ),
        Kind::LogMessage => Items::LogMessages(
            partition(&elements, payload, &mut refused, |item, index| {
                read_log_message(item, rules.of_item(index))
            })
            .collect(),
        ),
        Kind::Heartbeat => Items::Heartbeats(
            partition(&elements, payload, &mut refused, |item, index| {
                read_heartbeat(item, rules.of_item(index))
            })
            .collect(),
        ),
    };
    Ok((items, refused))
}

fn partition<'a, T>(
    elements: &'a [&'a [u8]],
    payload: &'a [u8],
    refused: &'a mut Vec<RefusedItem>,
    read: impl Fn(&Members<'a>, u32) -> Result<T, ItemRefusal> + 'a,
) -> impl Iterator<Item = T> + 'a {
    elements.iter().zip(0..).filter_map(move |(element, index)| {
        match members(element).and_then(|members| read(&members, index)) {
            Ok(item) => Some(item),
            Err(refusal) => {
                refused.push(RefusedItem { index, range: range_of(element, payload), refusal });
                None
            }
        }
    })
}

fn whole(reason: Reason, detail: String) -> MessageRefusal {
    MessageRefusal { refusal: (reason, detail), item_count: 1 }
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

fn members(element: &[u8]) -> Result<Members<'_>, ItemRefusal> {
    let text = std::str::from_utf8(element).map_err(|error| {
        (Reason::NotUtf8, format!("the item is not UTF-8 at byte {}", error.valid_up_to()))
    })?;
    let members = serde_json::from_str(text).map(|ObjectMembers(members)| Members(members));
    members.map_err(|error| {
        if serde_json::from_str::<IgnoredAny>(text).is_ok() {
            (Reason::InvalidItem, "the item is not a JSON object".into())
        } else {
            malformed(text, &error)
        }
    })
}

fn malformed(text: &str, error: &serde_json::Error) -> ItemRefusal {
    let Some((path, value)) = malformed_value(text) else {
        return (Reason::InvalidItem, format!("the item is not JSON: {error}"));
    };
    let (path, shown) = (if path.is_empty() { "the item" } else { &path }, excerpt(value));
    if is_not_a_number(value) {
        let detail =
            format!("{path} is {shown}, which JSON does not have; send null, or leave it out");
        (Reason::NotANumber, detail)
    } else {
        (Reason::InvalidItem, format!("{path} is {shown}, which is not JSON"))
    }
}

/// As Python, JavaScript and C print what is no finite number.
fn is_not_a_number(value: &str) -> bool {
    let value = value.trim_start_matches(['+', '-']).to_ascii_lowercase();
    ["nan", "inf", "infinity"].contains(&&*value)
        || ["nan(", "1.#"].iter().any(|beginning| value.starts_with(beginning))
}

impl<'a> Members<'a> {
    fn optional(&self, name: &str) -> Result<Option<&'a RawValue>, ItemRefusal> {
        let mut found = self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| *value);
        let first = found.next();
        if found.next().is_some() {
            return Err((Reason::InvalidItem, format!("{name} occurs twice")));
        }
        Ok(first)
    }

    fn read<T: Deserialize<'a>>(
        &self,
        name: &str,
        reason: Reason,
        expected: &str,
    ) -> Result<T, ItemRefusal> {
        let value = self.optional(name)?.ok_or_else(|| (reason, format!("{name} is missing")))?;
        serde_json::from_str(value.get()).map_err(|_| {
            (reason, format!("{name} is {}; expected {expected}", excerpt(value.get())))
        })
    }

    fn revision(&self) -> Result<Option<i32>, ItemRefusal> {
        let Some(value) = self.optional("revision")? else { return Ok(None) };
        let revision = serde_json::from_str(value.get()).ok();
        revision.and_then(accept_revision).ok_or_else(|| {
            let detail = format!(
                "revision is {}; expected an integer from 0 to 2147483647, or null or -1 for none",
                excerpt(value.get())
            );
            (Reason::InvalidRevision, detail)
        })
    }

    /// Without digest.
    fn head(&self, rules: Rules) -> Result<ItemHead, ItemRefusal> {
        let revision = self.revision()?;
        let (timestamp, timed_at_receipt) = match self.optional("timestamp")? {
            Some(value) if value.get() != "null" => (self.timestamp()?, false),
            missing => match rules.missing_timestamp {
                MissingTimestamp::UseReceipt(timestamp) => (timestamp, true),
                MissingTimestamp::Refuse(why) => {
                    let what = if missing.is_some() { "null" } else { "missing" };
                    return Err((Reason::InvalidTimestamp, format!("timestamp is {what}{why}")));
                }
            },
        };
        Ok(ItemHead { timestamp, timed_at_receipt, digest: 0, revision })
    }

    fn timestamp(&self) -> Result<Timestamp, ItemRefusal> {
        const EXPECTED: &str = "a number of Unix seconds from 0 to 253402207200";
        let seconds: f64 = self.read("timestamp", Reason::InvalidTimestamp, EXPECTED)?;
        Timestamp::from_unix_seconds(seconds).ok_or_else(|| {
            let hint = if seconds > Timestamp::MAX_UNIX_SECONDS { " (milliseconds?)" } else { "" };
            (Reason::InvalidTimestamp, format!("timestamp is {seconds}; expected {EXPECTED}{hint}"))
        })
    }

    /// None if it is missing or null.
    fn optional_text(
        &self,
        name: &str,
        reason: Reason,
        expected: &str,
    ) -> Result<Option<String>, ItemRefusal> {
        match self.optional(name)? {
            Some(value) if value.get() != "null" => text(value, name, reason, expected).map(Some),
            _ => Ok(None),
        }
    }

    fn text(&self, name: &str, reason: Reason, expected: &str) -> Result<String, ItemRefusal> {
        let value = self.optional(name)?.ok_or_else(|| (reason, format!("{name} is missing")))?;
        text(value, name, reason, expected)
    }
}

fn text(
    value: &RawValue,
    name: &str,
    reason: Reason,
    expected: &str,
) -> Result<String, ItemRefusal> {
    let text: String = serde_json::from_str(value.get()).map_err(|_| {
        if value.get().starts_with('"') {
            let half = format!("{name} contains a lone surrogate");
            (Reason::InvalidText, half)
        } else {
            (reason, format!("{name} is {}; expected {expected}", excerpt(value.get())))
        }
    })?;
    if holds_nul(&text) {
        return Err((Reason::NulCharacter, format!("{name} contains U+0000")));
    }
    Ok(text)
}

fn read_measurement(
    item: &Members<'_>,
    payload: &[u8],
    rules: Rules,
) -> Result<Measurement, ItemRefusal> {
    let head = item.head(rules)?;
    let value = item
        .optional("value")?
        .ok_or_else(|| (Reason::InvalidValue, "value is missing".to_owned()))?;
    value::check(value.get(), rules.nested_values)
        .map_err(|value::Flawed { flaw, .. }| (flaw.reason(), format!("in value: {flaw}")))?;
    Ok(measurement(head, value, payload))
}

fn read_log_message(item: &Members<'_>, rules: Rules) -> Result<LogMessage, ItemRefusal> {
    let severity = item.text("severity", Reason::InvalidSeverity, SEVERITY)?;
    let severity = Severity::parse(&severity).ok_or_else(|| {
        (
            Reason::InvalidSeverity,
            format!("severity is {}; expected {SEVERITY}", excerpt(&severity)),
        )
    })?;
    let head = item.head(rules)?;
    let subject = match item.optional("subject")? {
        Some(value) => text(value, "subject", Reason::InvalidSubject, TEXT)?,
        None => String::new(),
    };
    let details = item.optional_text("details", Reason::InvalidDetails, "a string, or null")?;
    if !subject.is_empty() {
        return Ok(log_message(head, severity, &subject, details.as_deref()));
    }
    let message = item.optional_text("message", Reason::InvalidSubject, TEXT)?.unwrap_or_default();
    let (subject, details) = split_message(&message, details.as_deref());
    if subject.is_empty() {
        return Err((Reason::InvalidSubject, "subject is missing or empty".into()));
    }
    Ok(log_message(head, severity, subject, details.as_deref()))
}

const TEXT: &str = "a non-empty string";

const SEVERITY: &str = "info, warning or error";

fn read_heartbeat(item: &Members<'_>, rules: Rules) -> Result<Heartbeat, ItemRefusal> {
    let head = item.head(rules)?;
    let success = item.read("success", Reason::InvalidSuccess, "true or false")?;
    Ok(heartbeat(head, success))
}

/// The beginning of a text, for a sentence.
fn excerpt(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut beginning: String = text.chars().take(LONGEST).collect();
    if beginning.len() < text.len() {
        beginning.push('…');
    }
    beginning
}
