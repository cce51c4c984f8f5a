//! Why the settings cannot be used. No variant shows what may hold a secret.

use crate::tls;

/// What is printed in a secret's place.
pub(super) const HIDDEN: &str = "(hidden)";

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A variable without a default is not set.
    #[error("{0} is not set; see .env.example for what it should hold")]
    Missing(&'static str),
    /// A variable holds what it cannot mean.
    #[error("{name}={value:?} is not usable: {problem}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What it holds; hidden where it can hold a password.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that a variable names cannot be used.
    #[error("{name}: {problem}")]
    Unusable {
        /// The variable.
        name: &'static str,
        /// Which file, and what is wrong with it.
        problem: tls::FileError,
    },
    /// Two variables contradict each other.
    #[error("{0}")]
    Contradiction(String),
    /// The `.env` file cannot be read.
    #[error(".env: {0}")]
    File(String),
}
