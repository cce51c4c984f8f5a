//! What is measured. The names stand here, once, and in docs/METRICS.md, which a test holds equal;
//! `register` makes them, `age` is how long something has waited.
//!
//! Promises to cost the path of a message nothing by the message: counters are fed once per read,
//! batch or event, and what can be asked for is asked for only when somebody reads. Labels are
//! bounded, never a sensor's identifier.

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

/// The commit that the build was made from.
const COMMIT: &str = env!("TRIBUTARY_COMMIT");

/// A transaction, or a wait for one.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What takes as long as the database is away.
const LONG_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 1_800.0,
];

/// Asks something outside for its present state, and writes it into the gauges.
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

/// The messages of one kind.
struct MessageCounters {
    received: IntCounter,
    settled: IntCounter,
    released: IntCounter,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Panics
    /// Never: the names are constants, and a test makes them once.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one statement per metric, in the table's order")]
    pub fn new(ledger: Arc<Ledger>) -> Self {
        let mut make = Register::new();
        make.gauges("tributary_build_info", "1, by what runs here", &["version", "commit"])
            .with_label_values(&[env!("CARGO_PKG_VERSION"), COMMIT])
            .set(1);
        make.process();
        let messages = make.counters(
            "tributary_messages_total",
            "Messages by kind and outcome: received = settled + released + in flight",
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
                "Items by kind and outcome: received = committed + duplicate + rejected + released + in flight",
                &["kind", "outcome"],
            ),
            items_in_flight: make.gauges("tributary_items_in_flight", "Items on their way", &["kind"]),
            bytes_received: make
                .counter("tributary_bytes_received_total", "Bytes of topics and payloads received"),
            pubacks_sent: make.counter("tributary_pubacks_sent_total", "PUBACKs sent"),
            puback_seconds: make.histogram(
                "tributary_puback_seconds",
                "From the read that brought a PUBLISH until its PUBACK was handed to the connection",
                LONG_SECONDS,
            ),
            window_messages: make
                .gauge("tributary_window_messages", "Messages received and not yet acknowledged"),
            window_messages_limit: make
                .gauge("tributary_window_messages_limit", "As many as there may be (MQTT_RECEIVE_MAXIMUM)"),
            window_bytes: make.gauge("tributary_window_bytes", "The memory that these messages hold"),
            window_bytes_limit: make
                .gauge("tributary_window_bytes_limit", "As much as they may hold (WINDOW_BYTES)"),
            window_age: make
                .float("tributary_window_oldest_seconds", "How long the oldest of them has waited"),
            window_oldest: Age::default(),
            part_up: make.gauges("tributary_part_up", "1 where a part works, 0 where not", &["part"]),
            broker_connects: make.counters(
                "tributary_broker_connects_total",
                "Connections made to the broker; all but the first of each are reconnects",
                &["connection"],
            ),
            broker_failures: make.counters(
                "tributary_broker_failures_total",
                "Connections to the broker lost, or not made, by cause",
                &["connection", "cause"],
            ),
            writer_waiting_items: make
                .gauge("tributary_writer_waiting_items", "Items that wait for a batch to be begun"),
            writer_age: make
                .float("tributary_writer_oldest_seconds", "How long ago the oldest of them was received"),
            writer_oldest: Age::default(),
            batches_writing: make.gauge("tributary_batches_writing", "Batches being written"),
            batch_items: make.histogram(
                "tributary_batch_items",
                "Items in a committed batch",
                &[1.0, 10.0, 100.0, 1_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0, 100_000.0],
            ),
            batch_seconds: make.histogram(
                "tributary_batch_seconds",
                "From the first attempt to write a batch until all of it was committed",
                LONG_SECONDS,
            ),
            commit_seconds: make.histogram(
                "tributary_commit_seconds",
                "The attempt that succeeded: from asking for a connection to COMMIT",
                SECONDS,
            ),
            commit_retries: make.counters(
                "tributary_commit_retries_total",
                "Batches written again, by cause",
                &["cause"],
            ),
            rejections_over_bound: make.counter(
                "tributary_rejections_over_bound_total",
                "Rejected items that were counted and not kept",
            ),
            configurations_published: make.counter(
                "tributary_configurations_published_total",
                "Configurations that the broker acknowledged",
            ),
            outbox_waiting: make.gauge(
                "tributary_outbox_waiting",
                "Configurations found unpublished when the outbox was last read, 500 at the most",
            ),
            outbox_age: make
                .float("tributary_outbox_oldest_seconds", "How long ago the oldest of them was made"),
            outbox_oldest: Age::default(),
            outbox_failures: make
                .counter("tributary_outbox_failures_total", "Rounds of the outbox that failed"),
            actors_alive: make.gauge("tributary_sensor_actors_alive", "Sensor actors alive"),
            actors_started: make
                .counter("tributary_sensor_actors_started_total", "Sensor actors started"),
            actors_restarted: make.counter(
                "tributary_sensor_actors_restarted_total",
                "Sensor actors started again after a failure",
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
                "As many as a pool may have",
                &["pool"],
            ),
            partitions: make.gauges(
                "tributary_partitions",
                "Partitions of a table, the default one left out",
                &["table"],
            ),
            partitions_end: make.floats(
                "tributary_partitions_end_timestamp_seconds",
                "Where the newest partition ends, in Unix seconds",
                &["table"],
            ),
            table_bytes: make.gauges(
                "tributary_table_bytes",
                "What a table takes on disk, indexes and all",
                &["table"],
            ),
            default_partition_bytes: make.gauges(
                "tributary_default_partition_bytes",
                "What its default partition holds, without the indexes",
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
                .counter("tributary_housekeeping_failures_total", "Rounds of housekeeping that failed"),
            housekeeping_success: make.float(
                "tributary_housekeeping_success_timestamp_seconds",
                "When a round of housekeeping last went well, in Unix seconds; 0 before the first",
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
                "Until the head of the answer was ready",
                &["route", "method"],
                SECONDS,
            ),
            http_requests_in_flight: make
                .gauge("tributary_http_requests_in_flight", "HTTP requests being answered"),
            probes: Mutex::default(),
            ledger,
            descriptions: make.descriptions,
            registry: make.registry,
        }
    }

    /// Every metric, as docs/METRICS.md lists it.
    #[must_use]
    pub fn descriptions(&self) -> &[Description] {
        &self.descriptions
    }

    /// `probe` is called whenever somebody reads; it must not wait.
    pub fn before_reading(&self, probe: impl Fn(&Self) + Send + Sync + 'static) {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(probe));
    }

    /// What one read from the broker has brought.
    pub fn received(&self, messages: KindCounts, bytes: u64) {
        self.bytes_received.inc_by(bytes);
        self.count(messages, |counters| &counters.received);
    }

    /// Messages that are committed.
    pub fn settled(&self, messages: KindCounts) {
        self.count(messages, |counters| &counters.settled);
    }

    /// A message that goes back to the broker.
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

    /// Prometheus text, the ledger in it taken at one moment.
    ///
    /// # Panics
    /// Never: a `Vec` takes whatever is written to it.
    #[must_use]
    pub fn render(&self) -> String {
        // Held to the end: two readers at once must not copy the ledger over each other.
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
            .expect("a Vec takes whatever is written to it");
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
