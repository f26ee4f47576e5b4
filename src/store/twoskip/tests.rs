//! The format against files written by the reference, and against a model.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::write::{Writer, empty_image, repacked_image};
use super::*;

pub(super) const BOB: (&str, &str) = ("bob", "/b/two/b/bob_CCCCCC");
pub(super) const SHARED: (&str, &str) = ("%SHARED", "/b/one/q/%SHARED_DDDDDD");
const ALICE: (&str, &str) = ("alice", "/b/two/a/alice_BBBBBB");

pub(super) fn fixture(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/twoskip");
    fs::read(dir.join(name)).unwrap()
}

/// A database file of its own.
pub(super) fn file_of(bytes: &[u8]) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backups.db");
    fs::write(&path, bytes).unwrap();
    (dir, path)
}

pub(super) fn pairs(of: &[(&str, &str)]) -> Pairs {
    of.iter().map(|&(k, v)| (k.into(), v.into())).collect()
}

/// Levels in the order in which the reference drew them.
struct Drawn(VecDeque<u8>);

fn drawn(levels: &[u8]) -> Box<dyn Levels> {
    Box::new(Drawn(levels.iter().copied().collect()))
}

impl Levels for Drawn {
    fn level(&mut self) -> u8 {
        self.0.pop_front().expect("as many levels as records")
    }
}

/// One change in a transaction of its own; `None` deletes.
fn change(path: &Path, key: &str, value: Option<&str>, level: &[u8]) {
    let mut txn = WriteTxn::begin_with(path, drawn(level)).unwrap();
    match value {
        Some(value) => txn.set(key.as_bytes(), value.as_bytes()),
        None => txn.delete(key.as_bytes()),
    }
    txn.commit().unwrap();
}

#[test]
fn files_of_the_reference_are_read() {
    let cases: [(&str, &[(&str, &str)]); 8] = [
        ("empty.db", &[]),
        ("fresh.db", &[]),
        ("step1.db", &[("bob", "/b/one/b/bob_AAAAAA")]),
        ("step2.db", &[ALICE, ("bob", "/b/one/b/bob_AAAAAA")]),
        ("step3.db", &[ALICE, BOB]),
        ("step4.db", &[BOB]),
        ("step5.db", &[SHARED, BOB]),
        ("step6-repacked.db", &[SHARED, BOB]),
    ];
    for (name, expected) in cases {
        let (_dir, path) = file_of(&fixture(name));
        assert_eq!(Twoskip::read_all(&path).unwrap(), pairs(expected), "{name}");
        for (key, value) in [SHARED, ALICE, BOB, ("", ""), ("zoe", "")] {
            let wanted = expected.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
            let got = Twoskip::lookup(&path, key.as_bytes()).unwrap();
            assert_eq!(got.as_deref(), wanted.map(str::as_bytes), "{name} {key} {value}");
        }
    }
}

#[test]
fn a_file_with_history_is_read() {
    let (_dir, path) = file_of(&fixture("nine-users.db"));
    let mut shown = Vec::new();
    for (key, value) in Twoskip::read_all(&path).unwrap() {
        assert_eq!(Twoskip::lookup(&path, &key).unwrap().as_ref(), Some(&value));
        shown.extend([&key[..], b"\t", &value, b"\n"].concat());
    }
    assert_eq!(shown, fixture("nine-users.show"));
}

#[test]
fn each_step_writes_the_bytes_of_the_reference() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("backups.db");
    drop(WriteTxn::begin(&path).unwrap());
    assert_eq!(fs::read(&path).unwrap(), fixture("fresh.db"));
    let steps = [
        ("bob", Some("/b/one/b/bob_AAAAAA"), 2),
        ("alice", Some(ALICE.1), 1),
        ("bob", Some(BOB.1), 1),
        ("alice", None, 1),
        ("%SHARED", Some(SHARED.1), 1),
    ];
    for (number, (key, value, level)) in (1..).zip(steps) {
        change(&path, key, value, &[level]);
        let name = format!("step{number}.db");
        assert_eq!(fs::read(&path).unwrap(), fixture(&name), "{name}");
        // The same again writes nothing.
        change(&path, key, value, &[]);
        assert_eq!(fs::read(&path).unwrap(), fixture(&name), "{name} again");
    }
}

#[test]
fn a_long_history_writes_the_bytes_of_the_reference() {
    let (_dir, source) = file_of(&fixture("nine-users.db"));
    let values: BTreeMap<_, _> = Twoskip::read_all(&source).unwrap().into_iter().collect();
    let gone = [
        ("ver2005", "/srv/backup/one/v/ver2005_HfGCGX"),
        ("ver2310", "/srv/backup/two/v/ver2310_borL6u"),
        ("ver2361", "/srv/backup/two/v/ver2361_ESZcIJ"),
        ("ver2300", "/srv/backup/two/v/ver2300_tmCqyM"),
        ("trace1", "/srv/backup/two/t/trace1_L2nXtl"),
    ];
    let value = |key: &str| match gone.iter().find(|(k, _)| *k == key) {
        Some((_, value)) => (*value).to_owned(),
        None => String::from_utf8(values[key.as_bytes()].clone()).unwrap(),
    };
    let (_dir, path) = file_of(b"");
    let set = |keys: &[(&str, u8)]| {
        for &(key, level) in keys {
            change(&path, key, Some(&value(key)), &[level]);
        }
    };
    set(&[("alice", 3), ("carol", 1), ("dave@virt.example", 4), ("erin@virt.example", 1)]);
    set(&[("%SHARED", 3), ("tester", 5), ("ver2005", 1), ("ver2310", 1), ("ver2361", 1)]);
    set(&[("ver2300", 1), ("trace1", 2)]);
    for key in ["ver2005", "ver2310", "ver2361", "ver2300", "trace1"] {
        change(&path, key, None, &[]);
    }
    set(&[("bob", 1), ("olga", 1), ("ben", 2)]);
    assert_eq!(fs::read(&path).unwrap(), fixture("nine-users.db"));
}

#[test]
fn a_repack_writes_the_bytes_of_the_reference() {
    let source = fixture("step5.db");
    let header = read::header(&source).unwrap();
    let image = repacked_image(&source, &header, &mut *drawn(&[1, 6])).unwrap();
    assert_eq!(image, fixture("step6-repacked.db"));
    let wrong = Header { records: 3, ..header };
    repacked_image(&source, &wrong, &mut RandomLevels).unwrap_err();
}

#[test]
fn a_grown_file_is_repacked() {
    let (_dir, path) = file_of(b"");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    fs::write(path.with_extension("db.NEW"), "left by a crash").unwrap();
    let mut largest = 0;
    for round in 0..300 {
        change(&path, "bob", Some(&format!("/b/one/{round}")), &[3, 3]);
        largest = largest.max(fs::metadata(&path).unwrap().len());
    }
    let expected = pairs(&[("bob", "/b/one/299")]);
    assert_eq!(Twoskip::read_all(&path).unwrap(), expected);
    assert!(largest <= REPACK_SIZE_MIN + 200, "{largest}");
    let bytes = fs::read(&path).unwrap();
    assert_eq!(read::header(&bytes).unwrap().generation, 2);
    let mode = fs::metadata(&path).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&mode) & 0o777, 0o640);
    assert!(!path.with_extension("db.NEW").exists());
}

#[test]
fn unfinished_files_are_read_unchanged_and_repaired_as_the_reference_does() {
    for name in ["dirty-flag", "uncommitted", "tail-garbage", "truncated-24"] {
        let before = fixture(&format!("{name}.db"));
        let (_dir, path) = file_of(&before);
        let expected = pairs(&[SHARED, BOB]);
        assert_eq!(Twoskip::read_all(&path).unwrap(), expected, "{name}");
        let bob = Twoskip::lookup(&path, b"bob").unwrap();
        assert_eq!(bob.as_deref(), Some(BOB.1.as_bytes()), "{name}");
        assert_eq!(Twoskip::lookup(&path, b"carol").unwrap(), None, "{name}");
        assert_eq!(fs::read(&path).unwrap(), before, "{name}: a reader wrote");
        drop(WriteTxn::begin(&path).unwrap());
        let after = fixture(&format!("{name}.after-open.db"));
        assert_eq!(fs::read(&path).unwrap(), after, "{name}");
    }
}

#[test]
fn damaged_files_are_refused_and_left_alone() {
    let cases = [
        ("bad-header-crc.db", "offset 0x0: header checksum"),
        ("bad-tail-crc.db", "offset 0x200: checksum mismatch in a key"),
        ("bad-head-crc.db", "offset 0x200: checksum mismatch in a record's head"),
        ("short.db", "too short for a header"),
        ("version-2.db", "twoskip version 2"),
        ("truncated-60.db", "offset 0x280: record reaches beyond the end"),
    ];
    for (name, expected) in cases {
        let before = fixture(name);
        let (_dir, path) = file_of(&before);
        let errors = [
            Twoskip::read_all(&path).unwrap_err(),
            Twoskip::lookup(&path, b"bob").unwrap_err(),
            Twoskip::update(&path, |txn| -> Result<(), TwoskipError> {
                txn.set(b"bob", b"/new");
                Ok(())
            })
            .unwrap_err(),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(text.contains(expected), "{name}: {text}");
            assert!(text.contains("backups.db: "), "{name}: {text}");
        }
        assert_eq!(fs::read(&path).unwrap(), before, "{name}: written to");
    }
}

#[test]
fn other_formats_are_named() {
    let mut skiplist = b"\xa1\x02\x8b\x0dskiplist file\0\0\0".to_vec();
    skiplist.resize(100, 0);
    for (bytes, expected) in [(&skiplist[..], "cvt_cyrusdb"), (&[b'x'; 100], "not a twoskip")] {
        let (_dir, path) = file_of(bytes);
        let text = Twoskip::read_all(&path).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn lookups_read_few_records_of_many() {
    let mut writer = Writer::new(empty_image(1), Header::empty(1));
    for n in 0..4000_u32 {
        let key = format!("user{:05}", n * 2654 % 4000);
        writer.store(key.as_bytes(), b"/v", &mut RandomLevels).unwrap();
    }
    writer.commit().unwrap();
    let file = Counting::over(writer);
    for n in (1..4000).step_by(101) {
        let view = View::new(&file, file.bytes.len() as u64);
        assert!(view.find(format!("user{n:05}").as_bytes()).is_ok());
    }
    let mean = file.reads.get() / 40;
    assert!((4..100).contains(&mean), "{mean} reads for a lookup");
}

/// A file in memory that counts how often it is read.
struct Counting {
    bytes: Vec<u8>,
    reads: std::cell::Cell<usize>,
}

impl Counting {
    fn over(writer: Writer<Vec<u8>>) -> Counting {
        Counting { bytes: writer.medium().clone(), reads: std::cell::Cell::default() }
    }
}

impl medium::Medium for Counting {
    fn len(&self) -> io::Result<u64> {
        medium::Medium::len(&self.bytes)
    }
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.reads.set(self.reads.get() + 1);
        medium::Medium::read_at(&self.bytes, buf, at)
    }
    fn write_at(&mut self, _: &[u8], _: u64) -> io::Result<()> {
        unreachable!("only read")
    }
    fn set_len(&mut self, _: u64) -> io::Result<()> {
        unreachable!("only read")
    }
    fn sync(&mut self) -> io::Result<()> {
        unreachable!("only read")
    }
}

#[test]
fn a_transaction_sees_its_own_changes_and_abort_forgets_them() {
    let (_dir, path) = file_of(&fixture("step5.db"));
    let mut txn = WriteTxn::begin(&path).unwrap();
    txn.set(b"bob", b"/1");
    txn.set(b"bob", b"/2");
    txn.delete(b"%SHARED");
    assert_eq!(txn.get(b"bob").unwrap().unwrap(), b"/2");
    assert_eq!(txn.get(b"%SHARED").unwrap(), None);
    drop(txn);
    assert_eq!(fs::read(&path).unwrap(), fixture("step5.db"));
}

#[test]
fn long_keys_and_values_survive() {
    let (_dir, path) = file_of(b"");
    let key = vec![b'k'; 70_000];
    let value = vec![b'v'; 200_000];
    let mut txn = WriteTxn::begin(&path).unwrap();
    txn.set(&key, &value);
    txn.commit().unwrap();
    assert_eq!(Twoskip::read_all(&path).unwrap(), [(key.clone(), value.clone())]);
    assert_eq!(Twoskip::lookup(&path, &key).unwrap(), Some(value));
    let mut txn = WriteTxn::begin(&path).unwrap();
    txn.set(b"huge", &vec![0; format::FIELD_LEN_MAX as usize + 1]);
    assert!(matches!(txn.commit().unwrap_err().kind, ErrorKind::TooLong(_)));
    assert_eq!(Twoskip::read_all(&path).unwrap().len(), 1);
}

#[derive(Clone, Debug)]
struct Step {
    changes: Vec<(u8, Option<u16>)>,
    commit: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (0..24_u8, proptest::option::weighted(0.7, any::<u16>()));
    let step = (proptest::collection::vec(change, 0..6), proptest::bool::weighted(0.8))
        .prop_map(|(changes, commit)| Step { changes, commit });
    proptest::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// A file that is opened anew for each step, against a map.
    #[test]
    fn any_history_is_that_of_a_map(steps in steps()) {
        let (_dir, path) = file_of(b"");
        let mut model = BTreeMap::new();
        for step in steps {
            let mut txn = WriteTxn::begin(&path).unwrap();
            let mut next = model.clone();
            for (key, value) in step.changes {
                // Keys of several lengths, some the beginning of another.
                let key = vec![b'a' + key % 3; usize::from(key / 3)];
                match value {
                    Some(n) => {
                        let value = n.to_string().repeat(usize::from(n % 40)).into_bytes();
                        txn.set(&key, &value);
                        next.insert(key, value);
                    }
                    None => {
                        txn.delete(&key);
                        next.remove(&key);
                    }
                }
            }
            if step.commit {
                txn.commit().unwrap();
                model = next;
            } else {
                drop(txn);
            }
            let got: BTreeMap<_, _> = Twoskip::read_all(&path).unwrap().into_iter().collect();
            prop_assert_eq!(&got, &model);
            for (key, value) in &model {
                let found = Twoskip::lookup(&path, key).unwrap();
                prop_assert_eq!(found.as_ref(), Some(value));
            }
            let header = read::header(&fs::read(&path).unwrap()).unwrap();
            prop_assert_eq!(header.records, model.len() as u64);
        }
    }
}
