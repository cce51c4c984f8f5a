//! Why the settings cannot be used. No variant shows what may hold a secret.

use crate::tls;

/// Printed instead of a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A variable without a default is not set.
    #[error("{0} is not set; see .env.example for what it should hold")]
    Missing(&'static str),
    /// The value of a variable is invalid.
    #[error("{name}={value:?} is not usable: {problem}")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// Its value; hidden if it may contain a password.
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
