//! What one new message costs the server, and a look the tools, counted and not timed: system
//! calls, syncs, octets read and written. The counts hardly vary, so that a change which costs
//! more is seen at once.
#![allow(clippy::unwrap_used)]

#[path = "../server/client.rs"]
#[allow(dead_code)]
mod client;
mod counts;
#[path = "../machine/mod.rs"]
mod machine;
mod memory;
#[path = "../crash/server.rs"]
#[allow(dead_code)]
mod server;

/// For [`client`].
mod site {
    pub(crate) use crate::server::{ADMIN, PASSWORD};
}

use std::collections::BTreeMap;
use std::fs;

use client::{Client, apply_message, guid};
use counts::{Io, Trace};
use server::{Running, Server};

const CYRBK: &str = env!("CARGO_BIN_EXE_cyrbk");
/// Rounds that are counted.
const ROUNDS: u64 = 10;
/// A user whose mail is replicated in the words of `sync_client`.
struct Rolling {
    client: Client,
    user: String,
    last_uid: u32,
}

impl Rolling {
    fn log_in(port: u16, user: &str) -> Rolling {
        Rolling {
            client: Client::admin(([127, 0, 0, 1], port).into()),
            user: user.into(),
            last_uid: 0,
        }
    }

    /// Makes the server let go of the user's backup, which it keeps a while otherwise.
    fn turn_to_others(&mut self) {
        self.ask("GET USER others\r\n");
        self.ask("RESTART\r\n");
    }

    fn ask(&mut self, line: impl AsRef<[u8]>) {
        let reply = self.client.ask(line);
        assert!(reply.lines().last().unwrap().starts_with("OK "), "{reply}");
    }

    /// One new message, made durable.
    fn deliver(&mut self) {
        let user = self.user.clone();
        let text = format!("X-No: {}\r\n\r\n{}\r\n", self.last_uid, "Words. ".repeat(700));
        self.ask(format!("GET MAILBOXES (user.{user})\r\n"));
        let guid = guid(text.as_bytes());
        self.ask(format!(
            "APPLY RESERVE %(PARTITION default MBOXNAME (user.{user}) GUID ({guid}))\r\n"
        ));
        self.ask(apply_message(text.as_bytes()));
        self.apply_mailbox(&[(guid, text.len())]);
        self.ask("RESTART\r\n");
    }

    /// `count` messages with octets that hardly compress, as one portion.
    fn fill(&mut self, count: u64) {
        let user = self.user.clone();
        self.ask(format!("GET USER {user}\r\n"));
        let mut records = Vec::new();
        for number in 0..count {
            let mut state = number + 1;
            let text: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                b' ' + (state >> 33) as u8 % 90
            })
            .take(10_000)
            .collect();
            self.ask(apply_message(&text));
            records.push((guid(&text), text.len()));
        }
        self.apply_mailbox(&records);
        self.ask("RESTART\r\n");
    }

    fn apply_mailbox(&mut self, messages: &[(String, usize)]) {
        let user = self.user.clone();
        let records: Vec<String> = messages
            .iter()
            .map(|(guid, size)| {
                self.last_uid += 1;
                format!(
                    "%(UID {0} MODSEQ {0} LAST_UPDATED 1 FLAGS (\\Seen) INTERNALDATE 1 SIZE \
                     {size} GUID {guid})",
                    self.last_uid
                )
            })
            .collect();
        let line = format!(
            "APPLY MAILBOX %(UNIQUEID id-{user} MBOXNAME user.{user} SYNC_CRC 0 SYNC_CRC_ANNOT 0 \
             LAST_UID {0} HIGHESTMODSEQ {0} RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 \
             POP3_LAST_LOGIN 0 POP3_SHOW_AFTER 0 UIDVALIDITY 7 PARTITION default ACL \"\" \
             OPTIONS P RECORD ({1}))\r\n",
            self.last_uid,
            records.join(" ")
        );
        self.ask(line);
    }
}

/// System calls of ten rounds with so many replies each; `None` if strace cannot be used.
fn count(
    running: &Running,
    replies: u64,
    mut round: impl FnMut(u64),
) -> Option<BTreeMap<String, u64>> {
    for try_no in 0..TRIES {
        let trace = Trace::attach(running.pid())?;
        (0..ROUNDS).for_each(|number| round(try_no * ROUNDS + number));
        let counts = trace.detach();
        // On a busy machine strace may begin late.
        if counts.get("sendto") == Some(&(replies * ROUNDS)) {
            return Some(counts);
        }
    }
    panic!("strace never saw all replies");
}

/// How often a call was made in all rounds.
fn of(counts: &BTreeMap<String, u64>, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or(0)
}

/// How often to try to see all calls.
const TRIES: u64 = 5;

/// Calls of ten rounds, without waiting and waking: those depend on who comes first.
fn steady(counts: &BTreeMap<String, u64>) -> u64 {
    let varying = ["futex", "epoll_wait", "sched_yield", "recvfrom", "write"];
    counts.iter().filter(|(name, _)| !varying.contains(&name.as_str())).map(|(_, n)| n).sum()
}

#[test]
fn system_calls_of_a_new_message_for_a_user_in_turn() {
    let server = Server::new();
    let running = server.start();
    let mut rolling = Rolling::log_in(running.port(), "tom");
    rolling.deliver();
    rolling.turn_to_others();
    let Some(counts) = count(&running, 7, |_| {
        rolling.deliver();
        rolling.turn_to_others();
    }) else {
        return;
    };
    // The data file; then the commit of the index: its journal twice, the directory, itself.
    assert_eq!(of(&counts, "fdatasync"), ROUNDS, "{counts:?}");
    assert!(of(&counts, "fsync") <= 4 * ROUNDS, "{counts:?}");
    // Opening and closing two backups.
    let calls = steady(&counts) / ROUNDS;
    assert!(calls <= TURN_CALLS, "{calls} each: {counts:?}");
}

#[test]
fn system_calls_of_one_new_message_after_another() {
    let server = Server::new();
    let running = server.start();
    let mut rolling = Rolling::log_in(running.port(), "tom");
    rolling.deliver();
    let Some(counts) = count(&running, 5, |_| rolling.deliver()) else { return };
    assert_eq!(of(&counts, "fdatasync"), ROUNDS, "{counts:?}");
    // On a slow machine the server lets go of the backup once or twice meanwhile, and commits.
    let let_goes = of(&counts, "fsync").div_ceil(4);
    assert!(let_goes <= 2, "{counts:?}");
    let calls = steady(&counts);
    println!("{calls}, with {let_goes} times let go");
    assert!(calls <= ROUNDS * NEXT_CALLS + let_goes * LET_GO_CALLS, "{calls}: {counts:?}");
}

/// Calls of a message and an empty session for another user, of which the server opens and closes
/// both.
const TURN_CALLS: u64 = 370;
/// Calls of a message for the user who had the one before.
const NEXT_CALLS: u64 = 16;
/// Calls of closing a backup and opening it again.
const LET_GO_CALLS: u64 = 200;

/// Calls that `list` makes for each backup that is in order.
const LIST_CALLS: u64 = 44;

#[test]
fn system_calls_of_a_listing() {
    let server = Server::new();
    let running = server.start();
    let count = |from: u64, to: u64| {
        for number in from..to {
            Rolling::log_in(running.port(), &format!("user{number}")).deliver();
        }
        let mut client = Client::admin(([127, 0, 0, 1], running.port()).into());
        // The server lets go of a backup a moment after its session has ended.
        for number in from..to {
            client.ask(format!("GET USER user{number}\r\n"));
            assert_eq!(client.ask("RESTART\r\n"), "OK Restarting\r\n");
        }
        client.ask("EXIT\r\n");
        let mut list = server.command("list");
        Trace::of_tool(list.args(["--jobs", "1"]))
    };
    let Some(few) = count(0, 5) else { return };
    let Some(many) = count(5, 25) else { return };
    let all = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
    let calls = (all(&many) - all(&few)) / 20;
    assert!(calls <= LIST_CALLS, "{calls} each: {many:?}");
}

#[test]
fn syncs_of_a_new_user() {
    let server = Server::new();
    let running = server.start();
    let mut client = Client::admin(([127, 0, 0, 1], running.port()).into());
    client.ask("GET USER first\r\n");
    let Some(counts) = count(&running, 2, |number| {
        assert_eq!(client.ask(format!("GET USER user{number}\r\n")), "OK Success\r\n");
        assert_eq!(client.ask("RESTART\r\n"), "OK Restarting\r\n");
    }) else {
        return;
    };
    // The file and two directories, and three for the catalog.
    let syncs = of(&counts, "fsync") + of(&counts, "fdatasync");
    assert!(syncs <= 8 * ROUNDS, "{counts:?}");
}

#[test]
fn what_a_new_message_reads_and_writes_does_not_grow() {
    let server = Server::new();
    let running = server.start();
    let mut rolling = Rolling::log_in(running.port(), "tom");
    let mut cost = |fill: u64| {
        rolling.fill(fill);
        rolling.turn_to_others();
        let before = Io::of(running.pid());
        for _ in 0..ROUNDS {
            rolling.deliver();
            rolling.turn_to_others();
        }
        Io::of(running.pid()).since(before).each(ROUNDS)
    };
    let (small, large) = (cost(20), cost(2_000));
    // A message of 5 KB that compresses well; the rest is pages of the index and its journal.
    assert!(small.written <= 200_000 && small.read <= 200_000, "{small:?}");
    // 20 MB more of data; some more pages on the way to a row.
    assert!(large.written <= small.written + 60_000, "{small:?} {large:?}");
    assert!(large.read <= small.read + 60_000, "{small:?} {large:?}");
}

/// Nobody but the server has written: what is stored need not be read to list it, nor to have one
/// message of it.
#[test]
fn what_tools_read_does_not_grow() {
    let server = Server::new();
    let running = server.start();
    let mut rolling = Rolling::log_in(running.port(), "tom");
    let text = "Subject: one of many\r\n\r\n";
    let mut costs = |fill: u64| {
        rolling.fill(fill);
        rolling.ask("GET USER tom\r\n");
        rolling.ask(apply_message(text.as_bytes()));
        rolling.apply_mailbox(&[(guid(text.as_bytes()), text.len())]);
        rolling.ask("RESTART\r\n");
        rolling.turn_to_others();
        let read = |verb: &str, words: &[&str]| {
            let io = Io::of_tool(server.command(verb).args(words));
            println!("{verb} of {fill} messages more: {io:?}");
            io.read
        };
        // The server may still be at its index.
        let list = read("list", &["--wait", "tom"]);
        // It sums up what the index knows of each message.
        let stat = read("stat", &["--wait", "tom"]);
        (list, stat, read("dump", &["tom", "message", &guid(text.as_bytes())]))
    };
    let (small, large) = (costs(20), costs(2_000));
    assert!(large.0 <= small.0 + 20_000, "{small:?} {large:?}");
    assert!(large.1 <= small.1 + 3_000_000, "{small:?} {large:?}");
    // From a restart point on, on average half of the way to the next one.
    assert!(large.2 <= small.2 + 300_000, "{small:?} {large:?}");
}

/// Syncs of a compaction: the data file, the index, and the directory in front of the renames and
/// behind them.
const COMPACT_SYNCS: u64 = 4;

#[test]
fn syncs_of_a_compaction() {
    let server = Server::new();
    let running = server.start();
    let mut rolling = Rolling::log_in(running.port(), "tom");
    (0..3).for_each(|_| rolling.deliver());
    rolling.turn_to_others();
    running.stop();
    let text = fs::read_to_string(server.imapd_conf()).unwrap();
    for more in ["", "backup_compact_minsize: 1000000000\n"] {
        fs::write(server.imapd_conf(), format!("{text}{more}")).unwrap();
        let Some(counts) = Trace::of_tool(server.command("compact").args(["--force", "tom"]))
        else {
            return;
        };
        let syncs = of(&counts, "fsync") + of(&counts, "fdatasync");
        assert_eq!(syncs, COMPACT_SYNCS, "{more:?}: {counts:?}");
    }
}

/// Chunks that stay as they are, are read to be understood, and to be copied; others to be
/// understood and to be written anew.
#[test]
fn a_compaction_reads_the_data_twice() {
    let server = Server::new();
    let running = server.start();
    let mut rolling = Rolling::log_in(running.port(), "tom");
    rolling.fill(1_000);
    rolling.turn_to_others();
    rolling.deliver();
    rolling.turn_to_others();
    running.stop();
    let text = fs::read_to_string(server.imapd_conf()).unwrap();
    for more in ["", "backup_compact_minsize: 1000000000\n"] {
        fs::write(server.imapd_conf(), format!("{text}{more}")).unwrap();
        let io = Io::of_tool(server.command("compact").args(["--force", "--verbose", "tom"]));
        println!("compact, {more:?}: {io:?}");
        // Eight million octets, written once; the rest is the index.
        assert!(io.written > 8_000_000 && io.written < 9_000_000, "{io:?}");
        assert!(io.read < 2 * io.written + 500_000, "{io:?}");
    }
}
