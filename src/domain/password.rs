//! Passwords of users, stored as argon2id hashes. Called by the API (sign-in) and the CLI. Slow on
//! purpose: call it on a thread for blocking work.

use std::sync::LazyLock;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};

/// Shorter ones can be guessed.
const MIN_CHARACTERS: usize = 12;

/// Longer ones cost time to hash and add nothing.
const MAX_CHARACTERS: usize = 200;

/// Verified for unknown users, so that the answer takes as long.
static PLACEHOLDER_HASH: LazyLock<String> =
    LazyLock::new(|| hash_password(&SecretString::from("nobody's")));

/// Whether the length is within both limits.
pub fn is_usable_password(password: &str) -> bool {
    (MIN_CHARACTERS..=MAX_CHARACTERS).contains(&password.chars().count())
}

/// A PHC string with its own salt, to be stored.
#[must_use]
pub fn hash_password(password: &SecretString) -> String {
    let hash = argon2id().hash_password(password.expose_secret().as_bytes());
    hash.expect("the parameters are fixed, and the system gives random bytes").to_string()
}

/// Whether the password matches the stored hash. Takes as long if there is none.
#[must_use]
pub fn is_password(password: &SecretString, stored: Option<&str>) -> bool {
    // Computed by the first call for any user, so that timing does not reveal whether a user exists.
    let placeholder = LazyLock::force(&PLACEHOLDER_HASH);
    let parsed = PasswordHash::new(stored.unwrap_or(placeholder));
    let password = password.expose_secret().as_bytes();
    let matches = parsed.is_ok_and(|parsed| argon2id().verify_password(password, &parsed).is_ok());
    matches && stored.is_some()
}

/// 19 MiB and two passes: the smaller setting that OWASP recommends, because many may sign in at once.
fn argon2id() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_matches_its_hash() {
        let password = SecretString::from("correct horse battery");
        let stored = hash_password(&password);
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_ne!(stored, hash_password(&password), "each has its own salt");
        assert!(is_password(&password, Some(&stored)));
        assert!(!is_password(&SecretString::from("correct horse"), Some(&stored)));
        assert!(!is_password(&SecretString::from("nobody's"), None));
        assert!(!is_password(&password, Some("no hash")));
    }

    #[test]
    fn a_password_has_a_length() {
        assert!(is_usable_password(&"é".repeat(12)) && is_usable_password(&"x".repeat(200)));
        assert!(!is_usable_password("short") && !is_usable_password(&"x".repeat(201)));
    }
}
