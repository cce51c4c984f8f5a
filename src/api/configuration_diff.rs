//! The differences between two configurations. Pure; called by `configurations.rs`. Each member appears at
//! most once, with its value as the table prints it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

type MembersByName<'a> = BTreeMap<String, &'a RawValue>;

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = ConfigurationDiff)]
pub(super) struct Diff<'a> {
    /// The revision with which it is compared.
    pub(super) from: i32,
    /// The revision that is compared.
    pub(super) to: i32,
    /// Members that only `to` has.
    #[schema(value_type = Object)]
    pub(super) added: MembersByName<'a>,
    /// Members that only `from` has.
    #[schema(value_type = Object)]
    pub(super) removed: MembersByName<'a>,
    /// Members that both have, with different values.
    pub(super) changed: BTreeMap<String, ConfigurationChange<'a>>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ConfigurationChange<'a> {
    /// Before.
    #[schema(value_type = Value)]
    from: &'a RawValue,
    /// After.
    #[schema(value_type = Value)]
    to: &'a RawValue,
}

/// Compares two objects without nesting, each with its revision.
///
/// # Errors
/// When one of them is not an object.
pub(super) fn diff<'a>(
    (from, old): (i32, &'a RawValue),
    (to, new): (i32, &'a RawValue),
) -> Result<Diff<'a>, serde_json::Error> {
    let mut removed: MembersByName<'a> = serde_json::from_str(old.get())?;
    let mut added: MembersByName<'a> = serde_json::from_str(new.get())?;
    let mut changed = BTreeMap::new();
    added.retain(|name, new| match removed.remove(name) {
        None => true,
        Some(old) => {
            // A sensor gets the text, so 1 and 1.0 differ.
            if old.get() != new.get() {
                changed.insert(name.clone(), ConfigurationChange { from: old, to: new });
            }
            false
        }
    });
    Ok(Diff { from, to, added, removed, changed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_member_is_added_removed_or_changed() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let old = raw(r#"{"same": 1.50, "gone": null, "other": 1, "type": 1}"#);
        let new = raw(r#"{"same": 1.50, "new": "µ", "other": 1.0, "type": "1"}"#);
        let diff = diff((3, &old), (5, &new)).unwrap();
        assert_eq!(
            serde_json::to_value(&diff).unwrap(),
            json!({
                "from": 3,
                "to": 5,
                "added": { "new": "µ" },
                "removed": { "gone": null },
                "changed": {
                    "other": { "from": 1, "to": 1.0 },
                    "type": { "from": 1, "to": "1" },
                },
            })
        );
    }
}
