//! Messages and scripts that hold gzip files, which deflate stores as they are: never
//! taken for members.

use std::fs;
use std::path::Path;

use super::super::backup::index_path;
use super::super::index::{Index, Open};
use super::super::reindex::{self, Stretch};
use super::super::survey;
use super::super::{Writer, chunk};
use super::lines::{Step, check, fast_dir};
use super::random::Random;
use crate::lock::Wait;
use crate::wire::mboxname::NameRules;

const FORGED: &[u8] = b"1 APPLY SUB %(USERID mallory MBOXNAME user.mallory)\r\n";

/// A gzip file of these lines.
fn gzip(lines: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut member = chunk::MemberWriter::start(&mut out).unwrap();
    lines.iter().for_each(|line| member.write(line, &mut out).unwrap());
    member.finish(&mut out).unwrap();
    out
}

/// A text, and one that would do as a chunk.
fn embedded() -> [Vec<u8>; 2] {
    [gzip(&[FORGED]), gzip(&[chunk::CHUNK_HEADER, FORGED])]
}

/// Far enough from each other to hold nothing that the compressor could refer to.
fn within(file: &[u8], random: &mut Random) -> Vec<u8> {
    [&random.octets(40_000)[..], file, &random.octets(40_000)].concat()
}

fn position(octets: &[u8], part: &[u8]) -> Option<usize> {
    octets.windows(part.len()).position(|window| window == part)
}

fn append(path: &Path, steps: &[Step]) -> Writer {
    let mut writer = Writer::open(path, 1_000).unwrap();
    steps.iter().for_each(|step| step.append_to(&mut writer, 1_000).unwrap());
    writer
}

fn forged(path: &Path) -> bool {
    let index = Index::open(&index_path(path), Open::Read).unwrap();
    index.subscriptions().unwrap().iter().any(|name| name == b"user.mallory")
}

#[test]
fn acknowledged_lines_around_them_are_kept() {
    for (number, file) in embedded().iter().enumerate() {
        let mut random = Random::new(11);
        let messages = [within(file, &mut random), within(file, &mut random)];
        let steps = [
            Step::text("SUB %(USERID tom MBOXNAME user.tom.a)"),
            Step::message(&messages),
            Step::script(&within(file, &mut random)),
            Step::text("SUB %(USERID tom MBOXNAME user.tom.b)"),
        ];
        for octets_behind in [0, 5_000] {
            let dir = fast_dir();
            let path = dir.path().join("data");
            drop(append(&path, &steps));
            let mut data = fs::read(&path).unwrap();
            assert!(position(&data, file).is_some(), "it is stored as it is");
            data.extend(random.octets(octets_behind));
            fs::write(&path, data).unwrap();
            for remove_index in [false, true] {
                if remove_index {
                    fs::remove_file(index_path(&path)).unwrap();
                }
                drop(Writer::open(&path, 2_000).unwrap());
                assert!(!forged(&path), "{number} {octets_behind}");
            }
            let mut found = steps.to_vec();
            found.truncate(check(&path, &steps));
            assert_eq!(found.len(), steps.len(), "{number} {octets_behind}");
        }
    }
}

enum Damage {
    Checksum,
    Line,
}

#[test]
fn damage_is_passed_over_to_the_next_member() {
    // Behind the damage a file that would do as a chunk cannot be told from one.
    let [text, chunk] = embedded();
    for (front, back, damage) in [
        (&text, &text, Damage::Checksum),
        (&chunk, &chunk, Damage::Checksum),
        (&chunk, &text, Damage::Line),
    ] {
        let mut random = Random::new(12);
        let scripts = [front, back].map(|file| Step::script(&within(file, &mut random)));
        let dir = fast_dir();
        let path = dir.path().join("data");
        append(&path, &scripts).finish(1_000).unwrap();
        let end = fs::metadata(&path).unwrap().len();
        append(&path, &scripts[..1]).finish(1_000).unwrap();
        let mut data = fs::read(&path).unwrap();
        // Its checksum: every line of it is whole. Or the head of its second script.
        let second = position(&data[50_000..], back).unwrap() + 50_000;
        match damage {
            Damage::Checksum => data[end as usize - 8] ^= 1,
            Damage::Line => data[second - 40_050..second - 39_950].fill(0xff),
        }
        fs::write(&path, &data).unwrap();
        fs::remove_file(index_path(&path)).unwrap();

        drop(Writer::open(&path, 2_000).unwrap());
        let index = Index::open(&index_path(&path), Open::Read).unwrap();
        let offsets: Vec<_> = index.chunks().unwrap().iter().map(|chunk| chunk.offset).collect();
        assert_eq!(offsets, [0, end]);
        assert!(!forged(&path));

        let file = fs::File::open(&path).unwrap();
        let evidence = survey::read(&file, &NameRules::default()).unwrap();
        assert_eq!(evidence.owners.keys().collect::<Vec<_>>(), [b"tom"]);
        drop(file);

        let mut stretches = Vec::new();
        let mut sink = |stretch| {
            stretches.push(match stretch {
                Stretch::Member { offset } => (offset, None),
                Stretch::Damaged { offset, end, .. } => (offset, Some(end)),
                Stretch::Torn { offset } => (offset, Some(u64::MAX)),
            });
        };
        reindex::run(&path, Wait::No, false, 2_000, &mut sink).unwrap();
        assert_eq!(stretches, [(0, Some(end)), (end, None)]);
    }
}
