//! The file `.env`, which adds to the environment what that does not hold already. Loaded once, by
//! `main`, before anything else. Promises that an error names the line's variable and not its value,
//! which may be a password.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{ConfigError, environment};

/// What was loaded.
#[derive(Clone, Debug, Default)]
pub struct EnvFile {
    /// Where it is, if there is one.
    pub path: Option<PathBuf>,
    names: BTreeSet<String>,
}

impl EnvFile {
    /// Whether this variable's value came from the file.
    #[must_use]
    pub fn holds(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

/// Loads `.env` into the environment, where there is one; what is set already wins.
///
/// # Errors
/// When the file is there and malformed.
pub fn load_env_file() -> Result<EnvFile, ConfigError> {
    let lines = match dotenvy::dotenv_iter() {
        Ok(lines) => lines,
        Err(error) if error.not_found() => return Ok(EnvFile::default()),
        Err(error) => return Err(refusal(&error)),
    };
    let mut names = BTreeSet::new();
    for line in lines {
        let (name, _) = line.map_err(|error| refusal(&error))?;
        if environment(&name).is_none() {
            names.insert(name);
        }
    }
    let path = dotenvy::dotenv().map_err(|error| refusal(&error))?;
    Ok(EnvFile { path: Some(path), names })
}

fn refusal(error: &dotenvy::Error) -> ConfigError {
    ConfigError::File(match error {
        dotenvy::Error::LineParse(line, _) => match line.split_once('=') {
            Some((name, _)) => format!(
                "the value of {} is malformed; put it in quotes where it has spaces or a #",
                name.trim()
            ),
            None => "a line holds no NAME=value".into(),
        },
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_line_is_named_and_not_shown() {
        for (text, says) in [
            ("DATABASE_PASSWORD=s3cret word\n", "the value of DATABASE_PASSWORD is malformed"),
            ("s3cret\n", "a line holds no NAME=value"),
        ] {
            let error = dotenvy::from_read_iter(text.as_bytes()).find_map(Result::err).unwrap();
            let said = refusal(&error).to_string();
            assert!(said.contains(says) && !said.contains("s3cret"), "{said}");
        }
    }
}
