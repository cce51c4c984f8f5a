//! Exports spans to an OpenTelemetry collector, in batches, on a thread of its own. Started by `telemetry`.
//! While the collector is unreachable spans are lost, and nothing waits.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

/// The running export.
#[derive(Debug)]
pub(super) struct Spans(SdkTracerProvider);

impl Spans {
    /// `endpoint`: base URL of the collector, without `/v1/traces`.
    pub(super) fn start(endpoint: &str, service_name: String) -> anyhow::Result<Self> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{endpoint}/v1/traces"))
            .with_protocol(Protocol::HttpBinary)
            .build()?;
        let resource = Resource::builder()
            .with_service_name(service_name)
            .with_attribute(opentelemetry::KeyValue::new(
                "service.version",
                env!("CARGO_PKG_VERSION"),
            ))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        Ok(Self(provider))
    }

    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let tracer = self.0.tracer(env!("CARGO_PKG_NAME"));
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(filter_fn(is_exported))
    }

    /// Exports the remaining spans.
    pub(super) fn stop(self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "not all spans were exported");
        }
    }
}

/// Our spans, and our events from level `info`.
fn is_exported(of: &Metadata<'_>) -> bool {
    let ours = of.target().starts_with(env!("CARGO_PKG_NAME"));
    let level = if of.is_span() { Level::DEBUG } else { Level::INFO };
    ours && *of.level() <= level
}
