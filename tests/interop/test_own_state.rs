//! What Cyrus's backupd throws away: quota, the active script, server annotations. It is kept, the
//! client need not repeat it, and the real tools neither stumble over it nor lose it.

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::mail;
use crate::raw_csync::RawCsync;
use crate::site::{ADMIN, Channel, PASSWORD, Site};
use crate::sync_client::SyncRun;
use crate::test_locks::HeldLock;
use crate::tools::Tools;

const DATE: i64 = 1_000_000_000;

/// A mail server and cyrbk.
struct Scene {
    site: Site,
    server: BackupServer,
    real_tools: Tools,
}

impl Scene {
    fn start(cyrus: &Cyrus) -> Self {
        let server = BackupServer::start(cyrus, Maker::Cyrbk, &["tom"]);
        let channel = Channel::new("tested", server.port, false);
        let site = Site::start(cyrus, &["tom"], &[channel]);
        site.imap(ADMIN).create("user.tom");
        site.imap("tom").append("INBOX", "", DATE, &mail::note(1).bytes);
        Self { site, server, real_tools: Tools::new(cyrus, Maker::Cyrus) }
    }

    fn sync(&self) -> SyncRun {
        self.site.sync("tested", &["-u", "tom"]).success()
    }

    fn ask(&self, request: &str) -> String {
        let mut csync = RawCsync::login(self.server.port, ADMIN, PASSWORD);
        let reply = csync.ask_whole(format!("{request}\r\n").as_bytes());
        assert_eq!(csync.ask(b"EXIT\r\n"), "OK Finished\r\n");
        reply
    }

    /// The replies that tell the kept state.
    fn state(&self) -> Vec<String> {
        ["GET QUOTA user.tom", "GET META tom", "GET ANNOTATION \"\""]
            .map(|request| self.ask(request))
            .into()
    }

    fn real_tool(&self, args: &[&str]) {
        let output = self.real_tools.ctl_backups(&self.server, args).success();
        assert_eq!(output.stderr_text(), "", "{output}");
    }
}

#[test]
fn quota_and_active_script_are_not_sent_again() {
    let Some(cyrus) = Cyrus::find_or_skip("quota_and_active_script_are_not_sent_again") else {
        return;
    };
    if Maker::under_test() == Maker::Cyrus {
        return;
    }
    let scene = Scene::start(&cyrus);
    scene.site.imap(ADMIN).ok("SETQUOTA user.tom (STORAGE 1000)");
    scene.site.put_script("tom", "main", "keep;", true);
    scene.site.put_script("tom", "other", "discard;", false);
    let first = scene.sync();
    first.assert_sent("APPLY QUOTA");
    first.assert_sent("APPLY ACTIVATE_SIEVE");
    assert_eq!(scene.sync().applied(), Vec::<String>::new());

    scene.site.put_script("tom", "other", "discard;", true);
    scene.site.imap(ADMIN).ok("SETQUOTA user.tom (STORAGE 2000 MESSAGE 50)");
    let rolling = scene.site.sync_rolling("tested").success();
    rolling.assert_sent("APPLY QUOTA");
    rolling.assert_sent("APPLY ACTIVATE_SIEVE");
    assert_eq!(scene.sync().applied(), Vec::<String>::new());
    let quota = scene.ask("GET QUOTA user.tom");
    assert!(quota.contains("STORAGE 2000") && quota.contains("MESSAGE 50"), "{quota}");
    assert!(scene.ask("GET META tom").contains("other.bc"), "{}", scene.ask("GET META tom"));

    scene.site.imap(ADMIN).ok("SETQUOTA user.tom ()");
    scene.site.deactivate_scripts("tom");
    let _ = scene.site.sync_rolling("tested").success();
    let _ = scene.sync();
    assert_eq!(scene.sync().applied(), Vec::<String>::new());
    assert!(!scene.ask("GET META tom").contains("ISACTIVE 1"), "{}", scene.ask("GET META tom"));
}

#[test]
fn the_real_tools_carry_it_along() {
    let Some(cyrus) = Cyrus::find_or_skip("the_real_tools_carry_it_along") else {
        return;
    };
    if Maker::under_test() == Maker::Cyrus {
        return;
    }
    let scene = Scene::start(&cyrus);
    scene.site.put_script("tom", "main", "keep;", true);
    let _ = scene.sync();
    // Each in a chunk of its own, in which nothing else lives; and one that was replaced.
    for storage in [1000, 2000] {
        scene.site.imap(ADMIN).ok(&format!("SETQUOTA user.tom (STORAGE {storage})"));
        let _ = scene.site.sync_rolling("tested").success();
    }
    let mut admin = scene.site.imap(ADMIN);
    admin.set_metadata("", "/shared/comment", "50% \"caf\u{e9}\"\r\nto all".as_bytes());
    admin.set_metadata("", "/shared/admin", b"mailto:a@example.test");
    admin.logout();
    let _ = scene.site.sync_rolling("tested").success();
    let state = scene.state();
    assert!(state[0].contains("STORAGE 2000"), "{state:?}");
    assert!(state[1].contains("ISACTIVE 1"), "{state:?}");
    assert_eq!(state[2].matches("* ANNOTATION").count(), 2, "{state:?}");

    let shared = scene.server.data_file("%SHARED");
    let shared = ["-f", shared.to_str().unwrap()];
    for backup in [&["tom"][..], &shared] {
        for command in [&["verify"][..], &["reindex"], &["verify"], &["compact", "-F"], &["verify"]]
        {
            let mode = if backup.len() > 1 { "-f" } else { "-u" };
            scene.real_tool(&[command, &[mode, backup.last().unwrap()]].concat());
        }
    }
    assert_eq!(scene.state(), state, "after the real reindex and compact");
    assert_eq!(scene.sync().applied(), Vec::<String>::new());
    // And once more without anything of ours beside the data.
    scene.real_tool(&["reindex", "-u", "tom"]);
    scene.real_tool(&["compact", "-F", "-u", "tom"]);
    assert_eq!(scene.state(), state);
}

#[test]
fn a_user_who_is_gone_ends_now() {
    let Some(cyrus) = Cyrus::find_or_skip("a_user_who_is_gone_ends_now") else {
        return;
    };
    if Maker::under_test() == Maker::Cyrus {
        return;
    }
    let scene = Scene::start(&cyrus);
    scene.site.imap("tom").ok("SUBSCRIBE INBOX");
    scene.site.put_script("tom", "main", "keep;", true);
    scene.site.imap(ADMIN).ok("SETQUOTA user.tom (STORAGE 1000)");
    let _ = scene.sync();
    let files = scene.server.store_files().len();
    assert_eq!(scene.ask("APPLY UNUSER nobody"), "OK Success\r\n");
    assert_eq!(scene.server.store_files().len(), files, "a backup for nobody");
    assert_eq!(scene.ask("APPLY UNUSER tom"), "OK Success\r\n");
    assert_eq!(scene.ask("GET USER tom"), "OK Success\r\n");
    assert_eq!(scene.ask("GET MAILBOXES (user.tom)"), "OK Success\r\n");
    for command in [&["verify"][..], &["reindex"], &["verify"]] {
        scene.real_tool(&[command, &["-u", "tom"]].concat());
    }
    let listed =
        scene.real_tools.cyr_backup(&scene.server, &["tom", "list", "mailboxes"]).success();
    assert!(listed.stdout_text().contains("user.tom"), "not kept: {listed}");
    // He comes back under the same name.
    let again = scene.sync();
    again.assert_sent("APPLY MAILBOX");
    assert!(!again.applied().contains(&"APPLY MESSAGE".into()) || again.refusals().is_empty());
    assert_eq!(scene.sync().applied(), Vec::<String>::new());
}

/// A rolling client does not put these off, but repeats its round at once if they are refused.
#[test]
fn a_lock_is_waited_for() {
    let Some(cyrus) = Cyrus::find_or_skip("a_lock_is_waited_for") else {
        return;
    };
    if Maker::under_test() == Maker::Cyrus {
        return;
    }
    let scene = Scene::start(&cyrus);
    assert_eq!(scene.ask("APPLY QUOTA %(ROOT user.tom LIMIT 1)"), "OK Success\r\n");
    let lock = HeldLock::take(&scene.real_tools, &scene.server, "tom");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| scene.ask("APPLY QUOTA %(ROOT user.tom LIMIT 2)"));
        std::thread::sleep(std::time::Duration::from_millis(700));
        assert!(!waiting.is_finished(), "not under a foreign lock");
        lock.release();
        assert_eq!(waiting.join().unwrap(), "OK Success\r\n");
    });
    let quota = scene.ask("GET QUOTA user.tom");
    assert_eq!(quota, "* QUOTA %(ROOT user.tom LIMIT 2)\r\nOK Success\r\n");
}

/// A broken backup is put off by a rolling client, which goes on with the others; it would repeat
/// its round for ever if it were told what is wrong.
#[test]
fn a_broken_backup_holds_up_nobody_else() {
    let Some(cyrus) = Cyrus::find_or_skip("a_broken_backup_holds_up_nobody_else") else {
        return;
    };
    if Maker::under_test() == Maker::Cyrus {
        return;
    }
    let scene = Scene::start(&cyrus);
    scene.site.imap(ADMIN).create("user.zoe");
    let _ = scene.site.sync_rolling("tested").success();
    let data = scene.server.data_file("tom");
    let aside = data.with_extension("aside");
    std::fs::rename(&data, &aside).unwrap();
    std::fs::create_dir(&data).unwrap();
    scene.site.imap("tom").append("INBOX", "", DATE, &mail::note(2).bytes);
    scene.site.imap(ADMIN).create("user.zoe.Sub");
    let run = scene.site.sync("tested", &["-R", "-1"]);
    run.assert_sent("APPLY MAILBOX");
    assert!(run.requests().len() < 20, "in circles: {}", run.output);
    let deferred = std::fs::read_to_string(scene.site.sync_log_path("tested", "log")).unwrap();
    assert!(deferred.contains("user.tom") && !deferred.contains("zoe"), "{deferred}");
    std::fs::remove_dir(&data).unwrap();
    std::fs::rename(&aside, &data).unwrap();
    let run = scene.site.sync("tested", &["-R", "-1"]).success();
    run.assert_sent("APPLY MESSAGE");
}

/// A site may go back to Cyrus's backupd.
#[test]
fn the_real_server_goes_on_with_such_a_store() {
    let Some(cyrus) = Cyrus::find_or_skip("the_real_server_goes_on_with_such_a_store") else {
        return;
    };
    if Maker::under_test() == Maker::Cyrus {
        return;
    }
    let mut scene = Scene::start(&cyrus);
    scene.site.put_script("tom", "main", "keep;", true);
    scene.site.imap(ADMIN).ok("SETQUOTA user.tom (STORAGE 1000)");
    let _ = scene.sync();
    scene.server.stop();
    let real = scene.server.start_real(&cyrus);
    scene.site.imap("tom").append("INBOX", "", DATE, &mail::note(2).bytes);
    let run = scene.site.sync("tested", &["-u", "tom"]).success();
    run.assert_sent("APPLY MESSAGE");
    let changes = run.applied();
    assert!(!changes.contains(&"APPLY SEEN".into()), "{changes:?}");
    drop(real);
}

/// The real backupd refuses EXPUNGE, and the real tools crash on a log that holds it.
#[test]
fn an_expunge_is_stored_as_the_real_tools_know_it() {
    let Some(cyrus) = Cyrus::find_or_skip("an_expunge_is_stored_as_the_real_tools_know_it") else {
        return;
    };
    if Maker::under_test() == Maker::Cyrus {
        return;
    }
    let scene = Scene::start(&cyrus);
    scene.site.imap("tom").append("INBOX", "", DATE, &mail::note(2).bytes);
    scene.sync().assert_sent("APPLY MESSAGE");
    let told = scene.ask("GET FULLMAILBOX user.tom");
    let id = told.split_once("UNIQUEID ").unwrap().1.split(' ').next().unwrap();
    for (name, id) in [("user.tom", "other"), ("user.tom.none", id)] {
        let nothing = format!("APPLY EXPUNGE %(MBOXNAME {name} UNIQUEID {id} UID (1))");
        assert_eq!(scene.ask(&nothing), "OK Success\r\n");
    }
    assert_eq!(scene.ask("GET FULLMAILBOX user.tom"), told);
    let expunge = format!("APPLY EXPUNGE %(MBOXNAME user.tom UNIQUEID {id} UID (1 7))");
    for _ in 0..2 {
        assert_eq!(scene.ask(&expunge), "OK Success\r\n");
    }
    let is_gone = |told: &str| {
        let record = told.split("%(UID ").find(|text| text.starts_with("1 "));
        record.unwrap_or_else(|| panic!("{told}")).contains("\\Expunged")
    };
    assert!(is_gone(&scene.ask("GET FULLMAILBOX user.tom")));
    scene.real_tool(&["reindex", "tom"]);
    scene.real_tool(&["verify", "tom"]);
    assert!(is_gone(&scene.ask("GET FULLMAILBOX user.tom")));
    scene.real_tool(&["-F", "compact", "tom"]);
    scene.real_tool(&["verify", "tom"]);
    // Nobody had expunged it: the client notices, and settles.
    scene.sync().assert_sent("APPLY MAILBOX");
    assert!(!is_gone(&scene.ask("GET FULLMAILBOX user.tom")));
    assert_eq!(scene.sync().applied(), Vec::<String>::new());
}
