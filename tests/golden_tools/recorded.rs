//! Outputs recorded from Cyrus 3.6.1, each compared octet for octet.

use std::fs;
use std::path::{Path, PathBuf};

use crate::site::{Ran, Site};

/// Outputs of other tools.
const NOT_COMPARED: &str = "db-";
/// What was expunged when the outputs were made was still retained; how long ago
/// that was depends on today.
const STILL_RETAINED: &str = "backup_retention: 20000d\n";

/// Where cyrbk answers otherwise on purpose.
struct Deviation {
    key: &'static str,
    name: &'static str,
    /// Entry of docs/quirks.md.
    quirk: u32,
    expect: fn(Ran) -> Ran,
}

const DEVIATIONS: [Deviation; 4] = [
    Deviation { key: "alice", name: "verify", quirk: 1, expect: literals_are_read },
    Deviation { key: "_all", name: "verify", quirk: 1, expect: one_still_fails },
    Deviation { key: "tester", name: "verify", quirk: 2, expect: clear_text },
    Deviation { key: "_all", name: "verify", quirk: 2, expect: clear_text },
];

fn replace(text: Vec<u8>, old: &str, new: &str) -> Vec<u8> {
    String::from_utf8(text).unwrap().replace(old, new).into_bytes()
}

/// Cyrus gives up at the first `{n+}` literal; cyrbk goes on, and finds all well.
fn literals_are_read(ran: Ran) -> Ran {
    let mut out = String::from_utf8(ran.out).unwrap();
    while let Some(at) =
        out.find("chunk 2 missing mailbox_message data for klk7krihq8eygspx6zg6k8m1")
    {
        let end = at + out[at..].find('\n').unwrap() + 1;
        out.replace_range(at..end, "");
    }
    if let Some((head, tail)) = out.clone().split_once("error\n") {
        // With -v, chunk 2 is fine, and the others follow it.
        let first = head.find("checking chunk 2 checksums").unwrap();
        let mut whole = format!("{head}ok\n");
        for id in ["3", "4", "5", "6"] {
            let chunk =
                format!("{}ok\n", &head[first..]).replace("chunk 2", &format!("chunk {id}"));
            whole.push_str(&chunk);
        }
        out = whole + tail;
    }
    let good =
        out.replace("verify alice: failed (Unknown code ____ 255)", "verify alice: ok").replace(
            "alice_EPfRmx\",\n  \"status\": \"failed (Unknown code ____ 255)\"",
            "alice_EPfRmx\",\n  \"status\": \"ok\"",
        );
    Ran { code: 0, out: good.into_bytes(), err: Vec::new() }
}

fn one_still_fails(ran: Ran) -> Ran {
    Ran { code: 75, ..literals_are_read(ran) }
}

fn clear_text(ran: Ran) -> Ran {
    let out = replace(ran.out, "Unknown code ____ 255", "chunk 1 is missing mailbox data");
    Ran { out, ..ran }
}

fn recorded(dir: &Path, name: &str, code: &str, top: &Path) -> Ran {
    let read = |suffix: &str| fs::read(dir.join(format!("{name}.{suffix}"))).unwrap_or_default();
    let (mut out, err) = (read("out"), read("err"));
    // Paths in what is dumped are content.
    if !name.starts_with("cyr-") {
        out = replace(out, "/srv/backup", top.to_str().unwrap());
    }
    Ran { code: code.parse().unwrap(), out, err }
}

/// `FIRST ...all...` stands for all mailboxes, or messages, in the order of their list.
fn all_named(command: &str, dir: &Path) -> String {
    let Some(head) = command.strip_suffix(" ...all...") else { return command.to_owned() };
    let (head, first) = head.rsplit_once(' ').unwrap();
    let list = if head.contains("mailboxes") { "cyr-list-mailboxes" } else { "cyr-list-messages" };
    let list = fs::read_to_string(dir.join(format!("{list}.out"))).unwrap();
    let words = list.lines().filter_map(|line| line.split(' ').next());
    let words: Vec<_> = words.filter(|word| *word != "uniqueid").collect();
    assert_eq!(words[0], first, "{head}");
    format!("{head} {}", words.join(" "))
}

fn compare(set: &str, key: &str, dir: &Path, site: &Site) -> usize {
    let mut compared = 0;
    let table = fs::read_to_string(dir.join("rc.tsv")).unwrap();
    for line in table.lines().skip(1) {
        let [name, code, command] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{set}/{key}: {line}");
        };
        if name.starts_with(NOT_COMPARED) {
            continue;
        }
        let command = command.replace("/srv/backup", site.path().to_str().unwrap());
        let command = match command.strip_suffix(" (backup_retention: 0)") {
            Some(command) => {
                site.configure("backup_retention: 0\n");
                command.to_owned()
            }
            None => {
                site.configure(STILL_RETAINED);
                all_named(&command, dir)
            }
        };
        let (tool, words) = command.split_once(' ').unwrap();
        let mut expected = recorded(dir, name, code, site.path());
        for deviation in DEVIATIONS.iter().filter(|d| d.key == key && name.starts_with(d.name)) {
            let changed = (deviation.expect)(expected.clone());
            assert_ne!(changed, expected, "quirk {} does not show in {name}", deviation.quirk);
            expected = changed;
        }
        let got = site.ours(tool, &words.split(' ').collect::<Vec<_>>());
        let differs = format!(
            "{set}/{key}/{name}: {command}\n--- expected {}\n{}{}--- got {}\n{}{}",
            expected.code,
            expected.out_text(),
            expected.err_text(),
            got.code,
            got.out_text(),
            got.err_text(),
        );
        assert!(got == expected, "{differs}");
        compared += 1;
    }
    compared
}

fn compare_set(set: &str, least: usize) {
    let site = Site::of_fixture(set);
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backups").join(set);
    let dirs = fs::read_dir(out.join("out")).unwrap().map(|entry| entry.unwrap().path());
    let mut dirs: Vec<PathBuf> = dirs.collect();
    dirs.sort();
    let compare =
        |dir: &PathBuf| compare(set, dir.file_name().unwrap().to_str().unwrap(), dir, &site);
    let compared: usize = dirs.iter().map(compare).sum();
    assert!(compared >= least, "only {compared} outputs of {set} compared");
}

#[test]
fn main_set() {
    compare_set("main", 200);
}

/// Torn tails that the index does not know, with left-over SQLite journals.
#[test]
fn torn_set() {
    compare_set("torn", 15);
}

#[test]
fn torn_appended_set() {
    compare_set("torn-appended", 10);
}
