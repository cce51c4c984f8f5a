//! Logs and spans: set up once, by `main`. One line an event, a sentence that reads alone, and
//! fields that can be searched. A batch has a span, and each attempt to write it one with its
//! connection, at the level `debug`; at `info` they cost nothing. In a build with the feature `otlp`
//! the spans can go to an OpenTelemetry collector, whatever the log's level.

#[cfg(feature = "otlp")]
mod otlp;

use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// `LOG_…`
#[derive(Clone, Debug)]
pub struct Config {
    /// `LOG_FILTER`, as in `RUST_LOG`.
    pub filter: String,
    /// `LOG_FORMAT`
    pub format: Format,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`
    pub export: Export,
    /// `OTEL_SERVICE_NAME`
    pub service_name: String,
}

/// Where spans go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Export {
    /// Nowhere.
    Off,
    /// To the collector at this URL, by OTLP over HTTP.
    To(String),
}

impl FromStr for Export {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Ok(Self::Off)
        } else if !cfg!(feature = "otlp") {
            Err("this build exports no spans; build it with --features otlp".into())
        } else if text.starts_with("http://") {
            Ok(Self::To(text.trim_end_matches('/').to_owned()))
        } else {
            Err("it takes http://host:port, for a collector on this machine or this network".into())
        }
    }
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

/// What runs until the process ends.
#[derive(Debug)]
#[must_use = "spans that are not exported yet are lost without `stop`"]
pub struct Telemetry {
    #[cfg(feature = "otlp")]
    spans: Option<otlp::Spans>,
}

impl Telemetry {
    /// Hands out what has not been exported yet.
    pub fn stop(self) {
        #[cfg(feature = "otlp")]
        if let Some(spans) = self.spans {
            spans.stop();
        }
    }
}

/// Starts the log on standard error, and the export of spans where it is asked for.
///
/// # Errors
/// When the filter is malformed, a log has been started before, or the exporter cannot be made.
pub fn start(config: &Config) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.filter)).map_err(|error| {
        anyhow::anyhow!("LOG_FILTER={:?} is not usable: {error}", config.filter)
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match config.format {
        Format::Text => lines.with_target(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let log = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otlp")]
    if let Export::To(endpoint) = &config.export {
        let spans = otlp::Spans::start(endpoint, config.service_name.clone())?;
        log.with(spans.layer()).try_init()?;
        return Ok(Telemetry { spans: Some(spans) });
    }
    log.try_init().map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))?;
    Ok(Telemetry {
        #[cfg(feature = "otlp")]
        spans: None,
    })
}
