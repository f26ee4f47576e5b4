//! What a search found is restored; reports as JSON; servers that do not compress; mailboxes that
//! have been deleted and restored.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use crate::cyrus::Cyrus;
use crate::mail;
use crate::process::Output;
use crate::raw_csync::RawCsync;
use crate::restore_scene::Scene;
use crate::site::{ADMIN, PASSWORD};

const DATE: i64 = 1_000_000_000;
/// As a calendar server stores it.
const EVENT: &[u8] = b"From: tom <tom@example.test>\r\nSubject: Meeting\r\n\
    Date: Mon, 01 Jan 2024 10:00:00 +0000\r\nMessage-ID: <e1@example.test>\r\n\
    Content-Type: text/calendar; charset=utf-8; component=VEVENT\r\n\
    Content-Disposition: attachment; filename=\"e1.ics\"\r\nMIME-Version: 1.0\r\n\r\n\
    BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//example//test//EN\r\nBEGIN:VEVENT\r\nUID:e1\r\n\
    DTSTAMP:20240101T100000Z\r\nDTSTART:20240102T100000Z\r\nSUMMARY:Meeting\r\nEND:VEVENT\r\n\
    END:VCALENDAR\r\n";

fn start(cyrus: &Cyrus) -> Scene {
    let scene = Scene::start(cyrus, &["tom"]);
    scene.give_tom_mailboxes();
    let mut tom = scene.site.imap("tom");
    for number in 1..=3 {
        tom.append("INBOX", "\\Flagged", DATE, &mail::note(number).bytes);
    }
    // Twice the same.
    tom.append("INBOX.Work", "$Later", DATE, &mail::note(4).bytes);
    tom.append("INBOX.Work", "$Later", DATE, &mail::note(4).bytes);
    tom.ok("SUBSCRIBE INBOX.Work");
    tom.logout();
    let _ = scene.sync(&["-u", "tom"]);
    scene
}

fn delete_user(scene: &Scene) {
    scene.site.imap(ADMIN).ok("DELETE user.tom");
}

/// The one object on standard output, on one line.
fn json(output: &Output) -> String {
    let text = output.stdout_text();
    assert!(text.starts_with("{\n") && text.ends_with("\n}\n"), "{text}");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn what_a_search_found_is_restored() {
    let Some(cyrus) = Cyrus::find_or_skip("what_a_search_found_is_restored") else { return };
    let scene = start(&cyrus);
    let found = scene.cyrbk("search", &["tom", "--flag", "$later", "--guids"]).success();
    assert_eq!(found.stdout_text(), format!("{}\n", mail::guid(&mail::note(4).bytes)));
    let words = ["SERVER", "tom", "-F", "-", "--into", "user.tom.Found"];
    let output = scene.cyrbk_restore_from(&words, &found.stdout).success();
    assert!(output.stdout_text().starts_with("user.tom.Found: created, "), "{output}");
    let restored = scene.site.imap("tom").snapshot("INBOX.Found").join("\n");
    assert!(restored.contains("$Later") && restored.contains(" 9-Sep-2001 "), "{restored}");
}

#[test]
fn reports_as_json() {
    let Some(cyrus) = Cyrus::find_or_skip("reports_as_json") else { return };
    let scene = start(&cyrus);
    delete_user(&scene);
    let words = ["--all", "-U", "--json", "SERVER", "tom"];
    let plan = json(&scene.cyrbk_restore(&[&words[..], &["-n"]].concat()).success());
    let inbox = "{ \"mboxname\": \"user.tom\", \"keep_ids\": 1, \"messages\": 3, \"expunged\": 0, ";
    assert_has(&plan, &["\"userid\": \"tom\"", "\"status\": \"not done\"", inbox]);
    let report = json(&scene.cyrbk_restore(&words).success());
    let inbox = "{ \"mboxname\": \"user.tom\", \"created\": 1, \"kept_ids\": 1, ";
    assert_has(&report, &["\"command\": \"restore\"", "\"status\": \"ok\"", inbox]);
    assert_has(&report, &["\"restored\": 3, \"there_before\": 0, ", "\"not_reached\": []"]);
    let state = "[ { \"what\": \"subscription user.tom.Work\", \"outcome\": \"restored\" } ]";
    assert_has(&report, &[&format!("\"state\": {state}")]);
    let nope = scene.cyrbk_restore(&["--json", "SERVER", "tom", "user/tom", "user/tom/Nope"]);
    assert_eq!(nope.code(), 75, "{nope}");
    let not_found = "\"not_found\": [ \"user/tom/Nope\" ]";
    assert_has(&json(&nope), &["\"status\": \"failed (not whole)\"", not_found]);
    let nobody = scene.cyrbk_restore(&["--json", "--all", "127.0.0.1:1", "tom"]);
    assert_eq!(nobody.code(), 75, "{nobody}");
    assert_has(&json(&nobody), &["\"status\": \"failed (cannot connect: 127.0.0.1:1: "]);
}

/// Once deleted and restored, a backup has every message twice: in the mailbox that lives and in
/// the deleted one. It is one message all the same.
#[test]
fn a_restored_user_is_not_doubled() {
    let Some(cyrus) = Cyrus::find_or_skip("a_restored_user_is_not_doubled") else { return };
    let scene = start(&cyrus);
    delete_user(&scene);
    // Nothing lived: said, and not taken for a success.
    let none = scene.cyrbk_restore(&["--all", "--at", "2020-01-01", "SERVER", "tom"]);
    assert_eq!(none.code(), 75, "{none}");
    assert!(none.stderr_text().contains("--with-deleted brings back"), "{none}");
    let _ = scene.restore(&["-U", "-a", "SERVER", "tom"]).success();
    // The first look takes away \Recent.
    let _ = scene.everything("tom");
    let before = scene.everything("tom");
    let _ = scene.sync(&["-u", "tom"]);
    let plan = scene.restore(&["-n", "-U", "-a", "SERVER", "tom"]).success().stdout_text();
    assert!(plan.contains("in all: 2 mailboxes, 5 messages, "), "{plan}");
    let _ = scene.restore(&["-U", "-a", "SERVER", "tom"]).success();
    let _ = scene.restore(&["-a", "SERVER", "tom"]).success();
    assert_eq!(scene.everything("tom"), before);
}

#[test]
fn without_compression_there_is_no_connection() {
    let test = "without_compression_there_is_no_connection";
    let Some(cyrus) = Cyrus::find_or_skip(test) else { return };
    let scene = start(&cyrus);
    let _ = scene.restore(&["-z", "SERVER", "tom", "user.tom"]).success();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    // Lets everybody in, and compresses for nobody.
    let poor = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        reader.get_mut().write_all(b"* SASL PLAIN\r\n* OK poor Cyrus sync server v3\r\n").unwrap();
        let mut asked = Vec::new();
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|octets| octets > 0) {
            let verb = line.split_whitespace().next().unwrap_or_default().to_owned();
            let reply = if verb == "AUTHENTICATE" { "OK Success\r\n" } else { "BAD No\r\n" };
            reader.get_mut().write_all(reply.as_bytes()).unwrap();
            asked.push(verb);
            line.clear();
        }
        asked
    });
    let output = scene.restore(&["-z", &server, "tom", "user.tom"]);
    assert_eq!(output.code(), 75, "{output}");
    assert!(output.stderr_text().contains("compression is required, and the server"), "{output}");
    let asked = poor.join().unwrap();
    assert!(!asked.iter().any(|verb| ["GET", "APPLY", "RESTORE"].contains(&&**verb)), "{asked:?}");
}

#[test]
fn whoever_is_no_administrator_is_told_so() {
    let test = "whoever_is_no_administrator_is_told_so";
    let Some(cyrus) = Cyrus::find_or_skip(test) else { return };
    let scene = start(&cyrus);
    let conf = scene.restore_conf();
    let text = std::fs::read_to_string(&conf).unwrap();
    let text = text.replace("sync_try_imap: no", "sync_try_imap: yes");
    std::fs::write(&conf, text.replace("sync_authname: admin", "sync_authname: tom")).unwrap();
    for server in ["SERVER".to_owned(), format!("127.0.0.1:{}", scene.site.imap_port())] {
        let output = scene.cyrbk_restore(&[&server, "tom", "--all"]);
        assert_eq!(output.code(), 75, "{output}");
        assert!(output.stderr_text().contains("must be an administrator"), "{output}");
        assert!(output.stderr_text().ends_with("tom: nothing was restored\n"), "{output}");
    }
    std::fs::write(&conf, text.replace("sync_password: ", "sync_password: not ")).unwrap();
    let output = scene.cyrbk_restore(&["SERVER", "tom", "--all"]);
    assert_eq!(output.code(), 75, "{output}");
    let told = "tom: cannot connect as admin: log-in refused";
    assert!(output.stderr_text().starts_with(told), "{output}");
    let output = scene.restore(&["SERVER", "tom", "-a", "-M", "user/tom/Re"]);
    assert_eq!(output.code(), 75, "{output}");
    assert!(output.stderr_text().starts_with("user/tom/Re: not an internal name"), "{output}");
}

/// Servers compare the type of a mailbox with that of each line about it.
#[test]
fn messages_return_to_mailboxes_of_other_types() {
    let test = "messages_return_to_mailboxes_of_other_types";
    let Some(cyrus) = Cyrus::find_or_skip(test) else { return };
    let scene = start(&cyrus);
    let mut admin = scene.site.imap(ADMIN);
    let calendar = "user.tom.#calendars.Team";
    admin.ok("CREATE user.tom.#calendars (TYPE CALENDAR)");
    admin.ok(&format!("CREATE {calendar} (TYPE CALENDAR)"));
    admin.ok(&format!("SETACL {calendar} {ADMIN} lrswipkxtecda"));
    drop(admin);
    // Newer servers take no APPEND to a calendar.
    let (guid, len) = (mail::guid(EVENT), EVENT.len());
    let mut csync = RawCsync::login(scene.site.csync_port(), ADMIN, PASSWORD);
    let message = format!("APPLY MESSAGE (%{{default {guid} {len}}}\r\n").into_bytes();
    assert_eq!(csync.ask(&[&message, EVENT, b")\r\n"].concat()), "OK success\r\n");
    let record = format!("UID 1 MODSEQ 1 LAST_UPDATED {DATE} FLAGS () INTERNALDATE {DATE}");
    let mailbox = format!(
        "RESTORE MAILBOX %(UNIQUEID NIL MBOXNAME {calendar} MBOXTYPE c LAST_UID 0 \
         HIGHESTMODSEQ 0 UIDVALIDITY 0 RECORD (%({record} SIZE {len} GUID {guid})))\r\n"
    );
    assert_eq!(csync.ask(mailbox.as_bytes()), "OK success\r\n");
    let _ = scene.sync(&["-u", "tom"]);
    delete_user(&scene);
    let _ = scene.site.program("cyr_expire", &["-E", "1", "-D", "0", "-X", "0"]);
    // New ids: the mailbox is created, then filled.
    let _ = scene.restore(&["-a", "SERVER", "tom"]).success();
    let reply = csync.ask_whole(format!("GET FULLMAILBOX {calendar}\r\n").as_bytes());
    assert_has(&reply, &["MBOXTYPE c", &guid]);
}

/// The data file by its name, and nothing of the mail: whose it is, its mailboxes tell.
#[test]
fn a_backup_given_as_a_file_belongs_to_somebody() {
    let Some(cyrus) = Cyrus::find_or_skip("a_backup_given_as_a_file_belongs_to_somebody") else {
        return;
    };
    let scene = start(&cyrus);
    let mut tom = scene.site.imap("tom");
    tom.ok("UNSUBSCRIBE INBOX.Work");
    let file = scene.server.data_file("tom");
    let file = file.to_str().unwrap();
    let words = ["--file", "--all", "--only", "subscriptions", "SERVER", file];
    let output = scene.cyrbk_restore(&words).success();
    assert_has(&output.stdout_text(), &["subscription user.tom.Work: restored"]);
    assert!(tom.lines("LSUB \"\" *").iter().any(|line| line.contains("INBOX.Work")));
    tom.ok("UNSUBSCRIBE INBOX.Work");
    let words = ["-f", file, "-a", "--only=subscriptions", "SERVER"];
    let _ = scene.restore(&words).success();
    assert!(tom.lines("LSUB \"\" *").iter().any(|line| line.contains("INBOX.Work")));
    // Where no mailbox tells, that is said.
    let index = rusqlite::Connection::open(format!("{file}.index")).unwrap();
    index.execute_batch("UPDATE mailbox SET mboxname = 'news' || id").unwrap();
    drop(index);
    let output =
        scene.cyrbk_restore(&["--file", "--all", "--only", "subscriptions", "SERVER", file]);
    assert_eq!(output.code(), 75, "{output}");
    let told = "subscriptions: not restored: no mailbox tells whose they are";
    assert_has(&output.stderr_text(), &[told]);
}
