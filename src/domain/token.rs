//! A bearer token: 256 random bits. Made by the API and the CLI, which show it once; only its SHA-256
//! digest is stored. 256 bits cannot be guessed, so the digest needs neither salt nor stretching.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Lets secret scanners recognize a token.
const PREFIX: &str = "trb_";

const RANDOM_BYTES: usize = 32;

/// A token in clear text. Its `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// SHA-256 of a token, as stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TokenDigest(pub [u8; RANDOM_BYTES]);

impl Token {
    /// A new token.
    pub fn random() -> Self {
        let bytes: [u8; RANDOM_BYTES] = rand::random();
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// None if the text does not have the form of a token.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        (bytes.len() == RANDOM_BYTES).then(|| Self(text.to_owned()))
    }

    /// The clear text, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The digest to store.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_parsed_back_and_never_printed() {
        let token = Token::random();
        assert_eq!(token.reveal().len(), PREFIX.len() + 43);
        assert_eq!(Token::parse(token.reveal()), Some(token.clone()));
        assert_ne!(Token::random().digest(), token.digest());
        assert!(!format!("{token:?}").contains(&token.reveal()[4..]));
    }

    #[test]
    fn refuses_other_forms() {
        let text = Token::random().reveal().to_owned();
        for other in ["", "trb_", &text[4..], &text[..46], &format!("{text}A"), "trb_é"] {
            assert_eq!(Token::parse(other), None, "{other}");
        }
    }
}
