//! What `restore` says, beside the real one; and other ways to reach the mail server.

use crate::cyrus::Cyrus;
use crate::mail;
use crate::process::Output;
use crate::raw_csync::RawCsync;
use crate::restore_scene::Scene;
use crate::site::{ADMIN, PASSWORD};

const DATE: i64 = 1_000_000_000;

fn start(cyrus: &Cyrus) -> Scene {
    let scene = Scene::start(cyrus, &["tom", "bob"]);
    let mut admin = scene.site.imap(ADMIN);
    for name in ["user.tom", "user.tom.Work", "user.tom.Old", "user.bob", "news", "news.local"] {
        admin.create(name);
    }
    for name in ["news", "news.local"] {
        admin.ok(&format!("SETACL {name} anyone lrsip"));
        admin.ok(&format!("SETACL {name} {ADMIN} lrswipkxtecda"));
    }
    let mut tom = scene.site.imap("tom");
    for number in 1..=3 {
        tom.append("INBOX", "", DATE, &mail::note(number).bytes);
    }
    tom.append("INBOX.Old", "", DATE, &mail::note(4).bytes);
    tom.append("news.local", "", DATE, &mail::note(5).bytes);
    tom.append("news.local", "", DATE, &mail::note(6).bytes);
    tom.select("INBOX");
    tom.ok("UID STORE 2 +FLAGS (\\Deleted)");
    tom.ok("EXPUNGE");
    tom.ok("DELETE INBOX.Old");
    // Seen by tom, not by bob.
    tom.select("news.local");
    tom.ok("UID STORE 1 +FLAGS (\\Seen)");
    tom.logout();
    scene.site.imap("bob").append("INBOX", "\\Seen", DATE, &mail::note(7).bytes);
    let _ = scene.sync(&["-u", "tom", "bob"]);
    let _ = scene.sync(&["-m", "news", "news.local"]);
    scene
}

/// Standard error and the status; of the real one numbers for errors are left out.
fn told(output: &Output) -> (i32, String) {
    (output.code(), output.stderr_text())
}

#[test]
fn dry_runs_tell_what_the_real_one_tells() {
    let Some(cyrus) = Cyrus::find_or_skip("dry_runs_tell_what_the_real_one_tells") else { return };
    let scene = start(&cyrus);
    let guid = mail::guid(&mail::note(1).bytes);
    let acl = "anyone\tlrs\t";
    for words in [
        &["-n", "-v", "-a", "SERVER", "tom"][..],
        &["-n", "-v", "-U", "-a", "SERVER", "tom"],
        &["-n", "-v", "-U", "-D", "-a", "SERVER", "tom"],
        &["-n", "-v", "-x", "-a", "SERVER", "tom"],
        &["-n", "-v", "-X", "-a", "SERVER", "tom"],
        &["-n", "-v", "-r", "SERVER", "tom", "user/tom"],
        &["-n", "-v", "SERVER", "tom", "user/tom/Work", "user/tom/Work"],
        &["-n", "-v", "-M", "user.x", "-P", "p", "-A", acl, "SERVER", "tom", "user/tom"],
        &["-n", "-v", "-M", "user.x", "-P", "p", "-A", "", "SERVER", "tom", &guid],
        &["-n", "-v", "SERVER", "tom", &guid],
        &["-n", "SERVER", "tom", &guid.to_uppercase()],
        &["-n", "-v", "-m", "user/tom", "SERVER", "user/tom"],
        &["-n", "-a", "SERVER"],
        &["-x", "-X", "-a", "SERVER", "tom"],
        &["-U", "-M", "x", "-a", "SERVER", "tom"],
    ] {
        let (real, tested) = (scene.real_restore(words), scene.restore(words));
        let (real, mut tested) = (told(&real), told(&tested));
        if real.0 == 64 {
            // Cyrus's usage, and more.
            let ours = tested.1.split("More than Cyrus has:").next().unwrap().to_owned();
            tested.1 = ours;
        }
        assert_eq!(tested, real, "{words:?}");
    }
    let plan = scene.restore(&["-n", "-U", "-a", "SERVER", "tom"]).success().stdout_text();
    assert!(plan.starts_with("user.tom: 2 messages and 1 expunged, "), "{plan}");
    assert!(plan.contains("; keeps UIDVALIDITY "), "{plan}");
    assert!(plan.contains("in all: 3 mailboxes, 4 messages, "), "{plan}");
    let missing = scene.restore(&["-n", "-F", "/nonexistent", "SERVER", "tom"]);
    let text = "fopen /nonexistent: No such file or directory\n".to_owned();
    assert_eq!(told(&missing), (75, text));
}

#[test]
fn failures_have_the_status_of_the_real_one() {
    let Some(cyrus) = Cyrus::find_or_skip("failures_have_the_status_of_the_real_one") else {
        return;
    };
    let scene = start(&cyrus);
    for (words, text) in [
        (&["-a", "127.0.0.1:1", "tom"][..], "tom: cannot connect: "),
        (&["-a", "SERVER", "nobody"], "nobody: not found in backups.db"),
        (&["SERVER", "tom", "user/tom/Nope"], "tom: user/tom/Nope: Mailbox does not exist"),
        (&["-f", "/nonexistent", "-a", "SERVER"], "/nonexistent: Mailbox does not exist"),
    ] {
        let tested = scene.restore(words);
        assert_eq!(tested.code(), scene.real_restore(words).code(), "{tested}");
        assert!(tested.stderr_text().starts_with(text), "{tested}");
    }
}

/// A whole site: every user, shared mailboxes, and what users have seen of them.
#[test]
fn a_whole_server() {
    let Some(cyrus) = Cyrus::find_or_skip("a_whole_server") else { return };
    let scene = start(&cyrus);
    let shared = |user: &str| {
        let lines = scene.site.imap(user).snapshot("news.local").into_iter();
        lines.filter(|line| line.contains(" FETCH ")).collect::<Vec<_>>().join("\n")
    };
    let before = (scene.everything("tom"), scene.everything("bob"), shared("tom"), shared("bob"));
    assert!(before.2.contains("\\Seen") && !before.3.contains("\\Seen"), "{before:?}");
    let mut admin = scene.site.imap(ADMIN);
    for name in ["user.tom", "user.bob"] {
        admin.ok(&format!("SETACL {name} {ADMIN} lrswipkxtecda"));
        admin.ok(&format!("DELETE {name}"));
    }
    admin.ok("DELETE news.local");
    admin.ok("DELETE news");
    admin.logout();
    let _ = scene.site.program("cyr_expire", &["-E", "1", "-D", "0", "-X", "0"]);
    let words = ["-U", "--all-users", "--jobs", "2", "SERVER"];
    let output = scene.cyrbk_restore(&words).success();
    assert!(output.stdout_text().contains("3 backups: 3 ok"), "{output}");
    let after = (scene.everything("tom"), scene.everything("bob"), shared("tom"), shared("bob"));
    assert_eq!(after, before);
    let again = scene.cyrbk_restore(&words).success();
    assert!(!again.stdout_text().contains("created"), "{again}");
    assert!(again.stdout_text().matches("0 messages restored (0 sent").count() == 3, "{again}");
}

/// A deleted copy of a shared mailbox has its unique id, by which it is known what was seen.
#[test]
fn what_was_seen_follows_a_new_unique_id() {
    let Some(cyrus) = Cyrus::find_or_skip("what_was_seen_follows_a_new_unique_id") else { return };
    let scene = start(&cyrus);
    let mut admin = scene.site.imap(ADMIN);
    admin.ok("DELETE news.local");
    admin.logout();
    let output = scene.cyrbk_restore(&["-U", "--all-users", "SERVER"]).success();
    let told = "news.local: created, 2 messages restored, with the same UIDs, another unique id";
    assert!(output.stdout_text().contains(told), "{output}");
    let seen = |user: &str| {
        let mut imap = scene.site.imap(user);
        imap.select("news.local");
        imap.lines("UID SEARCH SEEN").join(" ")
    };
    assert!(seen("tom").contains("* SEARCH 1"), "{}", seen("tom"));
    assert!(!seen("bob").contains("* SEARCH 1"), "{}", seen("bob"));
}

#[test]
fn through_the_imap_server() {
    let Some(cyrus) = Cyrus::find_or_skip("through_the_imap_server") else { return };
    let scene = start(&cyrus);
    let before = scene.everything("tom");
    let mut admin = scene.site.imap(ADMIN);
    admin.ok(&format!("SETACL user.tom {ADMIN} lrswipkxtecda"));
    admin.ok("DELETE user.tom");
    let _ = scene.site.program("cyr_expire", &["-E", "1", "-D", "0", "-X", "0"]);
    let conf = std::fs::read_to_string(scene.restore_conf()).unwrap();
    std::fs::write(scene.restore_conf(), conf.replace("sync_try_imap: no", "sync_try_imap: yes"))
        .unwrap();
    let server = format!("127.0.0.1:{}", scene.site.imap_port());
    let _ = scene.cyrbk_restore(&["-U", "--all", &server, "tom"]).success();
    assert_eq!(scene.everything("tom"), before);
    // To the csync port too, without the real one's ten seconds.
    let output = scene.cyrbk_restore(&["-U", "--all", "SERVER", "tom"]).success();
    assert!(output.elapsed.as_secs() < 8, "{output}");
}

/// A folder emptied by mistake, and the mailboxes as they were before.
#[test]
fn as_of_an_earlier_moment() {
    let Some(cyrus) = Cyrus::find_or_skip("as_of_an_earlier_moment") else { return };
    let scene = start(&cyrus);
    let clock = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs()
    };
    let moment = clock();
    while clock() <= moment {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let mut tom = scene.site.imap("tom");
    tom.select("INBOX");
    tom.ok("UID STORE 1:* +FLAGS (\\Deleted)");
    tom.ok("EXPUNGE");
    tom.logout();
    scene.site.imap("tom").append("INBOX", "", DATE, &mail::note(8).bytes);
    let _ = scene.sync(&["-u", "tom"]);
    let at = jiff::Timestamp::from_second(moment as i64).unwrap().to_string();
    let at = at.replace('Z', "+00:00");
    let _ = scene.cyrbk_restore(&["--at", &at, "SERVER", "tom", "user/tom"]).success();
    let fetched = scene.site.imap("tom").fetch_all("INBOX");
    let bodies: Vec<Vec<u8>> = fetched.into_iter().map(|message| message.body).collect();
    assert_eq!(bodies, [8, 1, 3].map(|number| mail::note(number).bytes));
}

/// Backups that Cyrus's own backupd has made, with virtual domains, shared mailboxes, several
/// copies of a message, deleted mailboxes.
#[test]
fn backups_of_cyrus() {
    let Some(cyrus) = Cyrus::find_or_skip("backups_of_cyrus") else { return };
    let domains = ["virtdomains: userid", "defaultdomain: example.com"];
    let scene = Scene::start_with(&cyrus, &[], &domains);
    let copies = scene.server.make_dir("copies");
    let source =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backups/main");
    for (file, mailbox, messages) in [
        ("one/d/dave@virt.example_sPpR67", "virt.example!user.dave", 5),
        ("one/q/%SHARED_lEsHFy", "shared.projects", 21),
        ("one/c/carol_cesxQB", "user.carol.Work", 42),
        ("one/a/alice_EPfRmx", "user.alice", 26),
        ("two/t/tester_ygQSHr", "user.tester.other", 3),
    ] {
        let copy = copies.join(file.rsplit('/').next().unwrap());
        let index = format!("{}.index", copy.display());
        std::fs::copy(source.join(file), &copy).unwrap();
        std::fs::copy(source.join(format!("{file}.index")), &index).unwrap();
        scene.server.give_away(&copy);
        scene.server.give_away(std::path::Path::new(&index));
        let copy = copy.to_str().unwrap();
        let words = ["-U", "--file", "--all", "--with-deleted", "SERVER", copy];
        let output = scene.cyrbk_restore(&words).success();
        assert!(
            output.stdout_text().contains(&format!("{messages} messages restored (")),
            "{output}"
        );
        let output = scene.cyrbk_restore(&words).success();
        let nothing = format!("0 messages restored (0 sent, 0 B), {messages} there before");
        assert!(output.stdout_text().contains(&nothing), "{output}");
        let mut csync = RawCsync::login(scene.site.csync_port(), ADMIN, PASSWORD);
        let ours = csync.ask_whole(format!("GET MAILBOXES ({mailbox})\r\n").as_bytes());
        let line = format!(" MBOXNAME {mailbox} ");
        assert!(ours.contains(&line), "{ours}");
    }
}
