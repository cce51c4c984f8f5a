//! CPU time and memory of processes, as Linux counts them in /proc. Read before and after each measurement. On other
//! systems there is nothing to read, and these figures are left out.

use std::time::Duration;

use procfs_core::process::{Stat, Status};
use procfs_core::{CpuInfo, FromRead, Meminfo};

/// USER_HZ, in which /proc counts CPU time, is 100 wherever Rust's standard library runs.
const TICK: Duration = Duration::from_millis(10);

/// Whose CPU time is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Meters {
    pub(super) service: Option<u32>,
    /// The postmaster.
    pub(super) postgres: Option<u32>,
    /// Backends that belong to the benchmark.
    pub(super) excluded_backends: Vec<u32>,
    pub(super) broker: Option<u32>,
}

/// CPU time, user and system, of service, PostgreSQL and broker; none where it cannot be read.
pub(super) type CpuTime = [Option<Duration>; 3];

/// Memory of a process in RAM, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) peak: u64,
}

impl Meters {
    pub(super) fn read(&self) -> CpuTime {
        let own = |pid: Option<u32>| Some(time(&stat(pid?)?));
        let postgres = self.postgres.and_then(|pid| family_time(pid, &self.excluded_backends));
        [own(self.service), postgres, own(self.broker)]
    }

    /// A process that did not exist before had used nothing.
    pub(super) fn since(&self, before: CpuTime) -> CpuTime {
        let now = self.read();
        std::array::from_fn(|it| Some(now[it]?.saturating_sub(before[it].unwrap_or_default())))
    }
}

fn read<T: FromRead>(path: &str) -> Option<T> {
    T::from_file(format!("/proc/{path}")).ok()
}

fn stat(pid: u32) -> Option<Stat> {
    read(&format!("{pid}/stat"))
}

/// Of the process itself, its ended threads included.
fn time(stat: &Stat) -> Duration {
    TICK.saturating_mul(u32::try_from(stat.utime + stat.stime).unwrap_or(u32::MAX))
}

/// Of a process and its children, the ended ones included.
fn family_time(pid: u32, excluded: &[u32]) -> Option<Duration> {
    let parent = stat(pid)?;
    let ended_children = u32::try_from(parent.cutime + parent.cstime).unwrap_or(u32::MAX);
    let mut total = time(&parent) + TICK.saturating_mul(ended_children);
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let child = entry.file_name().to_str().and_then(|name| stat(name.parse().ok()?));
        let is_counted =
            |it: &Stat| it.ppid == parent.pid && !excluded.contains(&it.pid.unsigned_abs());
        total += child.filter(is_counted).map_or(Duration::ZERO, |child| time(&child));
    }
    Some(total)
}

pub(super) fn memory(pid: u32) -> Memory {
    let status: Option<Status> = read(&format!("{pid}/status"));
    let bytes = |kib: Option<u64>| kib.unwrap_or(0) * 1_024;
    let memory = status.map(|it| Memory { resident: bytes(it.vmrss), peak: bytes(it.vmhwm) });
    memory.unwrap_or_default()
}

/// The parent of a backend, if the server runs on this machine and its processes are visible.
pub(super) fn postmaster_of(backend: u32) -> Option<u32> {
    let postmaster = stat(backend).filter(|it| it.comm == "postgres")?.ppid.unsigned_abs();
    stat(postmaster).filter(|it| it.comm == "postgres").map(|_| postmaster)
}

/// The machine, in one line.
pub(super) fn machine() -> String {
    let cpus: Option<CpuInfo> = read("cpuinfo");
    let model = cpus.as_ref().and_then(|it| it.model_name(0)).unwrap_or("CPU");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let gib = read("meminfo").map_or(0, |it: Meminfo| (it.mem_total + (1 << 29)) >> 30);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} × {model}, {gib} GiB, Linux {}", kernel.trim())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let pid = std::process::id();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while time(&stat(pid).unwrap()) < TICK * 3 {
            assert!(std::time::Instant::now() < until);
        }
        assert!(family_time(pid, &[]).unwrap() >= TICK * 3 && postmaster_of(pid).is_none());
        let memory = memory(pid);
        assert!(memory.resident > 1 << 20 && memory.peak >= memory.resident, "{memory:?}");
    }
}
