//! Requests about several users: nobody's mail gets into another one's backup, and a user who
//! moves takes theirs along.

use std::time::Duration;

use crate::cyrus::Cyrus;
use crate::door_server::DoorSetup;
use crate::mail;
use crate::process::run;
use crate::raw_csync::RawCsync;
use crate::site::{ADMIN, Channel, PASSWORD, Site};

const PATIENCE: Duration = Duration::from_secs(60);

/// GUIDs of the messages in a user's backup, by the real tool, in order.
fn messages(cyrus: &Cyrus, setup: &DoorSetup, user: &str) -> Vec<String> {
    let mut command = cyrus.command("cyr_backup");
    command.arg("-C").arg(&setup.imapd_conf).args([user, "list", "messages"]);
    let text = run(command, PATIENCE).success().stdout_text();
    let is_guid = |word: &&str| word.len() == 40;
    let mut guids: Vec<String> =
        text.split_whitespace().filter(is_guid).map(str::to_owned).collect();
    guids.sort();
    guids
}

fn guids(numbers: &[u32]) -> Vec<String> {
    let mut guids: Vec<String> =
        numbers.iter().map(|&n| mail::guid(&mail::note(n).bytes)).collect();
    guids.sort();
    guids
}

#[test]
fn messages_go_to_whom_they_are_for() {
    let Some(cyrus) = Cyrus::find_or_skip("messages_go_to_whom_they_are_for") else { return };
    let setup = DoorSetup::new(&cyrus, &[]);
    let (mut service, port) = setup.serve(&[]);
    let site = Site::start(&cyrus, &["tom", "bob"], &[Channel::new("door", port, false)]);
    for (user, numbers) in [("tom", [1, 2, 9]), ("bob", [3, 4, 9])] {
        site.imap(ADMIN).create(&format!("user.{user}"));
        for number in numbers {
            site.imap(user).append("INBOX", "", 1_000_000_000, &mail::note(number).bytes);
        }
    }
    let args = ["-m", "user.tom", "user.bob"];
    let run = site.sync("door", &args).success();
    run.assert_sent("APPLY MESSAGE");
    // Later ones, beside what is known.
    for (user, number) in [("tom", 5), ("bob", 6), ("bob", 1)] {
        site.imap(user).append("INBOX", "", 1_000_000_000, &mail::note(number).bytes);
    }
    site.sync("door", &args).success().assert_sent("APPLY MESSAGE");
    let again = site.sync("door", &args).success();
    assert_eq!(again.applied(), Vec::<String>::new(), "{}", again.output);
    assert!(service.terminate().success());
    assert_eq!(messages(&cyrus, &setup, "tom"), guids(&[1, 2, 5, 9]));
    assert_eq!(messages(&cyrus, &setup, "bob"), guids(&[1, 3, 4, 6, 9]));
}

/// From one domain to another, on a real mail server: the mail moves from backup to backup and is
/// not sent again, and the old name keeps it for the retention time.
#[test]
fn a_user_moves_to_another_domain() {
    let Some(cyrus) = Cyrus::find_or_skip("a_user_moves_to_another_domain") else { return };
    let domains = ["virtdomains: userid", "defaultdomain: interop.example.test"];
    let setup = DoorSetup::new(&cyrus, &domains);
    let (mut service, port) = setup.serve(&[]);
    let (old, new) = ("tom@one.example", "tom@two.example");
    let channels = [Channel::new("door", port, false)];
    let site = Site::start_with(&cyrus, &[old, new], &channels, &domains);
    let mut admin = site.imap(ADMIN);
    for mailbox in ["user.tom@one.example", "user.tom.Work@one.example"] {
        admin.create(mailbox);
    }
    let mut imap = site.imap(old);
    imap.append("INBOX", "\\Seen", 1_000_000_000, &mail::note(1).bytes);
    imap.append("INBOX.Work", "", 1_000_000_000, &mail::note(2).bytes);
    imap.logout();
    site.sync_rolling("door").assert_sent("APPLY MESSAGE");

    admin.ok("RENAME user.tom@one.example user.tom@two.example");
    let moved = site.sync_rolling("door");
    moved.assert_sent("APPLY RENAME");
    let sent: Vec<String> =
        moved.requests().into_iter().filter(|line| line.starts_with("APPLY MESSAGE")).collect();
    assert_eq!(sent, Vec::<String>::new(), "{}", moved.output);
    let mut imap = site.imap(new);
    imap.append("INBOX", "", 1_000_000_000, &mail::note(3).bytes);
    imap.logout();
    site.sync_rolling("door").assert_sent("APPLY MESSAGE");
    let again = site.sync("door", &["-u", new]).success();
    assert_eq!(again.applied(), Vec::<String>::new(), "{}", again.output);

    let mut csync = RawCsync::login(port, ADMIN, PASSWORD);
    assert_eq!(csync.ask(format!("GET USER {old}\r\n").as_bytes()), "OK Success\r\n");
    let answer = csync.ask_whole(format!("GET USER {new}\r\n").as_bytes());
    assert_eq!(answer.matches("* MAILBOX ").count(), 2, "{answer}");
    drop(csync);
    assert!(service.terminate().success());
    assert_eq!(messages(&cyrus, &setup, new), guids(&[1, 2, 3]));
    assert_eq!(messages(&cyrus, &setup, old), guids(&[1, 2]));
    for (user, name) in [(old, "one.example!user.tom"), (new, "two.example!user.tom")] {
        let mut command = cyrus.command("cyr_backup");
        command.arg("-C").arg(&setup.imapd_conf).args([user, "json", "mailboxes"]);
        let kept = run(command, PATIENCE).success().stdout_text();
        assert_eq!(kept.matches(name).count(), 2, "{kept}");
    }
}
