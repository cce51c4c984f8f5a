//! The `process_` metrics, which every Prometheus client has by these names. Read from /proc whenever the metrics are
//! read; on other systems there are none.

use procfs_core::process::{LimitValue, Limits, Stat, Status};
use procfs_core::{ExplicitSystemInfo, FromRead as _, FromReadSI as _, KernelStats};
use prometheus::proto;

/// The only counter among them.
pub(super) const CPU: &str = "process_cpu_seconds_total";

/// By name and help, in the order of [`read`].
pub(super) const METRICS: [(&str, &str); 7] = [
    (CPU, "User and system CPU time"),
    ("process_max_fds", "Limit of open files"),
    ("process_open_fds", "Open files, including connections"),
    ("process_resident_memory_bytes", "Resident memory"),
    ("process_start_time_seconds", "Start time of the process, in Unix seconds"),
    ("process_threads", "Threads"),
    ("process_virtual_memory_bytes", "Virtual memory; not a measure of memory use"),
];

/// USER_HZ is 100 wherever Rust's standard library runs. Nothing that is read here depends on the rest.
const SYSTEM: ExplicitSystemInfo = ExplicitSystemInfo {
    boot_time_secs: 0,
    ticks_per_second: 100,
    page_size: 4_096,
    is_little_endian: cfg!(target_endian = "little"),
};

/// Sorted by name; none where there is no /proc.
pub(super) fn families() -> Vec<proto::MetricFamily> {
    let values = read().into_iter().flatten();
    values.zip(METRICS).map(|(value, (name, help))| family(name, help, value)).collect()
}

fn family(name: &str, help: &str, value: f64) -> proto::MetricFamily {
    let mut metric = proto::Metric::default();
    let mut family = proto::MetricFamily::default();
    if name == CPU {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
        family.set_field_type(proto::MetricType::COUNTER);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
        family.set_field_type(proto::MetricType::GAUGE);
    }
    family.set_name(name.into());
    family.set_help(help.into());
    family.set_metric(vec![metric]);
    family
}

fn read() -> Option<[f64; METRICS.len()]> {
    let stat = Stat::from_file("/proc/self/stat").ok()?;
    let status = Status::from_file("/proc/self/status").ok()?;
    let max_files = match Limits::from_file("/proc/self/limits").ok()?.max_open_files.soft_limit {
        LimitValue::Value(limit) => limit as f64,
        LimitValue::Unlimited => f64::INFINITY,
    };
    let seconds = |ticks: u64| ticks as f64 / SYSTEM.ticks_per_second as f64;
    let boot = KernelStats::from_file("/proc/stat", &SYSTEM).ok()?.btime as f64;
    Some([
        seconds(stat.utime + stat.stime),
        max_files,
        std::fs::read_dir("/proc/self/fd").ok()?.count() as f64,
        status.vmrss? as f64 * 1_024.0,
        boot + seconds(stat.starttime),
        status.threads as f64,
        status.vmsize? as f64 * 1_024.0,
    ])
}
