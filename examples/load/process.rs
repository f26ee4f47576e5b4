//! What the kernel says of processes.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

/// CPU time of this process so far.
pub(crate) fn own_cpu() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let micros = [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() * 1_000_000 + time.tv_usec())
        .sum::<i64>();
    Duration::from_micros(micros.unsigned_abs())
}

/// Resident memory of a process and all that it started, in octets that are not shared with
/// others (`Pss`): a process for each connection shares its program text.
pub(crate) fn tree_memory(pid: u32) -> u64 {
    let own = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = own.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next());
    let kib: u64 = kib.and_then(|text| text.parse().ok()).unwrap_or(0);
    kib * 1024 + children(pid).into_iter().map(tree_memory).sum::<u64>()
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}
