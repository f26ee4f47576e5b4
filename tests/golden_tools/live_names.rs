//! The real tools and cyrbk's on users and mailboxes of every odd name, in backups that the
//! real backupd has written.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::live::{self, TOOLS, differs};
use crate::site::{Ran, Site};

/// How names are typed, and whether domains count.
const CONFS: [&str; 4] = [
    "",
    "virtdomains: userid\ndefaultdomain: example.com\n",
    "virtdomains: on\nunixhierarchysep: no\n",
    "virtdomains: userid\ndefaultdomain: example.com\naltnamespace: yes\n",
];

/// Internal names. Without quotes, backslashes and octets above 127: what Debian's backupd
/// stores of these as `{n+}` its tools cannot read (quirk 1).
const MAILBOXES: [&str; 19] = [
    "user.alice",
    "user.alice.My Folder",
    "user.alice.Entw&APw-rfe",
    "user.alice.a^b",
    "user.alice.UPPER",
    "DELETED.user.alice.Old.6B014EEA",
    "user.alice.a/b",
    "user.alice.a&b;$c",
    "user.a^b",
    "user.a^b.Sub",
    "user.Bob",
    "user.bob",
    "virt.example!user.tom.Sent",
    "virt.example!user.jo^e",
    "user.jane doe.In Tray",
    "user.-dash",
    "user.o'neil+x",
    "shared.news",
    "virt.example!shared.x",
];

const USERS: [&str; 14] = [
    "alice",
    "ALICE",
    "a.b",
    "Bob",
    "bob",
    "tom@virt.example",
    "tom@Virt.Example",
    "tom",
    "jo.e@virt.example",
    "jane doe",
    "-dash",
    "o'neil+x",
    "%SHARED",
    "alice@example.com",
];

/// As administrators may type them, rightly or not.
const TYPED: [&str; 32] = [
    "user/alice/My Folder",
    "user/alice/Entw&APw-rfe",
    "user/alice/a.b",
    "user/alice/a^b",
    "user.alice.a^b",
    "user.alice",
    "user.alice.My Folder",
    "user/alice/upper",
    "USER/alice",
    "user/a.b",
    "user/a.b/Sub",
    "user/Bob",
    "user/tom/Sent@virt.example",
    "user/tom@virt.example/Sent",
    "user.tom.Sent@virt.example",
    "virt.example!user.tom.Sent",
    "user/jo.e@virt.example",
    "user/jane doe/In Tray",
    "user/-dash",
    "user/o'neil+x",
    "user/alice@example.com",
    "user.alice@example.com",
    "user/alice/My Folder@example.com",
    "user.alice@internal",
    "DELETED/user/alice/Old/6B014EEA",
    "shared/news",
    "shared/x@virt.example",
    "INBOX",
    "Other Users/alice",
    "/user//alice/",
    "user/al*",
    "user/alice/a/b",
];

/// Backups of all that, by the real backupd; none if it cannot be run.
fn site() -> Option<Site> {
    live::site("main")?;
    let site = Site::empty().give_to("cyrus");
    site.configure(CONFS[1]);
    let mut command = site.command(&Path::new(TOOLS).join("backupd"));
    command.args(["-X", "-C"]).arg(site.conf()).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.env("CYRUS_SERVICE", "backupd").env("CYRUS_ID", "1");
    let mut backupd = command.spawn().unwrap();
    backupd.stdin.take().unwrap().write_all(&commands()).unwrap();
    let answers = backupd.wait_with_output().unwrap();
    let answers = String::from_utf8_lossy(&answers.stdout).into_owned();
    let refused = answers.lines().find(|line| line.starts_with("NO") || line.starts_with("BAD"));
    assert_eq!(refused, None, "{answers}");
    Some(site)
}

fn commands() -> Vec<u8> {
    let mut text = String::new();
    for (i, name) in MAILBOXES.iter().enumerate() {
        let body = format!("From: a@example.org\r\nSubject: {i}\r\n\r\nText {i}\r\n");
        let guid = crate::damage::guid(body.as_bytes());
        let len = body.len();
        text += &format!(
            "APPLY RESERVE %(PARTITION default MBOXNAME (\"{name}\") GUID ({guid}))\r\n\
             APPLY MESSAGE (%{{default {guid} {len}}}\r\n{body})\r\n\
             APPLY MAILBOX %(UNIQUEID uniqueid{i:016} MBOXNAME \"{name}\" SYNC_CRC 1 LAST_UID 1 \
             HIGHESTMODSEQ 2 RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 1795250341 \
             POP3_LAST_LOGIN 0 UIDVALIDITY 1795250342 PARTITION default ACL \"\" OPTIONS P \
             RECORD (%(UID 1 MODSEQ 2 LAST_UPDATED 1795250341 FLAGS () \
             INTERNALDATE 1600000000 SIZE {len} GUID {guid})))\r\n"
        );
    }
    (text + "EXIT\r\n").into_bytes()
}

/// Both tools' answers to the same words.
fn both(site: &Site, tool: &str, words: &[&str]) -> [Ran; 2] {
    [site.run(&Path::new(TOOLS).join(tool), words), site.ours(tool, words)]
}

#[test]
fn users_of_every_name() {
    let Some(site) = site() else { return };
    for conf in CONFS {
        site.configure(conf);
        for words in [&["list"][..], &["verify", "-j"], &["stat"]] {
            let words = [words, &["--"], &USERS].concat();
            let [real, ours] = both(&site, "ctl_backups", &words);
            assert!(real == ours, "{conf}{}", differs(&words.join(" "), &real, &ours));
        }
        for user in USERS {
            let [mut real, ours] = both(&site, "cyr_backup", &["--", user, "json", "mailboxes"]);
            // Quirk 3.
            let said = real.err_text().replace("Unknown code ____ 251", "not found in backups.db");
            real.err = said.into_bytes();
            assert!(real == ours, "{conf}{}", differs(user, &real, &ours));
        }
        for prefix in ["a", "j", "-", "%", "tom@", "B", ""] {
            let [real, ours] = both(&site, "ctl_backups", &["list", "-P", "--", prefix]);
            assert!(real == ours, "{conf}{}", differs(prefix, &real, &ours));
        }
        for domain in ["example.com", "virt.example", "Virt.Example", "internal", ""] {
            let [real, ours] = both(&site, "ctl_backups", &["list", "-D", domain]);
            assert!(real == ours, "{conf}{}", differs(domain, &real, &ours));
        }
    }
}

#[test]
fn mailboxes_of_every_name() {
    let Some(site) = site() else { return };
    for conf in CONFS {
        site.configure(conf);
        let words = [&["list", "-m", "--"][..], &TYPED].concat();
        let [real, ours] = both(&site, "ctl_backups", &words);
        assert!(real == ours, "{conf}{}", differs("list -m", &real, &ours));
        // What is not known is passed over.
        for user in ["alice", "a.b", "tom@virt.example", "jane doe", "%SHARED"] {
            let words = [&[user, "show", "mailboxes", "--"][..], &TYPED].concat();
            let [real, ours] = both(&site, "cyr_backup", &words);
            assert!(real == ours, "{conf}{}", differs(user, &real, &ours));
        }
    }
}

/// Each on files of its own, for the commands change them.
#[test]
fn commands_that_write() {
    for words in [
        &["compact", "-F", "-A"][..],
        &["compact", "-v", "-F", "-D", "virt.example"],
        &["reindex", "-A"],
        &["reindex", "-m", "user/a.b", "user/tom@virt.example"],
        &["-j", "compact", "--", "-dash", "jane doe", "nobody"],
    ] {
        let told = [Path::new(TOOLS), Path::new("bin")].map(|bin| {
            let site = site()?;
            let ran = site.run(&site.path().join(bin).join("ctl_backups"), words);
            // The names of data files end as chance has it.
            let text = ran.out_text();
            let lines = text.lines().filter(|line| !line.contains("\"fname\""));
            Some((ran.code, lines.map(str::to_owned).collect::<Vec<_>>(), ran.err_text()))
        });
        let [Some(real), Some(ours)] = told else { return };
        assert_eq!(real, ours, "{words:?}");
    }
}
