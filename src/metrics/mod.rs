//! The Prometheus metrics. Each part of the service updates its own; the API renders them. They cost
//! nothing per message: counters are updated once per read, batch or event, and probes run only when the
//! metrics are read. Labels are bounded, never a sensor's identifier.

mod age;
mod process;
mod register;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use crate::domain::{Kind, KindCounts, LEDGER_ENTRY_COUNT, Ledger, ledger_names};

pub use age::Age;
pub use register::Description;
use register::Register;

const COMMIT: &str = env!("TRIBUTARY_COMMIT");

/// Buckets for transactions and requests.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Buckets for times that grow while the database is unavailable.
const LONG_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 1_800.0,
];

/// What only the leader measures. Without it the values of a former leader would be old.
const OF_THE_LEADER: [&str; 5] = [
    "tributary_outbox_waiting",
    "tributary_outbox_oldest_seconds",
    "tributary_partitions_waiting",
    "tributary_housekeeping_success_timestamp_seconds",
    "tributary_rollup_lag_seconds",
];

/// Updates gauges when the metrics are read.
type GaugeUpdate = Box<dyn Fn(&Metrics) + Send + Sync>;

macro_rules! type_of {
    (counter) => {
        IntCounter
    };
    (counters) => {
        IntCounterVec
    };
    (seconds) => {
        Counter
    };
    (gauge) => {
        IntGauge
    };
    (gauges) => {
        IntGaugeVec
    };
    (float) => {
        Gauge
    };
    (floats) => {
        GaugeVec
    };
    (age) => {
        Age
    };
    (histogram) => {
        Histogram
    };
    (histograms) => {
        HistogramVec
    };
}

/// Declares each metric once: field, type, name, help, then labels and buckets.
macro_rules! metrics {
    ($($visible:vis $field:ident: $form:ident($name:literal, $help:literal $(, $more:expr)*);)+) => {
        /// Every metric of the process.
        pub struct Metrics {
            registry: Registry,
            descriptions: Vec<Description>,
            probes: Mutex<Vec<GaugeUpdate>>,
            ledger: Arc<Ledger>,
            messages: [MessageCounters; LEDGER_ENTRY_COUNT],
            $(#[doc = concat!("`", $name, "`")] $visible $field: type_of!($form),)+
        }

        impl Metrics {
            /// # Panics
            /// Never: the names are constants, and a test constructs them.
            pub fn new(ledger: Arc<Ledger>) -> Self {
                let mut register = Register::new();
                let messages = register_build_and_messages(&mut register);
                Self {
                    messages,
                    $($field: register.$form($name, $help $(, $more)*),)+
                    probes: Mutex::default(),
                    ledger,
                    descriptions: register.descriptions,
                    registry: register.registry,
                }
            }
        }
    };
}

metrics! {
    process_cpu: seconds("process_cpu_seconds_total", "User and system CPU time");
    process_max_files: float("process_max_fds", "Limit of open files");
    process_open_files: float("process_open_fds", "Open files, including connections");
    process_resident_memory: float("process_resident_memory_bytes", "Resident memory");
    process_started: float("process_start_time_seconds",
        "Start time of the process, in Unix seconds");
    process_threads: float("process_threads", "Threads");
    process_virtual_memory: float("process_virtual_memory_bytes",
        "Virtual memory; not a measure of memory use");
    items_total: counters("tributary_items_total",
        "Items by kind and outcome; received = committed + duplicate + rejected + released + in flight", &["kind", "outcome"]);
    items_in_flight: gauges("tributary_items_in_flight",
        "Items received and not committed yet", &["kind"]);
    pub future_items: counters("tributary_future_items_total",
        "Items committed with a timestamp more than FUTURE_TOLERANCE_SECS ahead of their receipt", &["kind"]);
    pub bytes_received: counter("tributary_bytes_received_total",
        "Bytes of topics and payloads received");
    pub pubacks_sent: counter("tributary_pubacks_sent_total", "PUBACKs sent");
    pub puback_seconds: histogram("tributary_puback_seconds",
        "Time from reading a PUBLISH to sending its PUBACK", LONG_SECONDS);
    pub window_messages: gauge("tributary_window_messages",
        "Messages received and not acknowledged yet");
    pub window_messages_limit: gauge("tributary_window_messages_limit",
        "Maximum of tributary_window_messages (MQTT_RECEIVE_MAXIMUM)");
    pub window_bytes: gauge("tributary_window_bytes", "Memory held by the messages in the window");
    pub window_bytes_limit: gauge("tributary_window_bytes_limit",
        "Maximum of tributary_window_bytes (WINDOW_BYTES)");
    pub window_oldest: age("tributary_window_oldest_seconds",
        "Age of the oldest message in the window");
    pub part_up: gauges("tributary_part_up", "1 if a part of the service works, else 0", &["part"]);
    pub broker_connects: counters("tributary_broker_connects_total",
        "Connections made to the broker, including reconnects", &["connection"]);
    pub broker_failures: counters("tributary_broker_failures_total",
        "Connections to the broker lost or refused, by cause", &["connection", "cause"]);
    pub writer_waiting_items: gauge("tributary_writer_waiting_items",
        "Items that wait for a batch");
    pub writer_oldest: age("tributary_writer_oldest_seconds",
        "Age of the oldest message that waits for a batch");
    pub batches_writing: gauge("tributary_batches_writing", "Batches being written");
    pub batch_items: histogram("tributary_batch_items",
        "Items in a committed batch", &[1.0, 10.0, 100.0, 1_000.0, 5_000.0, 10_000.0, 20_000.0, 50_000.0, 100_000.0]);
    pub batch_seconds: histogram("tributary_batch_seconds",
        "Time from the first attempt to write a batch until all of it was committed", LONG_SECONDS);
    pub commit_seconds: histogram("tributary_commit_seconds",
        "Time of a successful attempt to write a batch, including waiting for a connection", SECONDS);
    pub commit_retries: counters("tributary_commit_retries_total",
        "Attempts to write a batch that failed and were retried, by cause", &["cause"]);
    pub rejections_over_bound: counter("tributary_rejections_over_bound_total",
        "Rejected items that were only counted (REJECTIONS_PER_SENSOR_HOUR)");
    pub configurations_published: counter("tributary_configurations_published_total",
        "Configurations that the broker acknowledged");
    pub outbox_waiting: gauge("tributary_outbox_waiting",
        "Unpublished configurations when the outbox was last read, at most 500");
    pub outbox_oldest: age("tributary_outbox_oldest_seconds",
        "Age of the oldest unpublished configuration");
    pub configurations_refused: counters("tributary_configurations_refused_total",
        "Configurations that the broker refused, by cause", &["cause"]);
    pub outbox_failures: counter("tributary_outbox_failures_total", "Failed rounds of the outbox");
    pub actors_alive: gauge("tributary_sensor_actors_alive", "Sensor actors alive");
    pub actors_started: counter("tributary_sensor_actors_started_total", "Sensor actors started");
    pub actors_restarted: counter("tributary_sensor_actors_restarted_total",
        "Sensor actors started again after a panic");
    pub actors_retired: counter("tributary_sensor_actors_retired_total", "Sensor actors retired");
    pub pool_connections: gauges("tributary_pool_connections",
        "Connections to the database, by pool and state", &["pool", "state"]);
    pub pool_connections_limit: gauges("tributary_pool_connections_limit",
        "Maximum number of connections of a pool", &["pool"]);
    pub partitions: gauges("tributary_partitions",
        "Partitions of a table without the default partition", &["table"]);
    pub partitions_end: floats("tributary_partitions_end_timestamp_seconds",
        "End of the newest partition, in Unix seconds", &["table"]);
    pub table_bytes: gauges("tributary_table_bytes",
        "Size of a table on disk, including indexes", &["table"]);
    pub default_partition_bytes: gauges("tributary_default_partition_bytes",
        "Size of the default partition on disk, without indexes", &["table"]);
    pub database_clock_ahead: float("tributary_database_clock_ahead_seconds",
        "Seconds by which the database's clock is ahead of ours; negative if behind");
    pub partitions_waiting: gauges("tributary_partitions_waiting",
        "Partitions whose creation or removal waits for a lock", &["table", "task"]);
    pub housekeeping_failures: counter("tributary_housekeeping_failures_total",
        "Failed rounds of housekeeping");
    pub housekeeping_success: float("tributary_housekeeping_success_timestamp_seconds",
        "Time of the last successful round of housekeeping, in Unix seconds; 0 before the first");
    pub leader: gauge("tributary_leader",
        "1 while this instance leads: housekeeping, roll-up and outbox");
    pub instances: gauge("tributary_instances",
        "Instances that are alive, as far as this one knows");
    pub instance_listener_up: gauge("tributary_instance_listener_up",
        "1 while other instances are notified by PostgreSQL, 0 while they are polled");
    pub access_listener_up: gauge("tributary_access_listener_up",
        "1 while changes of access are notified by PostgreSQL, 0 while they are polled");
    pub activity_fold_failures: counter("tributary_activity_fold_failures_total",
        "Folds of the roll-up's journal that failed, each retried");
    pub activity_folded: age("tributary_activity_fold_age_seconds",
        "Seconds since the roll-up's journal was last folded completely");
    pub rollup_due: age("tributary_rollup_lag_seconds",
        "Seconds since the oldest hour whose measurements are not summed up could have been; 0 if there is none");
    pub task_panics: counters("tributary_task_panics_total",
        "Panics of tasks, each of which was started again or ended the process", &["task"]);
    pub http_requests: counters("tributary_http_requests_total",
        "HTTP requests answered", &["route", "method", "status"]);
    pub http_request_seconds: histograms("tributary_http_request_seconds",
        "Time until the head of the response was ready", &["route", "method"], SECONDS);
    pub http_requests_in_flight: gauge("tributary_http_requests_in_flight",
        "HTTP requests in progress");
}

fn register_build_and_messages(register: &mut Register) -> [MessageCounters; LEDGER_ENTRY_COUNT] {
    register
        .gauges(
            "tributary_build_info",
            "1, labelled with version and commit of the build",
            &["version", "commit"],
        )
        .with_label_values(&[env!("CARGO_PKG_VERSION"), COMMIT])
        .set(1);
    let messages = register.counters(
        "tributary_messages_total",
        "Messages by kind and outcome; received = settled + released + in flight",
        &["kind", "outcome"],
    );
    ledger_names().map(|kind| MessageCounters {
        received: messages.with_label_values(&[kind, "received"]),
        settled: messages.with_label_values(&[kind, "settled"]),
        released: messages.with_label_values(&[kind, "released"]),
    })
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
    /// A test compares them with docs/METRICS.md.
    pub fn descriptions(&self) -> &[Description] {
        &self.descriptions
    }

    /// `probe` is called whenever the metrics are read; it must not block.
    pub fn before_reading(&self, probe: impl Fn(&Self) + Send + Sync + 'static) {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(probe));
    }

    /// Counts messages received by one read.
    pub fn received(&self, messages: KindCounts, bytes: u64) {
        self.bytes_received.inc_by(bytes);
        self.count(messages, |counters| &counters.received);
    }

    /// Counts committed messages.
    pub fn settled(&self, messages: KindCounts) {
        self.count(messages, |counters| &counters.settled);
    }

    /// Counts a message that was lost in a panic, and that the broker delivers again.
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

    /// Prometheus' text format.
    ///
    /// # Panics
    /// Never: writing to a `Vec` does not fail.
    pub fn render(&self) -> String {
        // Locked until the end: two readers must not copy the ledger at the same time.
        let probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        for probe in &*probes {
            probe(self);
        }
        for age in [
            &self.window_oldest,
            &self.writer_oldest,
            &self.outbox_oldest,
            &self.activity_folded,
            &self.rollup_due,
        ] {
            age.refresh();
        }
        self.copy_ledger();
        let has_process = process::update(self).is_some();
        let mut families = self.registry.gather();
        families.retain(|it| has_process || !it.name().starts_with("process_"));
        let is_leader = self.leader.get() == 1;
        families.retain(|it| is_leader || !OF_THE_LEADER.contains(&it.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).expect("writing to a Vec does not fail");
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
