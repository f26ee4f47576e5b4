//! What the kernel counts of another process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::NamedTempFile;

use super::machine;

/// System calls of a process are being counted.
pub(crate) struct Trace {
    strace: Child,
    /// What it says: it would die of having nobody to tell about a new thread.
    said: BufReader<ChildStderr>,
    summary: NamedTempFile,
}

impl Trace {
    /// Begins to count; `None`, and a word about it, where there is no strace, or it may not look
    /// at others.
    pub(crate) fn attach(pid: u32) -> Option<Trace> {
        if !machine::can_trace() {
            return None;
        }
        let summary = NamedTempFile::new().unwrap();
        let mut strace = Command::new("strace")
            .args(["-f", "-c", "-o"])
            .arg(summary.path())
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        if said.read_line(&mut line).is_ok() && line.contains("attached") {
            return Some(Trace { strace, said, summary });
        }
        let _ = strace.wait();
        machine::impossible(&format!("strace may not trace what it has not started: {line}"));
        None
    }

    /// Ends it; how often each call was made.
    pub(crate) fn detach(mut self) -> BTreeMap<String, u64> {
        kill(Pid::from_raw(self.strace.id().cast_signed()), Signal::SIGINT).unwrap();
        self.strace.wait().unwrap();
        drop(self.said);
        let counts = read(&self.summary);
        assert!(!counts.is_empty());
        counts
    }

    /// Runs a tool, which must succeed; how often it made each call. `None` as of
    /// [`Trace::attach`].
    pub(crate) fn of_tool(command: &Command) -> Option<BTreeMap<String, u64>> {
        if !machine::can_trace() {
            return None;
        }
        let summary = NamedTempFile::new().unwrap();
        let ended = Command::new("strace")
            .args(["-f", "-c", "-o"])
            .arg(summary.path())
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let counts = read(&summary);
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!counts.is_empty() && ended.status.success(), "{said}");
        Some(counts)
    }
}

fn read(summary: &NamedTempFile) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(summary.path()).unwrap();
    let rows = text.lines().filter_map(|line| {
        // % time, seconds, usecs/call, calls, [errors,] name
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, calls, .., name] = words[..] else { return None };
        Some((name.to_owned(), calls.parse().ok()?))
    });
    rows.filter(|(name, _)| name != "total").collect()
}

/// Octets that passed through a process's system calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Io {
    pub(crate) read: u64,
    pub(crate) written: u64,
}

impl Io {
    pub(crate) fn of(pid: u32) -> Io {
        let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        Io { read: field("rchar:"), written: field("wchar:") }
    }

    /// Runs a tool, which must succeed; what it has read and written in its life.
    pub(crate) fn of_tool(command: &mut Command) -> Io {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut said).unwrap();
        assert!(!said.is_empty(), "{command:?}");
        // It is counted until somebody asks how it ended.
        let stat = format!("/proc/{}/stat", child.id());
        while !fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::sleep(Duration::from_millis(1));
        }
        let io = Io::of(child.id());
        assert!(child.wait().unwrap().success(), "{command:?}");
        io
    }

    pub(crate) fn since(self, before: Io) -> Io {
        Io { read: self.read - before.read, written: self.written - before.written }
    }

    pub(crate) fn each(self, rounds: u64) -> Io {
        Io { read: self.read / rounds, written: self.written / rounds }
    }
}
