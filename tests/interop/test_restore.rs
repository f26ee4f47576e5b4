//! Whole users, from backup back to the real mail server.

use crate::cyrus::Cyrus;
use crate::mail;
use crate::raw_csync::RawCsync;
use crate::restore_scene::Scene;
use crate::site::{ADMIN, PASSWORD};

const DATE: i64 = 1_000_000_000;

/// Everything that a user can have.
fn furnish(scene: &Scene) {
    let mut admin = scene.site.imap(ADMIN);
    for name in ["user.tom", "user.tom.Work", "user.tom.Work.2024", "user.tom.&AOk-t&AOk-"] {
        admin.create(name);
    }
    admin.ok("SETACL user.tom.Work bob lrs");
    admin.ok("SETQUOTA user.tom (STORAGE 50000 MESSAGE 1000)");
    let mut tom = scene.site.imap("tom");
    for (number, flags) in [(1, "\\Seen $Work"), (2, "\\Flagged Important"), (3, ""), (4, "")] {
        tom.append("INBOX", flags, DATE + i64::from(number), &mail::note(number).bytes);
    }
    for message in mail::corpus().iter().take(8) {
        tom.append("INBOX.Work", "\\Answered", DATE, &message.bytes);
    }
    tom.append("INBOX.Work.2024", "", DATE, &mail::all_octets().bytes);
    tom.append("INBOX.Work.2024", "", DATE, &mail::note(1).bytes);
    tom.append("INBOX.Work.2024", "", DATE, &mail::note(1).bytes);
    tom.append("INBOX.Work.2024", "\\Draft", DATE, &mail::long_line().bytes);
    tom.select("INBOX");
    tom.ok("UID STORE 3 +FLAGS (\\Deleted)");
    tom.ok("EXPUNGE");
    tom.ok("UID STORE 4 +FLAGS (Later)");
    tom.annotate(1, "/comment", "value.shared", "50% \"caf\u{e9}\"".as_bytes());
    tom.annotate(2, "/comment", "value.priv", b"mine");
    tom.unselect();
    tom.set_metadata("INBOX.Work", "/shared/comment", b"all about work");
    tom.set_metadata("INBOX.Work", "/private/comment", b"only mine");
    tom.ok("SUBSCRIBE INBOX.Work");
    tom.ok("SUBSCRIBE INBOX.Work.2024");
    scene.site.put_script("tom", "main", "keep;\r\n", true);
    scene.site.put_script("tom", "other", "discard;\r\n", false);
}

/// Deletes a user with everything.
fn delete_user(scene: &Scene, user: &str) {
    let mut admin = scene.site.imap(ADMIN);
    admin.ok(&format!("SETACL user.{user} {ADMIN} lrswipkxtecda"));
    admin.ok(&format!("DELETE user.{user}"));
}

/// What only servers see: created modseqs, folder modseqs, the last append, user flags. Without
/// when \Recent was last looked at: who compares looks.
fn records(scene: &Scene) -> String {
    let mut csync = RawCsync::login(scene.site.csync_port(), ADMIN, PASSWORD);
    let names = ["user.tom", "user.tom.Work", "user.tom.Work.2024"];
    let all = names.map(|name| {
        let reply = csync.ask_whole(format!("GET FULLMAILBOX {name}\r\n").as_bytes());
        let (before, after) = reply.split_once(" RECENTTIME ").unwrap();
        format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
    });
    all.join("")
}

#[test]
fn a_user_comes_back_as_he_was() {
    let Some(cyrus) = Cyrus::find_or_skip("a_user_comes_back_as_he_was") else { return };
    let scene = Scene::start(&cyrus, &["tom", "bob"]);
    furnish(&scene);
    let _ = scene.sync(&["-u", "tom"]);
    let before = scene.everything("tom");
    let records_before = records(&scene);
    assert!(records_before.contains("Important") && records_before.contains("CREATEDMODSEQ"));
    delete_user(&scene, "tom");
    // No copies are kept either.
    let _ = scene.site.program("cyr_expire", &["-E", "1", "-D", "0", "-X", "0"]);
    let output = scene.restore(&["-U", "-a", "SERVER", "tom"]).success();
    assert_eq!((output.stdout_text(), output.stderr_text()), (String::new(), String::new()));
    assert_eq!(scene.everything("tom"), before);
    assert_eq!(records(&scene), records_before);
}

/// New ids, and everything else: annotations too, of which `sync_server` dies in a RESTORE.
#[test]
fn a_user_comes_back_with_new_ids() {
    let Some(cyrus) = Cyrus::find_or_skip("a_user_comes_back_with_new_ids") else { return };
    let scene = Scene::start(&cyrus, &["tom", "bob"]);
    furnish(&scene);
    let _ = scene.sync(&["-u", "tom"]);
    // Ids and modification sequences are others; so is what is recent.
    let without_ids = |lines: Vec<String>| -> Vec<String> {
        let ids = ["UIDVALIDITY", "HIGHESTMODSEQ", "MAILBOXID", "UIDNEXT", "createdmodseq"];
        let lines = lines.into_iter().filter(|line| !ids.iter().any(|id| line.contains(id)));
        lines
            .map(|line| match (line.split_once(" MODSEQ ("), line.split_once(") BODY")) {
                (Some((start, _)), Some((_, end))) => format!("{start}{end}"),
                _ => line,
            })
            .map(|line| line.replace("\\Recent ", "").replace("\\Recent", ""))
            .collect()
    };
    let before = without_ids(scene.everything("tom"));
    delete_user(&scene, "tom");
    let _ = scene.site.program("cyr_expire", &["-E", "1", "-D", "0", "-X", "0"]);
    let _ = scene.restore(&["-a", "SERVER", "tom"]).success();
    assert_eq!(without_ids(scene.everything("tom")), before);
    // Some of it.
    delete_user(&scene, "tom");
    let words = ["-a", "--without=sieve,quota,annotations", "SERVER", "tom"];
    let _ = scene.restore(&words).success();
    let some = without_ids(scene.everything("tom")).join("\n");
    for (part, is_there) in [
        ("subscribed: [\"INBOX.Work\"", true),
        ("STORAGE", false),
        ("\"main\"", false),
        ("all about work", false),
    ] {
        assert_eq!(some.contains(part), is_there, "{part}: {some}");
    }
    let _ = scene.restore(&["-a", "--only=sieve,quota", "SERVER", "tom"]).success();
    let more = without_ids(scene.everything("tom")).join("\n");
    assert!(more.contains("\"main\" ACTIVE") && more.contains("STORAGE"), "{more}");
}
