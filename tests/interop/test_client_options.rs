//! What the client does more rarely: renamed users, server annotations, `-O`, `-s`, `-p`.

use crate::backup_server::Maker;
use crate::cyrus::Cyrus;
use crate::mail;
use crate::pair::Pair;
use crate::raw_csync::RawCsync;
use crate::site::ADMIN;

const DATE: i64 = 1_000_000_000;

#[test]
fn a_renamed_user_is_backed_up_under_the_new_name() {
    let Some(cyrus) = Cyrus::find_or_skip("a_renamed_user_is_backed_up_under_the_new_name") else {
        return;
    };
    let pair = Pair::start(&cyrus, &["carol", "dave"]);
    pair.site.imap(ADMIN).create("user.carol");
    let mut carol = pair.site.imap("carol");
    carol.create("INBOX.Sent");
    for (number, mailbox) in [(1, "INBOX"), (2, "INBOX.Sent")] {
        carol.append(mailbox, "\\Seen", DATE, &mail::note(number).bytes);
    }
    carol.logout();
    let _ = pair.sync_rolling();
    let mut admin = pair.site.imap(ADMIN);
    admin.ok("RENAME user.carol user.dave");
    admin.logout();

    // It refuses what clients from 3.12 ask, and they never stop asking.
    let is_real_usable = pair.site.sync_rolling("real").output.status.is_some();
    let run = pair.site.sync_rolling("tested").success_with_refusals();
    pair.wait_until_closed();
    if pair.tested.maker == Maker::Cyrbk {
        assert_eq!(run.refusals(), Vec::<String>::new(), "{}", run.output);
        run.assert_sent("APPLY RENAME");
        // The mail has moved from backup to backup.
        assert!(!run.applied().contains(&"APPLY MESSAGE".to_owned()), "{}", run.output);
        // Under the old name it has ended, and is kept for the retention time.
        assert_eq!(pair.tested_rows("carol", "mailbox", "deleted IS NULL"), 0);
        assert_eq!(pair.tested_rows("carol", "mailbox", "deleted IS NOT NULL"), 2);
        assert_eq!(pair.tested_rows("carol", "message", "1"), 2);
    }
    pair.assert_settled(&["-u", "dave"], &[]);
    if is_real_usable {
        pair.assert_dumps("dave", "INBOX");
        pair.assert_dumps("dave", "INBOX.Sent");
    }
}

#[test]
fn server_annotations_do_not_stop_a_rolling_client() {
    let Some(cyrus) = Cyrus::find_or_skip("server_annotations_do_not_stop_a_rolling_client") else {
        return;
    };
    let maker = Maker::under_test();
    if maker == Maker::Cyrus {
        // The real backupd sends the client into an endless loop.
        return;
    }
    let pair = Pair::start(&cyrus, &["tom"]);
    let mut admin = pair.site.imap(ADMIN);
    admin.create("user.tom");
    admin.set_metadata("", "/shared/comment", b"to all");
    let run = pair.site.sync_rolling("tested").success();
    run.assert_sent("GET ANNOTATION");
}

#[test]
fn rarer_options_of_the_client_work() {
    let Some(cyrus) = Cyrus::find_or_skip("rarer_options_of_the_client_work") else {
        return;
    };
    let pair = Pair::start(&cyrus, &["tom"]);
    pair.site.imap(ADMIN).create("user.tom");
    let mut imap = pair.site.imap("tom");
    imap.append("INBOX", "", DATE, &mail::note(1).bytes);
    imap.ok("SUBSCRIBE INBOX");
    imap.logout();
    let _ = pair.sync(&["-u", "tom"]);
    let mut imap = pair.site.imap("tom");
    imap.append("INBOX", "", DATE, &mail::note(2).bytes);
    imap.ok("UNSUBSCRIBE INBOX");
    imap.logout();

    let meta = pair.sync(&["-s", "tom"]);
    assert_eq!(meta.applied(), ["APPLY UNSUB"]);
    let forced = pair.site.sync("tested", &["-O", "-u", "tom"]);
    pair.wait_until_closed();
    match pair.tested.maker {
        Maker::Cyrus => assert_eq!(forced.output.code(), 1, "{}", forced.output),
        Maker::Cyrbk => forced.success().assert_sent("APPLY MESSAGE"),
    }
    if RawCsync::connect(pair.tested.port).offers_compression() {
        let _ = pair.sync(&["-z", "-u", "tom"]);
    }
    let _ = pair.sync(&["-u", "tom"]);
    pair.assert_settled(&["-u", "tom"], &[]);
    pair.assert_same_rows();
    pair.assert_tools_agree(&[]);
}
