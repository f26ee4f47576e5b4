//! When the data file need not be hashed again.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha1::{Digest, Sha1};

use super::*;
use crate::lock::Wait;
use crate::store::backup::index_path;
use crate::store::staging::Staging;
use crate::store::{Backup, Glance, Line, Writer};
use crate::wire::apply::Apply;
use crate::wire::dlist::parse_item;
use crate::wire::{Body, Guid};

/// Octets of a message that make it worth while to note that the file was hashed.
const LARGE: usize = 1_200_000;

struct Store {
    dir: tempfile::TempDir,
    path: PathBuf,
}

impl Store {
    /// A large chunk, and a small one behind it.
    fn new() -> Store {
        let dir = tempfile::tempdir().unwrap();
        let store = Store { path: dir.path().join("data"), dir };
        store.append(LARGE);
        store.append(100);
        store
    }

    fn writer_with(&self, size: usize) -> Writer {
        let mut state = size as u64;
        let octets: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as u8
        })
        .take(size)
        .collect();
        let guid = Guid::from(<[u8; 20]>::from(Sha1::digest(&octets)));
        let head = format!("MESSAGE (%{{default {guid} {size}}}\r\n");
        let text = format!("{head})");
        let (name, value) = parse_item(text.as_bytes()).unwrap();
        let apply = Apply::read(&name, &value).unwrap();
        let mut writer = Writer::open(&self.path, 1_000).unwrap();
        let (body_at, bodies) = ([head.len()], [Body::Memory(octets)]);
        let line =
            Line { text: text.as_bytes(), body_at: &body_at, bodies: &bodies, apply: &apply };
        writer.append(1_000, &line, &Staging::new(self.dir.path().join("staging"))).unwrap();
        writer
    }

    fn append(&self, size: usize) {
        self.writer_with(size).finish(1_000).unwrap();
    }

    fn open(&self) -> Backup {
        Backup::open(&self.path, Wait::No).unwrap()
    }

    /// What is wrong, if anything.
    fn quick(&self) -> Option<String> {
        let seen = Glance::open(&self.path, Wait::No).unwrap();
        let glanced = first_fault(|sink| seen.check(sink));
        drop(seen);
        let found = faults(quick, &self.open());
        assert_eq!(glanced, found);
        found
    }

    /// Whether the next one need not hash the file.
    fn is_trusted(&self) -> bool {
        self.open().is_trusted().unwrap()
    }

    fn flip(&self, at: u64) {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).unwrap();
        let mut octet = [0];
        file.read_exact_at(&mut octet, at).unwrap();
        file.write_all_at(&[octet[0] ^ 0x10], at).unwrap();
    }

    /// Changes when it was changed; returns when that was.
    fn touch(&self, by: Duration) -> SystemTime {
        let file = File::options().write(true).open(&self.path).unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        file.set_modified(before + by).unwrap();
        before
    }
}

fn faults(
    check: fn(&Backup, &mut Sink<'_>) -> crate::store::error::Result<bool>,
    backup: &Backup,
) -> Option<String> {
    first_fault(|sink| check(backup, sink))
}

fn first_fault(
    check: impl FnOnce(&mut Sink<'_>) -> crate::store::error::Result<bool>,
) -> Option<String> {
    let mut first = None;
    let sound = check(&mut |event| {
        if let Event::Finding(finding) = event {
            first.get_or_insert(format!("{:?}", finding.fault));
        }
    });
    assert_eq!(sound.unwrap(), first.is_none());
    first
}

/// The octets in front of the last chunk are not even read.
#[test]
fn what_nobody_has_changed_is_not_hashed_again() {
    let store = Store::new();
    assert!(store.is_trusted());
    let before = store.touch(Duration::ZERO);
    store.flip(5_000);
    File::options().write(true).open(&store.path).unwrap().set_modified(before).unwrap();
    assert_eq!(store.quick(), None);
    // As the disk may lose an octet: that is for the whole check to find.
    assert!(faults(full, &store.open()).is_some());
}

#[test]
fn what_somebody_has_changed_is_found_and_no_message_hides_it() {
    let store = Store::new();
    store.flip(5_000);
    for _ in 0..2 {
        assert!(!store.is_trusted());
        assert!(store.quick().unwrap().starts_with("FileChecksum"));
        store.append(200);
    }
    store.flip(5_000);
    assert_eq!(store.quick(), None);
    assert!(store.is_trusted());
}

#[test]
fn a_last_chunk_that_is_damaged_is_found() {
    let store = Store::new();
    let len = std::fs::metadata(&store.path).unwrap().len();
    let before = store.touch(Duration::ZERO);
    store.flip(len - 60);
    File::options().write(true).open(&store.path).unwrap().set_modified(before).unwrap();
    assert!(store.is_trusted() && store.quick().is_some());
}

#[test]
fn what_was_hashed_once_is_trusted_from_then_on() {
    let store = Store::new();
    store.touch(Duration::from_secs(1));
    assert!(!store.is_trusted());
    // Who shares it with others writes nothing.
    let index = || std::fs::read(index_path(&store.path)).unwrap();
    let unchanged = index();
    assert_eq!(faults(quick, &Backup::open_shared(&store.path, Wait::No).unwrap()), None);
    assert_eq!(index(), unchanged);
    assert_eq!(store.quick(), None);
    assert!(store.is_trusted());
    store.append(300);
    assert!(store.is_trusted());
}

#[test]
fn another_file_in_its_place_is_hashed() {
    let store = Store::new();
    let other = store.dir.path().join("other");
    std::fs::copy(&store.path, &other).unwrap();
    let before = store.touch(Duration::ZERO);
    File::options().write(true).open(&other).unwrap().set_modified(before).unwrap();
    std::fs::rename(other, &store.path).unwrap();
    assert!(!store.is_trusted());
    assert_eq!(store.quick(), None);
}

/// A line that was taken in after a crash makes the file another one than was hashed.
#[test]
fn after_a_crash_the_file_is_hashed_once() {
    let store = Store::new();
    drop(store.writer_with(400));
    assert!(!store.is_trusted());
    assert_eq!(store.quick(), None);
    assert!(store.is_trusted());
}

/// A column that an older version does not know.
#[test]
fn a_state_without_a_time_is_not_trusted() {
    let store = Store::new();
    let index = |path: &Path| rusqlite::Connection::open(index_path(path)).unwrap();
    index(&store.path).execute_batch("ALTER TABLE cyrbk_state DROP COLUMN mtime").unwrap();
    assert!(!store.is_trusted());
    assert_eq!(store.quick(), None);
    assert!(!store.is_trusted());
    store.append(500);
    assert_eq!(store.quick(), None);
    assert!(store.is_trusted());
}
