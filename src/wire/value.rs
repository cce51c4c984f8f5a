//! Validates the JSON objects `value` and `configuration`. Called by the decoder for measurements and by
//! the API for configurations. Finds in one pass over the bytes what serde_json accepts and `jsonb` refuses
//! (`\u0000`, lone surrogates, numbers out of the range of `numeric`), nesting, and repeated keys.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::domain::Reason;

/// The longest key, in characters.
pub const MAX_KEY_CHARACTERS: usize = 64;

/// Digits of `numeric` before the decimal point …
const MAX_INTEGER_DIGITS: usize = 131_072;
/// … and after it (PostgreSQL, "Numeric Types").
const MAX_FRACTION_DIGITS: usize = 16_383;

/// Up to this many keys are compared one by one; more go into a set.
const FEW_KEYS: usize = 16;

/// Why an object is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Flaw {
    /// Another JSON value.
    #[error("not a JSON object")]
    NotAnObject,
    /// A member is an object or an array.
    #[error("the member {0:?} is nested; expected a string, number, boolean or null")]
    Nested(String),
    /// Empty or too long.
    #[error("the key {0:?} has {1} characters; expected 1 to {MAX_KEY_CHARACTERS}")]
    Key(String, usize),
    /// A repeated key.
    #[error("the key {0:?} occurs twice")]
    DuplicateKey(String),
    /// PostgreSQL cannot store it.
    #[error("the string at byte {at} contains U+0000")]
    Nul {
        /// Where the string begins.
        at: usize,
        /// The member whose value it is; none for a key.
        member: Option<String>,
    },
    /// A lone surrogate.
    #[error("the string at byte {at} contains a lone surrogate")]
    Surrogate {
        /// Where the string begins.
        at: usize,
        /// The member whose value it is; none for a key.
        member: Option<String>,
    },
    /// Out of the range of `numeric`.
    #[error(
        "the number in {0:?} has more than {MAX_INTEGER_DIGITS} digits before or {MAX_FRACTION_DIGITS} after the decimal point"
    )]
    Number(String),
}

impl Flaw {
    /// In the value of this member.
    fn within(self, key: &str) -> Self {
        let member = Some(key.to_owned());
        match self {
            Self::Nul { at, .. } => Self::Nul { at, member },
            Self::Surrogate { at, .. } => Self::Surrogate { at, member },
            other => other,
        }
    }

    /// The code under which it is recorded.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NotAnObject => Reason::InvalidValue,
            Self::Nested(_) => Reason::NestedValue,
            Self::Key(..) => Reason::InvalidKey,
            Self::DuplicateKey(_) => Reason::DuplicateKey,
            Self::Nul { .. } => Reason::NulCharacter,
            Self::Surrogate { .. } => Reason::InvalidText,
            Self::Number(_) => Reason::InvalidNumber,
        }
    }
}

/// Validates a text that is JSON already; on any other text the outcome is unspecified.
///
/// # Errors
/// The first flaw.
pub fn check(json: &str) -> Result<(), Flaw> {
    let mut text = Scan { json, at: 0 };
    text.skip_space();
    if text.peek() != b'{' {
        return Err(Flaw::NotAnObject);
    }
    text.at += 1;
    text.skip_space();
    let mut keys = SmallVec::<[Cow<'_, str>; FEW_KEYS]>::new();
    while text.peek() == b'"' {
        let key = text.string()?;
        check_key(&key)?;
        if keys.len() < FEW_KEYS && keys.contains(&key) {
            return Err(Flaw::DuplicateKey(key.into_owned()));
        }
        text.skip_space();
        text.at += 1; // the colon
        text.skip_space();
        text.scalar(&key)?;
        keys.push(key);
        text.skip_space();
        if text.peek() == b',' {
            text.at += 1;
            text.skip_space();
        }
    }
    if keys.len() > FEW_KEYS { check_many(&keys) } else { Ok(()) }
}

fn check_key(key: &str) -> Result<(), Flaw> {
    // A character has one to four bytes.
    if (1..=MAX_KEY_CHARACTERS).contains(&key.len()) {
        return Ok(());
    }
    let characters = key.chars().count();
    if (1..=MAX_KEY_CHARACTERS).contains(&characters) {
        return Ok(());
    }
    Err(Flaw::Key(key.chars().take(MAX_KEY_CHARACTERS).collect(), characters))
}

fn check_many(keys: &[Cow<'_, str>]) -> Result<(), Flaw> {
    let mut seen = foldhash::HashSet::default();
    for key in keys {
        if !seen.insert(key.as_ref()) {
            return Err(Flaw::DuplicateKey(key.clone().into_owned()));
        }
    }
    Ok(())
}

struct Scan<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    /// The byte at the position; at the end NUL, which JSON does not contain.
    fn peek(&self) -> u8 {
        self.json.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Flaw> {
        let start = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            match self.peek() {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                0 => break,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        if !escaped {
            let text = self.json.get(start + 1..self.at - 1).ok_or(Flaw::NotAnObject)?;
            return Ok(Cow::Borrowed(text));
        }
        let text = self.json.get(start..self.at).ok_or(Flaw::NotAnObject)?;
        let text: String = serde_json::from_str(text)
            .map_err(|_lone| Flaw::Surrogate { at: start, member: None })?;
        if text.contains('\0') {
            return Err(Flaw::Nul { at: start, member: None });
        }
        Ok(Cow::Owned(text))
    }

    fn scalar(&mut self, key: &str) -> Result<(), Flaw> {
        match self.peek() {
            b'"' => self.string().map(drop).map_err(|flaw| flaw.within(key)),
            b'{' | b'[' => Err(Flaw::Nested(key.to_owned())),
            b't' | b'n' => {
                self.at += 4;
                Ok(())
            }
            b'f' => {
                self.at += 5;
                Ok(())
            }
            _ => {
                let start = self.at;
                while matches!(self.peek(), b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') {
                    self.at += 1;
                }
                if fits_numeric(self.json.get(start..self.at).ok_or(Flaw::NotAnObject)?) {
                    Ok(())
                } else {
                    Err(Flaw::Number(key.to_owned()))
                }
            }
        }
    }
}

/// Leading and trailing zeros count as digits, so this is a little stricter than `numeric` itself.
fn fits_numeric(number: &str) -> bool {
    let (mantissa, exponent) = match number.find(['e', 'E']) {
        None if number.len() <= MAX_FRACTION_DIGITS => return true,
        None => (number, 0),
        Some(at) => match number[at + 1..].parse::<i32>() {
            Ok(exponent) => (&number[..at], i64::from(exponent)),
            Err(_too_large) => return false,
        },
    };
    let mantissa = mantissa.trim_start_matches('-');
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let integer_digits = integer.len() as i64 + exponent.max(0);
    let fraction_digits = fraction.len() as i64 - exponent.min(0);
    integer_digits <= MAX_INTEGER_DIGITS as i64 && fraction_digits <= MAX_FRACTION_DIGITS as i64
}

#[cfg(test)]
mod tests {
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
            assert_eq!(check(json), Ok(()), "{json}");
        }
        let hundred: Vec<String> = (0..100).map(|n| format!("\"k{n}\":{n}")).collect();
        assert_eq!(check(&format!("{{{}}}", hundred.join(","))), Ok(()));
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
            assert_eq!(check(&json).unwrap_err().reason(), reason, "{json:.60}");
        }
        let mut many: Vec<String> = (0..100).map(|n| format!("\"k{n}\":{n}")).collect();
        many.push("\"k99\":0".into());
        assert_eq!(
            check(&format!("{{{}}}", many.join(","))),
            Err(Flaw::DuplicateKey("k99".into()))
        );
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
            prop_assert_eq!(check(&json), Ok(()));
        }

        #[test]
        fn a_nested_member_is_found(
            members in proptest::collection::btree_map("[a-z]{1,8}", scalar(), 0..40),
            inner in scalar(),
        ) {
            let mut object: serde_json::Map<_, _> = members.into_iter().collect();
            object.insert("NESTED".into(), serde_json::Value::Array(vec![inner]));
            let json = serde_json::Value::Object(object).to_string();
            prop_assert_eq!(check(&json), Err(Flaw::Nested("NESTED".into())));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[{}\\[\\]\",:\\\\a0eE+. -]{0,40}") {
            drop(check(&text));
        }
    }
}
