//! A folder emptied by mistake, and replicated so: the backup as it was before has the mails,
//! octet for octet, also after a compaction, until retention is over; and says what is gone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::backup_server::{BackupServer, CYRBK, Maker};
use crate::cyrus::{Cyrus, clean_command};
use crate::mail::{self, Message, guid};
use crate::process::{Output, run};
use crate::site::{ADMIN, Channel, Site};
use crate::tools::Tools;

const DATE: i64 = 1_000_000_000;
const TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Lets the second of the last line go by.
pub(crate) fn next_second() {
    let before = now();
    while now() <= before {
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Scene {
    site: Site,
    server: BackupServer,
    tools: Tools,
    messages: Vec<Message>,
    /// `--at=@...`, before the mistake.
    before: String,
}

impl Scene {
    /// Mail comes and is replicated; then Work is emptied, Old deleted, a flag set, and all of
    /// that is replicated too.
    fn start(cyrus: &Cyrus) -> Self {
        let server = BackupServer::start(cyrus, Maker::Cyrbk, &["tom"]);
        let channel = Channel::new("tested", server.port, false);
        let site = Site::start(cyrus, &["tom"], &[channel]);
        site.imap(ADMIN).create("user.tom");
        let mut messages = mail::corpus();
        messages.truncate(10);
        messages.extend([mail::all_octets(), mail::long_line()]);
        let mut imap = site.imap("tom");
        imap.create("INBOX.Work");
        imap.create("INBOX.Old");
        for message in &messages {
            imap.append("INBOX.Work", "\\Flagged $Todo", DATE, &message.bytes);
        }
        imap.append("INBOX.Old", "", DATE, &mail::note(1).bytes);
        imap.append("INBOX", "", DATE, &mail::note(2).bytes);
        imap.ok("SUBSCRIBE INBOX.Old");
        let _ = site.sync("tested", &["-u", "tom"]).success();
        next_second();
        let before = format!("--at=@{}", now());
        next_second();
        imap.select("INBOX.Work");
        imap.ok("UID STORE 1:* +FLAGS (\\Deleted)");
        imap.ok("EXPUNGE");
        imap.unselect();
        imap.ok("DELETE INBOX.Old");
        imap.ok("UNSUBSCRIBE INBOX.Old");
        imap.select("INBOX");
        imap.ok("UID STORE 1 +FLAGS (\\Seen)");
        imap.logout();
        let _ = site.sync("tested", &["-u", "tom"]).success();
        let tools = Tools::new(cyrus, Maker::Cyrbk);
        Self { site, server, tools, messages, before }
    }

    fn cyr_backup(&self, args: &[&str]) -> Output {
        self.tools.cyr_backup(&self.server, args)
    }

    fn cyrbk(&self, words: &[&str]) -> Output {
        cyrbk(&self.server, words)
    }

    fn guids_of_work(&self) -> BTreeSet<String> {
        self.messages.iter().map(|message| guid(&message.bytes)).collect()
    }

    /// What an export of Work holds, as of before the mistake.
    fn exported(&self, name: &str) -> (BTreeSet<String>, Output) {
        let dir = self.server.make_dir("out").join(name);
        let place = dir.to_str().unwrap();
        let words = ["export", "tom", "user/tom/Work", &self.before, "--eml", place];
        let output = self.cyrbk(&words);
        (guids_in(&dir), output)
    }

    fn compact(&self, retention: &str) {
        compact(&self.server, retention);
    }
}

/// `ctl_backups compact` with this retention.
pub(crate) fn compact(server: &BackupServer, retention: &str) {
    let conf = fs::read_to_string(server.imapd_conf()).unwrap();
    let other = server.imapd_conf().with_extension("compact");
    fs::write(&other, conf + &format!("backup_retention: {retention}\n")).unwrap();
    server.give_away(&other);
    let mut command = clean_command(Path::new(CYRBK));
    command.args(["compact", "--force", "tom", "-C"]).arg(&other);
    let output = run(command, TIMEOUT).success();
    assert!(output.stdout_text().contains("ok"), "{output}");
}

/// Runs `cyrbk` on the server's store.
pub(crate) fn cyrbk(server: &BackupServer, words: &[&str]) -> Output {
    let mut command = clean_command(Path::new(CYRBK));
    command.args(words).arg("-C").arg(server.imapd_conf());
    run(command, TIMEOUT)
}

fn guids_in(dir: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeSet::new() };
    entries.map(|entry| guid(&fs::read(entry.unwrap().path()).unwrap())).collect()
}

#[test]
fn before_the_mistake_everything_is_there() {
    let Some(cyrus) = Cyrus::find_or_skip("before_the_mistake_everything_is_there") else { return };
    let scene = Scene::start(&cyrus);
    let work = "user/tom/Work";
    let store = scene.server.store_files();

    // Now: nothing lives there.
    let output = scene.cyr_backup(&["tom", "dump", "mailbox", work]).success();
    assert_eq!(output.stdout, b"");
    // Then: every message, octet for octet.
    let (guids, output) = scene.exported("exact");
    assert_eq!(output.code(), 0, "{output}");
    assert_eq!(output.stderr_text(), "");
    assert_eq!(guids, scene.guids_of_work());
    for message in &scene.messages {
        let dump = ["tom", "dump", "message", &guid(&message.bytes), &scene.before];
        assert_eq!(scene.cyr_backup(&dump).success().stdout, message.bytes);
    }
    let shown = scene.cyr_backup(&["tom", &scene.before, "show", "mailboxes", work]).success();
    let text = shown.stdout_text();
    let living = |line: &&str| line.split_whitespace().count() == 2 && line.starts_with(' ');
    assert_eq!(text.lines().filter(living).count(), scene.messages.len(), "{text}");
    let listed = |at: &[&str]| {
        let words = [&["tom", "list", "mailboxes"], at].concat();
        scene.cyr_backup(&words).success().stdout_text()
    };
    let names = |text: &str| -> BTreeSet<String> {
        text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
    };
    let then = names(&listed(&[&scene.before]));
    let expected = ["mboxname", "user.tom", "user.tom.Old", "user.tom.Work"].map(str::to_owned);
    assert_eq!(then, BTreeSet::from(expected));
    // Before there was anything.
    let nothing = scene.cyr_backup(&["tom", "list", "messages", "--at=2001-01-01 12:00"]).success();
    assert_eq!(nothing.stdout, b"");
    assert!(nothing.stderr_text().contains("nothing yet, it begins at"), "{nothing}");
    let wrong = scene.cyr_backup(&["tom", "list", "messages", "--at=noon"]);
    assert_eq!(wrong.code(), 64, "{wrong}");
    // Nobody has written.
    assert_eq!(scene.server.store_files(), store);
    drop(scene.site);
}

#[test]
fn after_a_compaction_it_is_said_what_is_gone() {
    let Some(cyrus) = Cyrus::find_or_skip("after_a_compaction_it_is_said_what_is_gone") else {
        return;
    };
    let scene = Scene::start(&cyrus);
    // Within retention nothing is lost but the certainty.
    scene.compact("7d");
    let (guids, output) = scene.exported("kept");
    assert_eq!(output.code(), 0, "{output}");
    assert_eq!(guids, scene.guids_of_work());
    let said = output.stderr_text();
    assert!(said.contains("not exact, compacted at"), "{said}");
    assert!(said.contains("outlived it were added"), "{said}");
    // What was put aside later, under another name, has its own.
    let list = ["tom", "list", "mailboxes", &scene.before];
    let listed = scene.cyr_backup(&list).success().stdout_text();
    assert!(listed.lines().any(|line| line.ends_with("user.tom.Old")), "{listed}");
    assert!(!listed.contains("DELETED"), "{listed}");
    // After it they are gone, and that is said; real tools read what is left.
    next_second();
    next_second();
    scene.compact("1s");
    let (guids, output) = scene.exported("gone");
    assert_eq!(guids, BTreeSet::new());
    let said = output.stderr_text();
    assert!(said.contains("what was deleted or expunged until"), "{said}");
    let real = Tools::new(&cyrus, Maker::Cyrus);
    let verify = real.ctl_backups(&scene.server, &["verify", "tom"]).success();
    assert_eq!(verify.stderr_text(), "", "{verify}");
    // An index built anew knows it too.
    let reindexed = scene.tools.ctl_backups(&scene.server, &["reindex", "tom"]).success();
    assert_eq!(reindexed.stderr_text(), "", "{reindexed}");
    let (_, again) = scene.exported("again");
    assert_eq!(again.stderr_text(), said);
    // So does one that Cyrus has built, and what Cyrus's own compact leaves.
    let _ = real.ctl_backups(&scene.server, &["reindex", "tom"]).success();
    let (_, again) = scene.exported("cyrus");
    assert_eq!(again.stderr_text(), said);
    next_second();
    let _ = real.ctl_backups(&scene.server, &["compact", "-F", "tom"]).success();
    let (_, again) = scene.exported("cyrus-compact");
    let said = again.stderr_text();
    assert!(said.contains("compacted by Cyrus before"), "{said}");
}
