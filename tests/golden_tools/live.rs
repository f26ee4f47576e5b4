//! The real tools and cyrbk's, one after the other on the same files.
//!
//! Needs Cyrus's tools, of 3.6, and to be root or the Cyrus user. Elsewhere these tests are
//! skipped: see `machine`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cyrbk::lock::{Kind, Wait, open_locked};
use nix::unistd::geteuid;
use rusqlite::Connection;

use crate::machine;
use crate::site::{Ran, Site, wait};

pub(crate) const TOOLS: &str = "/usr/lib/cyrus/bin";

/// Where the words differ on purpose: entry of docs/quirks.md, Cyrus's text, ours.
/// Statuses never differ.
const DEVIATIONS: [(u32, &str, &str); 6] = [
    (3, "nobody: Unknown code ____ 251", "nobody: not found in backups.db"),
    (2, "failed (Unknown code ____ 255)", "failed (data length mismatch for chunk 2)"),
    (2, "bob: Unknown code ____ 255", "bob: data length mismatch for chunk 2"),
    (3, "carol: Unknown code ____ 255", "carol: not the id of a chunk: 0"),
    (3, "alice: Unknown code ____ 255", "alice: not the id of a chunk: abc"),
    (3, "ben: Unknown code ____ 255", "ben: not the id of a chunk: -1"),
];

/// The site, if the real tools can be run on it.
pub(crate) fn site(set: &str) -> Option<Site> {
    let user = nix::unistd::User::from_name("cyrus").unwrap();
    let may = user.is_some_and(|user| geteuid().is_root() || geteuid() == user.uid);
    let judged = machine::is_cyrus_3_6(Path::new(TOOLS));
    match judged.and(may.then_some(()).ok_or_else(|| "this user may not become cyrus".into())) {
        Ok(()) => Some(Site::of_fixture(set).give_to("cyrus")),
        Err(reason) => {
            machine::missing(&reason);
            None
        }
    }
}

pub(crate) fn real(site: &Site, line: &str) -> Ran {
    let (tool, words) = split(line);
    site.run(&Path::new(TOOLS).join(tool), &words)
}

pub(crate) fn ours(site: &Site, line: &str) -> Ran {
    let (tool, words) = split(line);
    site.ours(tool, &words)
}

/// `''` is the empty word.
fn split(line: &str) -> (&str, Vec<&str>) {
    let mut words = line.split(' ').map(|word| if word == "''" { "" } else { word });
    (words.next().unwrap(), words.collect())
}

pub(crate) fn differs(line: &str, real: &Ran, ours: &Ran) -> String {
    format!(
        "{line}\n--- Cyrus {}\n{}{}--- cyrbk {}\n{}{}",
        real.code,
        real.out_text(),
        real.err_text(),
        ours.code,
        ours.out_text(),
        ours.err_text()
    )
}

/// Demands the same status and the same output, but for [`DEVIATIONS`].
pub(crate) fn same(site: &Site, lines: &[&str]) {
    for line in lines {
        let (real, ours) = (real(site, line), ours(site, line));
        let mend = |text: String| {
            DEVIATIONS.iter().fold(text, |text, (_, old, new)| text.replace(old, new))
        };
        let equal = real.code == ours.code
            && (real.out == ours.out || mend(real.out_text()) == ours.out_text())
            && (real.err == ours.err || mend(real.err_text()) == ours.err_text());
        assert!(equal, "{}", differs(line, &real, &ours));
    }
}

/// Demands the same status, and words of ours that contain `text` in place of
/// Cyrus's accidental ones.
pub(crate) fn same_status(site: &Site, line: &str, text: &str) {
    let (real, ours) = (real(site, line), ours(site, line));
    let said = ours.out_text() + &ours.err_text();
    assert!(real.code == ours.code && said.contains(text), "{}", differs(line, &real, &ours));
}

/// The first data file of a directory.
pub(crate) fn data_file(site: &Site, name: &str) -> PathBuf {
    let dir = site.path().join(name);
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_data = |path: &PathBuf| !path.to_str().unwrap().contains(".index");
    files.filter(is_data).min().unwrap()
}

pub(crate) fn index_of(data: &Path) -> PathBuf {
    format!("{}.index", data.display()).into()
}

#[test]
fn healthy_backups() {
    let Some(site) = site("main") else { return };
    same(
        &site,
        &[
            "ctl_backups list",
            "ctl_backups list -A -j",
            "ctl_backups list bob nobody carol",
            "ctl_backups list bob carol nobody",
            "ctl_backups list -S nobody bob",
            "ctl_backups list -j bob bob",
            "ctl_backups list ''",
            "ctl_backups -j list ''",
            "ctl_backups list %SHARED",
            "ctl_backups list -u",
            "ctl_backups list -P b al zz",
            "ctl_backups list -P ''",
            "ctl_backups list -D virt.example",
            "ctl_backups list -D internal virt.example x",
            "ctl_backups list -m user/bob user/carol/x INBOX user.bob user/nobody",
            "ctl_backups list -At",
            "ctl_backups list -At1",
            "ctl_backups list -A -t -5",
            "ctl_backups list -VA",
            "ctl_backups verify",
            "ctl_backups verify bob carol nobody dave@virt.example",
            "ctl_backups verify ''",
            "ctl_backups -vv verify bob olga",
            "ctl_backups -v verify carol",
            "ctl_backups -j verify bob ben",
            "cyr_backup bob list all",
            "cyr_backup -v olga list chunks",
            "cyr_backup -vv carol list mailboxes",
            "cyr_backup -m user/bob list messages",
            "cyr_backup '' list messages",
            "cyr_backup nobody list chunks",
            "cyr_backup -m nobody list mailboxes",
            "cyr_backup bob dump chunk 2x",
            "cyr_backup bob dump chunk 99",
            "cyr_backup carol dump chunk 0",
            "cyr_backup alice dump chunk abc",
            "cyr_backup ben dump chunk -- -1",
            "cyr_backup bob dump message 65C6CB8690452DDAA71E168EE340D22BAE972E44",
            "cyr_backup bob dump message 65c6cb8690452ddaa71e168ee340d22bae972e45",
            "cyr_backup bob dump message nonsense",
        ],
    );
    let relative = format!("one/a/{}", data_file(&site, "one/a").file_name().unwrap().display());
    same(
        &site,
        &[
            &format!("ctl_backups list -f {relative}"),
            &format!("ctl_backups -j list -f {relative}"),
            &format!("cyr_backup -f {relative} list chunks"),
            "ctl_backups list -f /nonexistent nor/this",
            "ctl_backups list -f two/b",
            "ctl_backups verify -f /nonexistent",
            "cyr_backup -f /nonexistent list chunks",
        ],
    );
}

#[test]
fn names_with_domains() {
    let Some(site) = site("main") else { return };
    let lines = [
        "ctl_backups list -m user/dave@virt.example user/bob@example.com user/erin/x@virt.example",
        "ctl_backups list -m user.bob user.dave@virt.example DELETED.user.bob.x.6B014EEA",
        "ctl_backups list -m user..carol",
        "ctl_backups list -m DELETED/user/bob/x DELETED/user/carol/x/0 DELETED/user/bob DELETED/x",
        "ctl_backups list -D example.com",
        "ctl_backups list -D internal",
        "cyr_backup -m user/dave@virt.example list mailboxes",
        "cyr_backup bob show mailboxes user/bob@example.com user.bob@example.com user.bob",
        "cyr_backup bob show mailboxes user/bob@internal user.bob@internal",
        "cyr_backup dave@virt.example show mailboxes virt.example!user.dave",
        "ctl_backups list -m user.bob.a/b user/bob/a/b",
        "ctl_backups list -m user/a^b virt.example!user.dave Foo@virt.example @ /user//bob/",
    ];
    for conf in ["", "virtdomains: on\n", "virtdomains: userid\ndefaultdomain: example.com\n"] {
        for separator in ["", "unixhierarchysep: no\n"] {
            site.configure(&format!("{conf}{separator}"));
            same(&site, &lines);
        }
    }
}

#[test]
fn time_zones() {
    let Some(site) = site("main") else { return };
    for zone in ["", "Europe/Berlin", "Asia/Kolkata", "CET-1CEST", "America/St_Johns", "No/Zone"] {
        let run = |tool: PathBuf| {
            let mut command = site.command(&tool);
            command.env("TZ", zone).arg("-C").arg(site.conf()).args(["bob", "list", "mailboxes"]);
            wait(command)
        };
        let real = run(Path::new(TOOLS).join("cyr_backup"));
        let ours = run(site.path().join("bin/cyr_backup"));
        assert_eq!(real.code, 0);
        assert!(real == ours, "{}", differs(zone, &real, &ours));
    }
}

#[test]
fn locked_backups() {
    let Some(site) = site("main") else { return };
    let options = fs::OpenOptions::new().read(true).write(true).to_owned();
    let bob = data_file(&site, "two/b").with_file_name("bob_5xHD5K");
    let _held = open_locked(&bob, &options, Kind::Exclusive, Wait::No).unwrap();
    same(
        &site,
        &[
            "ctl_backups list",
            "ctl_backups list -j bob carol",
            "ctl_backups list -S bob carol",
            "ctl_backups verify -S bob carol",
            "ctl_backups -j verify bob carol",
            "ctl_backups -vv verify bob carol",
            "ctl_backups verify bob nobody",
        ],
    );
}

#[test]
fn indexes_that_cannot_be_used() {
    let Some(site) = site("main") else { return };
    let lines = [
        "ctl_backups list -S dave@virt.example carol",
        "ctl_backups list -V dave@virt.example",
        "ctl_backups -j list -A",
        "ctl_backups verify dave@virt.example erin@virt.example carol",
        "ctl_backups -v verify -S dave@virt.example carol",
        "cyr_backup dave@virt.example list chunks",
    ];
    let index_file = index_of(&data_file(&site, "one/d"));
    fs::remove_file(&index_file).unwrap();
    same(&site, &lines);
    fs::write(&index_file, "").unwrap();
    same(&site, &lines);
    fs::write(&index_file, "this is not the database that anybody looks for\n".repeat(99)).unwrap();
    same(&site, &lines);
}

#[test]
fn data_files_missing_empty_unreadable_and_with_garbage_behind() {
    let Some(site) = site("main") else { return };
    let lines = [
        "ctl_backups list erin@virt.example",
        "ctl_backups -V list erin@virt.example",
        "ctl_backups verify erin@virt.example",
        "cyr_backup erin@virt.example list messages",
        "cyr_backup erin@virt.example list chunks",
    ];
    let data = data_file(&site, "two/e");
    let mut octets = fs::read(&data).unwrap();
    octets.extend_from_slice(b"garbage that is no gzip member");
    fs::write(&data, octets).unwrap();
    same(&site, &lines);
    fs::set_permissions(&data, fs::Permissions::from_mode(0o000)).unwrap();
    same(&site, &lines);
    fs::remove_file(&data).unwrap();
    same(&site, &lines);

    // A user who was seen, but never sent anything.
    let site = site.give_to("cyrus");
    let data = data_file(&site, "two/t");
    fs::write(&data, "").unwrap();
    fs::remove_file(index_of(&data)).unwrap();
    same(
        &site,
        &[
            "ctl_backups list tester",
            "ctl_backups -j list -At",
            "ctl_backups -v verify tester",
            "cyr_backup tester list all",
            "cyr_backup tester dump chunk 1",
        ],
    );
}

#[test]
fn a_truncated_last_chunk() {
    let Some(site) = site("main") else { return };
    let bob = data_file(&site, "two/b").with_file_name("bob_5xHD5K");
    let len = fs::metadata(&bob).unwrap().len();
    for cut in [len - 200, len - 900] {
        fs::OpenOptions::new().write(true).open(&bob).unwrap().set_len(cut).unwrap();
        same(
            &site,
            &[
                "ctl_backups list bob carol",
                "ctl_backups -V list bob",
                "ctl_backups verify bob",
                "ctl_backups -vv verify bob",
                "cyr_backup bob list chunks",
                "cyr_backup -vv bob list chunks",
            ],
        );
    }
}

#[test]
fn tampered_indexes() {
    let Some(site) = site("main") else { return };
    let bob = data_file(&site, "two/b").with_file_name("bob_5xHD5K.index");
    let pristine = fs::read(&bob).unwrap();
    let cases = [
        ("UPDATE chunk SET file_sha1 = 'f' || substr(file_sha1, 2) WHERE id = 2", "file checksum"),
        ("UPDATE chunk SET data_sha1 = 'f' || substr(data_sha1, 2) WHERE id = 1", "data checksum"),
        ("UPDATE chunk SET data_sha1 = 'f' || substr(data_sha1, 2) WHERE id = 2", "data checksum"),
        ("UPDATE chunk SET length = length + 1 WHERE id = 2", "data length"),
        ("UPDATE message SET guid = 'f' || substr(guid, 2) WHERE id = 1", "message 1"),
        ("UPDATE message SET offset = 99999999 WHERE id = 1", "message 1"),
        ("UPDATE mailbox SET uidvalidity = uidvalidity + 1", "missing mailbox data"),
        ("UPDATE mailbox_message SET modseq = modseq + 1 WHERE id = 1", "missing mailbox_message"),
    ];
    for (change, text) in cases {
        fs::write(&bob, &pristine).unwrap();
        Connection::open(&bob).unwrap().execute_batch(change).unwrap();
        same_status(&site, "ctl_backups verify bob", text);
        let (real, ours) =
            (real(&site, "ctl_backups -v verify bob"), ours(&site, "ctl_backups -v verify bob"));
        let lines = |ran: &Ran| {
            let text = ran.out_text();
            let kept = text.lines().filter(|line| !line.contains("message 1"));
            let kept = kept.filter(|line| !line.starts_with("verify bob: failed"));
            kept.map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(lines(&real) == lines(&ours), "{}", differs(change, &real, &ours));
        let line = "cyr_backup bob list messages";
        let (real, ours) = (self::real(&site, line), self::ours(&site, line));
        assert!(real.code == ours.code && real.out == ours.out, "{}", differs(line, &real, &ours));
    }
}

#[test]
fn catalogs_missing_and_damaged() {
    let Some(site) = site("main") else { return };
    let db = site.path().join("conf/backups.db");
    fs::remove_file(&db).unwrap();
    for line in ["ctl_backups list", "ctl_backups verify alice", "cyr_backup nobody list chunks"] {
        // Each of the two makes an empty one: as the same user, with the same rights.
        let made = [real as fn(&Site, &str) -> Ran, ours].map(|run| {
            let ran = run(&site, line);
            let meta = fs::metadata(&db).unwrap();
            fs::remove_file(&db).unwrap();
            (ran.code, ran.out, (meta.uid(), meta.gid(), meta.mode()))
        });
        assert_eq!(made[0], made[1], "{line}");
    }
    let lines = [
        "ctl_backups list",
        "ctl_backups verify -A",
        "ctl_backups list -P a",
        "ctl_backups list -D internal",
        "ctl_backups list bob",
        "ctl_backups list -m user/bob",
        "cyr_backup bob list chunks",
    ];
    fs::write(&db, "this is no database of any kind, however much you look at it").unwrap();
    for line in lines {
        same_status(&site, line, "cannot open backups.db: ");
    }
    site.configure("backup_db_path: /nonexistent/backups.db\n");
    for line in lines {
        same_status(&site, line, "cannot open backups.db: ");
    }
}

#[test]
fn words_that_make_no_sense() {
    let Some(site) = site("main") else { return };
    site.configure("no such option name here\n");
    for line in [
        "ctl_backups",
        "ctl_backups -Z",
        "ctl_backups lis",
        "ctl_backups list -t bob",
        "ctl_backups list -A bob",
        "ctl_backups -u -u list",
        "ctl_backups -j -v verify bob",
        "ctl_backups -p list",
        "ctl_backups lock a b",
        "ctl_backups lock -A",
        "ctl_backups -x",
        "ctl_backups reconstruct x",
        "ctl_backups --help",
        "ctl_backups list -tA",
        "cyr_backup",
        "cyr_backup bob",
        "cyr_backup bob list",
        "cyr_backup bob list x",
        "cyr_backup bob list all x",
        "cyr_backup bob dump chunk",
        "cyr_backup bob show mailboxes",
        "cyr_backup bob json headers",
        "cyr_backup -f -m bob list all",
        "cyr_backup bob dump",
    ] {
        let (real, ours) = (real(&site, line), ours(&site, line));
        let synopsis = |ran: &Ran| ran.err_text().split("\n\n").next().unwrap().to_owned();
        let equal = real.code == 64 && ours.code == 64 && ours.out.is_empty();
        assert!(equal && synopsis(&real) == synopsis(&ours), "{}", differs(line, &real, &ours));
    }
    for words in [&["-Z", "x"][..], &["x", "list", "all", "-C"], &["-vZ"]] {
        let real = wait({
            let mut command = site.command(&Path::new(TOOLS).join("cyr_backup"));
            command.args(words);
            command
        });
        let ours = wait({
            let mut command = site.command(&site.path().join("bin/cyr_backup"));
            command.args(words);
            command
        });
        let first = |ran: &Ran| {
            let text = ran.err_text();
            text.lines().next().unwrap().rsplit('/').next().unwrap().to_owned()
        };
        assert_eq!(first(&real), first(&ours), "{words:?}");
        assert!(first(&ours).starts_with("cyr_backup: "), "{words:?}");
    }
}

#[test]
fn configurations_that_make_no_sense() {
    let Some(site) = site("main") else { return };
    for lines in ["oops\n", "backup_retention: xx\n", "backup_keep_previous: perhaps\n"] {
        site.configure(lines);
        for line in ["ctl_backups list", "cyr_backup bob list chunks"] {
            let (real, ours) = (real(&site, line), ours(&site, line));
            let begins = ours.err_text().starts_with(real.err_text().trim_end());
            assert!(
                real.code == 78 && ours.code == 78 && begins,
                "{}",
                differs(line, &real, &ours)
            );
        }
    }
    fs::remove_file(site.conf()).unwrap();
    same(&site, &["ctl_backups list", "ctl_backups verify bob", "cyr_backup bob list chunks"]);
    site.configure("");
    for tool in [TOOLS.into(), site.path().join("bin")] {
        let mut command = site.command(&tool.join("ctl_backups"));
        command.env("CYRUS_USER", "nosuchuser").arg("-C").arg(site.conf()).arg("list");
        let ran = wait(command);
        if geteuid().is_root() {
            assert_eq!(
                (ran.code, ran.err_text().as_str()),
                (64, "fatal error: must run as the Cyrus user\n")
            );
        }
    }
}
