//! Mail that damage has cost, behind a compaction of cyrbk's: the real client sends it again. What
//! its mail server has purged meanwhile stays for the retention time, for the real tools, too.

use std::fs;

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::index_rows;
use crate::mail;
use crate::site::{ADMIN, Channel, Site};
use crate::tools::Tools;

const DATE: i64 = 1_000_000_000;

#[test]
fn mail_lost_behind_a_compaction_is_sent_again() {
    let test = "mail_lost_behind_a_compaction_is_sent_again";
    let Some(cyrus) = Cyrus::find_or_skip(test) else { return };
    if Maker::under_test() == Maker::Cyrus {
        // It takes its backup for complete.
        return;
    }
    let server = BackupServer::start(&cyrus, Maker::Cyrbk, &["tom"]);
    let site = Site::start(&cyrus, &["tom"], &[Channel::new("tested", server.port, false)]);
    let [real, tested] = [Maker::Cyrus, Maker::Cyrbk].map(|maker| Tools::new(&cyrus, maker));
    let sync = || site.sync("tested", &["-u", "tom"]).success_with_refusals();
    let compact = || tested.ctl_backups(&server, &["compact", "-F", "tom"]);
    let notes = [1, 2, 3, 4, 5].map(mail::note);
    site.imap(ADMIN).create("user.tom");
    let mut imap = site.imap("tom");
    notes[..3].iter().for_each(|note| imap.append("INBOX", "", DATE, &note.bytes));
    let _ = sync();
    // A record goes from the line that the mailbox begins with.
    imap.select("INBOX");
    imap.ok("UID STORE 1 +FLAGS (\\Flagged)");
    let _ = sync();
    let _ = compact().success();
    let path = server.data_file("tom");
    let len = || fs::metadata(&path).unwrap().len() as usize;
    let from = len();
    imap.append("INBOX", "", DATE, &notes[3].bytes);
    let _ = sync();
    let end = len();
    imap.append("INBOX", "", DATE, &notes[4].bytes);
    let _ = sync();

    let mut octets = fs::read(&path).unwrap();
    octets[from + 20..end - 12].fill(0xff);
    fs::write(&path, octets).unwrap();
    let _ = compact();
    imap.ok("UID STORE 2 +FLAGS (\\Deleted)");
    imap.ok("EXPUNGE");
    let _ = site.program("cyr_expire", &["-E", "1", "-X", "0"]);
    sync().assert_sent("APPLY MESSAGE");
    let assert_all_there = |after: &str| {
        for note in &notes {
            let guid = mail::guid(&note.bytes);
            let dump = real.cyr_backup(&server, &["tom", "dump", "message", &guid]);
            assert_eq!(dump.stdout, note.bytes, "{after}");
        }
        assert_eq!(sync().applied(), Vec::<String>::new(), "it goes on asking {after}");
    };
    assert_all_there("after it was sent again");

    // No line says that UID 2 is expunged.
    let _ = compact().success();
    assert_all_there("after compact");
    for tools in [&real, &tested] {
        let _ = tools.ctl_backups(&server, &["reindex", "tom"]).success();
        let _ = tools.ctl_backups(&server, &["verify", "tom"]).success();
        let index =
            path.with_file_name(format!("{}.index", path.file_name().unwrap().to_str().unwrap()));
        let expunged = "uid = 2 AND expunged IS NOT NULL";
        assert_eq!(index_rows::count(&index, "mailbox_message", expunged), 1);
        assert_eq!(index_rows::count(&index, "mailbox_message", "expunged IS NULL"), 4);
        assert_all_there("after reindex");
    }
}
