//! Resident memory of the tools at its highest: it may have a bound, it may not grow with what
//! is stored.
//!
//! Stores so large that all caches are full take too long to make for every run. In the usual ones
//! each tool may grow by what its caches still lack; `CYRBK_MEMORY_MESSAGES=240000` makes stores
//! of so many messages and twice as many, and demands that nothing is held for each of them.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::client::guid;
use super::server::{Running, Server};
use super::{CYRBK, Rolling};

/// Messages of the usual stores.
const MESSAGES: [u64; 2] = [15_000, 60_000];
/// What caches that are not full in the small one, and the allocator, may add to a tool, in MiB:
/// listing and indexing have small caches, verify a larger one, compact several.
const SLACK: [(&str, u64); 3] = [("verify", 14), ("compact", 32), ("", 4)];
/// With full caches, in octets for each message more. It is less than a GUID, its row and a
/// pointer to them would take.
const SLACK_EACH: u64 = 64;
/// Messages in one line, and then records.
const PORTION: u64 = 1_000;

impl Rolling {
    /// Very many messages, so small that what is kept for each of them counts.
    fn fill_with_small_ones(&mut self, numbers: std::ops::Range<u64>) {
        let user = self.user.clone();
        for first in numbers.clone().step_by(PORTION as usize) {
            self.ask(format!("GET USER {user}\r\n"));
            let (mut line, mut records) = (b"APPLY MESSAGE (".to_vec(), Vec::new());
            for number in first..numbers.end.min(first + PORTION) {
                let text = format!("Subject: {number}\r\n\r\nNo. {}\r\n", number * 7919 % 104_729);
                let guid = guid(text.as_bytes());
                let header = format!("%{{default {guid} {}}}\r\n{text} ", text.len());
                line.extend_from_slice(header.as_bytes());
                records.push((guid, text.len()));
            }
            line.pop();
            line.extend_from_slice(b")\r\n");
            self.ask(line);
            self.apply_mailbox(&records);
            self.ask("RESTART\r\n");
        }
        self.turn_to_others();
    }
}

/// Runs a tool, which must succeed; octets that it resided with at its highest.
fn peak(command: &mut Command) -> u64 {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    // It goes with the process, so it is looked at again and again.
    loop {
        let status = fs::read_to_string(&path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let Some(line) = line else { break };
        peak = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024;
        std::thread::sleep(Duration::from_micros(500));
    }
    assert!(child.wait().unwrap().success(), "{command:?}");
    peak
}

fn peaks(server: &Server, running: Running) -> Vec<(&'static str, u64)> {
    running.stop();
    let conf = server.imapd_conf();
    let own = |verb: &'static str, words: &[&str]| (verb, peak(server.command(verb).args(words)));
    let as_cyrus = |label, words: &[&str]| {
        let mut command = Command::new(CYRBK);
        let (verb, words) = words.split_first().unwrap();
        command.arg0("ctl_backups").arg(verb).arg("-C").arg(&conf).args(words);
        (label, peak(&mut command))
    };
    let guid = guid(b"Subject: 0\r\n\r\nNo. 0\r\n");
    let mut peaks = vec![
        own("list", &["tom"]),
        own("stat", &["tom"]),
        own("dump", &["tom", "message", &guid]),
        own("verify", &["tom"]),
        as_cyrus("verify as Cyrus does", &["verify", "-u", "tom"]),
        own("reindex", &["tom"]),
        as_cyrus("compact", &["compact", "-F", "-u", "tom"]),
    ];
    // Everything in one chunk, and written again.
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, format!("{text}backup_compact_minsize: 1000000000\n")).unwrap();
    peaks.push(as_cyrus("compact into one chunk", &["compact", "-F", "-u", "tom"]));
    fs::write(&conf, text).unwrap();
    peaks.push(own("verify", &["tom"]));
    peaks.push(as_cyrus("verify as Cyrus does, one chunk", &["verify", "-u", "tom"]));
    peaks.push(own("reindex", &["tom"]));
    peaks
}

#[test]
fn what_tools_hold_in_memory_does_not_grow() {
    let server = Server::new();
    let measure = |numbers: std::ops::Range<u64>| {
        let running = server.start();
        let mut rolling = Rolling::log_in(running.port(), "tom");
        rolling.last_uid = numbers.start as u32;
        rolling.fill_with_small_ones(numbers);
        peaks(&server, running)
    };
    let many = std::env::var("CYRBK_MEMORY_MESSAGES").ok().map(|text| text.parse().unwrap());
    let [few, more] = many.map_or(MESSAGES, |many: u64| [many, 2 * many]);
    let small = measure(0..few);
    let large = measure(few..more);
    for ((tool, small), (_, large)) in small.into_iter().zip(large) {
        println!("{tool}: {} KiB, then {} KiB", small / 1024, large / 1024);
        let usual = SLACK.iter().find(|(name, _)| tool.starts_with(name)).unwrap().1 << 20;
        let slack = many.map_or(usual, |many| many * SLACK_EACH);
        assert!(large <= small + slack, "{tool}: {small} {large}");
    }
}
