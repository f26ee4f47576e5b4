//! Restart points: recorded by the writer, found again by a rebuild, usable.

use std::fs::{self, File};

use rusqlite::Connection;

use super::super::Writer;
use super::super::backup::{Backup, index_path};
use super::super::index::{Index, Open, RestartPoint};
use super::super::log::{LogReader, NoBodies};
use super::super::message::StoredMessage;
use super::lines::{Step, fast_dir, guid_of};
use super::random::Random;
use crate::lock::Wait;

/// Text that refers back to what came before, wherever that is allowed.
fn prose(random: &mut Random, len: usize) -> Vec<u8> {
    const WORDS: [&str; 8] =
        ["replication ", "mailbox ", "of the ", "message\r\n", "UID ", "and ", "backup ", "a "];
    let mut text = Vec::new();
    while text.len() < len {
        text.extend_from_slice(WORDS[random.below(WORDS.len())].as_bytes());
    }
    text
}

fn points(index: &Index, len: u64) -> Vec<RestartPoint> {
    let mut found = Vec::new();
    let mut at = len;
    while let Some(point) = index.restart_point(1, at).unwrap() {
        found.insert(0, point);
        at = point.offset_plain - 1;
    }
    found
}

#[test]
fn reading_begins_near_a_line_and_gives_the_same_lines() {
    let dir = fast_dir();
    let path = dir.path().join("data");
    let mut random = Random::new(7);
    let mut writer = Writer::open(&path, 1_000).unwrap();
    for number in 0..300 {
        let len = if number == 150 { 1_500_000 } else { 6_000 };
        Step::message(&[prose(&mut random, len)]).append_to(&mut writer, 1_000).unwrap();
    }
    writer.finish(1_000).unwrap();
    drop(writer);

    let recorded = check_points(&path);
    // Once in 512 KiB, and in front of the large message.
    assert!((4..10).contains(&recorded.len()), "{}", recorded.len());

    fs::remove_file(index_path(&path)).unwrap();
    drop(Writer::open(&path, 2_000).unwrap());
    let found = check_points(&path);
    assert!(found.len() + 3 > recorded.len(), "{} of {}", found.len(), recorded.len());
    assert!(found.iter().any(|point| recorded.contains(point)));

    // Without the table reading begins at the beginning.
    let db = Connection::open(index_path(&path)).unwrap();
    db.execute_batch("DROP TABLE cyrbk_restart").unwrap();
    let index = Index::open(&index_path(&path), Open::Read).unwrap();
    assert_eq!(index.restart_point(1, 1 << 30).unwrap(), None);
}

/// Reads every line from the point in front of it, and compares with reading from the
/// beginning.
fn check_points(path: &std::path::Path) -> Vec<RestartPoint> {
    let index = Index::open(&index_path(path), Open::Read).unwrap();
    let chunk = index.last_chunk().unwrap().unwrap();
    let file = File::open(path).unwrap();
    let all = points(&index, chunk.length);
    let mut from_start = LogReader::open_near(&file, chunk.offset, None).unwrap();
    let mut number = 0;
    while let Some(line) = from_start.next_line(&mut NoBodies).unwrap() {
        number += 1;
        let point = index.restart_point(chunk.id, line.offset).unwrap();
        let before = all.iter().rfind(|point| point.offset_plain <= line.offset);
        assert_eq!(point.as_ref(), before);
        if number % 10 != 0 && point.is_none_or(|point| point.offset_plain != line.offset) {
            continue;
        }
        let mut near = LogReader::open_near(&file, chunk.offset, point).unwrap();
        let again = loop {
            let again = near.next_line(&mut NoBodies).unwrap().unwrap();
            if again.offset >= line.offset {
                break again;
            }
        };
        assert_eq!(again, line);
        let distance = line.offset - point.map_or(0, |point| point.offset_plain);
        assert!(distance < 2_000_000 && (distance < 600_000 || number > 140), "{distance}");
    }
    // The last one leads to the end of the chunk.
    let mut last = LogReader::open_near(&file, chunk.offset, all.last().copied()).unwrap();
    while last.next_line(&mut NoBodies).unwrap().is_some() {}
    assert_eq!(last.offset_plain(), chunk.length);
    all
}

/// What a client sends as one line is read as if it had come in many.
#[test]
fn messages_of_one_line_are_read_apart() {
    let dir = fast_dir();
    let path = dir.path().join("data");
    let mut random = Random::new(8);
    let sizes = (0..200).map(|n| if n == 100 { 5_000_000 } else { 7_000 + n });
    let bodies: Vec<Vec<u8>> = sizes.map(|size| prose(&mut random, size)).collect();
    let mut writer = Writer::open(&path, 1_000).unwrap();
    Step::message(&bodies).append_to(&mut writer, 1_000).unwrap();
    writer.finish(1_000).unwrap();
    let index = writer.index();
    for body in &bodies {
        let row = index.message(&guid_of(body)).unwrap().unwrap();
        let point = index.restart_point(row.chunk_id, row.offset).unwrap();
        let at = point.map_or(0, |point| point.offset_plain);
        let is_first = row.offset < 600_000;
        assert!(is_first || at == row.offset, "{at} for {}", row.offset);
    }
    drop(writer);
    let recorded = check_points(&path);
    assert!((4..7).contains(&recorded.len()), "{recorded:?}");

    fs::remove_file(index_path(&path)).unwrap();
    drop(Writer::open(&path, 2_000).unwrap());
    let found = check_points(&path);
    assert!(found.iter().all(|point| recorded.contains(point)), "{found:?} of {recorded:?}");
    // Not those that a large message only just made due.
    assert!(found.len() + 3 > recorded.len(), "{found:?} of {recorded:?}");
}

/// Reading begins in front of it or behind it, never inside.
#[test]
fn a_very_long_line_is_read_like_a_short_one() {
    let dir = fast_dir();
    let path = dir.path().join("data");
    let mut random = Random::new(9);
    let script = prose(&mut random, 9_000_000);
    let mut writer = Writer::open(&path, 1_000).unwrap();
    for step in [
        Step::message(&[prose(&mut random, 3_000)]),
        Step::script(&script),
        Step::message(&[prose(&mut random, 4_000)]),
    ] {
        step.append_to(&mut writer, 1_000).unwrap();
    }
    writer.finish(1_000).unwrap();
    drop(writer);
    let file = File::open(&path).unwrap();
    let mut reader = LogReader::open_near(&file, 0, None).unwrap();
    let mut lines = Vec::new();
    while let Some(line) = reader.next_line(&mut NoBodies).unwrap() {
        lines.push(line);
    }
    assert_eq!(lines.len(), 3);
    assert!(lines[1].text().windows(script.len()).any(|text| text == script));
    let index = Index::open(&index_path(&path), Open::Read).unwrap();
    let points = points(&index, 1 << 30);
    let at: Vec<u64> = points.iter().map(|point| point.offset_plain).collect();
    assert!(at.contains(&lines[1].offset), "{at:?}");
    assert!(
        at.iter().all(|at| lines.iter().any(|line| line.offset == *at) || *at > lines[2].offset)
    );
}

/// What a rebuild costs then is in docs/durability.md, "Known limits".
#[test]
fn messages_behind_damage_inside_a_chunk_are_read_from_the_next_point() {
    let dir = fast_dir();
    let path = dir.path().join("data");
    let mut random = Random::new(17);
    let messages: Vec<_> = (0..40).map(|_| random.octets(30_000)).collect();
    let mut writer = Writer::open(&path, 1_000).unwrap();
    for message in &messages {
        Step::message(std::slice::from_ref(message)).append_to(&mut writer, 1_000).unwrap();
    }
    writer.finish(1_000).unwrap();
    drop(writer);
    let index = Index::open(&index_path(&path), Open::Read).unwrap();
    let first = points(&index, 1 << 30)[0];
    drop(index);
    let mut octets = fs::read(&path).unwrap();
    // An unknown kind of block, and everything up to the first point.
    octets[40_000..first.offset_file as usize - 100].fill(0xff);
    fs::write(&path, &octets).unwrap();

    let backup = Backup::open(&path, Wait::No).unwrap();
    let read = |message: &Vec<u8>| {
        StoredMessage::read(&backup, &guid_of(message), dir.path()).is_ok_and(|stored| {
            let mut out = Vec::new();
            stored.write_to(&mut out).unwrap();
            out == *message
        })
    };
    let readable: Vec<bool> = messages.iter().map(read).collect();
    // There is a point behind every 512 KiB.
    assert!(!readable[5] && readable[18..].iter().all(|is_readable| *is_readable), "{readable:?}");
}
