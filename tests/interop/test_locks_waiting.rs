//! Tools of both makers that wait for each other, and a data file that is replaced meanwhile.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::mail;
use crate::process::{Output, Service, run};
use crate::raw_csync::RawCsync;
use crate::site::{ADMIN, Channel, PASSWORD, Site};
use crate::test_locks::HeldLock;
use crate::tools::Tools;

const PATIENCE: Duration = Duration::from_secs(120);
/// For a program to come to the lock that it will wait for.
const MOMENT: Duration = Duration::from_millis(500);

/// A server with a backup of tom's, which nobody has open, and both makers' tools.
fn scene(cyrus: &Cyrus) -> (BackupServer, Site, [Tools; 2]) {
    let maker = Maker::under_test();
    let server = BackupServer::start(cyrus, maker, &[]);
    let site = Site::start(cyrus, &["tom"], &[Channel::new("tested", server.port, false)]);
    site.imap(ADMIN).create("user.tom");
    site.imap("tom").append("INBOX", "", 1_000_000_000, &mail::note(1).bytes);
    let _ = site.sync("tested", &["-u", "tom"]).success();
    server.wait_until_closed();
    (server, site, [Maker::Cyrus, maker].map(|maker| Tools::new(cyrus, maker)))
}

/// Runs a command to its end while the test goes on.
fn begin(command: Command) -> thread::JoinHandle<Output> {
    thread::spawn(move || run(command, PATIENCE))
}

/// `ctl_backups lock -w`, which says `got` when it has the lock, and holds it.
fn wait_for_lock(tools: &Tools, server: &BackupServer) -> Service {
    let words = ["lock", "-w", "-x", "echo got; exec cat", "tom"];
    let mut command = tools.ctl_backups_command(server, &words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    Service::spawn(command)
}

#[test]
fn whoever_holds_a_lock_the_others_are_refused_or_wait() {
    let Some(cyrus) = Cyrus::find_or_skip("whoever_holds_a_lock_the_others_are_refused_or_wait")
    else {
        return;
    };
    let (server, _site, [real, tested]) = scene(&cyrus);
    for (holder, comer) in [(&real, &tested), (&tested, &real), (&tested, &tested)] {
        let lock = HeldLock::take(holder, &server, "tom");
        let before = server.store_files();
        for words in [&["list", "tom"][..], &["verify", "tom"], &["reindex", "tom"]] {
            let refused = comer.ctl_backups(&server, words);
            assert_eq!(refused.code(), 75, "{refused}");
        }
        for words in [&["compact", "-F", "tom"][..], &["lock", "-x", "true", "tom"]] {
            let refused = comer.ctl_backups(&server, words);
            assert_eq!(refused.code(), 75, "{refused}");
        }
        let mut csync = RawCsync::login(server.port, ADMIN, PASSWORD);
        let reply = csync.ask(b"GET USER tom\r\n");
        assert_eq!(reply, "NO IMAP_MAILBOX_LOCKED Mailbox locked\r\n");
        drop(csync);
        // Nobody has touched anything.
        assert_eq!(server.store_files(), before);

        let waiting = [&["verify", "-w", "tom"][..], &["compact", "-w", "-F", "tom"]]
            .map(|words| begin(comer.ctl_backups_command(&server, words)));
        thread::sleep(MOMENT);
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "it does not wait");
        lock.release();
        for waiting in waiting {
            let _ = waiting.join().unwrap().success();
        }
        let _ = real.ctl_backups(&server, &["verify", "tom"]).success();
    }
}

/// Whoever has waited for the lock of a file that a compaction then put another one in the place of
/// holds the lock of that one.
#[test]
fn a_lock_is_that_of_the_file_in_its_place() {
    let Some(cyrus) = Cyrus::find_or_skip("a_lock_is_that_of_the_file_in_its_place") else {
        return;
    };
    let (server, _site, [real, tested]) = scene(&cyrus);
    for (holder, comer) in [(&real, &tested), (&tested, &real), (&tested, &tested)] {
        let other = if std::ptr::eq(comer, &raw const real) { &tested } else { &real };
        let lock = HeldLock::take(holder, &server, "tom");
        let mut waiting = wait_for_lock(comer, &server);
        thread::sleep(MOMENT);
        assert!(waiting.try_status().is_none(), "it does not wait");
        // What a compaction does at its end, under the lock.
        let data_file = server.data_file("tom");
        let new = data_file.with_extension("new");
        std::fs::copy(&data_file, &new).unwrap();
        server.give_away(&new);
        std::fs::rename(&new, &data_file).unwrap();
        lock.release();

        let mut line = String::new();
        let stdout = waiting.child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "got\n");
        let refused = other.ctl_backups(&server, &["lock", "-x", "true", "tom"]);
        assert_eq!(refused.code(), 75, "the new file is not locked: {refused}");
        let mut csync = RawCsync::login(server.port, ADMIN, PASSWORD);
        let reply = csync.ask(b"GET USER tom\r\n");
        assert_eq!(reply, "NO IMAP_MAILBOX_LOCKED Mailbox locked\r\n");
        drop(csync);
        drop(waiting.child.stdin.take());
        assert!(waiting.wait(PATIENCE).is_some(), "it does not end");
    }
}

/// Compactions of both makers, a client and readers, all at once, again and again.
#[test]
fn compactions_of_both_makers_race() {
    let Some(cyrus) = Cyrus::find_or_skip("compactions_of_both_makers_race") else { return };
    let (mut server, site, [real, tested]) = scene(&cyrus);
    for round in 2..8 {
        site.imap("tom").append("INBOX", "", 1_000_000_000, &mail::note(round).bytes);
        let words = [&["compact", "-w", "-F", "tom"][..], &["verify", "-w", "tom"]];
        let running: Vec<_> = [&real, &tested]
            .into_iter()
            .flat_map(|tools| words.map(|words| tools.ctl_backups_command(&server, words)))
            .map(begin)
            .collect();
        // It may find the backup locked; then nothing is stored.
        let _ = site.sync("tested", &["-u", "tom"]);
        for running in running {
            let _ = running.join().unwrap().success();
        }
        let _ = site.sync("tested", &["-u", "tom"]).success();
        server.wait_until_closed();
        for tools in [&real, &tested] {
            let _ = tools.ctl_backups(&server, &["verify", "tom"]).success();
            let guid = mail::guid(&mail::note(round).bytes);
            let dump = tools.cyr_backup(&server, &["tom", "dump", "message", &guid]);
            assert_eq!(dump.success().stdout, mail::note(round).bytes);
        }
    }
    server.assert_alive();
}
