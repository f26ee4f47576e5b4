//! Locks exclude the real tools and are excluded by them.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::mail;
use crate::process::Service;
use crate::raw_csync::RawCsync;
use crate::site::{ADMIN, Channel, PASSWORD, Site};
use crate::sync_client::SyncRun;
use crate::tools::{Tools, assert_same_output};

const TIMEOUT: Duration = Duration::from_secs(30);
const LOCKED: &str = "NO IMAP_MAILBOX_LOCKED Mailbox locked\r\n";

/// The real `ctl_backups lock`, holding a lock until dropped.
pub(crate) struct HeldLock(Service);

impl HeldLock {
    pub(crate) fn take(tools: &Tools, server: &BackupServer, user: &str) -> Self {
        // `-p` buffers its "OK locked" on a pipe; a command run under the lock does not.
        let mut command =
            tools.ctl_backups_command(server, &["lock", "-x", "echo held; exec cat", user]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut service = Service::spawn(command);
        let mut line = String::new();
        let stdout = service.child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n", "ctl_backups lock got no lock");
        Self(service)
    }

    pub(crate) fn release(mut self) {
        drop(self.0.child.stdin.take());
        assert!(self.0.wait(TIMEOUT).is_some(), "ctl_backups lock does not end");
    }
}

fn assert_locked_out(run: &SyncRun) {
    let refusals = run.refusals();
    assert!(!refusals.is_empty(), "{}", run.output);
    assert!(refusals.iter().all(|line| line.starts_with("NO IMAP_MAILBOX_LOCKED")), "{refusals:?}");
    assert_eq!(run.applied(), Vec::<String>::new(), "{}", run.output);
}

#[test]
fn a_backup_locked_by_the_real_tool_is_deferred() {
    let Some(cyrus) = Cyrus::find_or_skip("a_backup_locked_by_the_real_tool_is_deferred") else {
        return;
    };
    let maker = Maker::under_test();
    let mut server = BackupServer::start(&cyrus, maker, &[]);
    let site = Site::start(&cyrus, &["tom"], &[Channel::new("tested", server.port, false)]);
    let [real_tools, tested_tools] = [Maker::Cyrus, maker].map(|maker| Tools::new(&cyrus, maker));
    site.imap(ADMIN).create("user.tom");
    let _ = site.sync("tested", &["-u", "tom"]).success();
    site.imap("tom").append("INBOX", "", 1_000_000_000, &mail::note(1).bytes);
    server.wait_until_closed();
    let before = server.store_files();

    let lock = HeldLock::take(&real_tools, &server, "tom");
    let mut csync = RawCsync::login(server.port, ADMIN, PASSWORD);
    assert_eq!(csync.ask(b"GET USER tom\r\n"), LOCKED);
    assert_eq!(csync.ask(b"GET MAILBOXES (user.tom)\r\n"), LOCKED);
    assert_eq!(csync.ask(b"GET USER someone.else\r\n"), "OK Success\r\n");
    assert_eq!(csync.ask(b"EXIT\r\n"), "OK Finished\r\n");
    let run = site.sync("tested", &["-u", "tom"]);
    assert_locked_out(&run);
    assert_eq!(run.output.code(), 1, "{}", run.output);
    // A rolling client writes what it could not do back into its log.
    let log = site.sync_log_path("tested", "log");
    let run = site.sync("tested", &["-R", "-1"]);
    assert_locked_out(&run);
    let deferred = std::fs::read_to_string(&log).unwrap_or_default();
    assert!(deferred.contains("user.tom"), "deferred: {deferred:?}\n{}", run.output);
    for args in [["list", "tom"], ["verify", "tom"]] {
        let [real, tested] =
            [&real_tools, &tested_tools].map(|tools| tools.ctl_backups(&server, &args));
        assert_eq!(real.code(), 75, "{real}");
        assert_same_output(&real, &tested);
    }
    let after = server.store_files();
    let changed = before.iter().filter(|(path, sum)| after.get(*path) != Some(*sum));
    let changed: Vec<_> = changed.filter(|(path, _)| !path.ends_with("backups.db")).collect();
    assert!(changed.is_empty(), "touched under a foreign lock: {changed:?}");
    lock.release();
    server.wait_until_closed();

    let run = site.sync("tested", &["-R", "-1"]).success();
    run.assert_sent("APPLY MESSAGE");
    server.assert_alive();
}

#[test]
fn a_backup_in_use_by_a_session_is_locked_for_the_real_tools() {
    let Some(cyrus) =
        Cyrus::find_or_skip("a_backup_in_use_by_a_session_is_locked_for_the_real_tools")
    else {
        return;
    };
    let maker = Maker::under_test();
    let server = BackupServer::start(&cyrus, maker, &[]);
    let [real_tools, tested_tools] = [Maker::Cyrus, maker].map(|maker| Tools::new(&cyrus, maker));
    let mut csync = RawCsync::login(server.port, ADMIN, PASSWORD);
    assert_eq!(csync.ask(b"GET USER tom\r\n"), "OK Success\r\n");

    let lock = real_tools.ctl_backups(&server, &["lock", "-x", "true", "tom"]);
    assert_eq!(lock.code(), 75);
    assert!(lock.stderr_text().contains("unable to lock tom: Mailbox is locked"), "{lock}");
    for tools in [&real_tools, &tested_tools] {
        let list = tools.ctl_backups(&server, &["list", "tom"]);
        assert_eq!((list.code(), list.stderr_text().as_str()), (75, "tom: Mailbox is locked\n"));
    }
    let mut second = RawCsync::login(server.port, ADMIN, PASSWORD);
    assert_eq!(second.ask(b"GET USER tom\r\n"), LOCKED);
    assert_eq!(second.ask(b"GET META tom\r\n"), LOCKED);
    assert_eq!(second.ask(b"RESTART\r\n"), "OK Restarting\r\n");
    assert_eq!(second.ask(b"GET USER tom\r\n"), LOCKED);

    assert_eq!(csync.ask(b"RESTART\r\n"), "OK Restarting\r\n");
    // It stays open for a moment.
    crate::process::wait_for("the lock after RESTART", TIMEOUT, || {
        let lock = real_tools.ctl_backups(&server, &["lock", "-x", "true", "tom"]);
        (lock.code() == 0).then_some(())
    });
    assert_eq!(second.ask(b"GET USER tom\r\n"), "OK Success\r\n");
    // A client that just goes away leaves no lock behind.
    drop(second);
    crate::process::wait_for("the lock of a lost connection", TIMEOUT, || {
        let list = real_tools.ctl_backups(&server, &["list", "tom"]);
        (list.code() == 0).then_some(())
    });
}
