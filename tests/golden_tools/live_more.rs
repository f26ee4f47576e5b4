//! The real tools and cyrbk's on the same files: stat, lock, reindex, show, json.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;

use cyrbk::lock::{Kind, Wait, open_locked};
use rusqlite::Connection;

use crate::live::{TOOLS, data_file, differs, index_of, ours, real, same, same_status, site};
use crate::site::{Ran, Site};

#[test]
fn stat_lines() {
    let Some(site) = site("main") else { return };
    for conf in
        ["", "backup_retention: 0\n", "backup_retention: 1s\n", "backup_retention: 20000d\n"]
    {
        site.configure(conf);
        same(
            &site,
            &[
                "ctl_backups stat -A",
                "ctl_backups -j -A stat",
                "ctl_backups stat bob nobody carol",
                "ctl_backups stat bob nobody",
                "ctl_backups stat nobody",
                "ctl_backups stat",
                "ctl_backups -V stat ''",
                "ctl_backups stat -m user/bob INBOX",
                "ctl_backups stat -f /nonexistent",
                "ctl_backups stat -S -f /nonexistent two/b",
                "ctl_backups -w stat -P b",
            ],
        );
    }
    let data = data_file(&site, "two/t");
    fs::write(&data, "").unwrap();
    fs::remove_file(index_of(&data)).unwrap();
    same(&site, &["ctl_backups stat tester", "ctl_backups -j stat tester"]);
}

#[test]
fn stat_of_locked_and_missing_backups() {
    let Some(site) = site("main") else { return };
    let options = fs::OpenOptions::new().read(true).write(true).to_owned();
    let bob = data_file(&site, "two/b").with_file_name("bob_5xHD5K");
    let _held = open_locked(&bob, &options, Kind::Exclusive, Wait::No).unwrap();
    fs::remove_file(data_file(&site, "two/e")).unwrap();
    same(
        &site,
        &[
            "ctl_backups stat -A",
            "ctl_backups stat bob carol",
            "ctl_backups stat -S bob carol",
            "ctl_backups stat carol bob",
            "ctl_backups stat -S erin@virt.example carol",
            "ctl_backups stat erin@virt.example",
            "ctl_backups lock bob",
            "ctl_backups lock -x true bob",
            "ctl_backups lock -s bob",
            "ctl_backups lock -x true erin@virt.example",
            "ctl_backups -vv reindex bob",
            "ctl_backups reindex erin@virt.example bob carol",
            "ctl_backups -j reindex erin@virt.example bob carol",
            "ctl_backups -S reindex erin@virt.example carol",
        ],
    );
}

#[test]
fn lock_and_what_it_runs() {
    let Some(site) = site("main") else { return };
    let relative = format!("one/a/{}", data_file(&site, "one/a").file_name().unwrap().display());
    let run = |tool: &std::path::Path, words: &[&str]| site.run(&tool.join("ctl_backups"), words);
    let show = "echo \"$ctl_backups_lock_data_fname $ctl_backups_lock_index_fname\"; id -un; umask";
    for words in [
        &["lock", "alice"][..],
        &["lock", "-p", "alice"],
        &["lock"],
        &["lock", "nobody"],
        &["-j", "lock", "bob"],
        &["lock", ""],
        &["lock", "-c", "bob"],
        &["lock", "-c", "nobody"],
        &["lock", "-x", show, "bob"],
        &["lock", "-x", show, "-f", &relative],
        &["lock", "-x", "exit 3", "bob"],
        &["lock", "-x", "", "bob"],
        &["lock", "-x", "kill -9 $$", "bob"],
        &["lock", "-x", "true", "nobody"],
        &["lock", "-m", "user/bob"],
        &["lock", "-f", "/nonexistent"],
        &["lock", "-s", "carol"],
    ] {
        let (real, ours) = (run(TOOLS.as_ref(), words), run(&site.path().join("bin"), words));
        assert!(real == ours, "{}", differs(&words.join(" "), &real, &ours));
    }
    // What one has made the other may remove.
    let made = [Path::new(TOOLS).to_owned(), site.path().join("bin")].map(|tool| {
        let ran = run(&tool, &["lock", "-c", "-f", "one/new"]);
        let files = ["one/new", "one/new.index"].map(|name| {
            let meta = fs::metadata(site.path().join(name)).unwrap();
            fs::remove_file(site.path().join(name)).unwrap();
            (meta.uid(), meta.mode(), meta.len() > 0)
        });
        (ran, files)
    });
    assert_eq!(made[0], made[1]);
}

/// Quirk 41: the real tool's lines come when it ends.
#[test]
fn lock_says_at_once_that_it_holds() {
    let site = Site::of_fixture("main");
    let mut command = site.command(&site.path().join("bin/ctl_backups"));
    command.arg("-C").arg(site.conf()).args(["lock", "bob"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = command.spawn().unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "* Trying to obtain lock on bob...");
    assert_eq!(lines.next().unwrap().unwrap(), "OK locked");
    assert_eq!(site.ours("ctl_backups", &["lock", "bob"]).code, 75);
    let mut stdin = holder.stdin.take().unwrap();
    stdin.write_all(b"some words\n").unwrap();
    assert_eq!(site.ours("ctl_backups", &["verify", "bob"]).code, 75);
    drop(stdin);
    assert!(holder.wait().unwrap().success());
    assert_eq!(site.ours("ctl_backups", &["verify", "bob"]).code, 0);
}

#[test]
fn show_and_json() {
    let Some(site) = site("main") else { return };
    same(
        &site,
        &[
            "cyr_backup bob show mailboxes user/bob",
            "cyr_backup bob show mailboxes nosuch user/bob/ user/nobody",
            "cyr_backup carol show mailboxes user/carol/Old user/carol/Work user.carol",
            "cyr_backup alice show mailboxes user/alice/Trash z93h5wctnhbmspuni9g8ixgk",
            "cyr_backup bob show messages 65C6CB8690452DDAA71E168EE340D22BAE972E44 x",
            "cyr_backup carol show mailboxes user/carol user/carol/Work user/carol",
            "cyr_backup bob show messages 65c6cb8690452ddaa71e168ee340d22bae972e44 \
             65C6CB8690452DDAA71E168EE340D22BAE972E44 65c6cb8690452ddaa71e168ee340d22bae972e44",
            "cyr_backup bob show messages 65c6cb8690452ddaa71e168ee340d22bae972e45",
            "cyr_backup bob json headers 65c6cb8690452ddaa71e168ee340d22bae972e45 nonsense",
            "cyr_backup -m user/bob json chunks",
            "cyr_backup -v bob json messages",
            "cyr_backup '' json mailboxes",
            "cyr_backup nobody json chunks",
            "cyr_backup nobody show messages x",
        ],
    );
}

/// Headers of every odd kind, through the real backup and ours.
#[test]
fn odd_headers() {
    let Some(_) = site("main") else { return };
    let site = Site::empty();
    let messages: [&[u8]; 12] = [
        b"From: a\r\nReceived: x\r\nreceived: y\r\nReceived: z\r\n\r\nbody",
        b"X-Folded: one\r\n two\r\n\tthree  \r\nEmpty:\r\nBlank: \t \r\n\r\nbody\r\n\r\nmore",
        b"A: 1\nB: 2\n\nbody\n",
        b"A: header only\r\n",
        b"A: no line end",
        b"\r\nbody only\r\n",
        b"no colon at all\r\nA: 1\r\n\r\nbody",
        b"A: 1\r\nno colon here\r\n and folded\r\nB: 2\r\n\r\n",
        b"A: caf\xc3\xa9\r\nB: caf\xe9\r\nC : blank before\r\n\r\n",
        b" folded first\r\nA: 1\r\n\r\n",
        b"A: \"\\ /\x01\x7f\r\n\r\n",
        b"",
    ];
    for (i, message) in messages.iter().enumerate() {
        let user = format!("odd{i}");
        let guid = crate::damage::guid(message);
        site.store_message(&user, &guid, message);
    }
    let site = site.give_to("cyrus");
    let mut lines = Vec::new();
    for (i, message) in messages.iter().enumerate() {
        let guid = crate::damage::guid(message);
        lines.push(format!("cyr_backup odd{i} json headers {guid} {guid}"));
        lines.push(format!("cyr_backup odd{i} show messages {guid}"));
    }
    let mut bad = String::new();
    for line in &lines {
        let (real, ours) = (real(&site, line), ours(&site, line));
        if real != ours {
            bad.push_str(&differs(line, &real, &ours));
        }
    }
    assert!(bad.is_empty(), "{bad}");
}

/// All rows of the index, for a backup without `{n+}` literals, which Debian's
/// reindex cannot read.
fn rows(site: &Site, name: &str) -> Vec<String> {
    let db = Connection::open(index_of(&site.path().join(name))).unwrap();
    let mut rows = Vec::new();
    for table in ["chunk", "message", "mailbox", "mailbox_message", "subscription", "seen"] {
        let mut statement = db.prepare(&format!("SELECT * FROM {table} ORDER BY id")).unwrap();
        let columns = statement.column_count();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let values: Vec<rusqlite::types::Value> =
                (0..columns).map(|i| row.get(i).unwrap()).collect();
            rows.push(format!("{table} {values:?}"));
        }
    }
    rows
}

#[test]
fn reindex_as_cyrus() {
    let Some(site) = site("main") else { return };
    let bob = "two/b/bob_5xHD5K";
    for line in [
        "ctl_backups reindex bob carol nobody",
        "ctl_backups -j reindex bob nobody carol",
        "ctl_backups reindex -P b",
        "ctl_backups reindex",
        "ctl_backups reindex ''",
    ] {
        same(&site, &[line]);
    }
    let index = index_of(&site.path().join(bob));
    let mut built = Vec::new();
    for run in [real as fn(&Site, &str) -> Ran, ours] {
        fs::remove_file(&index).unwrap();
        assert_eq!(run(&site, "ctl_backups reindex bob").code, 0);
        built.push(rows(&site, bob));
    }
    assert_eq!(built[0], built[1]);
    let (real, ours) =
        (real(&site, "ctl_backups -v reindex bob"), ours(&site, "ctl_backups -v reindex bob"));
    // Quirk 44: one more chunk than there is.
    let len = fs::metadata(site.path().join(bob)).unwrap().len();
    let bogus = format!("\nfound chunk at offset {len}\n");
    assert_eq!(real.out_text().replace(&bogus, ""), ours.out_text());
}

#[test]
fn reindex_keeps_the_old_index_if_told_to() {
    let Some(site) = site("main") else { return };
    site.configure("backup_keep_previous: yes\n");
    let kept = || {
        let files = fs::read_dir(site.path().join("two/b")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("bob_5xHD5K.index.")).count()
    };
    same(&site, &["ctl_backups reindex bob"]);
    assert!(kept() >= 1, "{}", kept());
}

#[test]
fn reindex_of_damage_has_the_same_status() {
    let Some(site) = site("main") else { return };
    let bob = site.path().join("two/b/bob_5xHD5K");
    let good = fs::read(&bob).unwrap();
    let mut flipped = good.clone();
    flipped[1000] ^= 0x10;
    let mut behind = good.clone();
    behind.extend_from_slice(b"garbage that is no gzip member");
    for octets in [&flipped, &behind] {
        let check = |run: fn(&Site, &str) -> Ran| {
            fs::write(&bob, octets).unwrap();
            run(&site, "ctl_backups reindex bob").code
        };
        assert_eq!((check(real), check(ours)), (75, 75));
    }
    fs::write(&bob, &good[..good.len() - 200]).unwrap();
    same_status(&site, "ctl_backups reindex bob", "reindex bob: ok");
}
