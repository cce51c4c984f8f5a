//! Reads settings by name, and records each value and its source for `check-config`. Used by the other files of
//! `config`, which know the names.
//!
//! Invariant: of a secret only its presence is recorded, and no error contains it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use secrecy::SecretString;

use super::error::{ConfigError, HIDDEN};

/// Names with a higher similarity (of 1) are taken for a misspelling.
const MIN_SIMILARITY: f64 = 0.93;

/// A secret's variable, and the one that names a file with it.
pub(super) type SecretNames = (&'static str, &'static str);

/// Placeholder with which reading continues after a missing or malformed URL.
pub(super) const PLACEHOLDER_URL: &str = "mqtt://localhost";

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// The variable of this name.
    Variable(String),
    /// The file that the variable of this name names.
    File(String),
    /// It is not set.
    Default,
}

/// A setting as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) name: &'static str,
    /// What may be shown of its value; empty if it has none.
    pub(super) shown: String,
    pub(super) origin: Origin,
}

pub(super) struct SettingsReader<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    found: RefCell<Vec<Found>>,
    looked_up: RefCell<BTreeSet<String>>,
    /// `None`: reading ends at the first problem. Otherwise problems are collected, and reading continues with the
    /// default.
    problems: Option<RefCell<Vec<ConfigError>>>,
}

impl<'a> SettingsReader<'a> {
    /// Reading ends at the first problem.
    pub(super) fn strict(environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            environment,
            found: RefCell::default(),
            looked_up: RefCell::default(),
            problems: None,
        }
    }

    /// Reading continues after a problem, to find all.
    pub(super) fn lenient(environment: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { problems: Some(RefCell::default()), ..Self::strict(environment) }
    }

    /// The settings in the order of reading, and the problems.
    pub(super) fn into_findings(self) -> (Vec<Found>, Vec<ConfigError>) {
        (self.found.into_inner(), self.problems.unwrap_or_default().into_inner())
    }

    /// The known name that this unknown one is most similar to.
    pub(super) fn closest_known_name(&self, name: &str) -> Option<String> {
        let looked_up = self.looked_up.borrow();
        let likeness = |known: &str| strsim::jaro_winkler(&name.to_uppercase(), known);
        let most_alike = looked_up.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
        let is_misspelt = !looked_up.contains(name) && likeness(most_alike) > MIN_SIMILARITY;
        is_misspelt.then(|| most_alike.clone())
    }

    /// The problem, or `instead` where problems are collected.
    pub(super) fn refuse<T>(&self, problem: ConfigError, instead: T) -> Result<T, ConfigError> {
        match &self.problems {
            None => Err(problem),
            Some(problems) => {
                problems.borrow_mut().push(problem);
                Ok(instead)
            }
        }
    }

    /// An empty variable counts as not set, so that `NAME=` in a file leaves the default.
    fn lookup(&self, name: &str) -> Option<String> {
        self.looked_up.borrow_mut().insert(name.to_owned());
        (self.environment)(name)
            .map(|text| trimmed(&text).to_owned())
            .filter(|text| !text.is_empty())
    }

    fn record(&self, name: &'static str, shown: impl Into<String>, origin: Origin) {
        self.found.borrow_mut().push(Found { name, shown: shown.into(), origin });
    }

    /// A value that may be shown.
    pub(super) fn optional(&self, name: &'static str, default: &str) -> Option<String> {
        let text = self.lookup(name);
        match &text {
            Some(text) => self.record(name, text, Origin::Variable(name.into())),
            None => self.record(name, default, Origin::Default),
        }
        text
    }

    /// A text that passes a check.
    pub(super) fn checked(
        &self,
        name: &'static str,
        default: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<String, ConfigError> {
        let text = self.text(name, default);
        match check(&text) {
            Ok(()) => Ok(text),
            Err(problem) => {
                self.refuse(ConfigError::Invalid { name, value: text, problem }, default.to_owned())
            }
        }
    }

    pub(super) fn text(&self, name: &'static str, default: &str) -> String {
        self.optional(name, default).unwrap_or_else(|| default.to_owned())
    }

    pub(super) fn path(&self, name: &'static str) -> Option<PathBuf> {
        self.optional(name, "").map(PathBuf::from)
    }

    pub(super) fn number<N>(
        &self,
        name: &'static str,
        default: N,
        range: RangeInclusive<N>,
    ) -> Result<N, ConfigError>
    where
        N: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(text) = self.optional(name, &default.to_string()) else { return Ok(default) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => {
                let (least, most) = range.into_inner();
                let problem = format!("it takes a whole number from {least} to {most}");
                self.refuse(ConfigError::Invalid { name, value: text, problem }, default)
            }
        }
    }

    pub(super) fn flag(&self, name: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.optional(name, &default.to_string()).as_deref() {
            None => Ok(default),
            Some("true" | "on" | "yes" | "1") => Ok(true),
            Some("false" | "off" | "no" | "0") => Ok(false),
            Some(other) => {
                let problem = "it takes true or false".into();
                self.refuse(ConfigError::Invalid { name, value: other.into(), problem }, default)
            }
        }
    }

    /// A flag whose values are shown as `on` and `off`.
    pub(super) fn switch(&self, name: &'static str, default: bool) -> Result<bool, ConfigError> {
        let shown = |on| if on { "on" } else { "off" };
        let (value, origin) = match self.lookup(name) {
            None => (Ok(default), Origin::Default),
            Some(text) => {
                let parsed = match text.as_str() {
                    "on" | "true" | "yes" | "1" => Ok(true),
                    "off" | "false" | "no" | "0" => Ok(false),
                    _ => Err(text),
                };
                (parsed, Origin::Variable(name.into()))
            }
        };
        self.record(name, value.as_ref().map_or_else(String::as_str, |on| shown(*on)), origin);
        value.or_else(|value| {
            let problem = "it takes on or off".into();
            self.refuse(ConfigError::Invalid { name, value, problem }, default)
        })
    }

    /// A URL that passes a check. It may contain a password: shown only if it is valid.
    pub(super) fn endpoint(
        &self,
        name: &'static str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Option<String>, ConfigError> {
        let Some(text) = self.lookup(name) else {
            self.record(name, "", Origin::Default);
            return Ok(None);
        };
        let checked = check(&text);
        let shown = if checked.is_ok() { &text } else { HIDDEN };
        self.record(name, shown, Origin::Variable(name.into()));
        match checked {
            Ok(()) => Ok(Some(text)),
            Err(problem) => {
                self.refuse(ConfigError::Invalid { name, value: HIDDEN.into(), problem }, None)
            }
        }
    }

    /// One of two words, of which the first is the default.
    pub(super) fn one_of_two<W>(
        &self,
        name: &'static str,
        [(first, default), (second, other)]: [(&str, W); 2],
    ) -> Result<W, ConfigError> {
        let text = self.text(name, first);
        match text.as_str() {
            it if it == first => Ok(default),
            it if it == second => Ok(other),
            _ => {
                let problem = format!("expected {first} or {second}");
                self.refuse(ConfigError::Invalid { name, value: text, problem }, default)
            }
        }
    }

    /// A secret, from its variable or from the file that `<name>_FILE` names. `show` returns what may be shown of it.
    pub(super) fn secret(
        &self,
        (name, file_name): SecretNames,
        show: impl Fn(&str) -> String,
    ) -> Result<Option<SecretString>, ConfigError> {
        let direct = self.lookup(name);
        let file = self.lookup(file_name);
        let both = direct.is_some() && file.is_some();
        let (value, origin) = match (direct, file) {
            (Some(value), _) => (Ok(Some(value)), Origin::Variable(name.into())),
            (None, Some(file)) => {
                (secret_of(file_name, file).map(Some), Origin::File(file_name.into()))
            }
            (None, None) => (Ok(None), Origin::Default),
        };
        let shown = value.as_ref().map(|value| value.as_deref().map(show).unwrap_or_default());
        self.record(name, shown.unwrap_or_default(), origin);
        let value = value.or_else(|problem| self.refuse(problem, None))?;
        if both {
            let problem = format!("{name} and {file_name} are both set; remove one of them");
            self.refuse(ConfigError::Contradiction(problem), ())?;
        }
        Ok(value.map(SecretString::from))
    }

    /// A certificate and its key.
    pub(super) fn pair(
        &self,
        first: &'static str,
        second: &'static str,
    ) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
        let (set, missing) = match (self.path(first), self.path(second)) {
            (Some(certificate), Some(key)) => return Ok(Some((certificate, key))),
            (None, None) => return Ok(None),
            (Some(_), None) => (first, second),
            (None, Some(_)) => (second, first),
        };
        let problem =
            format!("{set} is set without {missing}; a certificate and its key go together");
        self.refuse(ConfigError::Contradiction(problem), None)
    }

    /// A required URL.
    pub(super) fn required(
        &self,
        names: SecretNames,
        shown: impl Fn(&str) -> String,
    ) -> Result<SecretString, ConfigError> {
        match self.secret(names, shown)? {
            Some(value) => Ok(value),
            None => self.refuse(ConfigError::Missing(names.0), PLACEHOLDER_URL.into()),
        }
    }
}

/// The value is hidden, because a URL may contain a password.
pub(super) fn malformed(name: &'static str, problem: &impl ToString) -> ConfigError {
    ConfigError::Invalid { name, value: HIDDEN.into(), problem: problem.to_string() }
}

pub(super) fn two_passwords(variable: &str, url: &str) -> ConfigError {
    ConfigError::Contradiction(format!(
        "{variable} is set, and {url} holds a password too; remove one of them"
    ))
}

/// The content of a secret's file, without the trailing line break.
fn secret_of(name: &'static str, file: String) -> Result<String, ConfigError> {
    let read = std::fs::read_to_string(&file);
    let problem = match read.as_deref().map(trimmed) {
        Ok("") => "the file is empty".to_owned(),
        Ok(text) => return Ok(text.to_owned()),
        // The variable may hold the secret itself instead of a file's name.
        Err(error) if !Path::new(&file).exists() => {
            let problem = format!("it takes the name of a file that can be read: {error}");
            return Err(ConfigError::Invalid { name, value: HIDDEN.into(), problem });
        }
        Err(error) => format!("the file cannot be read: {error}"),
    };
    Err(ConfigError::Invalid { name, value: file, problem })
}

/// Without surrounding white space and a byte order mark.
fn trimmed(text: &str) -> &str {
    text.trim().trim_start_matches('\u{feff}').trim_start()
}
