//! How much CPU time and memory processes have used, as Linux counts it in /proc. Read by the
//! meters before and after a measurement. Elsewhere than on Linux there is nothing to read, and
//! the figures are left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// USER_HZ, in which /proc counts CPU time: 100 on every architecture that Rust's standard library
/// runs on.
const TICKS_PER_SECOND: u64 = 100;

/// One line of /proc/<pid>/stat, what matters of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stat {
    pub(super) command: String,
    pub(super) parent: u32,
    /// User and system time of the process itself, its ended threads too.
    own: Duration,
    /// The same of its ended children.
    ended_children: Duration,
}

impl Stat {
    pub(super) fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The command stands in parentheses, and may hold spaces and parentheses itself.
    fn parse(line: &str) -> Option<Self> {
        let (head, tail) = line.rsplit_once(')')?;
        let (_, command) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        // proc(5) counts from 1 and the command is the second field; here its third is at 0.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let ticks = |first| Some(cpu_time(number(first)? + number(first + 1)?));
        Some(Self {
            command: command.to_owned(),
            parent: u32::try_from(number(4)?).ok()?,
            own: ticks(14)?,
            ended_children: ticks(16)?,
        })
    }
}

const fn cpu_time(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}

/// The CPU time of one process.
pub(super) fn of_process(pid: u32) -> Option<Duration> {
    Stat::of(pid).map(|stat| stat.own)
}

/// The CPU time of a process and all its children, the ended ones too. Those left out are children
/// that belong to the measurement and not to what is measured.
pub(super) fn of_family(pid: u32, without: &[u32]) -> Option<Duration> {
    let parent = Stat::of(pid)?;
    let mut total = parent.own + parent.ended_children;
    for (child, stat) in all() {
        if stat.parent == pid && !without.contains(&child) {
            total += stat.own;
        }
    }
    Some(total)
}

fn all() -> BTreeMap<u32, Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, Stat::of(pid)?))).collect()
}

/// Memory that a process has in RAM, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Memory {
    /// Now.
    pub(super) resident: u64,
    /// At its highest.
    pub(super) peak: u64,
}

impl Memory {
    pub(super) fn of(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1_024)
        };
        Some(Self { resident: bytes("VmRSS:")?, peak: bytes("VmHWM:")? })
    }
}

/// What the machine is, in one line.
pub(super) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("CPU", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let meminfo = read("/proc/meminfo");
    let kib: u64 = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok())
        .unwrap_or(0);
    let gib = (kib + (1 << 19)) >> 20;
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} × {model}, {gib} GiB, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_hold_anything() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 1 0 99 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.command.as_str(), stat.parent), ("a) b (c", 7));
        assert_eq!(stat.own, Duration::from_secs(2));
        assert_eq!(stat.ended_children, Duration::from_millis(500));
    }

    #[test]
    fn memory_is_in_kib() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(Memory::parse(status), Some(Memory { resident: 1 << 20, peak: 2 << 20 }));
        assert_eq!(Memory::parse("Name:\tx\n"), None);
    }
}
