//! The backup never changes the mail server. The client is two-way: whatever could make it
//! renumber, expunge, flag or copy mail back is driven here, and IMAP shows that nothing did.

use std::fs;

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::mail;
use crate::raw_csync::RawCsync;
use crate::site::{ADMIN, Channel, PASSWORD, Site};
use crate::sync_client::SyncRun;

const DATE: i64 = 1_000_000_000;
const CHECKSUM: &str = "NO IMAP_SYNC_CHECKSUM Checksum Failure";
const FOLDERS: [&str; 2] = ["INBOX", "INBOX.Work"];

/// A mail server with one user, and cyrbk.
struct Scene {
    site: Site,
    server: BackupServer,
}

impl Scene {
    fn start(cyrus: &Cyrus) -> Self {
        Self::start_with(cyrus, &[])
    }

    fn start_with(cyrus: &Cyrus, changes: &[&str]) -> Self {
        let server = BackupServer::start(cyrus, Maker::Cyrbk, &["tom"]);
        let channel = Channel::new("tested", server.port, false);
        let site = Site::start_with(cyrus, &["tom"], &[channel], changes);
        site.imap(ADMIN).create("user.tom");
        let mut imap = site.imap("tom");
        imap.create("INBOX.Work");
        for number in 1..=4 {
            imap.append("INBOX", "\\Seen $Label", DATE, &mail::note(number).bytes);
        }
        // The same message twice, and one that was expunged and delivered again.
        imap.append("INBOX", "", DATE, &mail::note(1).bytes);
        imap.append("INBOX.Work", "\\Flagged", DATE, &mail::note(7).bytes);
        imap.append("INBOX.Work", "", DATE, &mail::note(8).bytes);
        imap.logout();
        let scene = Self { site, server };
        let _ = scene.sync(&["-u", "tom"]).success();
        scene.expunge("INBOX.Work", "1");
        let _ = scene.sync(&["-u", "tom"]).success();
        scene.site.imap("tom").append("INBOX.Work", "", DATE, &mail::note(7).bytes);
        let _ = scene.sync(&["-u", "tom"]).success();
        scene
    }

    fn expunge(&self, folder: &str, uids: &str) {
        let mut imap = self.site.imap("tom");
        imap.select(folder);
        imap.ok(&format!("UID STORE {uids} +FLAGS.SILENT (\\Deleted)"));
        imap.ok("EXPUNGE");
        imap.unselect();
        imap.logout();
    }

    /// Removes expunged records for good, so that the master can no longer tell of them.
    fn purge(&self) {
        let _ = self.site.program("cyr_expire", &["-E", "1", "-X", "0", "-v"]);
    }

    fn sync(&self, args: &[&str]) -> SyncRun {
        self.site.sync("tested", args)
    }

    fn snapshot(&self) -> Vec<Vec<String>> {
        let mut imap = self.site.imap("tom");
        let folders = FOLDERS.map(|folder| imap.snapshot(folder));
        imap.logout();
        folders.into()
    }

    fn ask(&self, request: &str) -> String {
        let mut csync = RawCsync::login(self.server.port, ADMIN, PASSWORD);
        let reply = csync.ask_whole(format!("{request}\r\n").as_bytes());
        assert_eq!(csync.ask(b"EXIT\r\n"), "OK Finished\r\n");
        reply
    }

    /// Tells the backup what the master would have sent in a time that is then lost to it: UID 1
    /// expunged, a flag on UID 3, UID 4 replaced by UID 9.
    fn send_the_future(&self) {
        let reply = self.ask("GET FULLMAILBOX user.tom");
        let line = reply.lines().next().unwrap().strip_prefix("* ").unwrap();
        let modseq: u64 = field(line, "HIGHESTMODSEQ").parse().unwrap();
        let record =
            |uid: u32| line.split("%(").find(|r| r.starts_with(&format!("UID {uid} "))).unwrap();
        let newer = |record: &str| {
            let old = format!("MODSEQ {}", field(record, "MODSEQ"));
            record.replacen(&old, &format!("MODSEQ {}", modseq + 5), 1)
        };
        let ahead = line
            .replacen(
                &format!("HIGHESTMODSEQ {modseq}"),
                &format!("HIGHESTMODSEQ {}", modseq + 5),
                1,
            )
            .replacen("LAST_UID 5", "LAST_UID 9", 1)
            .replace(record(1), &newer(record(1)).replace("FLAGS (", "FLAGS (\\Expunged "))
            .replace(record(3), &newer(record(3)).replace("FLAGS (", "FLAGS (\\Draft "))
            .replace(record(4), &newer(record(4)).replace("UID 4 ", "UID 9 "));
        let crc = format!("SYNC_CRC {}", sync_crc(&ahead));
        let ahead = ahead.replacen(&format!("SYNC_CRC {}", field(&ahead, "SYNC_CRC")), &crc, 1);
        assert_eq!(self.ask(&format!("APPLY {ahead}")), "OK Success\r\n");
    }

    /// Runs the client until it is content, at most `runs` times; the master must stay as it is,
    /// and the backup must know every folder as the master does. Returns the first run.
    fn settle(&self, args: &[&str], runs: usize) -> SyncRun {
        let before = self.snapshot();
        let first = self.sync(args);
        assert_eq!(self.snapshot(), before, "the mail server was changed: {}", first.output);
        for run in 1.. {
            let again = self.sync(args);
            assert_eq!(self.snapshot(), before, "the mail server was changed: {}", again.output);
            let changes = again.applied().iter().any(|request| request != "APPLY FORCE");
            if again.output.code() == 0 && !changes {
                break;
            }
            assert!(run < runs, "does not settle: {}\n{}", first.output, again.output);
        }
        self.assert_complete();
        first
    }

    /// Panics unless the living records of the backup are exactly the master's.
    fn assert_complete(&self) {
        let mut imap = self.site.imap("tom");
        for folder in FOLDERS {
            let name = folder.replace("INBOX", "user.tom");
            let reply = self.ask(&format!("GET FULLMAILBOX {name}"));
            let mut living: Vec<(u32, String)> = Vec::new();
            for record in reply.split("%(UID ").skip(1) {
                let uid = record.split(' ').next().unwrap().parse().unwrap();
                let guid = record.split("GUID ").nth(1).unwrap()[..40].to_owned();
                let flags = record.split("FLAGS (").nth(1).unwrap().split(')').next().unwrap();
                if !flags.contains("\\Expunged") {
                    living.push((uid, guid));
                }
            }
            let wanted: Vec<(u32, String)> = imap
                .fetch_all(folder)
                .into_iter()
                .map(|message| (message.uid, mail::guid(&message.body)))
                .collect();
            assert_eq!(living, wanted, "{folder}: {reply}");
        }
    }
}

fn scene(test: &str) -> Option<Scene> {
    let cyrus = Cyrus::find_or_skip(test)?;
    (Maker::under_test() == Maker::Cyrbk).then(|| Scene::start(&cyrus))
}

#[test]
fn after_the_master_purged_what_the_backup_still_has() {
    let Some(scene) = scene("after_the_master_purged_what_the_backup_still_has") else { return };
    scene.expunge("INBOX", "2");
    scene.expunge("INBOX.Work", "2");
    scene.purge();
    let run = scene.settle(&["-u", "tom"], 1).success();
    run.assert_sent("GET FULLMAILBOX");
}

#[test]
fn after_a_purge_with_a_client_that_may_not_copy_back() {
    let Some(scene) = scene("after_a_purge_with_a_client_that_may_not_copy_back") else { return };
    scene.expunge("INBOX", "2");
    scene.expunge("INBOX.Work", "2");
    scene.purge();
    // With the real backupd this never ends well.
    let _ = scene.settle(&["-O", "-u", "tom"], 3);
}

/// Clients before 3.12 find no order for the renames; with any other server they never back up
/// that user again.
#[test]
fn after_mailboxes_have_exchanged_their_names() {
    let Some(scene) = scene("after_mailboxes_have_exchanged_their_names") else { return };
    let mut imap = scene.site.imap("tom");
    imap.create("INBOX.Play");
    imap.append("INBOX.Play", "\\Answered", DATE, &mail::note(30).bytes);
    imap.logout();
    let _ = scene.sync(&["-u", "tom"]).success();
    let mut imap = scene.site.imap("tom");
    for (from, to) in [("Work", "Between"), ("Play", "Work"), ("Between", "Play")] {
        imap.ok(&format!("RENAME INBOX.{from} INBOX.{to}"));
    }
    imap.logout();
    let _ = scene.settle(&["-u", "tom"], 3);
    let exchanged = scene.ask("GET FULLMAILBOX user.tom.Work");
    assert!(exchanged.contains(&mail::guid(&mail::note(30).bytes)), "{exchanged}");
}

/// The third answer in a row does not tell of all mailboxes, and that is forgotten.
#[test]
fn after_somebody_asked_three_times_for_nothing() {
    let name = "after_somebody_asked_three_times_for_nothing";
    let Some(cyrus) = Cyrus::find_or_skip(name) else { return };
    if Maker::under_test() != Maker::Cyrbk {
        return;
    }
    let scene = Scene::start_with(&cyrus, &["delete_mode: immediate"]);
    let _ = scene.settle(&["-u", "tom", "tom"], 1).success();
    let thrice = scene.sync(&["-u", "tom", "tom", "tom"]).success();
    assert!(!thrice.requests().iter().any(|sent| sent.contains("APPLY MESSAGE")));
    scene.assert_complete();
    // One that is killed before it sends what it was not told of.
    let mut csync = RawCsync::login(scene.server.port, ADMIN, PASSWORD);
    let told: Vec<bool> = (0..3)
        .map(|_| csync.ask_whole(b"GET USER tom\r\n").contains("MBOXNAME user.tom.Work"))
        .collect();
    assert_eq!(told, [true, true, false]);
    drop(csync);
    scene.site.imap("tom").ok("DELETE INBOX.Work");
    scene.sync(&["-u", "tom"]).success().assert_sent("APPLY UNMAILBOX");
}

#[test]
fn after_an_older_backup_was_put_back() {
    let Some(scene) = scene("after_an_older_backup_was_put_back") else { return };
    scene.server.save_store("older");
    let mut imap = scene.site.imap("tom");
    imap.append("INBOX", "", DATE, &mail::note(20).bytes);
    imap.select("INBOX");
    imap.ok("UID STORE 3 +FLAGS.SILENT (\\Flagged)");
    imap.logout();
    scene.expunge("INBOX", "4");
    let _ = scene.sync(&["-u", "tom"]).success();
    scene.server.restore_store("older");
    let _ = scene.settle(&["-u", "tom"], 1).success();

    // And the same when the master has since forgotten what the older backup knows.
    scene.expunge("INBOX", "3");
    let _ = scene.sync(&["-u", "tom"]).success();
    scene.purge();
    scene.server.restore_store("older");
    let run = scene.settle(&["-u", "tom"], 1).success();
    run.assert_sent("GET FULLMAILBOX");
}

/// The mail server was restored from an older state: the backup knows mail, flags and expunges
/// that never happened.
#[test]
fn after_the_master_went_back() {
    let Some(scene) = scene("after_the_master_went_back") else { return };
    scene.send_the_future();
    let run = scene.settle(&["-u", "tom"], 1).success_with_refusals();
    assert_eq!(run.refusals(), [CHECKSUM]);

    // Nor when the master purges at once: the backup must not take anything back with it.
    scene.send_the_future();
    scene.expunge("INBOX", "2");
    scene.purge();
    let _ = scene.settle(&["-u", "tom"], 1).success_with_refusals();
}

/// The same, and it has gone on since, beyond what it had sent: no number tells, and the mail that
/// came under UIDs of the lost time would never be sent.
#[test]
fn after_the_master_went_back_and_on() {
    let Some(scene) = scene("after_the_master_went_back_and_on") else { return };
    scene.send_the_future();
    let mut imap = scene.site.imap("tom");
    for number in 50..60 {
        imap.append("INBOX", "", DATE, &mail::note(number).bytes);
    }
    imap.logout();
    let run = scene.settle(&["-u", "tom"], 1).success_with_refusals();
    assert_eq!(run.refusals(), [CHECKSUM]);
}

#[test]
fn after_the_index_was_lost_or_damaged() {
    let Some(scene) = scene("after_the_index_was_lost_or_damaged") else { return };
    let data = scene.server.data_file("tom");
    let index = std::path::PathBuf::from(format!("{}.index", data.display()));
    fs::remove_file(&index).unwrap();
    let first = scene.settle(&["-u", "tom"], 1).success();
    assert_eq!(first.applied(), Vec::<String>::new());
    fs::write(&index, "not a data base").unwrap();
    scene.site.imap("tom").append("INBOX", "", DATE, &mail::note(30).bytes);
    let _ = scene.settle(&["-u", "tom"], 1).success();
    // The data were cut behind the index's back.
    let octets = fs::read(&data).unwrap();
    fs::write(&data, &octets[..octets.len() / 2]).unwrap();
    let _ = scene.settle(&["-u", "tom"], 2);
    // All of it: the client sends everything again.
    fs::remove_file(&index).unwrap();
    fs::write(&data, "").unwrap();
    let _ = scene.settle(&["-u", "tom"], 1).success();
}

#[test]
fn after_a_mailbox_was_made_anew() {
    let Some(scene) = scene("after_a_mailbox_was_made_anew") else { return };
    let mut imap = scene.site.imap("tom");
    imap.ok("DELETE INBOX.Work");
    imap.create("INBOX.Work");
    imap.append("INBOX.Work", "", DATE, &mail::note(40).bytes);
    imap.append("INBOX.Work", "", DATE, &mail::note(8).bytes);
    imap.logout();
    let _ = scene.settle(&["-u", "tom"], 1).success();
}

#[test]
fn after_checksums_and_uidvalidity_in_the_backup_went_wrong() {
    let Some(scene) = scene("after_checksums_and_uidvalidity_in_the_backup_went_wrong") else {
        return;
    };
    let reply = scene.ask("GET MAILBOXES (user.tom)");
    let line = reply.lines().next().unwrap().strip_prefix("* ").unwrap();
    let wrong = |name: &str, value: &str| {
        let line = line.strip_suffix(')').unwrap();
        let right = format!(" {name} {}", field(line, name));
        format!("APPLY {} RECORD ())", line.replacen(&right, &format!(" {name} {value}"), 1))
    };
    for (name, value) in [("SYNC_CRC", "1"), ("SYNC_CRC_ANNOT", "1"), ("UIDVALIDITY", "1")] {
        assert_eq!(scene.ask(&wrong(name, value)), "OK Success\r\n");
        let _ = scene.settle(&["-u", "tom"], 2).success();
    }
}

/// The checksum over the living records of a mailbox.
fn sync_crc(mailbox: &str) -> u32 {
    mailbox.split("%(UID ").skip(1).fold(0, |sum, record| {
        let record = format!("UID {record}");
        let flags = record.split("FLAGS (").nth(1).unwrap().split(')').next().unwrap();
        if flags.contains("\\Expunged") {
            return sum;
        }
        let flags = flags
            .split_whitespace()
            .fold(0, |sum, flag| sum ^ crc32fast::hash(flag.to_lowercase().as_bytes()));
        let [uid, modseq, updated, date, guid] =
            ["UID", "MODSEQ", "LAST_UPDATED", "INTERNALDATE", "GUID"]
                .map(|name| field(&record, name));
        let text = format!("{uid} {modseq} {updated} ({flags}) {date} {guid}");
        sum ^ crc32fast::hash(text.as_bytes())
    })
}

/// The value of a field: one word.
fn field(line: &str, name: &str) -> String {
    let rest = line.split(&format!("{name} ")).nth(1).unwrap();
    rest.split([' ', ')']).next().unwrap().to_owned()
}
