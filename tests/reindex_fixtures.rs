//! Backups written by the real Cyrus, indexed anew by cyrbk, against the index that
//! an unpatched Cyrus builds from the same data.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cyrbk::lock::Wait;
use cyrbk::store::{Backup, Writer};
use rusqlite::Connection;
use rusqlite::types::Value;

const KEYS: [(&str, &str); 9] = [
    ("alice", "one/a/alice_EPfRmx"),
    ("carol", "one/c/carol_cesxQB"),
    ("%SHARED", "one/q/%SHARED_lEsHFy"),
    ("dave@virt.example", "one/d/dave@virt.example_sPpR67"),
    ("erin@virt.example", "two/e/erin@virt.example_wW5elY"),
    ("bob", "two/b/bob_5xHD5K"),
    ("ben", "two/b/ben_Vdtpxz"),
    ("olga", "one/o/olga_9xYCcC"),
    ("tester", "two/t/tester_ygQSHr"),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/backups")
}

/// A copy of a fixture's data file, and of its index if wanted.
fn copy(set: &str, file: &str, with_index: bool) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures().join(set).join(file);
    let target = dir.path().join("data");
    fs::copy(&source, &target).unwrap();
    if with_index {
        let index = format!("{}.index", source.display());
        fs::copy(&index, dir.path().join("data.index")).unwrap();
        // The killed backupd's, to be rolled back.
        let journal = format!("{index}-journal");
        if Path::new(&journal).exists() {
            fs::copy(journal, dir.path().join("data.index-journal")).unwrap();
        }
    }
    (dir, target)
}

/// All rows of Cyrus's tables.
fn rows(db: &Connection) -> BTreeSet<String> {
    let tables =
        ["chunk", "message", "mailbox", "mailbox_message", "subscription", "seen", "sieve"];
    let mut all = BTreeSet::new();
    for table in tables {
        let mut statement = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values: Vec<Value> = (0..columns).map(|i| row.get(i).unwrap()).collect();
            all.insert(format!("{table} {values:?}"));
        }
    }
    all
}

#[test]
fn an_index_built_anew_equals_cyruss() {
    for (key, file) in KEYS {
        let (_dir, path) = copy("main", file, false);
        Writer::open(&path, 1_800_000_000).unwrap_or_else(|e| panic!("{key}: {e}"));
        let ours = rows(&Connection::open(path.with_extension("index")).unwrap());

        let sql = fixtures().join("reindexed-upstream-3.6.1/out").join(key).join("index.sql");
        let sql = fs::read_to_string(sql).unwrap();
        let theirs = Connection::open_in_memory().unwrap();
        theirs.execute_batch(sql.split_once('\n').unwrap().1.split_once('\n').unwrap().1).unwrap();
        let theirs = rows(&theirs);

        let missing: Vec<_> = theirs.difference(&ours).collect();
        let extra: Vec<_> = ours.difference(&theirs).collect();
        assert!(missing.is_empty() && extra.is_empty(), "{key}:\n-{missing:#?}\n+{extra:#?}");
    }
}

#[test]
fn an_index_that_fits_is_left_as_it_is() {
    for (key, file) in KEYS {
        let (_dir, path) = copy("main", file, true);
        let index = path.with_extension("index");
        let before = rows(&Connection::open(&index).unwrap());
        Writer::open(&path, 1_800_000_000).unwrap_or_else(|e| panic!("{key}: {e}"));
        assert_eq!(rows(&Connection::open(&index).unwrap()), before, "{key}");
    }
}

#[test]
fn torn_tails_keep_every_complete_line() {
    // bob was cut at the end of a line, ben inside a message of 300 kB.
    for (file, mailbox, cut) in
        [("two/b/bob_5xHD5K", "user.bob", false), ("two/b/ben_Vdtpxz", "user.ben", true)]
    {
        for set in ["torn", "torn-appended"] {
            let (dir, path) = copy(set, file, true);
            let index = path.with_extension("index");
            let before = rows(&Connection::open(&index).unwrap());
            let len_before = fs::metadata(&path).unwrap().len();
            Writer::open(&path, 1_800_000_000).unwrap_or_else(|e| panic!("{set} {file}: {e}"));
            let db = Connection::open(&index).unwrap();
            let after = rows(&db);
            assert!(after.iter().any(|row| row.contains(mailbox)));
            let kept_aside = fs::read_dir(dir.path())
                .unwrap()
                .any(|entry| entry.unwrap().file_name().to_string_lossy().contains(".cut."));
            if set == "torn" {
                assert!(after.len() > before.len(), "{file}: rows recovered");
                assert_eq!(kept_aside, cut, "{file}");
            } else {
                // A later session already appended behind the tear: nothing is touched.
                assert_eq!(after, before, "{file}");
                assert_eq!(fs::metadata(&path).unwrap().len(), len_before, "{file}");
            }
        }
    }
}

/// The rows of cyrbk's own index of the same data.
fn rebuilt(path: &Path) -> BTreeSet<String> {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("data");
    fs::copy(path, &copy).unwrap();
    Writer::open(&copy, 1_800_000_000).unwrap();
    rows(&Connection::open(copy.with_extension("index")).unwrap())
}

fn count(rows: &BTreeSet<String>, table: &str) -> usize {
    rows.iter().filter(|row| row.starts_with(&format!("{table} "))).count()
}

#[test]
fn what_cyrus_reindexed_wrongly_is_indexed_whole() {
    // Behind a tear Cyrus's reindex loses every chunk; one inside a line locks the backup.
    for file in ["two/b/bob_5xHD5K", "two/b/ben_Vdtpxz"] {
        for (set, reindexed) in
            [("torn", "torn-reindexed"), ("torn-appended", "torn-appended-reindexed")]
        {
            let (dir, path) = copy(set, file, true);
            let index = path.with_extension("index");
            let with_tear_unknown = rows(&Connection::open(&index).unwrap());
            fs::copy(fixtures().join(reindexed).join(format!("{file}.index")), &index).unwrap();
            let cyruss = rows(&Connection::open(&index).unwrap());
            let what = format!("{reindexed} {file}");
            Writer::open(&path, 1_800_000_000).unwrap_or_else(|e| panic!("{what}: {e}"));
            let ours = rows(&Connection::open(&index).unwrap());
            assert_eq!(ours, rebuilt(&path), "{what}");
            for table in ["chunk", "message", "mailbox_message"] {
                let known = count(&cyruss, table).max(count(&with_tear_unknown, table));
                assert!(count(&ours, table) >= known, "{what}: {table}");
            }
            // All chunks: two of before, the torn one, the one behind it.
            let chunks = if set == "torn" { 3 } else { 4 };
            assert_eq!(count(&ours, "chunk"), chunks, "{what}");
            let kept = dir.path().join("data.index.1800000000");
            if set == "torn-appended" {
                assert_eq!(rows(&Connection::open(kept).unwrap()), cyruss, "{what}");
            }
        }
    }
}

#[test]
fn a_reader_leaves_what_only_cyrus_has_written_as_it_is() {
    for set in ["torn", "torn-appended"] {
        for file in ["two/b/bob_5xHD5K", "two/b/ben_Vdtpxz"] {
            let (dir, path) = copy(set, file, true);
            let files = || -> Vec<(PathBuf, Vec<u8>)> {
                let entries = fs::read_dir(dir.path()).unwrap();
                let mut files: Vec<_> = entries
                    .map(|entry| entry.unwrap().path())
                    // SQLite rolls it back, whoever looks.
                    .filter(|path| path.extension().unwrap_or_default() != "index-journal")
                    .map(|path| (path.clone(), fs::read(path).unwrap()))
                    .collect();
                files.sort();
                files
            };
            let before = files();
            let backup = Backup::open(&path, Wait::No).unwrap();
            assert!(!backup.index().chunks().unwrap().is_empty());
            drop(backup);
            assert_eq!(files(), before, "{set} {file}");
        }
    }
}
