//! Lines that are divided.

use std::fs;
use std::path::Path;

use sha1::{Digest, Sha1};

use super::{Line, StoreError, Writer};
use crate::lock::Wait;
use crate::store::Backup;
use crate::store::backup::index_path;
use crate::store::message::StoredMessage;
use crate::store::staging::Staging;
use crate::wire::apply::Apply;
use crate::wire::dlist::parse_item;
use crate::wire::frame::Limits;
use crate::wire::{Body, Guid};

const NOW: i64 = 1_800_000_000;

fn guid_of(octets: &[u8]) -> Guid {
    Guid::from(<[u8; 20]>::from(Sha1::digest(octets)))
}

/// Small ones, none, large ones, one of them very, and one twice.
fn messages() -> impl Iterator<Item = Vec<u8>> {
    (0..40).map(|number| {
        let len = match number {
            7 => 5 << 20,
            _ => [0, 9, 40_000, 300_000][number % 4],
        };
        let number = if number == 21 { 9 } else { number };
        let mut octets = format!("From: a{}\r\n\r\n{number}", number % 3).into_bytes();
        octets.resize(if len == 0 { 0 } else { len.max(octets.len()) }, b'x');
        octets
    })
}

fn rows(path: &Path, guids: &[Guid]) -> Vec<String> {
    let backup = Backup::open(path, Wait::No).unwrap();
    let row = |guid| format!("{:?}", backup.index().message(guid).unwrap().unwrap());
    guids.iter().map(row).collect()
}

#[test]
fn a_divided_line_is_indexed_as_it_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let mut staging = Staging::new(dir.path().join("staging"));
    let (mut bodies, mut guids, mut staged) = (Vec::new(), Vec::new(), 0);
    let (mut text, mut body_at) = (b"MESSAGE (".to_vec(), Vec::new());
    for (number, octets) in messages().enumerate() {
        let (guid, len) = (guid_of(&octets), octets.len() as u64);
        if number > 0 {
            text.push(b' ');
        }
        text.extend_from_slice(format!("%{{d {guid} {len}}}\r\n").as_bytes());
        body_at.push(text.len());
        guids.push(guid);
        bodies.push(if number % 2 == 0 {
            Body::Memory(octets)
        } else {
            staging.add(&octets).unwrap();
            staged += len;
            Body::Staged { offset: staged - len, len }
        });
    }
    text.push(b')');
    let (name, value) = parse_item(&text).unwrap();
    let apply = Apply::read(&name, &value).unwrap();
    let line = Line { text: &text, body_at: &body_at, bodies: &bodies, apply: &apply };
    fs::write(&path, b"").unwrap();
    let mut writer = Writer::open(&path, NOW).unwrap();
    writer.append(NOW, &line, &staging).unwrap();
    writer.finish(NOW).unwrap();
    drop(writer);
    let live = rows(&path, &guids);
    fs::remove_file(index_path(&path)).unwrap();
    drop(Writer::open(&path, NOW).unwrap());
    assert_eq!(rows(&path, &guids), live);
    let backup = Backup::open(&path, Wait::No).unwrap();
    for guid in &guids {
        let mut octets = Vec::new();
        let message = StoredMessage::read(&backup, guid, &dir.path().join("s")).unwrap();
        message.write_to(&mut octets).unwrap();
        assert_eq!(guid_of(&octets), *guid);
    }
}

/// Nobody could read it again, and the messages of the mailbox that it tells of would be lost.
#[test]
fn a_line_that_no_reader_takes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let staging = Staging::new(dir.path().join("staging"));
    let mut writer = Writer::open(&path, NOW).unwrap();
    let apply = Apply::Unmailbox(b"user.tom".as_slice().into());
    let mut append = |text: &[u8]| {
        let line = Line { text, body_at: &[], bodies: &[], apply: &apply };
        writer.append(NOW, &line, &staging)
    };
    append(b"UNMAILBOX user.tom").unwrap();
    // Pages of zeros that nobody looks at cost nothing.
    let longest = Limits::LOG.line - "1800000000 APPLY \r".len();
    assert!(matches!(append(&vec![0; longest + 1]), Err(StoreError::TooLong { .. })));
    append(b"UNMAILBOX user.tom").unwrap();
    writer.finish(NOW).unwrap();
    assert_eq!(writer.index().chunks().unwrap().len(), 1);
}
