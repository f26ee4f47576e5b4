//! Damage of every kind to members with many lines.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use sha1::{Digest, Sha1};

use super::*;
use crate::store::chunk::{CHUNK_HEADER, MEMBER_HEADER, MemberWriter};
use crate::store::log::NoBodies;
use crate::wire::Guid;
use crate::wire::apply::Apply;

/// Octets between two places where reading can begin.
const EVERY: u64 = 6_000;

fn file(octets: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(octets).unwrap();
    file
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            (state >> 33) as u8
        })
        .collect()
}

fn message(ts: u32, body: &[u8]) -> Vec<u8> {
    let guid = Guid::from(<[u8; 20]>::from(Sha1::digest(body)));
    let mut line =
        format!("{ts} APPLY MESSAGE (%{{default {guid} {}}}\r\n", body.len()).into_bytes();
    line.extend_from_slice(body);
    line.extend_from_slice(b")\r\n");
    line
}

/// Lines as they come: a message, and a mailbox that has it.
fn lines(count: u32) -> Vec<Vec<u8>> {
    let pair = |i: u32| {
        let body = match i % 5 {
            0 => noise(u64::from(i), 700),
            _ => format!(
                "From: a{i}@example.org\r\nSubject: {}\r\n\r\n{}",
                i * 7,
                "text ".repeat(60)
            )
            .into_bytes(),
        };
        let guid = Guid::from(<[u8; 20]>::from(Sha1::digest(&body)));
        let mailbox = format!(
            "{} APPLY MAILBOX %(UNIQUEID u MBOXNAME user.tom LAST_UID {i} HIGHESTMODSEQ {i} \
             RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 PARTITION \
             d ACL \"\" OPTIONS P SYNC_CRC {} SYNC_CRC_ANNOT 0 RECORD (%(UID {i} MODSEQ {i} \
             LAST_UPDATED 1 FLAGS () INTERNALDATE 1 SIZE {} GUID {guid})))\r\n",
            1_700_000_000 + i,
            i.wrapping_mul(2_654_435_761),
            body.len(),
        );
        [message(1_700_000_000 + i, &body), mailbox.into_bytes()]
    };
    (1..=count).flat_map(pair).collect()
}

/// A member as cyrbk writes it, with the places where reading can begin and the end of each line.
struct Member {
    octets: Vec<u8>,
    points: Vec<RestartPoint>,
    /// Offset of each line, and where it ends in the file.
    ends: Vec<(u64, u64)>,
}

fn member(lines: &[Vec<u8>]) -> Member {
    let (mut out, mut points, mut ends, mut last) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut writer = MemberWriter::start(&mut out).unwrap();
    writer.write(CHUNK_HEADER, &mut out).unwrap();
    for line in lines {
        let offset_plain = writer.len_plain();
        if offset_plain - last >= EVERY {
            last = offset_plain;
            writer.restart(&mut out).unwrap();
            points.push(RestartPoint { offset_plain, offset_file: out.len() as u64 });
        }
        writer.write(line, &mut out).unwrap();
        writer.end_line(&mut out).unwrap();
        ends.push((offset_plain, out.len() as u64));
    }
    writer.finish(&mut out).unwrap();
    Member { octets: out, points, ends }
}

/// Every line that can be read: its offset and text; of sound messages only.
fn read(file: &File, salvage: &Salvage) -> Vec<(u64, Vec<u8>)> {
    read_all(file, salvage, true)
}

/// The same, and only those that are sure unless `trusting`.
fn read_all(file: &File, salvage: &Salvage, trusting: bool) -> Vec<(u64, Vec<u8>)> {
    let mut reader = SavedLines::new(file, salvage);
    let mut found = Vec::new();
    while let Some(line) = reader.next_line(&mut NoBodies).unwrap() {
        let (name, value) = line.item().unwrap();
        let is_known = Apply::read(&name, &value).is_ok();
        let is_message = name == b"MESSAGE";
        if is_known
            && (reader.is_sure() || is_message || trusting)
            && reader.are_sound().iter().all(|sound| *sound)
        {
            found.push((line.offset, line.text().to_vec()));
        }
    }
    found
}

/// The text of lines, as a reader gives it.
fn texts(lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let octets = member(lines).octets;
    let file = file(&octets);
    let salvage = Salvage::of_member(&file, 0, octets.len() as u64, &[]).unwrap();
    assert_eq!(salvage.gaps, []);
    let found: Vec<_> = read(&file, &salvage).into_iter().map(|(_, text)| text).collect();
    assert_eq!(found.len(), lines.len());
    found
}

#[test]
fn a_gap_costs_what_lies_up_to_the_next_place_where_reading_can_begin() {
    let lines = lines(120);
    let texts = texts(&lines);
    let Member { octets, points, ends } = member(&lines);
    assert!(points.len() > 5);
    let first = points[2].offset_file as usize;
    let mut bad = octets.clone();
    bad[first + 40..first + 140].copy_from_slice(&noise(3, 100));
    let file = file(&bad);
    // Where the index is known, and where the member's length alone is.
    for known in [&points[..], &[]] {
        let salvage = Salvage::of_member(&file, 0, bad.len() as u64, known).unwrap();
        let found = read(&file, &salvage);
        let [.., gap] = &salvage.gaps[..] else { panic!("{:?}", salvage.gaps) };
        assert!(salvage.gaps[0].from <= first as u64 + 40, "{gap:?}");
        assert!(gap.to <= points[3].offset_file);
        let due: Vec<_> = ends
            .iter()
            .zip(&texts)
            .filter(|((offset, _), _)| {
                *offset < points[2].offset_plain || *offset >= points[3].offset_plain
            })
            .map(|((offset, _), text)| (*offset, text.clone()))
            .collect();
        // In the stretch that is hit there may be lines that need nothing of those before them.
        let (out, within): (Vec<_>, Vec<_>) = found.iter().partition(|line| due.contains(line));
        assert_eq!(out.len(), due.len());
        assert!(within.iter().all(|(_, text)| texts.contains(text)));
        assert_eq!(salvage.next, None);
        assert!(salvage.has_end());
    }
}

/// Several gaps, and the end is missing: places are made up, and found again by the points that
/// an index then has.
#[test]
fn made_up_places_are_found_again() {
    let lines = lines(160);
    let Member { octets, points, ends } = member(&lines);
    let mut bad = octets[..octets.len() - 30].to_vec();
    for i in [1, 4] {
        let at = points[i].offset_file as usize + 30;
        bad[at..at + 64].fill(0x5a);
    }
    let file = file(&bad);
    let salvage = Salvage::of_member(&file, 0, bad.len() as u64, &[]).unwrap();
    assert!(salvage.gaps.len() >= 3);
    assert_eq!(salvage.gaps.last().unwrap().plain.1, None);
    let found = read(&file, &salvage);
    assert!(found.windows(2).all(|two| two[0].0 < two[1].0));
    let made_up: Vec<_> = salvage.points().collect();
    let again = Salvage::of_member(&file, 0, bad.len() as u64, &made_up).unwrap();
    assert_eq!(read(&file, &again), found);
    assert_eq!(again.points().collect::<Vec<_>>(), made_up);
    let exact = Salvage::of_member(&file, 0, bad.len() as u64, &points).unwrap();
    for point in [points[2], points[5]] {
        let run = exact.runs.iter().find(|run| run.end > point.offset_file).unwrap();
        let line = ends.iter().find(|line| line.1 > run.start && !run.is_head).unwrap();
        assert_eq!(run.offset_plain, line.0);
    }
}

/// Cyrus flushes fully behind every line: only the line with the damage is lost.
#[test]
fn what_cyrus_wrote_loses_one_line() {
    let octets = std::fs::read("tests/fixtures/backups/main/one/a/alice_EPfRmx").unwrap();
    let file_of = |octets: &[u8]| (file(octets), octets.len() as u64);
    let (whole, len) = file_of(&octets);
    let end = crate::store::replay::totals(&whole, 0, len).unwrap().end as usize;
    let all = read(&whole, &Salvage::of_member(&whole, 0, end as u64, &[]).unwrap());
    assert!(all.len() > 10);
    let mut sum = 0;
    for at in (60..end - 20).step_by(end / 50) {
        let mut bad = octets.clone();
        bad[at..at + 12].copy_from_slice(&noise(at as u64, 12));
        let (file, len) = file_of(&bad);
        let salvage = Salvage::of_member(&file, 0, len, &[]).unwrap();
        let found = read(&file, &salvage);
        let lost = all.len() - found.len();
        assert!(lost <= 3, "{at}: {lost} of {}", all.len());
        sum += lost;
        assert_eq!(salvage.next, Some(end as u64), "{at}");
    }
    assert!(sum > 10);
}

/// A message holds the octets of a flush and lines behind it; its own beginning is lost.
#[test]
fn what_a_message_holds_is_not_taken_for_lines() {
    let mut inner = GzEncoder::new(Vec::new(), Compression::new(6));
    inner.write_all(CHUNK_HEADER).unwrap();
    inner.flush().unwrap();
    let mut forged = inner.get_ref()[MEMBER_HEADER.len()..].to_vec();
    let mut tail = GzEncoder::new(Vec::new(), Compression::new(6));
    for i in 0..50 {
        writeln!(tail, "1 APPLY UNMAILBOX user.tom.{i}\r").unwrap();
    }
    tail.flush().unwrap();
    forged.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
    forged.extend_from_slice(&tail.get_ref()[MEMBER_HEADER.len()..]);
    let body = [noise(1, 9_000), forged, noise(2, 30_000)].concat();
    let lines = [message(1, b"in front"), message(2, &body), message(3, b"behind")];
    let Member { octets, ends, .. } = member(&lines);
    assert!(octets.len() > 35_000, "stored as it is");
    for at in ends[0].1 + 2..ends[0].1 + 60 {
        let mut bad = octets.clone();
        bad[at as usize] ^= 0x55;
        let file = file(&bad);
        let salvage = Salvage::of_member(&file, 0, bad.len() as u64, &[]).unwrap();
        for (_, text) in read_all(&file, &salvage, false) {
            assert!(text.starts_with(b"MESSAGE"), "{at}: {}", String::from_utf8_lossy(&text));
        }
    }
}

/// A message that is damaged costs itself, if deflate does not notice.
#[test]
fn a_damaged_message_costs_itself() {
    let body = noise(9, 3_000);
    let lines =
        [message(1, b"in front"), message(2, &body), message(3, b"behind"), lines(1)[1].clone()];
    let Member { mut octets, .. } = member(&lines);
    let at = octets.windows(20).position(|w| w == &body[1_000..1_020]).unwrap();
    octets[at] ^= 1;
    let file = file(&octets);
    let salvage = Salvage::of_member(&file, 0, octets.len() as u64, &[]).unwrap();
    assert_eq!(read(&file, &salvage).len(), 3);
    assert_eq!((salvage.gaps.len(), salvage.lines()), (0, 4));
}

/// However many marks there are, and whatever stands behind them.
#[test]
fn marks_without_end_are_given_up() {
    let mut octets = member(&lines(3)).octets;
    octets.truncate(octets.len() - 30);
    octets.extend_from_slice(&[0xff; 64]);
    octets.extend_from_slice(&[0, 0, 0, 0xff, 0xff].repeat(400_000));
    let file = file(&octets);
    let mut search = Search::new(&file, octets.len() as u64, &[]);
    assert!(search.next(100, octets.len() as u64).unwrap().is_none());
    let salvage = Salvage::of_member(&file, 0, octets.len() as u64, &[]).unwrap();
    assert!(salvage.lines() >= 4);
}

/// The file is shorter than what is looked at in front of a mark.
#[test]
fn a_mark_at_the_beginning_of_the_file() {
    let mut tail = GzEncoder::new(Vec::new(), Compression::new(6));
    for line in lines(2) {
        tail.write_all(&line).unwrap();
    }
    tail.flush().unwrap();
    let mut octets = vec![7, 0, 0, 0xff, 0xff];
    octets.extend_from_slice(&tail.get_ref()[MEMBER_HEADER.len()..]);
    let file = file(&octets);
    let salvage = Salvage::of_member(&file, 0, octets.len() as u64, &[]).unwrap();
    assert_eq!(read(&file, &salvage).len(), 4);
}

/// How the octets of a member are damaged.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Noise(prop::sample::Index, u64, usize),
    Zeros(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<prop::sample::Index>(), 1u8..).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (any::<prop::sample::Index>(), any::<u64>(), 1usize..2_000)
            .prop_map(|(at, seed, len)| Damage::Noise(at, seed, len)),
        any::<prop::sample::Index>().prop_map(Damage::Zeros),
    ]
}

fn apply(damage: &Damage, octets: &mut [u8]) -> std::ops::Range<usize> {
    let len = octets.len();
    let (from, new) = match damage {
        Damage::Flip(at, bits) => {
            let at = at.index(len);
            (at, vec![octets[at] ^ bits])
        }
        Damage::Noise(at, seed, len_noise) => (at.index(len), noise(*seed, *len_noise)),
        Damage::Zeros(at) => (at.index(len) / 512 * 512, vec![0; 512]),
    };
    let to = (from + new.len()).min(len);
    octets[from..to].copy_from_slice(&new[..to - from]);
    from..to
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Nothing comes out that was not written, but what deflate cannot notice: in lines without
    /// a checksum of their own, in the stretch that was damaged. All other stretches are there.
    #[test]
    fn any_damage_costs_the_stretch_that_it_hits(
        damages in prop::collection::vec(damage(), 1..4),
        by_index in any::<bool>(),
    ) {
        let lines = lines(60);
        let Member { mut octets, points, ends } = member(&lines);
        let written: BTreeMap<u64, Vec<u8>> =
            ends.iter().map(|end| end.0).zip(texts(&lines)).collect();
        let hit: Vec<_> = damages.iter().map(|damage| apply(damage, &mut octets)).collect();
        let bounds: Vec<u64> = std::iter::once(0)
            .chain(points.iter().map(|point| point.offset_file))
            .chain([octets.len() as u64])
            .collect();
        let is_hit = |i: usize| {
            let (from, to) = (bounds[i] as usize, bounds[i + 1] as usize);
            // A flush that is damaged costs the line in front of it.
            hit.iter().any(|hit| hit.start < to && hit.end > from)
        };
        let file = file(&octets);
        let known = if by_index { &points[..] } else { &[] };
        let salvage = Salvage::of_member(&file, 0, octets.len() as u64, known).unwrap();
        let found = read(&file, &salvage);
        let all: HashSet<&Vec<u8>> = written.values().collect();
        let strange: Vec<_> = found.iter().filter(|(_, text)| !all.contains(text)).collect();
        for (_, text) in &strange {
            prop_assert!(
                text.starts_with(b"MAILBOX ") || text.starts_with(b"MESSAGE "),
                "{}", String::from_utf8_lossy(text)
            );
        }
        let found: HashSet<&Vec<u8>> = found.iter().map(|(_, text)| text).collect();
        let mut missing = 0;
        for i in (0..bounds.len() - 1).filter(|&i| !is_hit(i)) {
            // Without an index a place may look like one inside a message, for up to 64 KiB.
            let is_due = by_index;
            let stretch = ends.iter().filter(|end| end.1 > bounds[i] && end.1 <= bounds[i + 1]);
            for end in stretch {
                let is_there = found.contains(&written[&end.0]);
                prop_assert!(
                    is_there || !is_due,
                    "stretch {i} at {:?}: line at {}; hit {hit:?}; {salvage:#?}", bounds, end.0
                );
                missing += usize::from(!is_there);
            }
        }
        prop_assert!(missing < lines.len());
        if !strange.is_empty() {
            prop_assert!((0..bounds.len() - 1).any(is_hit));
        }
    }

    #[test]
    fn anything_at_all_is_read_without_harm(
        octets in prop::collection::vec(any::<u8>(), 0..4_000),
        offset in 0u64..100,
    ) {
        let file = file(&octets);
        let salvage = Salvage::of_member(&file, offset, octets.len() as u64, &[]).unwrap();
        prop_assert_eq!(read(&file, &salvage).len(), 0);
    }
}
