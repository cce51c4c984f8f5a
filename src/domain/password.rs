//! Passwords of users: kept as argon2id, checked at one cost. Slow on purpose: call it where that
//! holds nobody up.

use std::sync::LazyLock;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};

/// Shorter ones are guessed.
const MIN_CHARACTERS: usize = 12;

/// Longer ones cost us to hash, and add nothing.
const MAX_CHARACTERS: usize = 200;

/// Checked against where nobody has the name, so that the answer takes as long.
static OF_NOBODY: LazyLock<String> = LazyLock::new(|| hash(&SecretString::from("nobody's")));

/// Whether it is long enough to be a password.
#[must_use]
pub fn is_usable_password(password: &str) -> bool {
    (MIN_CHARACTERS..=MAX_CHARACTERS).contains(&password.chars().count())
}

/// What is kept of a password: a PHC string with a salt of its own.
#[must_use]
pub fn hash_password(password: &SecretString) -> String {
    hash(password)
}

/// Whether it is the password that was kept. Takes as long where nothing was.
#[must_use]
pub fn is_password(password: &SecretString, kept: Option<&str>) -> bool {
    // Made on the first call whoever that is for, so that its time tells nothing.
    let of_nobody = LazyLock::force(&OF_NOBODY);
    let against = kept.unwrap_or(of_nobody);
    let parsed = PasswordHash::new(against);
    let password = password.expose_secret().as_bytes();
    let fits = parsed.is_ok_and(|parsed| argon2id().verify_password(password, &parsed).is_ok());
    fits && kept.is_some()
}

fn hash(password: &SecretString) -> String {
    let hash = argon2id().hash_password(password.expose_secret().as_bytes());
    hash.expect("the parameters are fixed, and the system gives random bytes").to_string()
}

/// 19 MiB and two passes: the smaller setting of OWASP's, since many may sign in at once.
fn argon2id() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_fits_what_was_kept() {
        let password = SecretString::from("correct horse battery");
        let kept = hash_password(&password);
        assert!(kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
        assert_ne!(kept, hash_password(&password), "each has its own salt");
        assert!(is_password(&password, Some(&kept)));
        assert!(!is_password(&SecretString::from("correct horse"), Some(&kept)));
        assert!(!is_password(&SecretString::from("nobody's"), None));
        assert!(!is_password(&password, Some("no hash")));
    }

    #[test]
    fn a_password_has_a_length() {
        assert!(is_usable_password(&"é".repeat(12)) && is_usable_password(&"x".repeat(200)));
        assert!(!is_usable_password("short") && !is_usable_password(&"x".repeat(201)));
    }
}
