//! The Prometheus metrics. Each part of the service updates its own; the API renders them. They cost
//! nothing per message: counters are updated once per read, batch or event, and probes run only when the
//! metrics are read. Labels are bounded, never a sensor's identifier.

mod age;
mod register;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Registry, TextEncoder,
};

use crate::domain::{Kind, KindCounts, Ledger, ledger_names};

pub use age::Age;
use register::Register;
pub use register::{Description, Form};

/// Of the build.
const COMMIT: &str = env!("TRIBUTARY_COMMIT");

/// Buckets for transactions and requests.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Buckets for what waits while the database is unavailable.
const LONG_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 1_800.0,
];

/// Updates gauges when the metrics are read.
type Probe = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    descriptions: Vec<Description>,
    probes: Mutex<Vec<Probe>>,
    ledger: Arc<Ledger>,
    messages: [MessageCounters; ledger_names().len()],
    items_total: IntCounterVec,
    items_in_flight: IntGaugeVec,
    window_age: Gauge,
    writer_age: Gauge,
    outbox_age: Gauge,
    /// `tributary_bytes_received_total`
    pub bytes_received: IntCounter,
    /// `tributary_pubacks_sent_total`
    pub pubacks_sent: IntCounter,
    /// `tributary_puback_seconds`
    pub puback_seconds: Histogram,
    /// `tributary_window_messages`
    pub window_messages: IntGauge,
    /// `tributary_window_bytes`
    pub window_bytes: IntGauge,
    /// `tributary_window_messages_limit`
    pub window_messages_limit: IntGauge,
    /// `tributary_window_bytes_limit`
    pub window_bytes_limit: IntGauge,
    /// `tributary_window_oldest_seconds`
    pub window_oldest: Age,
    /// `tributary_part_up`, by part
    pub part_up: IntGaugeVec,
    /// `tributary_broker_connects_total`
    pub broker_connects: IntCounterVec,
    /// `tributary_broker_failures_total`, by connection and cause
    pub broker_failures: IntCounterVec,
    /// `tributary_writer_waiting_items`
    pub writer_waiting_items: IntGauge,
    /// `tributary_writer_oldest_seconds`
    pub writer_oldest: Age,
    /// `tributary_batches_writing`
    pub batches_writing: IntGauge,
    /// `tributary_batch_items`
    pub batch_items: Histogram,
    /// `tributary_batch_seconds`
    pub batch_seconds: Histogram,
    /// `tributary_commit_seconds`
    pub commit_seconds: Histogram,
    /// `tributary_commit_retries_total`, by cause
    pub commit_retries: IntCounterVec,
    /// `tributary_rejections_over_bound_total`
    pub rejections_over_bound: IntCounter,
    /// `tributary_configurations_published_total`
    pub configurations_published: IntCounter,
    /// `tributary_outbox_waiting`
    pub outbox_waiting: IntGauge,
    /// `tributary_outbox_oldest_seconds`
    pub outbox_oldest: Age,
    /// `tributary_outbox_failures_total`
    pub outbox_failures: IntCounter,
    /// `tributary_sensor_actors_alive`
    pub actors_alive: IntGauge,
    /// `tributary_sensor_actors_started_total`
    pub actors_started: IntCounter,
    /// `tributary_sensor_actors_restarted_total`
    pub actors_restarted: IntCounter,
    /// `tributary_sensor_actors_retired_total`
    pub actors_retired: IntCounter,
    /// `tributary_pool_connections`, by pool and state
    pub pool_connections: IntGaugeVec,
    /// `tributary_pool_connections_limit`, by pool
    pub pool_connections_limit: IntGaugeVec,
    /// `tributary_partitions`, by table
    pub partitions: IntGaugeVec,
    /// `tributary_partitions_end_timestamp_seconds`, by table
    pub partitions_end: GaugeVec,
    /// `tributary_table_bytes`, by table
    pub table_bytes: IntGaugeVec,
    /// `tributary_default_partition_bytes`, by table
    pub default_partition_bytes: IntGaugeVec,
    /// `tributary_database_clock_ahead_seconds`
    pub database_clock_ahead: Gauge,
    /// `tributary_partitions_waiting`, by table and task
    pub partitions_waiting: IntGaugeVec,
    /// `tributary_housekeeping_failures_total`
    pub housekeeping_failures: IntCounter,
    /// `tributary_housekeeping_success_timestamp_seconds`
    pub housekeeping_success: Gauge,
    /// `tributary_activity_fold_failures_total`
    pub activity_fold_failures: IntCounter,
    activity_fold_age: Gauge,
    /// `tributary_activity_fold_age_seconds`
    pub activity_folded: Age,
    /// `tributary_http_requests_total`, by route, method and status
    pub http_requests: IntCounterVec,
    /// `tributary_http_request_seconds`, by route and method
    pub http_request_seconds: HistogramVec,
    /// `tributary_http_requests_in_flight`
    pub http_requests_in_flight: IntGauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

struct MessageCounters {
    received: IntCounter,
    settled: IntCounter,
    released: IntCounter,
}

impl Metrics {
    /// # Panics
    /// Never: the names are constants, and a test constructs them.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one statement per metric, in the table's order")]
    pub fn new(ledger: Arc<Ledger>) -> Self {
        let mut make = Register::new();
        make.gauges(
            "tributary_build_info",
            "1, labelled with version and commit of the build",
            &["version", "commit"],
        )
        .with_label_values(&[env!("CARGO_PKG_VERSION"), COMMIT])
        .set(1);
        make.process();
        let messages = make.counters(
            "tributary_messages_total",
            "Messages by kind and outcome; received = settled + released + in flight",
            &["kind", "outcome"],
        );
        Self {
            messages: ledger_names().map(|kind| MessageCounters {
                received: messages.with_label_values(&[kind, "received"]),
                settled: messages.with_label_values(&[kind, "settled"]),
                released: messages.with_label_values(&[kind, "released"]),
            }),
            items_total: make.counters(
                "tributary_items_total",
                "Items by kind and outcome; received = committed + duplicate + rejected + released + in flight",
                &["kind", "outcome"],
            ),
            items_in_flight: make.gauges("tributary_items_in_flight", "Items received and not committed yet", &["kind"]),
            bytes_received: make
                .counter("tributary_bytes_received_total", "Bytes of topics and payloads received"),
            pubacks_sent: make.counter("tributary_pubacks_sent_total", "PUBACKs sent"),
            puback_seconds: make.histogram(
                "tributary_puback_seconds",
                "Time from reading a PUBLISH to sending its PUBACK",
                LONG_SECONDS,
            ),
            window_messages: make
                .gauge("tributary_window_messages", "Messages received and not acknowledged yet"),
            window_messages_limit: make
                .gauge("tributary_window_messages_limit", "Maximum of tributary_window_messages (MQTT_RECEIVE_MAXIMUM)"),
            window_bytes: make.gauge("tributary_window_bytes", "Memory held by the messages in the window"),
            window_bytes_limit: make
                .gauge("tributary_window_bytes_limit", "Maximum of tributary_window_bytes (WINDOW_BYTES)"),
            window_age: make
                .float("tributary_window_oldest_seconds", "Age of the oldest message in the window"),
            window_oldest: Age::default(),
            part_up: make.gauges("tributary_part_up", "1 if a part of the service works, else 0", &["part"]),
            broker_connects: make.counters(
                "tributary_broker_connects_total",
                "Connections made to the broker; the first of each and reconnects",
                &["connection"],
            ),
            broker_failures: make.counters(
                "tributary_broker_failures_total",
                "Connections to the broker lost or refused, by cause",
                &["connection", "cause"],
            ),
            writer_waiting_items: make
                .gauge("tributary_writer_waiting_items", "Items that wait for a batch"),
            writer_age: make
                .float("tributary_writer_oldest_seconds", "Age of the oldest message that waits for a batch"),
            writer_oldest: Age::default(),
            batches_writing: make.gauge("tributary_batches_writing", "Batches being written"),
            batch_items: make.histogram(
                "tributary_batch_items",
                "Items in a committed batch",
                &[1.0, 10.0, 100.0, 1_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0, 100_000.0],
            ),
            batch_seconds: make.histogram(
                "tributary_batch_seconds",
                "Time from the first attempt to write a batch until all of it was committed",
                LONG_SECONDS,
            ),
            commit_seconds: make.histogram(
                "tributary_commit_seconds",
                "Time of a successful attempt to write a batch, waiting for a connection included",
                SECONDS,
            ),
            commit_retries: make.counters(
                "tributary_commit_retries_total",
                "Attempts to write a batch that failed and were retried, by cause",
                &["cause"],
            ),
            rejections_over_bound: make.counter(
                "tributary_rejections_over_bound_total",
                "Rejected items that were only counted (REJECTIONS_PER_SENSOR_HOUR)",
            ),
            configurations_published: make.counter(
                "tributary_configurations_published_total",
                "Configurations that the broker acknowledged",
            ),
            outbox_waiting: make.gauge(
                "tributary_outbox_waiting",
                "Unpublished configurations when the outbox was last read, at most 500",
            ),
            outbox_age: make
                .float("tributary_outbox_oldest_seconds", "Age of the oldest unpublished configuration"),
            outbox_oldest: Age::default(),
            outbox_failures: make
                .counter("tributary_outbox_failures_total", "Failed rounds of the outbox"),
            actors_alive: make.gauge("tributary_sensor_actors_alive", "Sensor actors alive"),
            actors_started: make
                .counter("tributary_sensor_actors_started_total", "Sensor actors started"),
            actors_restarted: make.counter(
                "tributary_sensor_actors_restarted_total",
                "Sensor actors started again after a panic",
            ),
            actors_retired: make
                .counter("tributary_sensor_actors_retired_total", "Sensor actors retired"),
            pool_connections: make.gauges(
                "tributary_pool_connections",
                "Connections to the database, by pool and state",
                &["pool", "state"],
            ),
            pool_connections_limit: make.gauges(
                "tributary_pool_connections_limit",
                "Maximum number of connections of a pool",
                &["pool"],
            ),
            partitions: make.gauges(
                "tributary_partitions",
                "Partitions of a table without the default partition",
                &["table"],
            ),
            partitions_end: make.floats(
                "tributary_partitions_end_timestamp_seconds",
                "End of the newest partition, in Unix seconds",
                &["table"],
            ),
            table_bytes: make.gauges(
                "tributary_table_bytes",
                "Size of a table on disk, indexes included",
                &["table"],
            ),
            default_partition_bytes: make.gauges(
                "tributary_default_partition_bytes",
                "Size of the default partition on disk, without indexes",
                &["table"],
            ),
            database_clock_ahead: make.float(
                "tributary_database_clock_ahead_seconds",
                "By how much the database's clock is ahead of ours; negative where it is behind",
            ),
            partitions_waiting: make.gauges(
                "tributary_partitions_waiting",
                "Partitions to be made or dropped that wait for somebody who holds a lock",
                &["table", "task"],
            ),
            housekeeping_failures: make
                .counter("tributary_housekeeping_failures_total", "Failed rounds of housekeeping"),
            housekeeping_success: make.float(
                "tributary_housekeeping_success_timestamp_seconds",
                "Time of the last successful round of housekeeping, in Unix seconds; 0 before the first",
            ),
            activity_fold_failures: make.counter(
                "tributary_activity_fold_failures_total",
                "Folds of the activity journal that failed, each retried",
            ),
            activity_fold_age: make.float(
                "tributary_activity_fold_age_seconds",
                "Seconds since the activity journal was last folded completely",
            ),
            activity_folded: Age::default(),
            http_requests: make.counters(
                "tributary_http_requests_total",
                "HTTP requests answered",
                &["route", "method", "status"],
            ),
            http_request_seconds: make.histograms(
                "tributary_http_request_seconds",
                "Time until the head of the response was ready",
                &["route", "method"],
                SECONDS,
            ),
            http_requests_in_flight: make
                .gauge("tributary_http_requests_in_flight", "HTTP requests in progress"),
            probes: Mutex::default(),
            ledger,
            descriptions: make.descriptions,
            registry: make.registry,
        }
    }

    /// Compared with docs/METRICS.md by a test.
    #[must_use]
    pub fn descriptions(&self) -> &[Description] {
        &self.descriptions
    }

    /// `probe` is called whenever the metrics are read; it must not block.
    pub fn before_reading(&self, probe: impl Fn(&Self) + Send + Sync + 'static) {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(probe));
    }

    /// Received by one read.
    pub fn received(&self, messages: KindCounts, bytes: u64) {
        self.bytes_received.inc_by(bytes);
        self.count(messages, |counters| &counters.received);
    }

    /// Committed.
    pub fn settled(&self, messages: KindCounts) {
        self.count(messages, |counters| &counters.settled);
    }

    /// Lost in a panic; the broker delivers it again.
    pub fn released(&self, kind: Option<Kind>) {
        let mut one = KindCounts::default();
        one.add(kind, 1);
        self.count(one, |counters| &counters.released);
    }

    fn count(&self, messages: KindCounts, counter: impl Fn(&MessageCounters) -> &IntCounter) {
        for (counters, count) in self.messages.iter().zip(messages.counts()) {
            if count > 0 {
                counter(counters).inc_by(count);
            }
        }
    }

    /// In Prometheus' text format.
    ///
    /// # Panics
    /// Never: writing to a `Vec` does not fail.
    #[must_use]
    pub fn render(&self) -> String {
        // Held to the end: two readers must not copy the ledger at the same time.
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        for probe in &*probes {
            probe(self);
        }
        self.window_age.set(self.window_oldest.seconds());
        self.writer_age.set(self.writer_oldest.seconds());
        self.outbox_age.set(self.outbox_oldest.seconds());
        self.activity_fold_age.set(self.activity_folded.seconds());
        self.copy_ledger();
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("writing to a Vec does not fail");
        drop(probes);
        String::from_utf8_lossy(&text).into_owned()
    }

    fn copy_ledger(&self) {
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
    }
}

#[cfg(test)]
mod tests;
