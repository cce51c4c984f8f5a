//! What is accepted as a value, and by which name anything else is refused.

use super::*;
use proptest::prelude::*;

#[test]
fn accepts_unnested_objects() {
    for json in [
        "{}",
        " { } ",
        r#"{"a":1}"#,
        r#"{"a":-1.5e-3,"b":"x","c":true,"d":false,"e":null}"#,
        "{ \"a\" :\t1 ,\n\"b\" : \"{[,:\\\"\" }",
        r#"{"ключ":"значение","emoji":"\ud83d\ude00"}"#,
        r#"{"a":1e131071,"b":1e-16383,"c":1.0}"#,
        r#"{"64":"","0123456789012345678901234567890123456789012345678901234567890123":0}"#,
    ] {
        assert_eq!(check(json, NestedValues::Reject), Ok(()), "{json}");
    }
    let hundred: Vec<String> = (0..100).map(|n| format!("\"k{n}\":{n}")).collect();
    assert_eq!(check(&format!("{{{}}}", hundred.join(",")), NestedValues::Reject), Ok(()));
}

#[test]
fn names_the_flaw() {
    let long = "x".repeat(65);
    for (json, reason) in [
        ("[]".to_owned(), Reason::InvalidValue),
        ("1".into(), Reason::InvalidValue),
        ("null".into(), Reason::InvalidValue),
        (r#"{"a":{}}"#.into(), Reason::NestedValue),
        (r#"{"a":1,"b":[]}"#.into(), Reason::NestedValue),
        (r#"{"":1}"#.into(), Reason::InvalidKey),
        (format!("{{\"{long}\":1}}"), Reason::InvalidKey),
        (r#"{"a":1,"a":1}"#.into(), Reason::DuplicateKey),
        (r#"{"a":1,"\u0061":1}"#.into(), Reason::DuplicateKey),
        (r#"{"a":"\u0000"}"#.into(), Reason::NulCharacter),
        (r#"{"\u0000":1}"#.into(), Reason::NulCharacter),
        (r#"{"a":"\ud800"}"#.into(), Reason::InvalidText),
        (r#"{"a":"\ude00\ud83d"}"#.into(), Reason::InvalidText),
        (r#"{"a":1e131072}"#.into(), Reason::InvalidNumber),
        (r#"{"a":1e-16384}"#.into(), Reason::InvalidNumber),
        (r#"{"a":1e99999999999}"#.into(), Reason::InvalidNumber),
        (format!("{{\"a\":0.{}}}", "1".repeat(16_384)), Reason::InvalidNumber),
        (format!("{{\"a\":{}}}", "1".repeat(131_073)), Reason::InvalidNumber),
    ] {
        assert_eq!(
            check(&json, NestedValues::Reject).unwrap_err().flaw.reason(),
            reason,
            "{json:.60}"
        );
    }
    let mut many: Vec<String> = (0..100).map(|n| format!("\"k{n}\":{n}")).collect();
    many.push("\"k99\":0".into());
    let many = check(&format!("{{{}}}", many.join(",")), NestedValues::Reject).unwrap_err();
    assert_eq!(many, duplicate("k99"));
}

#[test]
fn metadata_is_any_object_that_the_database_can_hold() {
    for json in ["{}", r#" {"":{"b":[1.50,null,"ä",{"c":true}],"a":1}}"#] {
        assert_eq!(check_metadata(json), Ok(()), "{json}");
    }
    for (json, path) in [
        ("[]", &[][..]),
        (r#"{"a":[0,{"b":"\u0000"}]}"#, &["a", "1", "b"]),
        (r#"{"a":"\ud800"}"#, &["a"]),
        (r#"{"a":1e400}"#, &["a"]),
        (r#"{"a":[{"b":1,"\u0062":2}]}"#, &["a", "0", "b"]),
    ] {
        assert_eq!(check_metadata(json).unwrap_err().path, path, "{json}");
    }
}

#[test]
fn nested_values_are_stored_to_a_depth() {
    let at_depth =
        |depth: usize| format!("{{\"a\":{}1{}}}", "[{\"b\":".repeat(depth), "}]".repeat(depth));
    let store = |json: &str| check(json, NestedValues::Store);
    for json in [
        r#"{"a":{},"b":[ ],"c":[1,"x",{"d" : [null , true,[-1e3]]}]}"#,
        &at_depth(7),
        r#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#,
    ] {
        assert_eq!(store(json), Ok(()), "{json}");
    }
    let too_deep = store(&at_depth(8)).unwrap_err();
    assert_eq!(too_deep.flaw, Flaw::TooDeep("b".into()));
    assert_eq!(too_deep.path.join("/"), format!("a/{}0", "0/b/".repeat(7)));
    for (json, reason, path) in [
        (r#"[{"a":1}]"#, Reason::InvalidValue, ""),
        (r#"{"a":{"b":1,"b":2}}"#, Reason::DuplicateKey, "a b"),
        (r#"{"a":[{"":1}]}"#, Reason::InvalidKey, "a 0 "),
        (r#"{"a":["","\u0000"]}"#, Reason::NulCharacter, "a 1"),
        (r#"{"a":{"b":[{},"\ud800"]}}"#, Reason::InvalidText, "a b 1"),
        (r#"{"a":{"b":{"\ud800":1}}}"#, Reason::InvalidText, "a b"),
        (r#"{"a":[[1], [2, 1e200000]]}"#, Reason::InvalidNumber, "a 1 1"),
    ] {
        let flawed = store(json).unwrap_err();
        assert_eq!(
            (flawed.flaw.reason(), flawed.path.join(" ").as_str()),
            (reason, path),
            "{json}"
        );
    }
}

fn scalar() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        any::<bool>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        "\\PC{0,12}".prop_map(Into::into),
        Just(serde_json::Value::Null),
    ]
}

fn nested() -> impl Strategy<Value = serde_json::Value> {
    scalar().prop_recursive(15, 40, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map("[a-z.]{1,8}", inner, 0..4)
                .prop_map(|it| serde_json::Value::Object(it.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_unnested_object_is_accepted(
        members in proptest::collection::btree_map("[^\\x00]{1,64}", scalar(), 0..40),
        pretty in any::<bool>(),
    ) {
        let object = serde_json::Value::Object(members.into_iter().collect());
        let json = if pretty {
            serde_json::to_string_pretty(&object).unwrap()
        } else {
            object.to_string()
        };
        prop_assert_eq!(check(&json, NestedValues::Reject), Ok(()));
    }

    #[test]
    fn every_object_is_accepted_to_the_depth(
        members in proptest::collection::btree_map("[^\\x00]{1,64}", nested(), 0..6),
    ) {
        let json = serde_json::Value::Object(members.into_iter().collect()).to_string();
        prop_assert_eq!(check(&json, NestedValues::Store), Ok(()));
    }

    #[test]
    fn no_text_makes_it_panic(text in "[{}\\[\\]\",:\\\\a0eE+. -]{0,40}") {
        drop(check(&text, NestedValues::Reject));
        drop(check(&text, NestedValues::Store));
    }
}
