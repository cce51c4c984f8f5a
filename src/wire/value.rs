//! Validates the JSON objects `value`, `configuration` and `metadata`. Called by the decoder for measurements and by
//! the API for the other two. Finds in one pass over the bytes what serde_json accepts and `jsonb` refuses
//! (`\u0000`, lone surrogates, numbers out of the range of `numeric`), nesting, and repeated keys.

use std::borrow::Cow;

use serde::Serialize;
use smallvec::SmallVec;
use utoipa::ToSchema;

use crate::domain::Reason;

/// The levels of a value with `NESTED_VALUES=store`, the outermost object included.
pub const MAX_DEPTH: usize = 16;

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
    /// The same, below the deepest level that is stored.
    #[error("the member {0:?} is nested deeper than {MAX_DEPTH} levels")]
    TooDeep(String),
    /// Empty or too long.
    #[error("the key {0:?} has {1} characters; expected 1 to {MAX_KEY_CHARACTERS}")]
    Key(String, usize),
    /// A repeated key.
    #[error("the key {0:?} occurs twice")]
    DuplicateKey(String),
    /// PostgreSQL cannot store it.
    #[error("the string at byte {0} contains U+0000")]
    Nul(usize),
    /// A lone surrogate.
    #[error("the string at byte {0} contains a lone surrogate")]
    Surrogate(usize),
    /// Out of the range of `numeric`.
    #[error(
        "the number in {0:?} has more than {MAX_INTEGER_DIGITS} digits before or {MAX_FRACTION_DIGITS} after the decimal point"
    )]
    Number(String),
    /// Out of the range of a double. `jsonb` writes an exponent out as digits, so the stored text would be much longer.
    #[error("the number in {0:?} is out of the range of a double")]
    Range(String),
}

impl Flaw {
    /// The code under which it is recorded.
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NotAnObject => Reason::InvalidValue,
            Self::Nested(_) | Self::TooDeep(_) => Reason::NestedValue,
            Self::Key(..) => Reason::InvalidKey,
            Self::DuplicateKey(_) => Reason::DuplicateKey,
            Self::Nul(_) => Reason::NulCharacter,
            Self::Surrogate(_) => Reason::InvalidText,
            Self::Number(_) | Self::Range(_) => Reason::InvalidNumber,
        }
    }
}

/// A flaw, and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flawed {
    /// Why the object is refused.
    pub flaw: Flaw,
    /// The keys and indexes of the members that hold it, outermost first; of a key that is no text, where it is.
    pub path: Vec<String>,
}

impl Flawed {
    /// In this member. The outermost is added last: `check` reverses them.
    fn within(mut self, member: impl ToString) -> Self {
        self.path.push(member.to_string());
        self
    }
}

impl From<Flaw> for Flawed {
    fn from(flaw: Flaw) -> Self {
        Self { flaw, path: Vec::new() }
    }
}

/// What to do with objects and arrays in `value` and in configurations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NestedValues {
    /// Refuse them.
    #[default]
    Reject,
    /// Store them, up to [`MAX_DEPTH`].
    Store,
}

impl NestedValues {
    const fn max_depth(self) -> usize {
        match self {
            Self::Reject => 1,
            Self::Store => MAX_DEPTH,
        }
    }
}

/// Validates a text that is JSON already; on any other text the outcome is unspecified.
pub fn check(json: &str, nested_values: NestedValues) -> Result<(), Flawed> {
    ValueScan { json, at: 0, nested_values, is_metadata: false }.run(nested_values.max_depth())
}

/// The same for metadata: any keys, numbers in the range of a double, any depth. The caller bounds the depth, to which
/// this recurses.
///
/// # Errors
/// The first flaw.
pub fn check_metadata(json: &str) -> Result<(), Flawed> {
    let nested_values = NestedValues::Store;
    ValueScan { json, at: 0, nested_values, is_metadata: true }.run(usize::MAX)
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

fn check_many(keys: &[Cow<'_, str>]) -> Result<(), Flawed> {
    let mut seen = foldhash::HashSet::default();
    for key in keys {
        if !seen.insert(key.as_ref()) {
            return Err(duplicate(key));
        }
    }
    Ok(())
}

fn duplicate(key: &str) -> Flawed {
    Flawed::from(Flaw::DuplicateKey(key.to_owned())).within(key)
}

struct ValueScan<'a> {
    json: &'a str,
    at: usize,
    nested_values: NestedValues,
    is_metadata: bool,
}

impl<'a> ValueScan<'a> {
    fn run(mut self, max_depth: usize) -> Result<(), Flawed> {
        self.skip_space();
        if self.peek() != b'{' {
            return Err(Flaw::NotAnObject.into());
        }
        self.object(max_depth).map_err(|mut flawed| {
            flawed.path.reverse();
            flawed
        })
    }

    /// The byte at the position; at the end NUL, which JSON does not contain.
    fn peek(&self) -> u8 {
        self.json.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
    }

    /// `depth`: that of this object, and of what it may hold.
    fn object(&mut self, depth: usize) -> Result<(), Flawed> {
        self.at += 1;
        self.skip_space();
        let mut keys = SmallVec::<[Cow<'_, str>; FEW_KEYS]>::new();
        while self.peek() == b'"' {
            let key = self.string()?;
            if !self.is_metadata {
                check_key(&key).map_err(|flaw| Flawed::from(flaw).within(&key))?;
            }
            if keys.len() < FEW_KEYS && keys.contains(&key) {
                return Err(duplicate(&key));
            }
            self.skip_space();
            self.at += 1; // the colon
            self.skip_space();
            self.value(&key, depth).map_err(|flawed| flawed.within(&key))?;
            keys.push(key);
            self.skip_space();
            if self.peek() == b',' {
                self.at += 1;
                self.skip_space();
            }
        }
        self.at += 1; // the brace
        if keys.len() > FEW_KEYS { check_many(&keys) } else { Ok(()) }
    }

    fn array(&mut self, key: &str, depth: usize) -> Result<(), Flawed> {
        self.at += 1;
        self.skip_space();
        let mut index = 0;
        while !matches!(self.peek(), b']' | 0) {
            let start = self.at;
            self.value(key, depth).map_err(|flawed| flawed.within(index))?;
            index += 1;
            self.skip_space();
            if self.peek() == b',' {
                self.at += 1;
                self.skip_space();
            }
            if self.at == start {
                return Err(Flaw::NotAnObject.into()); // no JSON
            }
        }
        self.at += 1; // the bracket
        Ok(())
    }

    fn value(&mut self, key: &str, depth: usize) -> Result<(), Flawed> {
        match self.peek() {
            b'{' if depth > 1 => self.object(depth - 1),
            b'[' if depth > 1 => self.array(key, depth - 1),
            _ => Ok(self.scalar(key)?),
        }
    }

    // Here and in `scalar` the position is a local while bytes are skipped: it stays in a register.
    #[inline]
    fn string(&mut self) -> Result<Cow<'a, str>, Flaw> {
        let start = self.at;
        let mut end = start + 1;
        let mut escaped = false;
        while let Some(byte) = self.json.as_bytes().get(end) {
            match byte {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    end += 2;
                }
                _ => end += 1,
            }
        }
        self.at = end + 1;
        if !escaped {
            let text = self.json.get(start + 1..self.at - 1).ok_or(Flaw::NotAnObject)?;
            return Ok(Cow::Borrowed(text));
        }
        let text = self.json.get(start..self.at).ok_or(Flaw::NotAnObject)?;
        let text: String = serde_json::from_str(text).map_err(|_lone| Flaw::Surrogate(start))?;
        if text.contains('\0') {
            return Err(Flaw::Nul(start));
        }
        Ok(Cow::Owned(text))
    }

    #[inline]
    fn scalar(&mut self, key: &str) -> Result<(), Flaw> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b'{' | b'[' => Err(match self.nested_values {
                NestedValues::Reject => Flaw::Nested(key.to_owned()),
                NestedValues::Store => Flaw::TooDeep(key.to_owned()),
            }),
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
                let mut end = start;
                let mut has_exponent = false;
                while let Some(byte) = self.json.as_bytes().get(end) {
                    match byte {
                        b'0'..=b'9' | b'-' | b'+' | b'.' => {}
                        b'e' | b'E' => has_exponent = true,
                        _ => break,
                    }
                    end += 1;
                }
                self.at = end;
                if !self.is_metadata && !has_exponent && end - start <= MAX_FRACTION_DIGITS {
                    return Ok(());
                }
                let number = self.json.get(start..end).ok_or(Flaw::NotAnObject)?;
                if !fits_numeric(number) {
                    return Err(Flaw::Number(key.to_owned()));
                }
                if self.is_metadata && !fits_double(number) {
                    return Err(Flaw::Range(key.to_owned()));
                }
                Ok(())
            }
        }
    }
}

/// Whether it is neither too large for a double nor, unless it is 0, too small.
fn fits_double(number: &str) -> bool {
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    let is_zero = !mantissa.contains(|digit| matches!(digit, '1'..='9'));
    number.parse::<f64>().is_ok_and(|it| it.is_finite() && (it != 0.0 || is_zero))
}

/// Leading and trailing zeros count as digits, so this is a little stricter than `numeric` itself.
fn fits_numeric(number: &str) -> bool {
    let (mantissa, exponent) = match number.find(['e', 'E']) {
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
mod tests;
