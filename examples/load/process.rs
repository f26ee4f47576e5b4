//! What the kernel says of processes.

use std::ffi::OsString;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// What a finished program cost.
pub(crate) struct Cost {
    /// The exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
    /// Resident octets at their highest.
    pub(crate) peak: u64,
}

/// Runs a program to its end, its standard output thrown away.
///
/// This small program starts it, for what a process resided with before it became another one
/// counts as well.
pub(crate) fn run(words: &[OsString]) -> Result<Cost> {
    let (program, args) = words.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null());
    let started = Instant::now();
    let status = command.status().with_context(|| program.display().to_string())?;
    let elapsed = started.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let peak = usage.max_rss().unsigned_abs() * 1024;
    Ok(Cost { code: status.code(), elapsed, cpu: cpu(&usage), peak })
}

/// CPU time of a process so far, without what it has started.
pub(crate) fn cpu_of(pid: u32) -> Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    Ok(clock_getcpuclockid(pid)?.now()?.into())
}

/// CPU time of this process so far.
pub(crate) fn own_cpu() -> Duration {
    getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| cpu(&usage))
}

fn cpu(usage: &Usage) -> Duration {
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
