//! SQL for members of `value` by their names. Called by the lists and the exports. Pure. A name is a key as it
//! stands; where there is none, it is the path of the keys, and of the places in arrays, between its dots.

/// Whether one of the names may be a path.
pub(super) fn has_paths(names: &[String]) -> bool {
    names.iter().any(|name| name.contains('.'))
}

/// The member, whose name is passed as a literal.
pub(super) fn member(literal: &str) -> String {
    if literal.contains('.') { at_path(literal) } else { format!("value -> {literal}") }
}

/// Its text.
pub(super) fn text(literal: &str) -> String {
    if literal.contains('.') {
        format!("({}) #>> '{{}}'", at_path(literal))
    } else {
        format!("value ->> {literal}")
    }
}

/// The members of these names, as an object, or null. `names` is an array in SQL.
pub(super) fn some(names: &str, has_paths: bool) -> String {
    if has_paths {
        format!(
            "(select jsonb_object_agg(name, member)::text from unnest({names}) as names (name) \
             cross join lateral (select {} as member) as found where member is not null)",
            at_path("name")
        )
    } else {
        format!(
            "(select jsonb_object_agg(key, member)::text \
             from jsonb_each(value) as members (key, member) where key = any ({names}))"
        )
    }
}

/// Whether a value has one of them.
pub(super) fn has_one(names: &str, has_paths: bool) -> String {
    if has_paths {
        format!(
            "exists (select 1 from unnest({names}) as names (name) where {} is not null)",
            at_path("name")
        )
    } else {
        format!("value ?| {names}")
    }
}

fn at_path(name: &str) -> String {
    format!("coalesce(value -> {name}, value #> string_to_array({name}, '.'))")
}
