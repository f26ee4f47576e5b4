//! What holds for cyrbk's own words only: `cyrbk list`, `cyrbk export`, ...

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use cyrbk::lock::{Kind, Wait, open_locked};
use rusqlite::Connection;

use crate::damage::flip;
use crate::machine;
use crate::site::{Ran, Site, wait};

fn cyrbk(site: &Site, line: &str) -> Ran {
    let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
    let mut words = line.split(' ');
    command.arg(words.next().unwrap()).arg("-C").arg(site.conf()).args(words);
    wait(command)
}

fn link_restore(site: &Site) {
    symlink(env!("CARGO_BIN_EXE_cyrbk"), site.path().join("bin/restore")).unwrap();
}

/// Lists have internal names, people type external ones: either will do.
#[test]
fn mailboxes_go_by_either_name() {
    let site = Site::of_fixture("main");
    for (words, options) in [
        ("export carol", ""),
        ("search carol --subject re --in", ""),
        ("show carol messages in", ""),
        ("dump --mailbox", "message 1c31ab48183a2d35cde3646f1fec99ecb6790f17"),
        ("show --mailbox", "mailboxes"),
        ("list --mailbox", ""),
        ("verify --mailbox", ""),
    ] {
        let told = ["user/carol/Work", "user.carol.Work"].map(|name| {
            let ran = cyrbk(&site, format!("{words} {name} {options}").trim_end());
            assert_eq!(ran.code, 0, "{words} {name}: {}", ran.err_text());
            assert!(!ran.out.is_empty(), "{words} {name}");
            ran.out_text()
        });
        assert_eq!(told[0], told[1], "{words}");
    }
    let uniqueid = cyrbk(&site, "show carol mailboxes").out_text();
    let uniqueid = uniqueid.lines().find(|line| line.ends_with("user.carol.Work")).unwrap();
    let uniqueid = uniqueid.split(' ').next().unwrap();
    let by_id = cyrbk(&site, &format!("export carol {uniqueid}"));
    assert_eq!(by_id.out, cyrbk(&site, "export carol user.carol.Work").out);
    // Domains stand in front of internal names.
    site.configure("virtdomains: userid\ndefaultdomain: example.com\n");
    let dave = cyrbk(&site, "show dave@virt.example messages in virt.example!user.dave");
    let same = cyrbk(&site, "show dave@virt.example messages in user/dave@virt.example");
    assert_eq!((dave.code, &dave.out), (0, &same.out));
    let bob = cyrbk(&site, "show bob messages in user/bob@example.com");
    assert_eq!((bob.code, bob.out), (0, cyrbk(&site, "show bob messages in user/bob").out));
}

/// Each message is checked by itself, and standard output has nothing but mail.
#[test]
fn damage_keeps_back_nothing_but_what_is_damaged() {
    let site = Site::of_fixture("main");
    let whole = cyrbk(&site, "export carol --expunged --deleted").out.len();
    flip(&site.path().join("one/c/carol_cesxQB"), 5_000);
    let ran = cyrbk(&site, "export carol --expunged --deleted");
    assert_eq!(ran.code, 75);
    assert!(ran.err_text().starts_with("carol: file checksum mismatch"), "{}", ran.err_text());
    assert!(ran.out.starts_with(b"From "), "{}", ran.out_text());
    assert!(ran.out.len() > whole / 4 && ran.out.len() < whole, "{} of {whole}", ran.out.len());
    let found = cyrbk(&site, "search carol --guids");
    assert!(found.out_text().lines().count() > 1, "{}", found.err_text());
}

#[test]
fn errors_say_what_cyrus_leaves_out() {
    let site = Site::of_fixture("main");
    let data = site.path().join("two/b/bob_5xHD5K");
    let read_write = fs::OpenOptions::new().read(true).write(true).clone();
    let held = open_locked(&data, &read_write, Kind::Exclusive, Wait::No).unwrap();
    let told = |line: &str| cyrbk(&site, line).err_text();
    assert_eq!(told("list bob"), "bob: Mailbox is locked: it is in use; --wait waits\n");
    let restore = "restore mail.example.com bob --all -n";
    let locked = "bob: Mailbox is locked: it is in use; --wait waits\n";
    assert_eq!(told(restore), locked);
    drop(held);
    fs::remove_file(format!("{}.index", data.display())).unwrap();
    let said = told("list bob");
    assert!(said.starts_with("bob: Mailbox has an invalid format: /"), "{said}");
    assert!(said.contains("`ctl_backups reindex`"), "{said}");
    let message = "dump bob message 65c6cb8690452ddaa71e168ee340d22bae972e44";
    let looks = ["show bob mailboxes", "search bob --subject re", "export bob", message];
    let works = ["stat bob", "verify --cyrus bob", "lock bob --execute true"];
    for line in looks.iter().chain(&works) {
        let ran = cyrbk(&site, line);
        let said = ran.out_text() + &ran.err_text();
        assert!(said.contains("`ctl_backups reindex`"), "{line}: {said}");
    }
    fs::remove_file(&data).unwrap();
    for line in looks.iter().chain(&works).chain(&["move bob one"]) {
        let ran = cyrbk(&site, line);
        let said = ran.out_text() + &ran.err_text();
        assert!(said.contains("/two/b/bob_5xHD5K: no such backup"), "{line}: {said}");
    }
    fs::create_dir(&data).unwrap();
    let said = cyrbk(&site, "verify bob").out_text();
    assert!(said.contains(": Is a directory"), "{said}");
}

/// While they wait, and not when it is over.
#[test]
fn who_waits_for_a_lock_says_so() {
    let site = Site::of_fixture("main");
    let data = site.path().join("two/b/bob_5xHD5K");
    let read_write = fs::OpenOptions::new().read(true).write(true).clone();
    for which in ["bob --all", "--all-users"] {
        let held = open_locked(&data, &read_write, Kind::Exclusive, Wait::No).unwrap();
        let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
        command.args(["restore", "mail.example.com", "-n", "--wait"]).args(which.split(' '));
        command.arg("-C").arg(site.conf()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut waiting = command.spawn().unwrap();
        let lines = BufReader::new(waiting.stderr.take().unwrap()).lines();
        let (sender, receiver) = channel();
        thread::spawn(move || lines.for_each(|line| sender.send(line.unwrap()).unwrap()));
        let said = receiver.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(said, "bob: in use: waiting for its lock", "{which}");
        assert_eq!(waiting.try_wait().unwrap(), None, "{which}");
        drop(held);
        assert!(waiting.wait().unwrap().success(), "{which}");
        assert_eq!(receiver.iter().next(), None, "{which}");
    }
}

/// A disk that has become read-only is when backups are wanted most.
#[test]
fn backups_on_a_read_only_file_system_can_be_read() {
    let programs = [("unshare", "util-linux"), ("mount", "mount")];
    if programs.iter().any(|(name, package)| machine::program(name, package).is_none()) {
        return;
    }
    let site = Site::of_fixture("main");
    let two = site.path().join("two");
    let words = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" || exit 99; \
        cyrbk=$1; shift; for command; do \"$cyrbk\" $command || exit; done";
    let mut command = site.command(Path::new("unshare"));
    command.args(["--mount", "--propagation", "private", "sh", "-c", words]);
    command.arg(&two).arg(env!("CARGO_BIN_EXE_cyrbk"));
    for line in ["list", "verify", "export", "show"] {
        let rest = if line == "show" { " mailboxes" } else { "" };
        command.arg(format!("{line} -C {} bob{rest}", site.conf().display()));
    }
    let ran = wait(command);
    let may_not = ran.err_text().contains("unshare") || ran.code == 99;
    if may_not {
        machine::impossible(&format!("mounting takes root: {}", ran.err_text()));
        return;
    }
    assert_eq!(ran.code, 0, "{}{}", ran.out_text(), ran.err_text());
    assert!(ran.out_text().contains("verify bob: ok\n"), "{}", ran.out_text());
    assert!(ran.out_text().contains("\nFrom "), "{}", ran.out_text());
}

#[test]
fn what_is_not_there_is_named() {
    let site = Site::of_fixture("main");
    for line in [
        "export carol user/carol/None",
        "search carol --in user/carol/None",
        "show carol messages in user/carol/Work user/carol/None",
    ] {
        let ran = cyrbk(&site, line);
        let said = ran.err_text();
        assert!(said.starts_with("carol: user/carol/None: Item does not exist"), "{line}: {said}");
        assert_eq!(ran.code, 75, "{line}");
    }
    let none = "0000000000000000000000000000000000000000";
    let ran = cyrbk(&site, &format!("show carol messages {none}"));
    assert_eq!(ran.code, 75, "{}", ran.err_text());
    for (what, name) in [(format!("message {none}"), none), ("chunk 99".into(), "chunk 99")] {
        let ran = cyrbk(&site, &format!("dump carol {what}"));
        let said = ran.err_text();
        assert_eq!((ran.code, said), (75, format!("carol: {name}: Item does not exist\n")));
        let words: Vec<&str> = ["carol", "dump"].into_iter().chain(what.split(' ')).collect();
        let cyrus = site.ours("cyr_backup", &words).err_text();
        assert_eq!(cyrus, "carol: Item does not exist\n");
    }
}

/// Before a backup is opened.
#[test]
fn where_to_export_is_looked_at_first() {
    let site = Site::of_fixture("main");
    for (line, said) in [
        ("export nobody --imap http://x --imap-user a --password-file p", "http: neither"),
        ("export nobody --imap imap://x", "no user: give --imap-user"),
        ("export nobody --imap x --imap-user a", "no password: give --password-file"),
    ] {
        let ran = cyrbk(&site, line);
        let err = ran.err_text();
        assert_eq!(ran.code, 64, "{line}: {err}");
        assert!(err.starts_with(&format!("fatal error: {said}")), "{line}: {err}");
    }
}

/// What Cyrus lets pass is a failure here, and the other way round.
#[test]
fn statuses_without_exceptions() {
    let site = Site::of_fixture("main");
    for (line, own, old) in [
        ("list nobody carol", 75, 0),
        ("verify --cyrus nobody carol", 75, 0),
        ("stat nobody carol", 75, 0),
        ("stat --file /nonexistent", 75, 0),
        ("stat carol", 0, 0),
        ("compact carol", 0, 75),
        ("compact --stop-on-error carol bob", 0, 75),
    ] {
        let ran = cyrbk(&site, line);
        assert_eq!(ran.code, own, "{line}: {}{}", ran.out_text(), ran.err_text());
        let old_words = line.replace(" --cyrus", "").replace("--file ", "-f ");
        let words: Vec<&str> = old_words.split(' ').collect();
        assert_eq!(site.ours("ctl_backups", &words).code, old, "{line}");
    }
    // Nothing to do is nothing to stop at.
    let ran = cyrbk(&site, "compact --stop-on-error carol bob");
    assert_eq!(ran.out_text(), "compact carol: skipped\ncompact bob: skipped\n");
}

/// Behind `cyrbk search ... |` an empty list means that nothing was found, not that all is well.
#[test]
fn empty_lists_are_not_all_well() {
    let site = Site::of_fixture("main");
    let list = site.path().join("list");
    fs::write(&list, "# nothing\n\n").unwrap();
    let list = list.display();
    let ran = cyrbk(&site, &format!("export carol --guids {list}"));
    assert_eq!((ran.code, ran.out_text().as_str()), (75, ""));
    assert_eq!(ran.err_text(), format!("carol: {list}: no GUID is in there\n"));
    let ran = cyrbk(&site, &format!("restore localhost carol --dry-run -F {list}"));
    assert_eq!((ran.code, ran.err_text()), (75, format!("{list}: no object is in there\n")));
    // Cyrus's restore does nothing then, and is content.
    let words = ["-n", "localhost", "carol", "-F", &list.to_string()];
    link_restore(&site);
    assert_eq!(site.ours("restore", &words).code, 0);
}

/// So is a site without any backup: its catalog may have been lost.
#[test]
fn a_restore_of_nobody_is_no_success() {
    let site = Site::empty();
    let ran = cyrbk(&site, "restore localhost --all-users --dry-run");
    assert_eq!(ran.code, 75);
    let told = format!("no such backup in {}/conf/backups.db\n", site.path().display());
    assert_eq!((ran.out_text(), ran.err_text()), (String::new(), told));
    let site = Site::of_fixture("main");
    let tally = |words: &str| {
        let ran = cyrbk(&site, &format!("restore localhost --all-users --dry-run{words}"));
        assert_eq!(ran.code, 0, "{}", ran.err_text());
        ran.out_text().contains(" backups: ")
    };
    assert!(tally("") && !tally(" --quiet"));
}

/// What says how the mail server is reached is read as other options are.
#[test]
fn a_channel_that_makes_no_sense_is_a_fault_of_the_configuration() {
    let site = Site::of_fixture("main");
    site.configure("far_sync_timeout: soon\n");
    let ran = cyrbk(&site, "restore localhost alice --all --dry-run --channel near");
    assert_eq!(ran.code, 0, "{}", ran.err_text());
    let ran = cyrbk(&site, "restore localhost alice --all --dry-run --channel far");
    assert_eq!(ran.code, 78, "{}", ran.err_text());
    assert!(ran.err_text().starts_with("Fatal error: "), "{}", ran.err_text());
}

/// Values of options that only cyrbk has are not answered with Cyrus's usage.
#[test]
fn restore_names_the_value_that_is_wrong() {
    let site = Site::of_fixture("main");
    link_restore(&site);
    for (option, said) in [
        ("--at=rubbish", "restore: --at: `rubbish` is no time; try "),
        ("--only=rubbish", "restore: --only: `rubbish` is none of mail annotations "),
    ] {
        let ran = site.ours("restore", &["-n", "localhost", "carol", "-a", option]);
        assert_eq!(ran.code, 64, "{option}");
        assert!(ran.err_text().starts_with(said), "{}", ran.err_text());
        assert_eq!(ran.err_text().lines().count(), 1, "{}", ran.err_text());
    }
    // By cyrbk's own words a name may be typed as people see it.
    let lines = ["user/carol/Rescue", "user.carol.Rescue"].map(|name| {
        cyrbk(&site, &format!("restore localhost carol user/carol --dry-run --into {name}"))
    });
    assert_eq!(lines[0], lines[1]);
    assert!(lines[0].out_text().starts_with("user.carol.Rescue: "), "{}", lines[0].err_text());
}

/// Who has just typed what to show adds the rest behind it.
#[test]
fn options_may_stand_behind_what_is_shown() {
    let site = Site::of_fixture("main");
    let conf = site.conf().display().to_string();
    for (line, same) in [
        ("show bob messages in user.bob --json -C CONF", "show --json bob messages in user.bob"),
        ("show user.bob chunks --mailbox -C CONF", "show --mailbox user.bob chunks"),
        ("dump two/b/bob_5xHD5K chunk 1 --file -C CONF", "dump bob chunk 1"),
    ] {
        let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
        command.args(line.replace("CONF", &conf).split(' '));
        let ran = wait(command);
        assert_eq!(ran.code, 0, "{line}: {}", ran.err_text());
        assert_eq!(ran, cyrbk(&site, same), "{line}");
    }
}

/// Documents one behind the other; each begins and ends at the margin.
fn documents(ran: &Ran) -> Vec<String> {
    let text = String::from_utf8(ran.out.clone()).unwrap();
    let (mut documents, mut document) = (Vec::new(), String::new());
    for line in text.lines() {
        document.push_str(line);
        document.push('\n');
        if ["}", "]", "[]", "{}"].contains(&line) {
            documents.push(std::mem::take(&mut document));
        }
    }
    assert_eq!(document, "", "standard output holds nothing but JSON");
    documents
}

/// Whatever is asked for, and whether it is there or not.
#[test]
fn json_is_json() {
    let site = Site::of_fixture("main");
    let odd = b"Subject: \"quoted\" \\ \x01\x1b[2J \xe9\r\nFrom: =?utf-8?q?=22=5C=00=FF?=\r\n\r\nx";
    site.store_message("o\"dd\\", &crate::damage::guid(odd), odd);
    let judge = Connection::open_in_memory().unwrap();
    for (line, count) in [
        ("list", 10),
        ("list nobody bob", 1),
        ("stat --all", 10),
        ("verify --all", 10),
        ("verify --all --quick", 10),
        ("verify --cyrus bob carol", 2),
        ("verify --file /nonexistent", 1),
        ("compact --dry-run --all", 10),
        ("compact --force bob nobody", 1),
        ("reindex bob carol", 2),
        ("reconstruct --dry-run", 10),
        ("lock bob --execute true", 1),
        ("lock --file /nonexistent", 1),
        ("move bob one --dry-run", 1),
        ("move bob one", 1),
        ("delete ben", 1),
        ("delete ben --force", 1),
        ("show bob chunks", 1),
        ("show alice mailboxes", 1),
        ("show alice messages", 1),
        ("show o\"dd\\ messages", 1),
        ("show alice messages in user.alice", 1),
        ("search alice --subject re", 1),
        ("search alice --subject nothing-of-that-kind", 1),
        ("search o\"dd\\", 1),
        ("restore localhost alice --all --dry-run", 1),
        ("restore localhost --all-users --dry-run", 9),
        ("restore localhost:1 bob --all", 1),
        ("passwd --delete nobody", 0),
    ] {
        let ran = cyrbk(&site, &format!("{line} --json"));
        let documents = documents(&ran);
        assert_eq!(documents.len(), count, "{line}: {}{}", ran.out_text(), ran.err_text());
        for document in documents {
            let valid = judge.query_row("SELECT json_valid(?)", [&document], |row| row.get(0));
            assert_eq!(valid, Ok(1), "{line}: {document}");
        }
    }
}

/// As log-ins are judged: by the server's options, under the canonical name.
#[test]
fn who_gets_a_password_and_may_not_replicate_is_told() {
    let site = Site::empty();
    let password = site.path().join("password");
    fs::write(&password, "secret\n").unwrap();
    for (lines, may) in [
        ("", false),
        ("admins: Tom\n", false),
        ("admins: group:no-such-group\n", false),
        ("admins: tom\n", true),
        ("backupd_admins: tom\n", true),
        ("admins: anyone\n", true),
    ] {
        site.configure(lines);
        let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
        command.args(["passwd", "Tom", "-C"]).arg(site.conf());
        command.stdin(fs::File::open(&password).unwrap());
        let ran = wait(command);
        let warning = "tom may not replicate yet: admins of ";
        assert_eq!(ran.code, 0, "{lines}: {}", ran.err_text());
        assert_eq!(ran.err_text().contains(warning), !may, "{lines}: {}", ran.err_text());
    }
}

#[test]
fn completions_are_those_of_a_shell() {
    let site = Site::empty();
    for (shell, text) in
        [("bash", "complete -F _cyrbk"), ("zsh", "#compdef cyrbk"), ("fish", "complete -c cyrbk")]
    {
        let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
        command.args(["completions", shell]);
        let ran = wait(command);
        assert_eq!(ran.code, 0, "{}", ran.err_text());
        assert!(ran.out_text().contains(text), "{shell}");
    }
    let Some(bash) = machine::program("bash", "bash") else { return };
    let line = format!(
        "source <({} completions bash); COMP_WORDS=(cyrbk ver); COMP_CWORD=1; \
         _cyrbk cyrbk ver cyrbk; echo \"${{COMPREPLY[@]}}\"",
        env!("CARGO_BIN_EXE_cyrbk")
    );
    let mut command = site.command(&bash);
    command.args(["-c", &line]).stdin(Stdio::null());
    assert_eq!(wait(command).out_text(), "verify\n");
}
