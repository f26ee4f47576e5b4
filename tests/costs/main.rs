//! What one new message costs the server, counted and not timed: system calls, syncs, octets read
//! and written. The counts hardly vary, so that a change which costs more is seen at once.
#![allow(clippy::unwrap_used)]

#[path = "../server/client.rs"]
#[allow(dead_code)]
mod client;
mod counts;
#[path = "../crash/server.rs"]
#[allow(dead_code)]
mod server;

/// For [`client`].
mod site {
    pub(crate) use crate::server::{ADMIN, PASSWORD};
}

use client::{Client, apply_message, guid};
use counts::{Io, Trace};
use server::Server;

/// Rounds that are counted.
const ROUNDS: u64 = 10;
const USER: &str = "tom";

/// A user's mail server that says what `sync_client` says.
struct Rolling {
    client: Client,
    last_uid: u32,
}

impl Rolling {
    fn log_in(port: u16) -> Rolling {
        Rolling { client: Client::admin(([127, 0, 0, 1], port).into()), last_uid: 0 }
    }

    fn ask(&mut self, line: impl AsRef<[u8]>) {
        let reply = self.client.ask(line);
        assert!(reply.lines().last().unwrap().starts_with("OK "), "{reply}");
    }

    /// One new message, made durable.
    fn deliver(&mut self) {
        let text = format!("X-No: {}\r\n\r\n{}\r\n", self.last_uid, "Words. ".repeat(700));
        self.ask(format!("GET MAILBOXES (user.{USER})\r\n"));
        let guid = guid(text.as_bytes());
        self.ask(format!(
            "APPLY RESERVE %(PARTITION default MBOXNAME (user.{USER}) GUID ({guid}))\r\n"
        ));
        self.ask(apply_message(text.as_bytes()));
        self.apply_mailbox(&[(guid, text.len())]);
        self.ask("RESTART\r\n");
    }

    /// `count` messages with octets that hardly compress, as one portion.
    fn fill(&mut self, count: u64) {
        self.ask(format!("GET USER {USER}\r\n"));
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
            "APPLY MAILBOX %(UNIQUEID id-{USER} MBOXNAME user.{USER} SYNC_CRC 0 SYNC_CRC_ANNOT 0 \
             LAST_UID {0} HIGHESTMODSEQ {0} RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 \
             POP3_LAST_LOGIN 0 POP3_SHOW_AFTER 0 UIDVALIDITY 7 PARTITION default ACL \"\" OPTIONS P \
             RECORD ({1}))\r\n",
            self.last_uid,
            records.join(" ")
        );
        self.ask(line);
    }
}

#[test]
fn system_calls_of_one_new_message() {
    let server = Server::new();
    let running = server.start();
    let mut rolling = Rolling::log_in(running.port());
    rolling.deliver();
    let Some(trace) = Trace::attach(running.pid()) else {
        eprintln!("SKIPPED: system_calls_of_one_new_message: strace cannot be used");
        return;
    };
    (0..ROUNDS).for_each(|_| rolling.deliver());
    let counts = trace.detach();
    let each = |name: &str| counts.get(name).copied().unwrap_or(0) / ROUNDS;
    // The data file; then the commit of the index: its journal twice, the directory, itself.
    assert_eq!(each("fdatasync"), 1, "{counts:?}");
    assert!(each("fsync") <= 4, "{counts:?}");
    // These depend on who comes first.
    let varying = ["futex", "epoll_wait", "sched_yield", "recvfrom", "write"];
    let steady: u64 =
        counts.iter().filter(|(name, _)| !varying.contains(&name.as_str())).map(|(_, n)| n).sum();
    assert!(steady / ROUNDS <= MESSAGE_CALLS, "{} each: {counts:?}", steady / ROUNDS);
}

/// System calls of a round, without waiting and waking.
const MESSAGE_CALLS: u64 = 240;

#[test]
fn syncs_of_a_new_user() {
    let server = Server::new();
    let running = server.start();
    let mut client = Client::admin(([127, 0, 0, 1], running.port()).into());
    client.ask("GET USER first\r\n");
    let Some(trace) = Trace::attach(running.pid()) else {
        eprintln!("SKIPPED: syncs_of_a_new_user: strace cannot be used");
        return;
    };
    for number in 0..ROUNDS {
        let reply = client.ask(format!("GET USER user{number}\r\nRESTART\r\n"));
        assert_eq!(reply, "OK Success\r\n");
        assert_eq!(client.reply(), "OK Restarting\r\n");
    }
    let counts = trace.detach();
    let syncs: u64 = ["fsync", "fdatasync"].iter().filter_map(|name| counts.get(*name)).sum();
    // The file and two directories, and three for the catalog.
    assert!(syncs / ROUNDS <= 8, "{counts:?}");
}

#[test]
fn what_a_new_message_reads_and_writes_does_not_grow() {
    let server = Server::new();
    let running = server.start();
    let mut rolling = Rolling::log_in(running.port());
    let mut cost = |fill: u64| {
        rolling.fill(fill);
        rolling.deliver();
        let before = Io::of(running.pid());
        (0..ROUNDS).for_each(|_| rolling.deliver());
        Io::of(running.pid()).since(before).each(ROUNDS)
    };
    let (small, large) = (cost(20), cost(2_000));
    // A message of 5 KB that compresses well; the rest is pages of the index and its journal.
    assert!(small.written <= 200_000 && small.read <= 200_000, "{small:?}");
    // 20 MB more of data; some more pages on the way to a row.
    assert!(large.written <= small.written + 60_000, "{small:?} {large:?}");
    assert!(large.read <= small.read + 60_000, "{small:?} {large:?}");
}
