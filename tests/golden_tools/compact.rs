//! Compaction: decisions and words as recorded from Cyrus, what stays beside the right
//! answer of an unpatched Cyrus, and the real tools on what cyrbk has written.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cyrbk::lock::Wait;
use cyrbk::store::{Backup, dump};
use cyrbk::wire::Guid;

use crate::live;
use crate::site::{Ran, Site};

/// Where cyrbk decides or ends otherwise on purpose.
struct Deviation {
    set: &'static str,
    /// End of the command.
    command: &'static str,
    /// Entry of docs/quirks.md.
    quirk: u32,
    cyrus: &'static str,
    ours: &'static str,
    code: i32,
}

const DEVIATIONS: [Deviation; 3] = [
    Deviation {
        set: "compacted-retention-1s",
        command: "tester",
        quirk: 103,
        cyrus: "failed (Syntax error in parameters)",
        ours: "ok",
        code: 0,
    },
    Deviation {
        set: "compacted-upstream-3.6.1",
        command: "tester",
        quirk: 103,
        cyrus: "failed (Syntax error in parameters)",
        ours: "ok",
        code: 0,
    },
    // Records and messages that Cyrus drops fill one more chunk.
    Deviation {
        set: "compacted-split",
        command: "carol",
        quirk: 100,
        cyrus: "splitting chunk 2",
        ours: "splitting chunk 1\nsplitting chunk 2",
        code: 0,
    },
];

struct Recorded {
    command: String,
    code: i32,
    out: String,
}

fn fixture(set: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backups").join(set)
}

/// The configuration and the runs of a set.
fn recorded(set: &str) -> (String, Vec<Recorded>) {
    let text = fs::read_to_string(fixture(set).join("commands.txt")).unwrap();
    let (head, runs) = text.split_once("\n\n").unwrap();
    let conf = head.strip_prefix("extra configuration: ").unwrap().replace("; ", "\n");
    // Nothing was older than that then, whatever it is now.
    let conf = conf.replace("backup_retention: 7d", "backup_retention: 0");
    let runs = format!("\n{runs}");
    let run = |run: &str| {
        let (head, rest) = run.split_once("\n--- stdout\n").unwrap();
        let (command, code) = head.split_once("\nexit ").unwrap();
        let out = rest.split_once("--- stderr").unwrap().0.to_owned();
        Recorded { command: command.to_owned(), code: code.parse().unwrap(), out }
    };
    (conf, runs.split("\n$ ").skip(1).map(run).collect())
}

fn compare_set(set: &str) {
    let (conf, runs) = recorded(set);
    let site = Site::of_fixture("main");
    site.configure(&conf);
    let top = site.path().to_str().unwrap();
    let mut deviations: Vec<u32> = Vec::new();
    for run in &runs {
        let command = run.command.replace("/srv/backup", top);
        let words: Vec<&str> = command.split(' ').skip(1).collect();
        let (mut code, mut out) = (run.code, run.out.replace("/srv/backup", top));
        let here = |deviation: &&Deviation| {
            deviation.set == set && command.ends_with(&format!(" {}", deviation.command))
        };
        if let Some(deviation) = DEVIATIONS.iter().find(here) {
            assert!(out.contains(deviation.cyrus), "quirk {} does not show", deviation.quirk);
            out = out.replace(deviation.cyrus, deviation.ours);
            code = deviation.code;
            deviations.push(deviation.quirk);
        }
        let Ran { code: our_code, out: our_out, err } = site.ours("ctl_backups", &words);
        let our_out = String::from_utf8(our_out).unwrap();
        assert_eq!((our_code, our_out), (code, out), "{set}: {command}");
        assert!(err.is_empty(), "{set}: {command}: {}", String::from_utf8_lossy(&err));
    }
    assert!(runs.len() >= 3);
    let due = DEVIATIONS.iter().filter(|deviation| deviation.set == set).count();
    assert_eq!(deviations.len(), due);
}

#[test]
fn nothing_but_what_is_not_needed_goes() {
    compare_set("compacted-default");
}

#[test]
fn short_retention() {
    compare_set("compacted-retention-1s");
    compare_set("compacted-upstream-3.6.1");
}

#[test]
fn small_chunks_are_joined() {
    compare_set("compacted-combined");
}

#[test]
fn large_chunks_are_split() {
    compare_set("compacted-split");
}

/// Lines of all chunks, except that each message has one of its own, without its body: in which
/// order messages come in a line, and which share one, means nothing.
fn lines(path: &Path) -> Vec<String> {
    let backup = Backup::open(path, Wait::No).unwrap();
    let mut text = Vec::new();
    for chunk in backup.index().chunks().unwrap() {
        dump::write_chunk(&backup, &chunk, &mut text).unwrap();
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.split("\r\n").filter(|line| line.contains(" APPLY "));
    let lines = lines.filter(|line| !line.contains(" APPLY MESSAGE ")).map(str::to_owned);
    let messages = backup.index().messages().unwrap().into_iter();
    let messages = messages.map(|row| format!("0000000000 APPLY MESSAGE {}", row.guid.unwrap()));
    lines.chain(messages).collect()
}

/// A line without its records.
fn head(line: &str) -> &str {
    line.split(" RECORD (").next().unwrap()
}

/// What compaction says of itself, which Cyrus's does not.
fn is_of_compaction(line: &str) -> bool {
    line.contains(" APPLY RESERVE %(CYRBK %(COMPACTED ")
        || line.contains(" APPLY SEEN ") && line.contains(" UNIQUEID cyrbk-")
}

/// The right answer is that of an unpatched Cyrus. What it keeps and cyrbk does not
/// is listed here, line by line.
#[test]
fn alice_keeps_what_an_unpatched_cyrus_keeps() {
    let site = Site::of_fixture("main");
    site.configure("backup_retention: 1s\n");
    let ran = site.ours("ctl_backups", &["-F", "compact", "alice"]);
    assert_eq!(ran.out_text(), "compact alice: ok\n");
    let mut ours = lines(&site.path().join("one/a/alice_EPfRmx"));
    assert_eq!(ours.extract_if(.., |line| is_of_compaction(line)).count(), 2);
    let theirs = lines(&fixture("compacted-upstream-3.6.1").join("one/a/alice_EPfRmx"));
    let kept: BTreeSet<&str> = ours.iter().map(|line| head(line)).collect();
    let known: BTreeSet<&str> = theirs.iter().map(|line| head(line)).collect();
    assert!(kept.is_subset(&known), "{:?}", kept.difference(&known));
    let mut gone: Vec<String> = known
        .difference(&kept)
        .map(|line| line.split(" SYNC_CRC").next().unwrap()[11..].to_owned())
        .filter(|line| !line.starts_with("APPLY RESERVE") && !line.starts_with("APPLY RENAME"))
        .collect();
    gone.sort();
    let due = [
        // Of a mailbox that was deleted long enough ago; and that was deleted.
        "APPLY MAILBOX %(UNIQUEID z93h5wctnhbmspuni9g8ixgk MBOXNAME user.alice.Trash",
        // Superseded, with records of expunged messages only.
        "APPLY MAILBOX %(UNIQUEID o1sek9jhmskj36b8gzqqvyo8 MBOXNAME user.alice.Lists",
        "APPLY UNMAILBOX user.alice.Trash",
        // Superseded or past their retention.
        "APPLY SEEN %(USERID alice UNIQUEID ob9pahr8llk0s50jz1jkugsf LASTREAD 1795247729 LASTUID 4 \
         LASTCHANGE 1795247729 SEENUIDS 1:2)",
        "APPLY SIEVE %(USERID alice FILENAME main.script LAST_UPDATE 1795247729 CONTENT {92+}",
        "APPLY SIEVE %(USERID alice FILENAME second.script LAST_UPDATE 1795247729 CONTENT keep;)",
        "APPLY SUB %(USERID alice MBOXNAME user.alice.Lists)",
        "APPLY UNSIEVE %(USERID alice FILENAME second.script)",
        "APPLY UNSUB %(USERID alice MBOXNAME user.alice.Lists)",
    ];
    let mut due: Vec<String> = due.map(str::to_owned).to_vec();
    due.sort();
    assert_eq!(gone, due);
}

/// Messages, names of live mailboxes.
fn content(path: &Path) -> (BTreeSet<Guid>, BTreeSet<Vec<u8>>) {
    let backup = Backup::open(path, Wait::No).unwrap();
    let index = backup.index();
    let messages = index.messages().unwrap().into_iter().filter_map(|row| row.guid).collect();
    let mailboxes = index.mailboxes().unwrap().into_iter().filter(|row| row.deleted.is_none());
    (messages, mailboxes.map(|row| row.mboxname).collect())
}

/// The real tools take what cyrbk has compacted for their own, and compacting it
/// again with them loses nothing. Not alice, whose literals they cannot read.
#[test]
fn the_real_tools_accept_the_result() {
    let confs = [
        "backup_retention: 1s\n",
        "backup_retention: 0\nbackup_compact_minsize: 64\n",
        "backup_retention: 0\nbackup_compact_maxsize: 8\nbackup_compact_minsize: 1\n",
    ];
    for conf in confs {
        let Some(site) = live::site("main") else { return };
        site.configure(conf);
        for (user, file) in [
            ("carol", "one/c/carol_cesxQB"),
            ("bob", "two/b/bob_5xHD5K"),
            ("ben", "two/b/ben_Vdtpxz"),
            ("olga", "one/o/olga_9xYCcC"),
            ("dave@virt.example", "one/d/dave@virt.example_sPpR67"),
            ("erin@virt.example", "two/e/erin@virt.example_wW5elY"),
            ("tester", "two/t/tester_ygQSHr"),
            ("%SHARED", "one/q/%SHARED_lEsHFy"),
        ] {
            let path = site.path().join(file);
            let user = if user == "%SHARED" { "''" } else { user };
            let compact = format!("ctl_backups -F compact {user}");
            let words: Vec<&str> = vec!["-F", "compact", if user == "''" { "" } else { user }];
            let ran = site.ours("ctl_backups", &words);
            assert_eq!(ran.code, 0, "{}{}", ran.out_text(), ran.err_text());
            let before = content(&path);
            for command in ["list", "verify"] {
                let ran = live::real(&site, &format!("ctl_backups {command} {user}"));
                assert_eq!(ran.code, 0, "{conf}{command}: {}{}", ran.out_text(), ran.err_text());
            }
            let ran = live::real(&site, &compact);
            assert_eq!(ran.code, 0, "{conf}{}{}", ran.out_text(), ran.err_text());
            assert_eq!(content(&path), before, "{conf}{user}");
            let ran = site.ours("ctl_backups", &["verify", words[2]]);
            assert_eq!(ran.code, 0, "{}", ran.out_text());
        }
    }
}

#[test]
fn dry_run_json_and_locks() {
    let site = Site::of_fixture("main");
    site.configure("backup_retention: 1s\n");
    let path = site.path().join("one/c/carol_cesxQB");
    let before = fs::read(&path).unwrap();
    let conf = site.conf();
    let conf = conf.to_str().unwrap();
    let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
    command.args(["compact", "-C", conf, "--dry-run", "carol"]);
    let ran = crate::site::wait(command);
    assert_eq!(ran.code, 0, "{}", ran.err_text());
    assert!(ran.out_text().starts_with("compact carol: would keep 5 of 11 chunks, "), "{ran:?}");
    assert_eq!(fs::read(&path).unwrap(), before);
    for (words, status) in [(&["--dry-run"][..], "not done"), (&[], "ok")] {
        let mut command = site.command(Path::new(env!("CARGO_BIN_EXE_cyrbk")));
        command.args(["compact", "-C", conf, "--json", "carol"]).args(words);
        let ran = crate::site::wait(command);
        let figures = format!(
            "\"status\": \"{status}\",\n  \"chunks\": 11,\n  \"chunks_dropped\": 6,\n  \
             \"chunks_unchanged\": 0,\n  \"octets_before\": {},\n  \"octets_after\": ",
            before.len()
        );
        assert!(ran.code == 0 && ran.out_text().contains(&figures), "{ran:?}");
    }
    let after = fs::metadata(&path).unwrap().len();
    assert!(after < before.len() as u64, "{after}");
    let ran = site.ours("ctl_backups", &["-j", "compact", "erin@virt.example"]);
    assert!(ran.out_text().ends_with("\"status\": \"skipped\"\n}\n"), "{}", ran.out_text());
    assert_eq!(ran.code, 75);
    // Skipped stops -S.
    let ran = site.ours("ctl_backups", &["-S", "compact", "erin@virt.example", "carol"]);
    assert_eq!(ran.out_text(), "compact erin@virt.example: skipped\n");
}

#[test]
fn damage_is_told_and_the_original_kept() {
    let site = Site::of_fixture("main");
    site.configure("backup_retention: 1s\n");
    let path = site.path().join("two/b/bob_5xHD5K");
    let mut octets = fs::read(&path).unwrap();
    octets[2000..2040].fill(0x5a);
    fs::write(&path, &octets).unwrap();
    let ran = site.ours("ctl_backups", &["-F", "compact", "bob"]);
    let out = ran.out_text();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((ran.code, lines.len()), (75, 2), "{out}");
    assert!(lines[0].starts_with("error reading chunk at offset 0, byte "), "{out}");
    let (head, kept) = lines[1].split_once(": the original is ").unwrap();
    assert_eq!(head, "compact bob: failed (compacted, but 1 place cannot be read");
    assert_eq!(fs::read(kept.trim_end_matches(')')).unwrap(), octets);
    assert_eq!(site.ours("ctl_backups", &["verify", "bob"]).code, 0);
}
