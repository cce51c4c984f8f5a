//! The items as JSON, and their conversion to the domain. Used by both passes. Here an item that breaks a
//! rule is `None`; the careful pass says why.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::receipt::MissingTimestamp;
use super::{Rules, value};
use crate::domain::{
    ByteRange, Heartbeat, ItemHead, LogMessage, Measurement, Severity, Timestamp, content_digest,
};

/// The rules that turn a wire item into a domain item.
pub(super) trait WireItem<'de>: Deserialize<'de> {
    /// The domain's item.
    type Item;

    /// None if it breaks a rule. `payload` is what it was read from.
    fn accept(self, payload: &'de [u8], rules: Rules) -> Option<Self::Item>;
}

impl Rules {
    /// `seconds`: the item's timestamp, none if it is missing or null. The digest is not computed yet.
    fn head(self, seconds: Option<f64>, revision: Option<i32>) -> Option<ItemHead> {
        let (timestamp, timed_at_receipt) = match (seconds, self.missing_timestamp) {
            (Some(seconds), _) => (Timestamp::from_unix_seconds(seconds)?, false),
            (None, MissingTimestamp::UseReceipt(timestamp)) => (timestamp, true),
            (None, MissingTimestamp::Refuse(_)) => return None,
        };
        let revision = accept_revision(revision)?;
        Some(ItemHead { timestamp, timed_at_receipt, digest: 0, revision })
    }
}

#[derive(Deserialize)]
pub(super) struct WireMeasurement<'a> {
    #[serde(default)]
    revision: Option<i32>,
    #[serde(default)]
    timestamp: Option<f64>,
    #[serde(borrow)]
    value: &'a RawValue,
}

#[derive(Deserialize)]
pub(super) struct WireLogMessage<'a> {
    #[serde(borrow)]
    severity: Cow<'a, str>,
    #[serde(default)]
    revision: Option<i32>,
    #[serde(default)]
    timestamp: Option<f64>,
    /// Empty if missing.
    #[serde(borrow, default)]
    subject: Cow<'a, str>,
    /// Read only where there is no subject.
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    details: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct WireHeartbeat {
    #[serde(default)]
    revision: Option<i32>,
    #[serde(default)]
    timestamp: Option<f64>,
    success: bool,
}

impl<'de> WireItem<'de> for WireMeasurement<'de> {
    type Item = Measurement;

    fn accept(self, payload: &'de [u8], rules: Rules) -> Option<Measurement> {
        let head = rules.head(self.timestamp, self.revision)?;
        value::check(self.value.get(), rules.nested_values).ok()?;
        Some(measurement(head, self.value, payload))
    }
}

impl<'de> WireItem<'de> for WireLogMessage<'de> {
    type Item = LogMessage;

    fn accept(self, _payload: &'de [u8], rules: Rules) -> Option<LogMessage> {
        let head = rules.head(self.timestamp, self.revision)?;
        let severity = Severity::parse(&self.severity)?;
        let details = self.details.as_deref();
        if holds_nul(&self.subject) || details.is_some_and(holds_nul) {
            return None;
        }
        if !self.subject.is_empty() {
            return Some(log_message(head, severity, &self.subject, details));
        }
        let message: String = serde_json::from_str(self.message?.get()).ok()?;
        let (subject, details) = split_message(&message, details);
        if subject.is_empty() || holds_nul(&message) {
            return None;
        }
        Some(log_message(head, severity, subject, details.as_deref()))
    }
}

impl<'de> WireItem<'de> for WireHeartbeat {
    type Item = Heartbeat;

    fn accept(self, _payload: &'de [u8], rules: Rules) -> Option<Heartbeat> {
        let head = rules.head(self.timestamp, self.revision)?;
        Some(heartbeat(head, self.success))
    }
}

/// As it is stored: -1 stands for none, too. None if it is out of range.
pub(super) const fn accept_revision(revision: Option<i32>) -> Option<Option<i32>> {
    match revision {
        None | Some(-1) => Some(None),
        Some(0..) => Some(revision),
        Some(_) => None,
    }
}

/// What Hermes' sensors and the `tenta` package send in place of a subject and its details: the first line,
/// and the rest before the details.
pub(super) fn split_message<'a>(
    message: &'a str,
    details: Option<&'a str>,
) -> (&'a str, Option<Cow<'a, str>>) {
    let message = message.trim_start_matches(['\r', '\n']);
    let (subject, rest) = message.split_once('\n').unwrap_or((message, ""));
    let subject = subject.strip_suffix('\r').unwrap_or(subject);
    let details = match (rest, details) {
        ("", details) => details.map(Cow::Borrowed),
        (rest, None) => Some(Cow::Borrowed(rest)),
        (rest, Some(details)) => Some(Cow::Owned(format!("{rest}\n{details}"))),
    };
    (subject, details)
}

pub(super) fn holds_nul(text: &str) -> bool {
    text.as_bytes().contains(&0)
}

pub(super) fn measurement(mut head: ItemHead, value: &RawValue, payload: &[u8]) -> Measurement {
    head.digest = content_digest(head.revision, &[value.get().as_bytes()]);
    Measurement { head, value: range_of(value.get().as_bytes(), payload) }
}

pub(super) fn log_message(
    mut head: ItemHead,
    severity: Severity,
    subject: &str,
    details: Option<&str>,
) -> LogMessage {
    // Missing details and empty details differ.
    let marker: &[u8] = if details.is_some() { b"+" } else { b"-" };
    let parts = [
        severity.name().as_bytes(),
        subject.as_bytes(),
        marker,
        details.unwrap_or_default().as_bytes(),
    ];
    head.digest = content_digest(head.revision, &parts);
    LogMessage { head, severity, subject: subject.into(), details: details.map(Into::into) }
}

pub(super) fn heartbeat(mut head: ItemHead, success: bool) -> Heartbeat {
    head.digest = content_digest(head.revision, &[&[u8::from(success)]]);
    Heartbeat { head, success }
}

/// The range of a part of the payload.
pub(super) fn range_of(part: &[u8], payload: &[u8]) -> ByteRange {
    let start = part.as_ptr().addr() - payload.as_ptr().addr();
    let narrow = |at| u32::try_from(at).expect("a payload is smaller than 4 GiB");
    ByteRange { start: narrow(start), end: narrow(start + part.len()) }
}
