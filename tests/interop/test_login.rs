//! Who may not store anything.

use std::time::Duration;

use crate::backup_server::{BackupServer, Maker};
use crate::cyrus::Cyrus;
use crate::mail;
use crate::site::{ADMIN, Channel, Site};

/// A client that cannot log in tries again for ever; the second try comes after 15 s.
const GIVE_UP: Duration = Duration::from_secs(5);

#[test]
fn only_an_administrator_with_the_right_password_gets_in() {
    let Some(cyrus) = Cyrus::find_or_skip("only_an_administrator_with_the_right_password_gets_in")
    else {
        return;
    };
    let mut server = BackupServer::start(&cyrus, Maker::under_test(), &["tom"]);
    let good = Channel::new("good", server.port, false);
    let wrong_password = Channel { name: "wrong", password: "not-it", ..good.clone() };
    let nobody = Channel { name: "nobody", user: "nobody", ..good.clone() };
    let not_admin = Channel { name: "user", user: "tom", ..good.clone() };
    let site = Site::start(&cyrus, &["tom"], &[good, wrong_password, nobody, not_admin]);
    site.imap(ADMIN).create("user.tom");
    site.imap("tom").append("INBOX", "", 1_000_000_000, &mail::note(1).bytes);
    let _ = site.sync("good", &["-u", "tom"]).success();
    site.imap("tom").append("INBOX", "", 1_000_000_000, &mail::note(2).bytes);
    server.wait_until_closed();
    let before = server.store_files();

    for channel in ["wrong", "nobody"] {
        let run = site.sync_within(channel, &["-u", "tom"], GIVE_UP);
        assert!(run.output.status.is_none_or(|status| !status.success()), "{}", run.output);
        let complaint = "Can not connect to server '127.0.0.1'";
        assert!(run.output.stderr_text().contains(complaint), "{}", run.output);
        assert_eq!(run.requests(), Vec::<String>::new(), "{}", run.output);
    }
    let run = site.sync("user", &["-u", "tom"]);
    assert_eq!(run.output.code(), 1, "{}", run.output);
    assert!(run.refusals().iter().any(|line| line == "NO Permission denied"), "{}", run.output);
    assert_eq!(run.applied(), Vec::<String>::new(), "{}", run.output);

    server.wait_until_closed();
    assert_eq!(server.store_files(), before, "the store was touched");
    server.assert_alive();
    let run = site.sync("good", &["-u", "tom"]).success();
    run.assert_sent("APPLY MESSAGE");
}
