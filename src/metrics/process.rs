//! The `process_` metrics, which every Prometheus client has by these names. Read from /proc whenever the metrics are
//! read; on other systems there are none.

use procfs_core::process::{LimitValue, Limits, Stat, Status};
use procfs_core::{ExplicitSystemInfo, FromRead as _, FromReadSI as _, KernelStats};

use super::Metrics;

/// USER_HZ is 100 wherever Rust's standard library runs. Nothing that is read here depends on the rest.
const SYSTEM: ExplicitSystemInfo = ExplicitSystemInfo {
    boot_time_secs: 0,
    ticks_per_second: 100,
    page_size: 4_096,
    is_little_endian: cfg!(target_endian = "little"),
};

/// `None` where there is no /proc.
pub(super) fn update(metrics: &Metrics) -> Option<()> {
    let stat = Stat::from_file("/proc/self/stat").ok()?;
    let status = Status::from_file("/proc/self/status").ok()?;
    let max_files = match Limits::from_file("/proc/self/limits").ok()?.max_open_files.soft_limit {
        LimitValue::Value(limit) => limit as f64,
        LimitValue::Unlimited => f64::INFINITY,
    };
    let seconds = |ticks: u64| ticks as f64 / SYSTEM.ticks_per_second as f64;
    let boot = KernelStats::from_file("/proc/stat", &SYSTEM).ok()?.btime as f64;
    // Readers wait for each other: none sees the counter at 0.
    metrics.process_cpu.reset();
    metrics.process_cpu.inc_by(seconds(stat.utime + stat.stime));
    metrics.process_max_files.set(max_files);
    metrics.process_open_files.set(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64);
    metrics.process_resident_memory.set(status.vmrss? as f64 * 1_024.0);
    metrics.process_started.set(boot + seconds(stat.starttime));
    metrics.process_threads.set(status.threads as f64);
    metrics.process_virtual_memory.set(status.vmsize? as f64 * 1_024.0);
    Some(())
}
