//! Cyrus's compaction drops live mail that had been expunged once and came back; a site may have
//! run it for years. cyrbk, on what it has left, makes the real client send that mail again.

use std::fs;
use std::time::Duration;

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::mail;
use crate::site::{ADMIN, Channel, Site};
use crate::tools::Tools;

const DATE: i64 = 1_000_000_000;

#[test]
fn live_mail_that_cyrus_has_dropped_is_sent_again() {
    let test = "live_mail_that_cyrus_has_dropped_is_sent_again";
    let Some(cyrus) = Cyrus::find_or_skip(test) else { return };
    if Maker::under_test() == Maker::Cyrus {
        // It takes its backup for complete.
        return;
    }
    let server = BackupServer::start(&cyrus, Maker::Cyrbk, &["tom"]);
    let site = Site::start(&cyrus, &["tom"], &[Channel::new("tested", server.port, false)]);
    let sync = || site.sync("tested", &["-u", "tom"]).success_with_refusals();
    let [came_back, stayed, passing] = [1, 2, 3].map(mail::note);
    site.imap(ADMIN).create("user.tom");
    let mut imap = site.imap("tom");
    imap.append("INBOX", "", DATE, &came_back.bytes);
    imap.append("INBOX", "", DATE, &stayed.bytes);
    let _ = sync();
    imap.select("INBOX");
    imap.ok("UID STORE 1 +FLAGS (\\Deleted)");
    imap.ok("EXPUNGE");
    let _ = sync();
    imap.append("INBOX", "", DATE, &came_back.bytes);
    imap.append("INBOX", "", DATE, &passing.bytes);
    let _ = sync();
    // So that the chunk is written again, without the record of what came back.
    imap.ok("UID STORE 4 +FLAGS (\\Deleted)");
    imap.ok("EXPUNGE");
    let _ = sync();
    assert_eq!(sync().applied(), Vec::<String>::new());

    let conf = server.imapd_conf();
    let text = fs::read_to_string(&conf).unwrap();
    fs::write(&conf, text + "backup_retention: 1s\nbackup_compact_minsize: 1000\n").unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let real = Tools::new(&cyrus, Maker::Cyrus);
    let _ = real.ctl_backups(&server, &["compact", "-F", "tom"]).success();
    let dump = |message: &mail::Message| {
        let guid = mail::guid(&message.bytes);
        real.cyr_backup(&server, &["tom", "dump", "message", &guid]).stdout
    };
    assert_eq!(dump(&came_back), b"", "nothing was dropped, and nothing is shown");

    sync().assert_sent("APPLY MESSAGE");
    assert_eq!(dump(&came_back), came_back.bytes);
    assert_eq!(dump(&stayed), stayed.bytes);
    assert_eq!(sync().applied(), Vec::<String>::new(), "it goes on asking");
}
