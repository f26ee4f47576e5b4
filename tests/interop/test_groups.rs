//! One request about several users: nobody's mail gets into another one's backup.

use std::time::Duration;

use crate::cyrus::Cyrus;
use crate::door_server::DoorSetup;
use crate::mail;
use crate::process::run;
use crate::site::{ADMIN, Channel, Site};

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
