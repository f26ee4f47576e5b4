//! The server, killed (-9) at random instants under load from real protocol clients: every
//! message, every mailbox record and every change of a folder that was answered OK is there
//! afterwards, and `verify` and the real Cyrus tools accept what is on disk.
//!
//! `CYRBK_CRASH_SECONDS` (20) says for how long, `CYRBK_CRASH_SEED` repeats a run as far as
//! the scheduler lets it. Without an installed Cyrus its part is skipped: see `machine`.

#![allow(clippy::unwrap_used)]

mod calls;
mod client;
mod disk;
mod folders;
#[path = "../machine/mod.rs"]
mod machine;
mod server;
mod waiting;

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use client::{Client, Ledger};
use folders::DEEDS;
use server::Server;

const CLIENTS: usize = 2;
/// How often the server is killed at least, however slow the machine.
const ROUNDS_MIN: usize = 100;
/// After so many rounds the clients go on with new users: what is read in full stays small.
const ROUNDS_PER_USER: usize = 20;
/// Longest time between the clients' log-in and the kill.
const LIFE_MAX_MS: u64 = 60;

/// xorshift64*: comes again with the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % end
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Whether so many rounds have shown anything.
fn is_enough(rounds: usize, ledgers: &[Ledger]) -> bool {
    let messages: usize = ledgers.iter().map(Ledger::acknowledged).sum();
    let checks: usize = ledgers.iter().map(|ledger| ledger.checks).sum();
    let is_done = |deed| ledgers.iter().any(|ledger| ledger.folders.done.contains_key(deed));
    rounds >= ROUNDS_MIN && messages > rounds && checks > rounds / 2 && DEEDS.iter().all(is_done)
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = setting("CYRBK_CRASH_SEED", now % 1_000_000);
    let time = Duration::from_secs(setting("CYRBK_CRASH_SECONDS", 20));
    let start = Instant::now();
    eprintln!("CYRBK_CRASH_SEED={seed}");
    let mut random = Random::new(seed);
    let server = Server::new();
    let mut ledgers: Vec<Ledger> = Vec::new();
    let mut rounds = 0;
    // A busy machine takes its time, but for ever is a fault.
    while start.elapsed() < time || (!is_enough(rounds, &ledgers) && start.elapsed() < 10 * time) {
        if rounds % ROUNDS_PER_USER == 0 {
            let number = rounds / ROUNDS_PER_USER;
            ledgers.extend((0..CLIENTS).map(|i| Ledger::new(&format!("tom{number}x{i}"))));
        }
        let running = server.start();
        let port = running.port();
        let first = ledgers.len() - CLIENTS;
        let (logged_in, log_ins) = mpsc::channel();
        let clients: Vec<_> = ledgers
            .drain(first..)
            .map(|mut ledger| {
                let random = Random::new(seed ^ (rounds * CLIENTS) as u64 ^ random.below(1 << 40));
                let logged_in = logged_in.clone();
                thread::spawn(move || {
                    // It ends when the server does.
                    let _ = Client::log_in(port).and_then(|mut client| {
                        let _ = logged_in.send(());
                        client.check(&mut ledger)?;
                        client.load(&mut ledger, random)
                    });
                    ledger
                })
            })
            .collect();
        for _ in 0..CLIENTS {
            log_ins.recv_timeout(Duration::from_secs(20)).expect("a client logs in");
        }
        thread::sleep(Duration::from_micros(random.below(LIFE_MAX_MS * 1_000)));
        running.kill();
        ledgers.extend(clients.into_iter().map(|client| client.join().unwrap()));
        rounds += 1;
    }

    let messages: usize = ledgers.iter().map(Ledger::acknowledged).sum();
    let checks: usize = ledgers.iter().map(|ledger| ledger.checks).sum();
    let mut deeds = BTreeMap::new();
    for (deed, count) in ledgers.iter().flat_map(|ledger| &ledger.folders.done) {
        *deeds.entry(deed).or_insert(0) += count;
    }
    eprintln!("{rounds} rounds, {messages} messages acknowledged, {checks} checks, {deeds:?}");
    assert!(is_enough(rounds, &ledgers));
    let running = server.start();
    for ledger in &mut ledgers {
        let mut client = Client::log_in(running.port()).unwrap();
        client.check(ledger).unwrap();
        client.leave().unwrap();
    }
    running.stop();
    ledgers.iter().for_each(|ledger| disk::check(&server, ledger));
    disk::run(&server, "verify", &[]);
    disk::check_with_cyrus(&server, true);
    // Compaction gives renamed mailboxes lines with their names.
    disk::run(&server, "compact", &["--force"]);
    disk::run(&server, "verify", &[]);
    disk::check_with_cyrus(&server, false);
}
