//! XBACKUP: an IMAP server, up to 3.10, that sends users to a backup server by itself.

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::mail;
use crate::site::{ADMIN, Channel, Site};

const DATE: i64 = 1_010_361_600;

#[test]
fn an_imap_server_sends_users_and_shared_mailboxes() {
    let test = "an_imap_server_sends_users_and_shared_mailboxes";
    let Some(cyrus) = Cyrus::find_or_skip(test) else { return };
    let server = BackupServer::start(&cyrus, Maker::under_test(), &["tom", "ann"]);
    let channel = Channel::new("tested", server.port, server.maker == Maker::Cyrbk);
    let users = ["tom", "ann"];
    let site = Site::start_with(&cyrus, &users, &[channel], &["xbackup_enabled: yes"]);
    let mut admin = site.imap(ADMIN);
    if admin.status("XBACKUP").contains("Unrecognized") {
        eprintln!("SKIPPED: {test}: mail servers from 3.12 on have no XBACKUP");
        return;
    }
    for mailbox in ["user.tom", "user.tom.Work", "user.ann", "shared"] {
        admin.create(mailbox);
    }
    for user in users {
        site.imap(user).append("INBOX", "\\Flagged", DATE, &mail::note(1).bytes);
    }
    site.imap("tom").append("INBOX", "", DATE, &mail::huge(300_000).bytes);

    let told = admin.lines("XBACKUP * tested");
    assert_eq!(told, ["* OK USER ann", "* OK USER tom", "* OK MAILBOX shared"]);
    // Nothing is left to send.
    for args in [&["-u", "tom", "ann"][..], &["-m", "shared"]] {
        let run = site.sync("tested", args).success();
        assert!(run.applied().is_empty(), "{args:?}: {:?}", run.applied());
    }
    // One user alone, with what is new.
    site.imap("ann").append("INBOX", "", DATE, &mail::note(2).bytes);
    assert_eq!(admin.lines("XBACKUP user.ann tested"), ["* OK USER ann"]);
    let run = site.sync("tested", &["-u", "ann"]).success();
    assert!(run.applied().is_empty(), "{:?}", run.applied());
}
