//! Parts of backups, and destinations that have something already.

use crate::cyrus::Cyrus;
use crate::mail;
use crate::restore_scene::{Scene, list};
use crate::site::ADMIN;

const DATE: i64 = 1_000_000_000;

/// A user with messages 1 to 4 in his INBOX and 5 to 6 in Work, backed up.
fn start(cyrus: &Cyrus) -> Scene {
    let scene = Scene::start(cyrus, &["tom", "bob"]);
    let mut admin = scene.site.imap(ADMIN);
    admin.create("user.tom");
    admin.create("user.tom.Work");
    let mut tom = scene.site.imap("tom");
    for number in 1..=4 {
        tom.append("INBOX", "\\Flagged", DATE + i64::from(number), &mail::note(number).bytes);
    }
    for number in 5..=6 {
        tom.append("INBOX.Work", "\\Seen", DATE + i64::from(number), &mail::note(number).bytes);
    }
    tom.logout();
    let _ = scene.sync(&["-u", "tom"]);
    scene
}

/// UIDs and subjects of a mailbox.
pub(crate) fn notes(scene: &Scene, mailbox: &str) -> Vec<(u32, String)> {
    let fetched = scene.site.imap("tom").fetch_all(mailbox);
    let subject = |body: &[u8]| {
        let text = String::from_utf8_lossy(body).into_owned();
        text.lines().find_map(|l| l.strip_prefix("Subject: ").map(str::to_owned)).unwrap()
    };
    fetched.iter().map(|message| (message.uid, subject(&message.body))).collect()
}

pub(crate) fn numbered(notes: &[(u32, u32)]) -> Vec<(u32, String)> {
    notes.iter().map(|(uid, number)| (*uid, format!("note-{number}"))).collect()
}

fn expunge(scene: &Scene, uids: &str) {
    let mut tom = scene.site.imap("tom");
    tom.select("INBOX");
    tom.ok(&format!("UID STORE {uids} +FLAGS (\\Deleted)"));
    tom.ok("EXPUNGE");
    tom.logout();
}

#[test]
fn what_is_there_is_not_restored_twice() {
    let Some(cyrus) = Cyrus::find_or_skip("what_is_there_is_not_restored_twice") else { return };
    let scene = start(&cyrus);
    expunge(&scene, "2,3");
    for _ in 0..2 {
        let _ = scene.restore(&["-a", "SERVER", "tom"]).success();
        assert_eq!(notes(&scene, "INBOX"), numbered(&[(1, 1), (4, 4), (5, 2), (6, 3)]));
    }
    assert_eq!(notes(&scene, "INBOX.Work"), numbered(&[(1, 5), (2, 6)]));
    let _ = scene.restore(&["--duplicates", "SERVER", "tom", "user.tom.Work"]).success();
    assert_eq!(notes(&scene, "INBOX.Work"), numbered(&[(1, 5), (2, 6), (3, 5), (4, 6)]));
    // Nor does -U bring back what is there, or disturb what it is.
    let _ = scene.restore(&["-U", "SERVER", "tom", "user.tom"]).success();
    assert_eq!(notes(&scene, "INBOX").len(), 4);
}

#[test]
fn expunged_messages_come_back_to_sight() {
    let Some(cyrus) = Cyrus::find_or_skip("expunged_messages_come_back_to_sight") else { return };
    let scene = start(&cyrus);
    let mut tom = scene.site.imap("tom");
    tom.select("INBOX");
    tom.ok("UID STORE 2 +FLAGS (Important)");
    tom.annotate(2, "/comment", "value.shared", b"a note");
    tom.logout();
    expunge(&scene, "2:3");
    let _ = scene.sync(&["-u", "tom"]);
    for _ in 0..2 {
        let _ = scene.restore(&["-x", "SERVER", "tom", "user.tom"]).success();
        assert_eq!(notes(&scene, "INBOX"), numbered(&[(1, 1), (4, 4), (5, 2), (6, 3)]));
    }
    let mut tom = scene.site.imap("tom");
    tom.select("INBOX");
    let fetched = tom.lines("UID FETCH 5 (FLAGS INTERNALDATE ANNOTATION (/comment value.shared))");
    let fetched = fetched.join("\n");
    for part in ["\\Flagged", "Important", " 9-Sep-2001 01:46:42 +0000", "a note"] {
        assert!(fetched.contains(part), "{part}: {fetched}");
    }
    assert!(!fetched.contains("\\Deleted"), "{fetched}");
}

#[test]
fn single_messages() {
    let Some(cyrus) = Cyrus::find_or_skip("single_messages") else { return };
    let scene = start(&cyrus);
    expunge(&scene, "1");
    let _ = scene.sync(&["-u", "tom"]);
    let guid = |number| mail::guid(&mail::note(number).bytes);
    // One that lives nowhere, one that is there.
    let _ = scene.restore(&["SERVER", "tom", &guid(1), &guid(2)]).success();
    assert_eq!(notes(&scene, "INBOX"), numbered(&[(2, 2), (3, 3), (4, 4), (5, 1)]));
    // Into another mailbox, with flags and date.
    let words = ["-M", "user.tom.Rescue", "SERVER", "tom", &guid(1), &guid(5)];
    let _ = scene.restore(&words).success();
    assert_eq!(notes(&scene, "INBOX.Rescue"), numbered(&[(1, 1), (2, 5)]));
    let rescued = scene.site.imap("tom").snapshot("INBOX.Rescue").join("\n");
    assert!(rescued.contains(" 9-Sep-2001 01:46:41 +0000"), "{rescued}");
    assert!(rescued.contains("\\Flagged") && rescued.contains("\\Seen"), "{rescued}");
    let output = scene.restore(&["SERVER", "tom", &"1".repeat(40), &guid(6)]);
    assert_eq!(output.code(), 75, "{output}");
    let told = format!("tom: {}: Message does not exist\n", "1".repeat(40));
    assert_eq!(output.stderr_text(), told);
}

#[test]
fn deleted_folders() {
    let Some(cyrus) = Cyrus::find_or_skip("deleted_folders") else { return };
    let scene = start(&cyrus);
    let validity = |scene: &Scene| {
        let lines = scene.site.imap("tom").lines("STATUS INBOX.Work (UIDVALIDITY)");
        lines.into_iter().next().unwrap()
    };
    let before = validity(&scene);
    scene.site.imap("tom").ok("DELETE INBOX.Work");
    let _ = scene.sync(&["-u", "tom"]);
    let mailboxes = scene.site.imap(ADMIN).lines("LIST \"\" DELETED.*").join("\n");
    let deleted = mailboxes.split(' ').next_back().unwrap().trim_matches('"').to_owned();
    assert!(deleted.starts_with("DELETED.user.tom.Work."), "{mailboxes}");
    let _ = scene.restore(&["-U", "SERVER", "tom", &deleted]).success();
    assert_eq!(notes(&scene, "INBOX.Work"), numbered(&[(1, 5), (2, 6)]));
    assert_eq!(validity(&scene), before);
    // And as it is.
    let output = scene.restore(&["-D", "-n", "SERVER", "tom", &deleted]).success();
    assert!(output.stdout_text().starts_with(&deleted), "{output}");
}

#[test]
fn a_user_whose_deleted_mailboxes_are_still_there() {
    let Some(cyrus) = Cyrus::find_or_skip("a_user_whose_deleted_mailboxes_are_still_there") else {
        return;
    };
    let scene = start(&cyrus);
    let before = scene.everything("tom");
    let mut admin = scene.site.imap(ADMIN);
    admin.ok("SETACL user.tom admin lrswipkxtecda");
    admin.ok("DELETE user.tom");
    admin.logout();
    let output = scene.cyrbk_restore(&["-U", "--all", "SERVER", "tom"]).success();
    assert!(
        output.stdout_text().contains("another unique id because DELETED.user.tom."),
        "{output}"
    );
    // Nothing had to be sent: the messages are on the server.
    assert!(output.stdout_text().contains("6 messages restored (0 sent"), "{output}");
    let without_ids = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().filter(|line| !line.contains("MAILBOXID")).collect()
    };
    assert_eq!(without_ids(scene.everything("tom")), without_ids(before));
    // And once more: all there.
    let output = scene.cyrbk_restore(&["-U", "--all", "SERVER", "tom"]).success();
    assert!(output.stdout_text().contains("0 messages restored (0 sent"), "{output}");
    assert!(output.stdout_text().contains("6 there before"), "{output}");
}

#[test]
fn a_folder_without_its_owner_is_refused_in_words() {
    let Some(cyrus) = Cyrus::find_or_skip("a_folder_without_its_owner_is_refused_in_words") else {
        return;
    };
    let scene = start(&cyrus);
    let mut admin = scene.site.imap(ADMIN);
    admin.ok("SETACL user.tom admin lrswipkxtecda");
    admin.ok("DELETE user.tom");
    let output = scene.restore(&["SERVER", "tom", "user.tom.Work"]);
    assert_eq!(output.code(), 75, "{output}");
    assert!(output.stderr_text().contains("its owner's INBOX, user.tom, is neither"), "{output}");
    let output = scene.restore(&["-P", "nosuch", "-a", "SERVER", "tom"]);
    assert_eq!(output.code(), 75, "{output}");
    assert!(output.stderr_text().contains("Perhaps it has no partition `nosuch`"), "{output}");
    assert_eq!(list(&mut scene.site.imap(ADMIN), "LIST \"\" user.*"), Vec::<String>::new());
    // Children before their parents is no trouble.
    let _ = scene.restore(&["SERVER", "tom", "user.tom.Work", "user.tom"]).success();
    assert_eq!(notes(&scene, "INBOX.Work"), numbered(&[(1, 5), (2, 6)]));
}

/// The backup knows the partition of long ago.
#[test]
fn a_mailbox_that_has_moved_to_another_partition() {
    let Some(cyrus) = Cyrus::find_or_skip("a_mailbox_that_has_moved_to_another_partition") else {
        return;
    };
    let scene = start(&cyrus);
    let mut admin = scene.site.imap(ADMIN);
    admin.ok("SETACL user.tom.Work admin lrswipkxtecda");
    admin.ok("RENAME user.tom.Work user.tom.Work second");
    let mut tom = scene.site.imap("tom");
    tom.select("INBOX.Work");
    tom.ok("UID STORE 1 +FLAGS (\\Deleted)");
    tom.ok("EXPUNGE");
    tom.logout();
    let _ = scene.restore(&["SERVER", "tom", "user.tom.Work"]).success();
    assert_eq!(notes(&scene, "INBOX.Work"), numbered(&[(2, 6), (3, 5)]));
    let _ = scene.restore(&["-P", "second", "-M", "user.tom.New", "SERVER", "tom", "user.tom"]);
    assert_eq!(notes(&scene, "INBOX.New").len(), 4);
}
