//! CPU time and memory of processes, as Linux counts them in /proc. Read before and after each measurement.
//! On other systems there is nothing to read, and these figures are left out.

use std::time::Duration;

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

/// CPU time, user and system; none where it cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct CpuTime {
    pub(super) service: Option<Duration>,
    pub(super) postgres: Option<Duration>,
    pub(super) broker: Option<Duration>,
}

/// Memory of a process in RAM, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) peak: u64,
}

impl Meters {
    pub(super) fn read(&self) -> CpuTime {
        let of_family = |pid| proc::family_cpu_time(pid, &self.excluded_backends);
        CpuTime {
            service: self.service.and_then(proc::cpu_time),
            postgres: self.postgres.and_then(of_family),
            broker: self.broker.and_then(proc::cpu_time),
        }
    }
}

impl CpuTime {
    pub(super) fn since(self, before: Self) -> Self {
        // A process that did not exist before had used nothing.
        let difference = |now: Option<Duration>, before: Option<Duration>| {
            now.map(|now| now.saturating_sub(before.unwrap_or_default()))
        };
        Self {
            service: difference(self.service, before.service),
            postgres: difference(self.postgres, before.postgres),
            broker: difference(self.broker, before.broker),
        }
    }
}

pub(super) use proc::{machine, memory, postmaster_of};

#[cfg(target_os = "linux")]
mod proc {
    use std::time::Duration;

    use procfs::process::{Process, Stat, all_processes};
    use procfs::{CpuInfo, Current as _, Meminfo, ticks_per_second};

    use super::Memory;

    fn stat(pid: u32) -> Option<Stat> {
        Process::new(pid.try_into().ok()?).ok()?.stat().ok()
    }

    fn time(ticks: u64) -> Duration {
        Duration::from_millis(ticks * 1_000 / ticks_per_second())
    }

    /// Of the process itself, its ended threads included.
    pub(in super::super) fn cpu_time(pid: u32) -> Option<Duration> {
        stat(pid).map(|stat| time(stat.utime + stat.stime))
    }

    /// Of a process and its children, the ended ones included.
    pub(in super::super) fn family_cpu_time(pid: u32, excluded: &[u32]) -> Option<Duration> {
        let parent = stat(pid)?;
        let ended_children = (parent.cutime + parent.cstime).unsigned_abs();
        let mut ticks = parent.utime + parent.stime + ended_children;
        for process in all_processes().ok()?.flatten() {
            let is_excluded = excluded.contains(&process.pid.unsigned_abs());
            // A process may have ended since it was listed.
            let child = process.stat().ok().filter(|it| it.ppid == parent.pid && !is_excluded);
            ticks += child.map_or(0, |child| child.utime + child.stime);
        }
        Some(time(ticks))
    }

    pub(in super::super) fn memory(pid: u32) -> Memory {
        let status = pid.try_into().ok().and_then(|pid| Process::new(pid).ok()?.status().ok());
        let bytes = |kib: Option<u64>| kib.unwrap_or(0) * 1_024;
        status.map_or_else(Memory::default, |it| Memory {
            resident: bytes(it.vmrss),
            peak: bytes(it.vmhwm),
        })
    }

    /// The parent of a backend, if the server runs on this machine and its processes are visible.
    pub(in super::super) fn postmaster_of(backend: u32) -> Option<u32> {
        let postmaster = stat(backend).filter(|it| it.comm == "postgres")?.ppid.unsigned_abs();
        stat(postmaster).filter(|it| it.comm == "postgres").map(|_| postmaster)
    }

    /// The machine, in one line.
    pub(in super::super) fn machine() -> String {
        let cpus = CpuInfo::current().ok();
        let model = cpus.as_ref().and_then(|it| it.model_name(0)).unwrap_or("CPU").to_owned();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let gib = Meminfo::current().map_or(0, |it| (it.mem_total + (1 << 29)) >> 30);
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        format!("{cores} × {model}, {gib} GiB, Linux {}", kernel.trim())
    }
}

#[cfg(not(target_os = "linux"))]
mod proc {
    use std::time::Duration;

    use super::Memory;

    pub(in super::super) const fn cpu_time(_pid: u32) -> Option<Duration> {
        None
    }

    pub(in super::super) const fn family_cpu_time(_pid: u32, _: &[u32]) -> Option<Duration> {
        None
    }

    pub(in super::super) fn memory(_pid: u32) -> Memory {
        Memory::default()
    }

    pub(in super::super) const fn postmaster_of(_backend: u32) -> Option<u32> {
        None
    }

    pub(in super::super) fn machine() -> String {
        std::env::consts::OS.to_owned()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let pid = std::process::id();
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while proc::cpu_time(pid).unwrap() < Duration::from_millis(30) {
            assert!(std::time::Instant::now() < until);
        }
        let memory = memory(pid);
        assert!(memory.resident > 1 << 20 && memory.peak >= memory.resident, "{memory:?}");
        let family = proc::family_cpu_time(pid, &[]).unwrap();
        assert!(family >= Duration::from_millis(30) && postmaster_of(pid).is_none());
        assert!(machine().contains("Linux"), "{}", machine());
    }
}
