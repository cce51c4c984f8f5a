//! The file `.env`, which adds variables to the environment. Loaded once, by `main`, before anything else. An error
//! names the line without showing it, because it may contain a password.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{ConfigError, environment};

/// What was loaded.
#[derive(Clone, Debug, Default)]
pub struct EnvFile {
    /// Where it is, if there is one.
    pub path: Option<PathBuf>,
    /// Its variables that were not in the environment.
    names: BTreeSet<String>,
    /// All of its variables.
    pub(super) all_names: BTreeSet<String>,
}

impl EnvFile {
    /// Whether this variable's value came from the file.
    pub fn holds(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

/// Loads `.env` into the environment, where there is one; what is set already wins.
///
/// # Errors
/// When the file is malformed.
pub fn load_env_file() -> Result<EnvFile, ConfigError> {
    let unreadable = |error: dotenvy::Error| ConfigError::File(error.to_string());
    let lines = match dotenvy::dotenv_iter() {
        Ok(lines) => lines,
        Err(error) if error.not_found() => return Ok(EnvFile::default()),
        Err(error) => return Err(unreadable(error)),
    };
    let all_names = names_of(lines)?;
    let mut names = all_names.clone();
    names.retain(|name| environment(name).is_none());
    // Every line has been parsed once, so that this error concerns the file.
    let path = dotenvy::dotenv().map_err(unreadable)?;
    Ok(EnvFile { path: Some(path), names, all_names })
}

/// The variables of the file. The library's error would show the line.
fn names_of<R: std::io::Read>(lines: dotenvy::Iter<R>) -> Result<BTreeSet<String>, ConfigError> {
    let mut names = BTreeSet::new();
    let mut place = "its first line".to_owned();
    for line in lines {
        let (name, _) = line.map_err(|error| {
            ConfigError::File(match error {
                dotenvy::Error::LineParse(..) => format!(
                    "{place} is malformed; it takes NAME=value, in quotes where there are spaces"
                ),
                other => other.to_string(),
            })
        })?;
        place = format!("the line after {name}");
        names.insert(name);
    }
    Ok(names)
}
