//! Logs: set up once, by `main`. One line an event, a sentence that reads alone, and fields that
//! can be searched.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

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

type Change = dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync;

/// What is logged at present, and the way to change it until the process ends.
#[derive(Clone)]
pub struct LogFilter {
    present: Arc<Mutex<String>>,
    change: Arc<Change>,
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("LogFilter").field(&self.present()).finish()
    }
}

impl LogFilter {
    /// For tests, which log nothing.
    #[must_use]
    pub fn nothing() -> Self {
        Self::new("off", |_| Ok(()))
    }

    fn new(
        present: &str,
        change: impl Fn(EnvFilter) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { present: Arc::new(Mutex::new(present.to_owned())), change: Arc::new(change) }
    }

    /// As it was set, by `LOG_FILTER` or since.
    #[must_use]
    pub fn present(&self) -> String {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs by this from now on.
    ///
    /// # Errors
    /// When it is no filter; what was logged before is then still logged.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        (self.change)(read(filter)?)?;
        filter.clone_into(&mut present);
        Ok(())
    }
}

fn read(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|error| error.to_string())
}

/// Starts the log on standard error.
///
/// # Errors
/// When the filter is malformed, or a log has been started before.
pub fn start(config: &Config) -> anyhow::Result<LogFilter> {
    let filter = read(&config.filter).map_err(|error| {
        anyhow::anyhow!("LOG_FILTER={:?} is not usable: {error}", config.filter)
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let (started, filter) = match config.format {
        Format::Text => {
            let builder = builder.with_target(false).with_filter_reloading();
            let handle = builder.reload_handle();
            let change = move |it| handle.reload(it).map_err(|error| error.to_string());
            (builder.try_init(), LogFilter::new(&config.filter, change))
        }
        Format::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let change = move |it| handle.reload(it).map_err(|error| error.to_string());
            (builder.try_init(), LogFilter::new(&config.filter, change))
        }
    };
    started.map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))?;
    Ok(filter)
}
