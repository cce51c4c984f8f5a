//! The names of what is measured, in one place. Counters are fed per batch or per event, never
//! per row; labels are bounded, never a sensor's identifier.

use std::sync::Arc;

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::domain::Ledger;

/// Every metric of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ledger: Arc<Ledger>,
    items_total: IntCounterVec,
    items_in_flight: IntGaugeVec,
    /// `tributary_messages_received_total`
    pub messages_received: IntCounter,
    /// `tributary_bytes_received_total`
    pub bytes_received: IntCounter,
    /// `tributary_pubacks_sent_total`
    pub pubacks_sent: IntCounter,
    /// `tributary_window_messages`
    pub window_messages: IntGauge,
    /// `tributary_broker_connects_total`
    pub broker_connects: IntCounterVec,
    /// `tributary_batch_items`
    pub batch_items: Histogram,
    /// `tributary_commit_seconds`
    pub commit_seconds: Histogram,
    /// `tributary_commit_retries_total`, by cause
    pub commit_retries: IntCounterVec,
    /// `tributary_configurations_published_total`
    pub configurations_published: IntCounter,
    /// `tributary_rejections_over_bound_total`
    pub rejections_over_bound: IntCounter,
    /// `tributary_sensor_actors_alive`
    pub actors_alive: IntGauge,
    /// `tributary_sensor_actors_started_total`
    pub actors_started: IntCounter,
    /// `tributary_sensor_actors_restarted_total`
    pub actors_restarted: IntCounter,
    /// `tributary_sensor_actors_retired_total`
    pub actors_retired: IntCounter,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Panics
    /// Never: the names are constants, and a test makes them once.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>) -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        Self {
            items_total: make.counters(
                "tributary_items_total",
                "Items by kind and outcome: received = committed + duplicate + rejected + in flight + released",
                &["kind", "outcome"],
            ),
            items_in_flight: make.gauges("tributary_items_in_flight", "Items on their way", &["kind"]),
            messages_received: make
                .counter("tributary_messages_received_total", "PUBLISHes received"),
            bytes_received: make
                .counter("tributary_bytes_received_total", "Bytes of topics and payloads received"),
            pubacks_sent: make.counter("tributary_pubacks_sent_total", "PUBACKs sent"),
            window_messages: make
                .gauge("tributary_window_messages", "Messages received and not yet settled"),
            broker_connects: make.counters(
                "tributary_broker_connects_total",
                "Connections made to the broker",
                &["connection"],
            ),
            batch_items: make.histogram(
                "tributary_batch_items",
                "Items in a committed batch",
                &[1.0, 10.0, 100.0, 1_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0, 100_000.0],
            ),
            commit_seconds: make.histogram(
                "tributary_commit_seconds",
                "From BEGIN to COMMIT",
                &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
            ),
            commit_retries: make.counters(
                "tributary_commit_retries_total",
                "Batches written again, by cause",
                &["cause"],
            ),
            configurations_published: make.counter(
                "tributary_configurations_published_total",
                "Configurations that the broker acknowledged",
            ),
            rejections_over_bound: make.counter(
                "tributary_rejections_over_bound_total",
                "Rejected items that were counted and not kept",
            ),
            actors_alive: make.gauge("tributary_sensor_actors_alive", "Sensor actors alive"),
            actors_started: make
                .counter("tributary_sensor_actors_started_total", "Sensor actors started"),
            actors_restarted: make.counter(
                "tributary_sensor_actors_restarted_total",
                "Sensor actors started again after a failure",
            ),
            actors_retired: make
                .counter("tributary_sensor_actors_retired_total", "Sensor actors retired"),
            registry,
            ledger,
        }
    }

    /// Prometheus text, the ledger in it taken at one moment.
    ///
    /// # Panics
    /// Never: a `Vec` takes whatever is written to it.
    #[must_use]
    pub fn render(&self) -> String {
        for (kind, entry) in self.ledger.snapshot().entries() {
            for (outcome, count) in [
                ("received", entry.received + entry.released),
                ("committed", entry.committed),
                ("duplicate", entry.duplicate),
                ("rejected", entry.rejected),
                ("released", entry.released),
            ] {
                let counter = self.items_total.with_label_values(&[kind, outcome]);
                counter.inc_by(count.saturating_sub(counter.get()));
            }
            self.items_in_flight
                .with_label_values(&[kind])
                .set(i64::try_from(entry.in_flight).unwrap_or(i64::MAX));
        }
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("a Vec takes whatever is written to it");
        String::from_utf8_lossy(&text).into_owned()
    }
}

struct Maker<'a>(&'a Registry);

const CONSTANT_NAMES: &str = "the names of metrics are constants, each used once";

impl Maker<'_> {
    fn register<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        made: Result<C, prometheus::Error>,
    ) -> C {
        let collector = made.expect(CONSTANT_NAMES);
        self.0.register(Box::new(collector.clone())).expect(CONSTANT_NAMES);
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Arrivals, Kind};

    #[test]
    fn the_ledger_is_in_the_text() {
        let ledger = Arc::new(Ledger::default());
        let metrics = Metrics::new(Arc::clone(&ledger));
        let mut three = Arrivals::default();
        three.add(Some(Kind::Measurement), 3);
        ledger.receive(three);
        assert!(metrics.render().contains(" 3"));
        ledger.receive(three);
        let text = metrics.render();
        assert!(
            text.contains(r#"tributary_items_total{kind="measurements",outcome="received"} 6"#),
            "{text}"
        );
        assert!(text.contains(r#"tributary_items_in_flight{kind="measurements"} 6"#), "{text}");
    }
}
