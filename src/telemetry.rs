//! Logs: set up once, by `main`. One line an event, a sentence that reads alone, and fields that
//! can be searched.

use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// `LOG_…`
#[derive(Clone, Debug)]
pub struct Config {
    /// `LOG_FILTER`, as in `RUST_LOG`.
    pub filter: String,
    /// `LOG_FORMAT`
    pub format: Format,
}

/// How a line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("it takes text or json".into()),
        }
    }
}

/// Libraries that say at `info` and `warn` what only their authors want to know.
const QUIET: &str = "actix_server=warn,ntex_service=warn,ntex_mqtt=error,refinery_core=warn";

/// Starts the log on standard error.
///
/// # Errors
/// When the filter is malformed, or a log has been started before.
pub fn start(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.filter)).map_err(|error| {
        anyhow::anyhow!("LOG_FILTER={:?} is not usable: {error}", config.filter)
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match config.format {
        Format::Text => builder.with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}
