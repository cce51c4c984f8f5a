//! The columns of a CSV export: their names, and their SQL expressions. Called by the export. Pure. No
//! two columns have the same name, and CSV for Excel has no cell that Excel evaluates as a formula.

use super::members;

/// The first columns of every CSV.
const FIXED: [&str; 5] =
    ["sensor_identifier", "timestamp", "creation_timestamp", "receipt_timestamp", "revision"];

/// Prefix of a member whose name is that of a fixed column.
const MEMBER_PREFIX: &str = "value.";

/// Without it Excel does not recognize UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Excel evaluates a cell that begins with one of these as a formula.
const FORMULA_BEGINS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// The arguments of `regexp_replace` that escape such a text by an apostrophe. A text that begins with
/// apostrophes gets another one, so that different texts remain different.
const HARMLESS: &str = r"E'^(''*[-=+@\\t\\r\\n＝＋－＠])', E'''\\1'";

/// RFC 4180, section 2.
pub(super) const LINE_END: &str = "\r\n";

/// The first line: the fixed columns, then the members, or `value` if there are none.
pub(super) fn header(members: Option<&[String]>, for_excel: bool) -> String {
    let begin = if for_excel { BYTE_ORDER_MARK } else { "" };
    let name = |member: &String| {
        let name = column_name(member);
        let name = if for_excel { without_formula(name) } else { name };
        format!(",\"{}\"", name.replace('"', "\"\""))
    };
    let more = match members {
        None => ",value".to_owned(),
        Some(members) => members.iter().map(name).collect(),
    };
    format!("{begin}{}{more}{LINE_END}", FIXED.join(","))
}

/// Different for different members, also for a member that already has the prefix.
fn column_name(member: &str) -> String {
    let mut bare = member;
    while let Some(rest) = bare.strip_prefix(MEMBER_PREFIX) {
        bare = rest;
    }
    if FIXED.contains(&bare) { format!("{MEMBER_PREFIX}{member}") } else { member.to_owned() }
}

fn without_formula(name: String) -> String {
    let is_formula = name.trim_start_matches('\'').starts_with(FORMULA_BEGINS);
    if is_formula { format!("'{name}") } else { name }
}

/// The SQL expression for the column of a member, whose name is passed as a literal.
pub(super) fn member(literal: &str, for_excel: bool) -> String {
    let (text, member) = (members::text(literal), members::member(literal));
    if !for_excel {
        return text;
    }
    format!(
        "case jsonb_typeof({member}) when 'string' \
         then regexp_replace({text}, {HARMLESS}) else {text} end"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_columns_have_one_name() {
        assert_eq!(column_name("timestamp"), "value.timestamp");
        assert_eq!(column_name("value.timestamp"), "value.value.timestamp");
        for same in ["wind", "value", "value.wind", "Timestamp", "timestamps"] {
            assert_eq!(column_name(same), same);
        }
        let bare = FIXED.into_iter().chain(["wind", "=wind", "'=wind", "-", "", "value"]);
        let members: Vec<String> = bare
            .flat_map(|name| {
                (0..4).map(move |times| format!("{}{name}", MEMBER_PREFIX.repeat(times)))
            })
            .flat_map(|name| [format!("'{name}"), name])
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        for for_excel in [false, true] {
            let header = header(Some(&members), for_excel);
            let columns: BTreeSet<&str> = header.trim().split(',').collect();
            assert_eq!(columns.len(), FIXED.len() + members.len(), "{header}");
        }
    }
}
