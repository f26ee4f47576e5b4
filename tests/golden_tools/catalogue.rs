//! Every kind of damage that is known: what `verify` says of it, with what it says mends
//! it, and what is there after that.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cyrbk::lock::Wait;
use cyrbk::store::{Backup, Catalog};
use rusqlite::Connection;

use crate::damage::flip;
use crate::live::index_of;
use crate::site::Site;

/// A backup of eleven chunks and 19 messages.
const CAROL: &str = "one/c/carol_cesxQB";

/// A site with one backup, written by the real Cyrus.
fn site() -> (Site, PathBuf) {
    let site = Site::of_fixture("main");
    let path = site.path().join(CAROL);
    (site, path)
}

fn verify(site: &Site, words: &[&str]) -> (i32, String) {
    let ran = site.ours("ctl_backups", &[&["verify", "--deep"], words].concat());
    (ran.code, ran.out_text() + &ran.err_text())
}

fn messages(path: &Path) -> Vec<String> {
    let backup = Backup::open(path, Wait::No).unwrap();
    let rows = backup.index().messages().unwrap();
    rows.into_iter().filter_map(|row| Some(row.guid?.to_string())).collect()
}

/// Damages a backup, and demands that `verify` says all of `told` and one of `quick` says
/// whether `--quick` notices; that `reindex` ends with `status`, and saves so many of the
/// messages; and that `verify` then passes, or not.
struct Case {
    name: &'static str,
    damage: fn(&Path),
    told: &'static [&'static str],
    quick_notices: bool,
    reindex: i32,
    lost: usize,
    sound_after: bool,
}

const SOUND: Case = Case {
    name: "nothing",
    damage: |_| {},
    told: &["verify carol: ok"],
    quick_notices: false,
    reindex: 0,
    lost: 0,
    sound_after: true,
};

fn cut(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn append(path: &Path, octets: &[u8]) {
    let len = fs::metadata(path).unwrap().len();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(octets, len).unwrap();
}

fn sql(path: &Path, text: &str) {
    Connection::open(index_of(path)).unwrap().execute_batch(text).unwrap();
}

const MEND: &str = "carol: to mend: cyrbk reindex carol";

const CASES: [Case; 17] = [
    Case { name: "nothing", ..SOUND },
    Case {
        name: "index missing",
        damage: |path| fs::remove_file(index_of(path)).unwrap(),
        told: &["verify carol: failed (Mailbox has an invalid format)", MEND],
        quick_notices: true,
        ..SOUND
    },
    Case {
        name: "index empty",
        damage: |path| fs::write(index_of(path), "").unwrap(),
        told: &["verify carol: failed (Mailbox has an invalid format)", MEND],
        quick_notices: true,
        ..SOUND
    },
    Case {
        name: "index no database",
        damage: |path| fs::write(index_of(path), "something else altogether").unwrap(),
        told: &["verify carol: failed (Internal Error)", MEND],
        quick_notices: true,
        ..SOUND
    },
    Case {
        name: "index truncated",
        damage: |path| cut(&index_of(path), 8192),
        told: &["verify carol: failed (Internal Error)", MEND],
        quick_notices: true,
        ..SOUND
    },
    Case {
        name: "index without version",
        damage: |path| sql(path, "PRAGMA user_version = 0"),
        told: &["verify carol: failed (Internal Error)", MEND],
        quick_notices: true,
        ..SOUND
    },
    Case {
        name: "index damaged inside",
        damage: |path| {
            let index = index_of(path);
            let len = fs::metadata(&index).unwrap().len();
            let file = OpenOptions::new().write(true).open(&index).unwrap();
            // Every page but the first two.
            for page in 2..len / 4096 {
                file.write_all_at(&[0xff; 100], page * 4096).unwrap();
            }
        },
        told: &["verify carol: failed (Internal Error)", MEND],
        ..SOUND
    },
    Case {
        name: "rows missing",
        damage: |path| {
            sql(
                path,
                "DELETE FROM mailbox_message WHERE last_chunk_id = 2;
                 DELETE FROM message WHERE id NOT IN (SELECT message_id FROM mailbox_message)",
            )
        },
        told: &["in the data, but not in the index", MEND],
        ..SOUND
    },
    Case {
        name: "a whole chunk that no row speaks for",
        damage: |path| {
            sql(path, "PRAGMA foreign_keys = OFF; DELETE FROM chunk WHERE id = 2");
        },
        told: &["lines that the index does not know", MEND],
        ..SOUND
    },
    Case {
        name: "garbage behind",
        damage: |path| append(path, b"this is no member"),
        told: &["note: octets", "no readable line, and none is missed", "verify carol: ok"],
        reindex: 75,
        ..SOUND
    },
    Case {
        name: "trailer cut",
        damage: |path| cut(path, fs::metadata(path).unwrap().len() - 3),
        told: &[
            "cannot be read to its end: the file ends at offset",
            "cyrbk compact --force carol",
        ],
        ..SOUND
    },
    Case {
        name: "cut inside a chunk",
        damage: |path| cut(path, 20_000),
        told: &[
            "is beyond the end of the data file",
            "cannot be read to its end: the file ends at offset 20000",
            "in the index, but not in the data",
        ],
        quick_notices: true,
        lost: 1,
        ..SOUND
    },
    Case {
        name: "data emptied",
        damage: |path| cut(path, 0),
        told: &["is beyond the end of the data file", "verify carol: failed"],
        quick_notices: true,
        lost: 19,
        ..SOUND
    },
    Case {
        name: "a flipped bit in a chunk",
        damage: |path| flip(path, 19_000),
        told: &[
            "chunk 2 at 18000: cannot be read to its end: damaged gzip member",
            "in the index, but not in the data",
            "cyrbk compact --force carol; then, on the mail server: sync_client -u carol",
        ],
        reindex: 75,
        lost: 1,
        sound_after: false,
        ..SOUND
    },
    Case {
        name: "a flipped bit in a checksum of the member",
        damage: |path| flip(path, 18_000 - 6),
        told: &["chunk 1 at 0: cannot be read to its end: damaged gzip member near offset"],
        reindex: 75,
        sound_after: false,
        ..SOUND
    },
    Case {
        name: "a flipped bit in a length of the member",
        damage: |path| flip(path, 18_000 - 2),
        told: &["chunk 1 at 0: cannot be read to its end: damaged gzip member near offset"],
        reindex: 75,
        sound_after: false,
        ..SOUND
    },
    Case {
        name: "a flipped bit that inflating does not see",
        damage: |path| flip(path, 18_000 + 4),
        told: &["chunk 3 at", "the file in front has another SHA-1", MEND],
        ..SOUND
    },
];

#[test]
fn what_verify_says_and_reindex_saves() {
    let before = messages(&site().1);
    for case in CASES {
        let name = case.name;
        let (site, path) = site();
        (case.damage)(&path);
        let (code, said) = verify(&site, &["carol"]);
        let is_sound = case.told.contains(&"verify carol: ok");
        assert_eq!(code, if is_sound { 0 } else { 75 }, "{name}: {said}");
        for told in case.told {
            assert!(said.contains(told), "{name}: {told}: {said}");
        }
        // Two runs say the same: nothing is changed by looking.
        assert_eq!(verify(&site, &["carol"]), (code, said), "{name}");
        let quick = site.ours("ctl_backups", &["verify", "--quick", "carol"]);
        assert_eq!(quick.code, if case.quick_notices { 75 } else { 0 }, "{name}: {quick:?}");
        let reindex = site.ours("ctl_backups", &["reindex", "carol"]);
        assert_eq!(reindex.code, case.reindex, "{name}: {}", reindex.out_text());
        let after = messages(&path);
        let lost = before.iter().filter(|guid| !after.contains(guid)).count();
        assert_eq!(lost, case.lost, "{name}");
        let (code, said) = verify(&site, &["carol"]);
        assert_eq!(code, if case.sound_after { 0 } else { 75 }, "{name}: {said}");
        if !case.sound_after {
            // What verify says mends it does.
            let compact = site.ours("ctl_backups", &["compact", "-F", "carol"]);
            assert!(compact.out_text().contains("compacted, but "), "{name}: {compact:?}");
            let (code, said) = verify(&site, &["carol"]);
            assert_eq!(code, 0, "{name}: {said}");
        }
    }
}

/// The states of backups.db, and files that nobody knows.
#[test]
fn what_verify_says_of_a_site() {
    let (site, path) = site();
    let db = Catalog::open(site.path().join("conf/backups.db"));
    let (code, said) = verify(&site, &["-A"]);
    assert_eq!((code, said.contains("backups.db")), (0, false), "{said}");
    // Files that interrupted work has left.
    fs::write(format!("{}.new", path.display()), "").unwrap();
    fs::create_dir_all(site.path().join("staging/sync./4294967295")).unwrap();
    let (code, said) = verify(&site, &["-A"]);
    assert!(code == 0 && said.contains("backups.db: note: "), "{said}");
    assert!(said.contains("carol: note: ") && said.contains("left by a compaction"), "{said}");
    // Entries and files that do not belong together.
    db.set(b"nobody", &site.path().join("one/n/nobody_XXXXXX")).unwrap();
    db.set(b"copycat", &path).unwrap();
    fs::copy(&path, site.path().join("two/stray_XXXXXX")).unwrap();
    fs::write(site.path().join("two/gone_XXXXXX.index"), "").unwrap();
    let (code, said) = verify(&site, &["-A"]);
    assert_eq!(code, 75, "{said}");
    let top = site.path().display();
    for told in [
        "verify nobody: failed (Mailbox does not exist)".to_owned(),
        "nobody: to mend: bring the data file back, or forget the backup: cyrbk delete nobody"
            .into(),
        format!("backups.db: the entry of nobody leads to no file: {top}/one/n/nobody_XXXXXX"),
        format!("backups.db: the entries of carol, copycat lead to one file: {}", path.display()),
        "copycat: chunk ".into(),
        "belongs to carol".into(),
        format!("backups.db: no entry leads to {top}/two/stray_XXXXXX"),
        format!("backups.db: {top}/two/gone_XXXXXX.index: its data file is gone"),
        "backups.db: to mend: cyrbk reconstruct --dry-run".into(),
    ] {
        assert!(said.contains(&told), "{told}: {said}");
    }
    let quick = site.ours("ctl_backups", &["verify", "--quick", "-A"]).out_text();
    assert!(quick.contains("backups.db: no entry leads to"), "{quick}");
    // Cyrus's own check says nothing of it.
    let cyrus = site.ours("ctl_backups", &["verify", "-A"]).out_text();
    assert!(!cyrus.contains("backups.db"), "{cyrus}");
}

#[test]
fn findings_for_programs() {
    let (site, path) = site();
    sql(&path, "UPDATE mailbox_message SET flags = 'x' WHERE id = 2");
    let ran = site.ours("ctl_backups", &["verify", "--deep", "-j", "carol"]);
    assert_eq!(ran.code, 75);
    let said = ran.out_text();
    for line in [
        "  \"status\": \"failed (1 fault)\",",
        "  \"level\": \"deep\",",
        "      \"kind\": \"differs\",",
        "      \"severity\": \"error\",",
        "      \"chunk\": 2,",
        "      \"offset\": 18000,",
        "      \"table\": \"mailbox_message\",",
        "        \"flags\"",
        "      \"mend\": \"cyrbk reindex carol\"",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    for key in ["mailbox", "uniqueid", "uid", "guid", "text"] {
        assert!(said.contains(&format!("      \"{key}\": ")), "{key}: {said}");
    }
    // Cyrus's object has no more than it ever had.
    let cyrus = site.ours("ctl_backups", &["verify", "-j", "carol"]).out_text();
    assert_eq!(cyrus.lines().count(), 6, "{cyrus}");
}
