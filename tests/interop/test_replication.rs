//! The main job, end to end.

use crate::backup_server::Maker;
use crate::cyrus::Cyrus;
use crate::imap::Imap;
use crate::mail::{self, Message};
use crate::pair::Pair;
use crate::site::Site;

/// Names as in the user's namespace, in modified UTF-7.
const WORK: &str = "INBOX.Work";
const ODD_NAMES: [&str; 6] = [
    "INBOX.With Space",
    "INBOX.br[ack]ets",
    "INBOX.(round)",
    "INBOX.&AOk-t&AOk- &ZeVnLIqe-",
    "INBOX.Work.2002",
    "INBOX.amp&-ersand",
];
const FLAGS: [&str; 6] =
    ["", "\\Seen", "\\Flagged \\Answered", "\\Draft $Forwarded", "NonJunk $Label1", "\\Seen Junk"];
/// The client repeats it at each sync: the real backupd does not tell which script is active.
const ACTIVATE: &str = "APPLY ACTIVATE_SIEVE";

/// The first Monday of 2002, about the time of the corpus.
const FIRST_DATE: i64 = 1_010_361_600;

#[test]
fn a_site_is_backed_up_like_by_the_real_server() {
    let Some(cyrus) = Cyrus::find_or_skip("a_site_is_backed_up_like_by_the_real_server") else {
        return;
    };
    let mut pair = Pair::start(&cyrus, &["tom", "ann"]);
    fill_tom(&pair.site);
    fill_shared(&pair.site);

    let first = pair.sync(&["-u", "tom"]);
    first.assert_sent("APPLY MESSAGE");
    pair.assert_settled(&["-u", "tom"], &[]);
    let _ = pair.sync(&["-m", "shared.news", "user.ann"]);
    pair.assert_settled(&["-m", "shared.news", "user.ann"], &[]);
    if pair.tested.maker == Maker::Cyrbk {
        // The real backupd refuses to answer for two users at once.
        pair.assert_settled(&["-m", "user.tom.Work", "user.ann", "shared.news"], &[]);
    }
    let _ = pair.sync(&["-A"]);
    pair.assert_settled(&["-A"], &[]);
    pair.assert_same_rows();
    // What the scenario is meant to hold, so that "the same" is not "both empty".
    assert_eq!(pair.tested_rows("tom", "mailbox", "deleted IS NULL"), 9);
    assert!(pair.tested_rows("tom", "message", "1") >= 30);
    assert_eq!(pair.tested_rows("tom", "subscription", "unsubscribed IS NULL"), 3);
    assert_eq!(pair.tested_rows("tom", "sieve", "deleted IS NULL"), 1);
    assert_eq!(pair.tested_rows("ann", "seen", "seenuids <> ''"), 1);
    assert!(pair.tested_rows("tom", "mailbox", "annotations <> ''") >= 1);

    change_everything(&pair.site);
    let rolling = pair.sync_rolling();
    for request in ["APPLY RENAME", "APPLY RESERVE", "APPLY MESSAGE", "APPLY UNSUB", "APPLY SUB"] {
        rolling.assert_sent(request);
    }
    pair.assert_settled(&["-A"], &[]);
    pair.assert_same_rows();
    assert!(pair.tested_rows("tom", "mailbox_message", "expunged IS NOT NULL") >= 1);
    assert_eq!(pair.tested_rows("tom", "mailbox", "mboxname LIKE 'DELETED.user.tom.%'"), 2);
    assert_eq!(pair.tested_rows("tom", "subscription", "unsubscribed IS NOT NULL"), 1);

    change_again(&pair.site);
    let _ = pair.sync(&["-m", "user.tom", "user.tom.Projects"]);
    let _ = pair.sync(&["-u", "tom", "ann"]);
    pair.assert_settled(&["-u", "tom", "ann"], &[]);
    pair.assert_same_rows();

    for mailbox in ["INBOX", "INBOX.Projects", "INBOX.With Space", ODD_NAMES[3]] {
        pair.assert_dumps("tom", mailbox);
    }
    pair.assert_tools_agree(&[]);
    pair.assert_copy_usable("tom");
    pair.tested.stop();
    pair.assert_tools_agree(&[]);
}

#[test]
fn literals_in_annotations_and_scripts_are_kept() {
    let Some(cyrus) = Cyrus::find_or_skip("literals_in_annotations_and_scripts_are_kept") else {
        return;
    };
    let pair = Pair::start(&cyrus, &["lit"]);
    create_user(&pair.site, "lit");
    let mut imap = pair.site.imap("lit");
    append_all(&mut imap, "INBOX", &[mail::all_octets(), mail::long_line(), mail::note(1)]);
    imap.set_metadata("INBOX", "/shared/comment", "50% of \"caf\u{e9}\" \\".as_bytes());
    imap.set_metadata("INBOX", "/private/comment", b"two\r\nlines");
    imap.select("INBOX");
    imap.annotate(1, "/comment", "value.shared", "\u{65e5}\u{672c}".as_bytes());
    imap.annotate(2, "/altsubject", "value.priv", &[b'x'; 1500]);
    imap.unselect();
    let script = "require [\"fileinto\"];\r\nif header :contains \"Subject\" \"100%\" \
                  { fileinto \"INBOX.Work\"; }\r\n";
    pair.site.put_script("lit", "main", script, true);

    let repeated: &[&str] = match pair.tested.maker {
        Maker::Cyrus => &[ACTIVATE],
        Maker::Cyrbk => &[],
    };
    let _ = pair.sync(&["-u", "lit"]);
    pair.assert_settled(&["-u", "lit"], repeated);
    pair.assert_same_rows();
    pair.assert_dumps("lit", "INBOX");

    pair.site.put_script("lit", "main", "keep;\r\n# again\r\n", true);
    let mut imap = pair.site.imap("lit");
    imap.set_metadata("INBOX", "/private/comment", b"not \xff UTF-8");
    let _ = pair.sync_rolling();
    pair.assert_settled(&["-u", "lit"], repeated);
    pair.assert_same_rows();
    assert_eq!(pair.tested_rows("lit", "sieve", "deleted IS NOT NULL"), 1);
    pair.assert_tools_agree(&["lit"]);
}

#[test]
fn a_message_of_20_megabytes_is_kept() {
    let Some(cyrus) = Cyrus::find_or_skip("a_message_of_20_megabytes_is_kept") else {
        return;
    };
    let pair = Pair::start(&cyrus, &["big"]);
    create_user(&pair.site, "big");
    let mut imap = pair.site.imap("big");
    append_all(&mut imap, "INBOX", &[mail::note(1), mail::huge(20_000_000), mail::note(2)]);
    let _ = pair.sync(&["-u", "big"]);
    pair.assert_settled(&["-u", "big"], &[]);
    pair.assert_same_rows();
    pair.assert_dumps("big", "INBOX");
    pair.assert_tools_agree(&[]);
}

fn create_user(site: &Site, user: &str) {
    site.imap(crate::site::ADMIN).create(&format!("user.{user}"));
}

/// Appends with dates an hour apart and all sorts of flags.
fn append_all(imap: &mut Imap, mailbox: &str, messages: &[Message]) {
    for (number, message) in messages.iter().enumerate() {
        let date = FIRST_DATE + 3600 * i64::try_from(number).unwrap();
        imap.append(mailbox, FLAGS[number % FLAGS.len()], date, &message.bytes);
    }
}

fn fill_tom(site: &Site) {
    create_user(site, "tom");
    let mut imap = site.imap("tom");
    for mailbox in [WORK, "INBOX.Empty"].into_iter().chain(ODD_NAMES) {
        imap.create(mailbox);
    }
    let corpus = mail::corpus();
    let (inbox, rest) = corpus.split_at(12);
    append_all(&mut imap, "INBOX", inbox);
    append_all(&mut imap, WORK, &[mail::all_octets(), mail::long_line()]);
    for (mailbox, messages) in ODD_NAMES.into_iter().zip(rest.chunks(rest.len().div_ceil(6))) {
        append_all(&mut imap, mailbox, messages);
    }
    imap.select("INBOX");
    imap.ok(&format!("UID COPY 1:3 {WORK}"));
    imap.ok("UID STORE 2,4 +FLAGS.SILENT (\\Flagged $Todo)");
    imap.ok("UID STORE 5 +FLAGS.SILENT (\\Deleted)");
    imap.annotate(1, "/comment", "value.shared", b"call back");
    imap.annotate(3, "/altsubject", "value.priv", b"The (real) subject");
    imap.unselect();
    imap.set_metadata(WORK, "/shared/comment", b"work in progress");
    imap.set_metadata(WORK, "/private/comment", b"mine");
    for mailbox in [WORK, ODD_NAMES[0], ODD_NAMES[3]] {
        imap.ok(&format!("SUBSCRIBE \"{mailbox}\""));
    }
    // One word without line ends: no literal in the data file.
    site.put_script("tom", "main", "keep;", false);
}

/// A shared mailbox, and Ann, who reads it and one of Tom's folders.
fn fill_shared(site: &Site) {
    create_user(site, "ann");
    let mut admin = site.imap(crate::site::ADMIN);
    admin.create("shared.news");
    admin.ok("SETACL shared.news anyone lrsip");
    append_all(&mut admin, "shared.news", &[mail::note(101), mail::note(102), mail::note(103)]);
    let mut ann = site.imap("ann");
    ann.append("INBOX", "", FIRST_DATE, &mail::note(110).bytes);
    ann.select("shared.news");
    ann.ok("UID STORE 1,3 +FLAGS.SILENT (\\Seen)");
    ann.unselect();
}

/// Each kind of change that a rolling client sends in its own way.
fn change_everything(site: &Site) {
    let mut imap = site.imap("tom");
    append_all(&mut imap, "INBOX", &[mail::note(1), mail::note(2)]);
    imap.select("INBOX");
    imap.ok("UID STORE 1 +FLAGS.SILENT (\\Answered $Forwarded)");
    imap.ok("UID STORE 2 -FLAGS.SILENT (\\Flagged)");
    imap.ok("UID STORE 6:7 +FLAGS.SILENT (\\Deleted)");
    imap.ok("EXPUNGE");
    imap.annotate(1, "/comment", "value.shared", b"called");
    imap.unselect();
    imap.ok(&format!("RENAME {WORK} INBOX.Projects"));
    imap.ok(&format!("DELETE \"{}\"", ODD_NAMES[2]));
    imap.ok("DELETE INBOX.Empty");
    imap.create("INBOX.Fresh");
    imap.ok("SETACL INBOX.Fresh ann lrs");
    imap.ok(&format!("UNSUBSCRIBE \"{}\"", ODD_NAMES[0]));
    imap.ok("SUBSCRIBE INBOX.Fresh");
    let mut ann = site.imap("ann");
    ann.select("shared.news");
    ann.ok("UID STORE 2 +FLAGS.SILENT (\\Seen)");
    ann.unselect();
}

fn change_again(site: &Site) {
    let mut imap = site.imap("tom");
    imap.append("INBOX.Projects", "\\Seen", FIRST_DATE, &mail::note(3).bytes);
    imap.append("INBOX", "$Later", FIRST_DATE, &mail::note(4).bytes);
    imap.set_metadata("INBOX.Projects", "/private/comment", b"renamed");
    imap.select("INBOX.Fresh");
    imap.unselect();
    imap.ok(&format!("DELETE \"{}\"", ODD_NAMES[1]));
}
