//! Holds the fast pass and the careful one to the same answer. For the tests and the fuzzer.

use super::{careful, envelope};
use crate::domain::Kind;

/// In what the two passes differ over a message, where they do. The fast one may give up where an
/// escape could be half of a surrogate pair, in the name of a member that nobody asked for.
#[must_use]
pub fn disagreement(kind: Kind, payload: &str, limit: usize) -> Option<String> {
    let fast = envelope::decode(kind, payload, limit);
    let careful = careful::decode(kind, payload, limit);
    match (fast, careful) {
        (Some(fast), Ok((careful, refused))) if fast != careful || !refused.is_empty() => {
            Some(format!("fast: {fast:?}, careful: {careful:?} without {}", refused.len()))
        }
        (Some(fast), Err(_)) => Some(format!("only the fast pass accepts {payload}: {fast:?}")),
        (None, Ok((_, refused))) if refused.is_empty() && !payload.contains("\\u") => {
            Some(format!("only the careful pass accepts {payload}"))
        }
        _ => None,
    }
}
