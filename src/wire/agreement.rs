//! Compares the fast pass with the careful one. Called by tests and by the fuzzer. Both must give the same
//! answer wherever the fast one gives any.

use serde::de::IgnoredAny;

use super::receipt::MissingTimestamp;
use super::{Limits, Rules, TimestampMissing, careful, envelope};
use crate::domain::{Kind, Timestamp, trim_payload};

/// How the two passes differ, if they do. The fast one may give up at an escape that could be a lone
/// surrogate in the name of an unknown member.
pub fn disagreement(kind: Kind, payload: &str, limits: Limits) -> Option<String> {
    let Limits { items_per_message: items, nested_values, timestamp_missing, .. } = limits;
    let missing_timestamp = match timestamp_missing {
        TimestampMissing::Reject => MissingTimestamp::Refuse(""),
        TimestampMissing::Receipt => MissingTimestamp::UseReceipt(Timestamp::default()),
    };
    let rules = Rules { items, nested_values, missing_timestamp };
    let fast = envelope::decode(kind, payload.as_bytes(), rules);
    let careful = careful::decode(kind, payload.as_bytes(), rules);
    // The fast pass takes no array that holds nothing between two commas.
    let is_json = std::str::from_utf8(trim_payload(payload.as_bytes()))
        .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
    match (fast, careful) {
        (Some(fast), Ok((careful, refused))) if fast != careful || !refused.is_empty() => {
            Some(format!("fast: {fast:?}, careful: {careful:?} without {}", refused.len()))
        }
        (Some(fast), Err(_)) => Some(format!("only the fast pass accepts {payload}: {fast:?}")),
        (None, Ok((_, refused))) if refused.is_empty() && is_json && !payload.contains("\\u") => {
            Some(format!("only the careful pass accepts {payload}"))
        }
        _ => None,
    }
}
