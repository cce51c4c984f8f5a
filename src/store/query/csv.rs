//! The columns of a CSV export: their names, and what PostgreSQL is asked for in them. Called by the
//! export. Promises that no two columns have one name, and that what is asked for Excel holds no cell
//! that Excel takes for a formula.

/// The columns that every CSV begins with.
const FIXED: [&str; 5] =
    ["sensor_identifier", "timestamp", "creation_timestamp", "receipt_timestamp", "revision"];

/// Put before the name of a member that is the name of such a column.
const MEMBER_PREFIX: &str = "value.";

/// Without it Excel takes UTF-8 for something else.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Excel takes a cell for a formula that begins with one of these.
const FORMULA_BEGINS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// The same of a text in PostgreSQL; numbers stay numbers. It adds one quote also where there are some
/// already: so two texts that differ still do.
const HARMLESS: &str = r"E'^(''*[-=+@\\t\\r\\n＝＋－＠])', E'''\\1'";

/// RFC 4180, section 2.
pub(super) const LINE_END: &str = "\r\n";

/// The first line: the fixed columns, and these members or else the whole value.
pub(super) fn header(members: Option<&[String]>, for_excel: bool) -> String {
    let begin = if for_excel { BYTE_ORDER_MARK } else { "" };
    let name = |member: &String| {
        let name = column_name(member);
        let name = if for_excel { harmless(name) } else { name };
        format!(",\"{}\"", name.replace('"', "\"\""))
    };
    let more = match members {
        None => ",value".to_owned(),
        Some(members) => members.iter().map(name).collect(),
    };
    format!("{begin}{}{more}{LINE_END}", FIXED.join(","))
}

/// Distinct for distinct members: also of a member that has the prefix itself.
fn column_name(member: &str) -> String {
    let mut bare = member;
    while let Some(rest) = bare.strip_prefix(MEMBER_PREFIX) {
        bare = rest;
    }
    if FIXED.contains(&bare) { format!("{MEMBER_PREFIX}{member}") } else { member.to_owned() }
}

fn harmless(name: String) -> String {
    let is_formula = name.trim_start_matches('\'').starts_with(FORMULA_BEGINS);
    if is_formula { format!("'{name}") } else { name }
}

/// What stands in the column of a member, of which this is the literal.
pub(super) fn member(literal: &str, for_excel: bool) -> String {
    let text = format!("value ->> {literal}");
    if !for_excel {
        return text;
    }
    format!(
        "case jsonb_typeof(value -> {literal}) when 'string' \
         then regexp_replace({text}, {HARMLESS}) else {text} end"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_header_names_what_the_lines_hold() {
        let fixed = "sensor_identifier,timestamp,creation_timestamp,receipt_timestamp,revision";
        assert_eq!(header(None, false), format!("{fixed},value\r\n"));
        assert_eq!(header(None, true), format!("\u{feff}{fixed},value\r\n"));
        let members = ["a", "b\",\n"].map(String::from);
        assert_eq!(header(Some(&members), false), format!("{fixed},\"a\",\"b\"\",\n\"\r\n"));
    }

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

    #[test]
    fn no_column_begins_like_a_formula() {
        for (member, column) in [("=1", "'=1"), ("''@x", "'''@x"), ("x=1", "x=1"), ("'x", "'x")] {
            assert_eq!(harmless(member.into()), column);
        }
    }
}
