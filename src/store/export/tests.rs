//! Each form holds every message, octet for octet where the form allows it.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::lock::Wait;
use crate::wire::mboxname::NameRules;

struct Fixture {
    dir: tempfile::TempDir,
    backup: Backup,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let source = "tests/fixtures/backups/main/one/a/alice_EPfRmx";
        let path = dir.path().join("data");
        fs::copy(source, &path).unwrap();
        fs::copy(format!("{source}.index"), dir.path().join("data.index")).unwrap();
        let backup = Backup::open(&path, Wait::No).unwrap();
        Fixture { dir, backup }
    }

    fn everything(&self) -> Vec<Item> {
        let selection = Selection { expunged: true, deleted: true, ..Selection::default() };
        gather(&self.backup, &selection, &NameRules::default()).unwrap().items
    }

    fn write(&self, items: &[Item], sink: &mut dyn Sink) {
        let failed = super::write(&self.backup, items, self.dir.path(), sink).unwrap();
        assert!(failed.is_empty());
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("out")
    }
}

/// How often each content is there.
fn contents(items: &[Item]) -> BTreeMap<Guid, usize> {
    items.iter().fold(BTreeMap::new(), |mut counts, item| {
        *counts.entry(item.guid).or_default() += 1;
        counts
    })
}

fn add(counts: &mut BTreeMap<Guid, usize>, octets: &[u8]) {
    *counts.entry(Guid::from(<[u8; 20]>::from(Sha1::digest(octets)))).or_default() += 1;
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn contents_below(dir: &Path) -> (BTreeMap<Guid, usize>, Vec<PathBuf>) {
    let mut found = Vec::new();
    files(dir, &mut found);
    found.retain(|path| path.file_name().unwrap() != "maildirfolder");
    let mut counts = BTreeMap::new();
    found.iter().for_each(|path| add(&mut counts, &fs::read(path).unwrap()));
    (counts, found)
}

#[test]
fn maildir_has_flags_and_times() {
    let fixture = Fixture::new();
    let items = fixture.everything();
    fixture.write(&items, &mut maildir::Maildir::create(fixture.place()).unwrap());
    let (counts, found) = contents_below(&fixture.place());
    assert_eq!(counts, contents(&items));
    let seen = items.iter().find(|item| item.flags().any(|flag| flag == b"\\Seen")).unwrap();
    let suffix = |path: &PathBuf| path.to_str().unwrap().rsplit_once(":2,").map(|s| s.1.to_owned());
    let uid = format!("U{}.cyrbk", seen.uid);
    let of_seen = |path: &&PathBuf| {
        path.to_str().unwrap().contains(&uid)
            && path.metadata().unwrap().mtime() == seen.internaldate
            && suffix(path).is_some_and(|letters| letters.contains('S'))
            && path.parent().unwrap().ends_with("cur")
    };
    assert!(found.iter().any(|path| of_seen(&path)), "{found:?}");
    assert!(found.iter().all(|path| !path.parent().unwrap().ends_with("tmp")));
    let gone = items.iter().filter(|item| item.expunged.is_some()).count();
    let trashed = found.iter().filter(|path| suffix(path).is_some_and(|s| s.ends_with('T')));
    assert!(trashed.count() >= gone);
}

#[test]
fn eml_has_a_file_for_each_and_overwrites_nothing() {
    let fixture = Fixture::new();
    let items = fixture.everything();
    fixture.write(&items, &mut eml::Eml::create(fixture.place()).unwrap());
    assert_eq!(contents_below(&fixture.place()).0, contents(&items));
    for again in [
        eml::Eml::create(fixture.place()).err(),
        maildir::Maildir::create(fixture.place()).err(),
        mbox::Files::create(fixture.place()).err(),
    ] {
        assert_eq!(again.unwrap().kind(), io::ErrorKind::AlreadyExists);
    }
}

#[test]
fn mbox_files_hold_as_many_messages_as_their_folders() {
    let fixture = Fixture::new();
    let items = fixture.everything();
    fixture.write(&items, &mut mbox::Files::create(fixture.place()).unwrap());
    let mut found = Vec::new();
    files(&fixture.place(), &mut found);
    let count = |path: &PathBuf| {
        let text = fs::read(path).unwrap();
        text.split(|&c| c == b'\n').filter(|line| line.starts_with(b"From MAILER-DAEMON")).count()
    };
    assert_eq!(found.iter().map(count).sum::<usize>(), items.len());
    assert!(found.iter().any(|path| path.ends_with("INBOX.mbox")));
}

/// Cyrus allows names of 490 octets, and others are twice as long as names of files.
#[test]
fn a_long_name_is_no_obstacle_to_the_others() {
    let fixture = Fixture::new();
    let mut items = fixture.everything();
    let mut long = (*items[0].folder).clone();
    long.path = vec!["x".repeat(300), "%C3%A4".repeat(70)];
    items[0].folder = std::rc::Rc::new(long);
    let write = |form: &str, sink: &mut dyn Sink| {
        let mut found = Vec::new();
        fixture.write(&items, sink);
        files(&fixture.dir.path().join(form), &mut found);
        assert!(found.iter().any(|path| path.to_string_lossy().contains("xxx")), "{found:?}");
    };
    let place = |form: &str| fixture.dir.path().join(form);
    write("maildir", &mut maildir::Maildir::create(place("maildir")).unwrap());
    write("mbox", &mut mbox::Files::create(place("mbox")).unwrap());
    write("eml", &mut eml::Eml::create(place("eml")).unwrap());
}

#[test]
fn tar_is_what_readers_expect() {
    let fixture = Fixture::new();
    let mut items = fixture.everything();
    // A name that does not fit, and a time before all times.
    let mut long = (*items[0].folder).clone();
    long.path = vec!["x".repeat(90), "y".repeat(90)];
    items[0].folder = std::rc::Rc::new(long);
    items[0].internaldate = -5;
    let mut out = Vec::new();
    fixture.write(&items, &mut tar::Tar::new(&mut out));
    assert_eq!(out.len() % 512, 0);
    let octal = |text: &[u8]| {
        let digits = std::str::from_utf8(text).unwrap().trim_matches(['\0', ' ']).to_owned();
        u64::from_str_radix(&digits, 8).unwrap()
    };
    let (mut at, mut counts, mut extended) = (0, BTreeMap::new(), Vec::new());
    while out[at] != 0 {
        let header = &out[at..at + 512];
        let blank = |i: usize, c: &u8| if (148..156).contains(&i) { 32 } else { u64::from(*c) };
        let sum: u64 = header.iter().enumerate().map(|(i, c)| blank(i, c)).sum();
        assert_eq!(sum, octal(&header[148..156]));
        let size = octal(&header[124..136]) as usize;
        let body = &out[at + 512..at + 512 + size];
        match header[156] {
            b'x' => extended.extend_from_slice(body),
            _ => add(&mut counts, body),
        }
        at += 512 + size.next_multiple_of(512);
    }
    assert_eq!(counts, contents(&items));
    let extended = String::from_utf8(extended).unwrap();
    let name = format!("{}/{}/{}.eml", "x".repeat(90), "y".repeat(90), items[0].uid);
    let path = format!("path={name}\n");
    assert_eq!(extended, format!("{} {path}12 mtime=-5\n", path.len() + 4));
}

#[test]
fn a_list_of_messages_takes_each_from_where_it_lives() {
    let fixture = Fixture::new();
    let all = fixture.everything();
    let guids: std::collections::HashSet<Guid> =
        all.iter().map(|item| item.guid).chain([Guid::from([9; 20])]).collect();
    let selection = Selection { guids: Some(guids.clone()), ..Selection::default() };
    let Gathered { items, missing, .. } =
        gather(&fixture.backup, &selection, &NameRules::default()).unwrap();
    assert_eq!(missing, [Guid::from([9; 20])]);
    assert_eq!(contents(&items).len(), guids.len() - 1);
    for item in &items {
        let lives = |other: &&Item| other.guid == item.guid && other.expunged.is_none();
        assert_eq!(item.expunged.is_none(), all.iter().any(|other| lives(&other)));
    }
    let living =
        gather(&fixture.backup, &Selection::default(), &NameRules::default()).unwrap().items;
    assert!(living.len() < all.len());
    assert!(living.iter().all(|item| item.expunged.is_none()));
}
