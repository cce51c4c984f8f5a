//! The log, and the export of spans. Started once, by `cli`. A batch has a span at level `debug`, and each
//! attempt to write it another; with the feature `otlp` they can be exported to an OpenTelemetry collector,
//! whatever the log's level.

#[cfg(feature = "otlp")]
mod otlp;

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

/// `LOG_…`
#[derive(Clone, Debug)]
pub struct Config {
    /// `LOG_FILTER`, as in `RUST_LOG`.
    pub filter: String,
    /// `LOG_FORMAT`
    pub format: Format,
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: the collector to which spans go, with OTLP over HTTP.
    pub export: Option<String>,
    /// `OTEL_SERVICE_NAME`
    pub service_name: String,
}

/// The format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Libraries whose `info` and `warn` are of no use to an operator.
const QUIET: &str = "actix_server=warn,ntex_service=warn,ntex_mqtt=error,refinery_core=warn";

/// They log an error where a client sends something that is not HTTP. It is shown where the filter is
/// `debug` or `trace`, or names `actix_http`.
const NOT_HTTP: &str = "actix_http::h1::dispatcher=off,actix_http::h1::decoder=off";

/// The running log and export.
#[derive(Debug)]
#[must_use = "without `stop`, spans that are not exported yet are lost"]
pub struct Telemetry {
    filter: LogFilterHandle,
    #[cfg(feature = "otlp")]
    spans: Option<otlp::Spans>,
}

impl Telemetry {
    /// Changes the log's filter.
    pub fn filter(&self) -> LogFilterHandle {
        self.filter.clone()
    }

    /// Exports the remaining spans.
    pub fn stop(self) {
        #[cfg(feature = "otlp")]
        if let Some(spans) = self.spans {
            spans.stop();
        }
    }
}

/// The log's filter, which can be changed while the process runs.
#[derive(Clone, Debug)]
pub struct LogFilterHandle {
    present: Arc<Mutex<String>>,
    /// `None` in tests, which log nothing.
    handle: Option<reload::Handle<EnvFilter, Registry>>,
}

impl LogFilterHandle {
    /// For tests.
    pub fn nothing() -> Self {
        Self { present: Arc::new(Mutex::new("off".into())), handle: None }
    }

    /// The current filter.
    pub fn present(&self) -> String {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// # Errors
    /// When it is not a valid filter; the current one is kept then.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let parsed = read(filter)?;
        if let Some(handle) = &self.handle {
            handle.reload(parsed).map_err(|error| error.to_string())?;
        }
        filter.clone_into(&mut present);
        Ok(())
    }
}

/// Whether the log can be filtered by this.
///
/// # Errors
/// When it is malformed.
pub fn check_filter(filter: &str) -> Result<(), String> {
    read(filter).map(drop)
}

/// Whether spans can be exported to this URL.
///
/// # Errors
/// When this build cannot export them, or it is not the bare URL of a collector.
pub fn check_export(endpoint: &str) -> Result<(), String> {
    if !cfg!(feature = "otlp") {
        return Err("this build cannot export spans; build it with --features otlp".into());
    }
    let is_bare = url::Url::parse(endpoint).is_ok_and(|url| {
        url.scheme() == "http"
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if !is_bare {
        let problem =
            "expected http://host:port of a collector, without a user name, a password or a key";
        return Err(problem.into());
    }
    Ok(())
}

fn read(filter: &str) -> Result<EnvFilter, String> {
    let asks_for_them = filter.split(',').map(|it| it.trim().to_lowercase()).any(|directive| {
        ["debug", "trace"].contains(&&*directive) || directive.starts_with("actix_http")
    });
    let not_http = if asks_for_them { "" } else { NOT_HTTP };
    EnvFilter::try_new(format!("{QUIET},{not_http},{filter}")).map_err(|error| error.to_string())
}

/// Logs to standard error.
///
/// # Errors
/// When the filter is invalid, a log was started before, or the exporter cannot be created.
pub fn start(config: &Config) -> anyhow::Result<Telemetry> {
    let filter = read(&config.filter).map_err(anyhow::Error::msg)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match config.format {
        Format::Text => lines.with_target(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let (filter, handle) = reload::Layer::new(filter);
    let present = Arc::new(Mutex::new(config.filter.clone()));
    let filter_handle = LogFilterHandle { present, handle: Some(handle) };
    let log = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otlp")]
    if let Some(endpoint) = &config.export {
        let endpoint = endpoint.trim_end_matches('/');
        let spans = otlp::Spans::start(endpoint, config.service_name.clone())?;
        log.with(spans.layer()).try_init()?;
        return Ok(Telemetry { filter: filter_handle, spans: Some(spans) });
    }
    log.try_init().map_err(|error| anyhow::anyhow!("the log could not be started: {error}"))?;
    Ok(Telemetry {
        filter: filter_handle,
        #[cfg(feature = "otlp")]
        spans: None,
    })
}
