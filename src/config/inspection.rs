//! The output of `tributary check-config`: every setting, its source, and all problems. Pure but for the files that
//! settings name.

use std::fmt;

use super::settings::{Found, Origin, SettingsReader};
use super::{Config, ConfigError, EnvFile};

/// Read by other commands than `serve`.
const OTHER_COMMANDS_ONLY: &[&str] = &["API_TOKEN", "API_TOKEN_FILE"];

/// All settings and their problems.
#[derive(Debug)]
pub struct Inspection {
    rows: Vec<[String; 3]>,
    /// In the order of the settings.
    pub problems: Vec<ConfigError>,
    /// Unknown variables of the file, and the setting that each resembles.
    misspelt: Vec<(String, String)>,
}

impl Inspection {
    /// Reads all settings, also after a problem.
    pub fn of(environment: impl Fn(&str) -> Option<String>, file: &EnvFile) -> Self {
        let settings = SettingsReader::lenient(&environment);
        // A problem that ends the reading is added.
        let unread = Config::assemble(&settings).err();
        let misspelt_by = |name: &String| Some((name.clone(), settings.closest_known_name(name)?));
        let misspelt =
            file.all_names.iter().filter(|name| !OTHER_COMMANDS_ONLY.contains(&name.as_str()));
        let misspelt = misspelt.filter_map(misspelt_by).collect();
        let (found, mut problems) = settings.into_findings();
        problems.extend(unread);
        let rows = found.into_iter().map(|found| row(found, file)).collect();
        Self { rows, problems, misspelt }
    }
}

fn row(found: Found, file: &EnvFile) -> [String; 3] {
    let place = |name: &str| match &file.path {
        Some(path) if file.holds(name) => path.display().to_string(),
        _ => "environment".to_owned(),
    };
    let origin = match &found.origin {
        Origin::Default => "default".to_owned(),
        Origin::Variable(name) => place(name),
        Origin::File(name) => format!("the file of {name}, {}", place(name)),
    };
    [found.name.to_owned(), found.shown, origin]
}

impl fmt::Display for Inspection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
        };
        let (names, values) = (width(0), width(1).min(60));
        for [name, shown, origin] in &self.rows {
            writeln!(out, "{name:names$}  {shown:values$}  {origin}")?;
        }
        for (name, meant) in &self.misspelt {
            writeln!(out, "\n{name} in .env is not a known setting; did you mean {meant}?")?;
        }
        match self.problems.len() {
            0 => return write!(out, "\nNo problems found."),
            1 => write!(out, "\nOne problem:")?,
            count => write!(out, "\n{count} problems:")?,
        }
        self.problems.iter().try_for_each(|problem| write!(out, "\n- {problem}"))
    }
}
