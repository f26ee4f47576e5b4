//! A whole backup with a damaged chunk: what each operation makes of it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use sha1::{Digest, Sha1};

use crate::lock::Wait;
use crate::store::append::Line;
use crate::store::backup::index_path;
use crate::store::chunk::RESTART_EVERY;
use crate::store::compact::{self, Outcome, Policy, Sizes};
use crate::store::index::RestartPoint;
use crate::store::message::StoredMessage;
use crate::store::reindex::{self, Stretch};
use crate::store::staging::Staging;
use crate::store::verify::{self, Deep, Event, Fault};
use crate::store::{Backup, Writer, export};
use crate::wire::apply::Apply;
use crate::wire::dlist::parse_item;
use crate::wire::{Body, Guid};

const NOW: i64 = 1_800_000_000;
const MESSAGES: u32 = 110;
/// Messages between two places where reading can begin, and two that may be hit.
const LOST: usize = (RESTART_EVERY / 40_000) as usize + 3;

struct Site {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

fn guid_of(octets: &[u8]) -> Guid {
    Guid::from(<[u8; 20]>::from(Sha1::digest(octets)))
}

/// Compresses badly, so that places where reading can begin lie far apart in the file.
fn body(number: u32) -> Vec<u8> {
    static ALL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| (1..=MESSAGES).map(noise).collect());
    ALL[number as usize - 1].clone()
}

fn noise(number: u32) -> Vec<u8> {
    let mut state = u64::from(number) + 1;
    (0..40_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            b'0' + (state >> 33) as u8 % 64
        })
        .collect()
}

fn append(writer: &mut Writer, text: &str, octets: Option<Vec<u8>>) {
    let (name, value) = parse_item(text.as_bytes()).unwrap();
    let apply = Apply::read(&name, &value).unwrap();
    let body_at: Vec<usize> = octets.iter().map(|_| text.len() - 1).collect();
    let bodies: Vec<Body> = octets.into_iter().map(Body::Memory).collect();
    let line = Line { text: text.as_bytes(), body_at: &body_at, bodies: &bodies, apply: &apply };
    writer.append(NOW, &line, &Staging::new("/nonexistent".into())).unwrap();
}

/// The checksum of a mailbox with messages up to this one.
fn crc(last: u32) -> u32 {
    static EACH: LazyLock<Vec<u32>> = LazyLock::new(|| (1..=MESSAGES).map(crc_of).collect());
    EACH[..last as usize].iter().fold(0, |sum, crc| sum ^ crc)
}

fn crc_of(uid: u32) -> u32 {
    crc32fast::hash(format!("{uid} {uid} 1 (0) 1 {}", guid_of(&body(uid))).as_bytes())
}

fn mailbox(writer: &mut Writer, uid: u32) {
    let since = if uid > 1 { format!("SINCE_MODSEQ {} ", uid - 1) } else { String::new() };
    append(
        writer,
        &format!(
            "MAILBOX %(UNIQUEID u MBOXNAME user.tom LAST_UID {uid} HIGHESTMODSEQ {uid} RECENTUID \
             0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 PARTITION d ACL \
             \"\" OPTIONS P SYNC_CRC {} SYNC_CRC_ANNOT 12345678 {since}RECORD (%(UID {uid} MODSEQ \
             {uid} LAST_UPDATED 1 FLAGS () INTERNALDATE 1 SIZE 40000 GUID {})))",
            crc(uid),
            guid_of(&body(uid)),
        ),
        None,
    );
}

impl Site {
    /// One chunk of many messages, and one behind it.
    fn new() -> Site {
        Site::with_chunks(&[])
    }

    /// Further chunks end behind these messages.
    fn with_chunks(ends: &[u32]) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::write(&path, b"").unwrap();
        let mut writer = Writer::open(&path, NOW).unwrap();
        for uid in 1..=MESSAGES {
            let octets = body(uid);
            let text = format!("MESSAGE (%{{d {} {}}}\r\n)", guid_of(&octets), octets.len());
            append(&mut writer, &text, Some(octets));
            mailbox(&mut writer, uid);
            if ends.contains(&uid) {
                writer.finish(NOW).unwrap();
            }
        }
        writer.finish(NOW).unwrap();
        append(&mut writer, "SUB %(USERID tom MBOXNAME user.tom)", None);
        writer.finish(NOW).unwrap();
        Site { _dir: dir, path }
    }

    fn points(&self) -> Vec<RestartPoint> {
        Backup::open(&self.path, Wait::No).unwrap().index().restart_points(1).unwrap()
    }

    /// Overwrites some octets behind the n-th restart point.
    fn damage(&self, point: usize) {
        let at = self.points()[point].offset_file as usize + 900;
        let mut octets = fs::read(&self.path).unwrap();
        for (i, octet) in octets[at..at + 45_000].iter_mut().enumerate() {
            *octet = (i * i / 7) as u8;
        }
        fs::write(&self.path, octets).unwrap();
    }

    /// Messages that can be had, one by one and all at once.
    fn readable(&self) -> Vec<u32> {
        let backup = Backup::open(&self.path, Wait::No).unwrap();
        let staging = Path::new("/nonexistent");
        let is_there = |uid: &u32| {
            let mut octets = Vec::new();
            match StoredMessage::read(&backup, &guid_of(&body(*uid)), staging) {
                Ok(message) => message.write_to(&mut octets).unwrap(),
                Err(_) => return false,
            }
            octets == body(*uid)
        };
        let found: Vec<u32> = (1..=MESSAGES).filter(is_there).collect();
        let mut exported = 0;
        let all = (1..=MESSAGES).map(|uid| guid_of(&body(uid)));
        let failed = export::messages(&backup, all, staging, &mut |_, _| {
            exported += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(exported, found.len(), "{failed:?}");
        found
    }

    /// Kinds of what is wrong, and the gaps.
    fn findings(&self) -> (Vec<&'static str>, Vec<String>) {
        let backup = Backup::open(&self.path, Wait::No).unwrap();
        let (mut kinds, mut gaps) = (Vec::new(), Vec::new());
        verify::deep(&backup, &Deep { jobs: 2, owner: None }, &mut |event| {
            if let Event::Finding(finding) = event {
                kinds.push(finding.fault.kind());
                if let Fault::Gap { gap, .. } = &finding.fault {
                    gaps.push(format!("{gap:?}"));
                }
            }
        })
        .unwrap();
        kinds.dedup();
        (kinds, gaps)
    }

    fn reindex(&self) -> u64 {
        let mut saved = 0;
        reindex::run(&self.path, Wait::No, false, NOW, &mut |stretch| {
            if let Stretch::Damaged { lines, .. } = stretch {
                saved += lines;
            }
        })
        .unwrap();
        saved
    }

    fn is_whole(&self) -> bool {
        let backup = Backup::open(&self.path, Wait::No).unwrap();
        let row = backup.index().mailbox_with_uniqueid(b"u").unwrap().unwrap();
        backup.index().is_whole(&row).unwrap()
    }

    fn compact(&self) -> usize {
        let policy = Policy {
            since: None,
            sizes: Sizes { min: 0, max: 0, work_threshold: 1 },
            force: true,
            keep_previous: false,
            dry_run: false,
            staging: self.path.with_file_name("staging"),
        };
        match compact::run(&self.path, &policy, NOW, Wait::No, &mut |_| {}).unwrap() {
            Outcome::Done { damages, previous, .. } => {
                assert_eq!(damages.is_empty(), previous.is_none());
                damages.len()
            }
            outcome => panic!("{outcome:?}"),
        }
    }
}

#[test]
fn messages_behind_damage_outlive_rebuild_and_compaction() {
    let site = Site::new();
    assert!(site.is_whole() && site.points().len() > 4);
    site.damage(2);
    // By the old index, through its restart points.
    let before = site.readable();
    let lost = MESSAGES as usize - before.len();
    assert!((1..=LOST).contains(&lost), "{lost}");
    let (kinds, gaps) = site.findings();
    assert!(kinds.starts_with(&["unreadable", "gap"]), "{kinds:?}");

    // A rebuild finds the same messages, and some that need nothing of what is lost.
    let saved = site.reindex();
    assert!(saved as usize >= 2 * before.len(), "{saved}");
    let after = site.readable();
    assert!(before.iter().all(|uid| after.contains(uid)));
    let before = after;
    assert_eq!(site.findings().0, ["unreadable", "gap", "unsent", "leftover"]);
    assert_eq!(site.findings().1, gaps);
    assert!(!site.is_whole(), "a line that told of a message is lost");
    assert_eq!(site.reindex(), saved);
    assert_eq!(site.readable(), before);

    // Without any index all the same.
    fs::remove_file(index_path(&site.path)).unwrap();
    drop(Writer::open(&site.path, NOW).unwrap());
    let alone = site.readable();
    assert!(alone.len() + LOST >= before.len(), "{alone:?}");
    assert!(!site.findings().1.is_empty());
    assert!(!site.is_whole());

    // What was saved goes into sound chunks.
    assert!(site.compact() >= 1);
    assert_eq!(site.readable().len(), alone.len());
    let (kinds, gaps) = site.findings();
    assert!(gaps.is_empty() && !kinds.contains(&"unreadable"), "{kinds:?}");
    assert!(!site.is_whole(), "it is still to be sent again");
    assert_eq!(site.compact(), 0);
    assert!(!site.is_whole());
}

/// Cyrus's index has no restart points.
#[test]
fn messages_behind_damage_are_found_without_restart_points() {
    let site = Site::new();
    site.damage(2);
    let before = site.readable();
    let index = rusqlite::Connection::open(index_path(&site.path)).unwrap();
    index.execute_batch("DROP TABLE cyrbk_restart").unwrap();
    assert_eq!(site.readable(), before);
}

#[test]
fn compaction_saves_what_can_be_read() {
    let site = Site::new();
    site.damage(1);
    site.damage(3);
    let before = site.readable();
    assert!(before.len() + 2 * LOST >= MESSAGES as usize, "{before:?}");
    assert!(site.compact() >= 2);
    let after = site.readable();
    assert!(before.iter().all(|uid| after.contains(uid)));
    let before = after;
    let (kinds, gaps) = site.findings();
    assert!(gaps.is_empty() && !kinds.contains(&"unreadable"), "{kinds:?}");
    assert!(!site.is_whole());
    // Its sender sends all of it.
    let mut writer = Writer::open(&site.path, NOW).unwrap();
    for uid in (1..=MESSAGES).filter(|uid| !before.contains(uid)) {
        let octets = body(uid);
        let text = format!("MESSAGE (%{{d {} {}}}\r\n)", guid_of(&octets), octets.len());
        append(&mut writer, &text, Some(octets));
    }
    let records: Vec<String> = (1..=MESSAGES)
        .map(|uid| {
            format!(
                "%(UID {uid} MODSEQ {uid} LAST_UPDATED 1 FLAGS () INTERNALDATE 1 SIZE 40000 GUID \
                 {})",
                guid_of(&body(uid))
            )
        })
        .collect();
    append(
        &mut writer,
        &format!(
            "MAILBOX %(UNIQUEID u MBOXNAME user.tom LAST_UID {MESSAGES} HIGHESTMODSEQ {MESSAGES} \
             RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 \
             PARTITION d ACL \"\" OPTIONS P SYNC_CRC {} SYNC_CRC_ANNOT 12345678 RECORD ({}))",
            crc(MESSAGES),
            records.join(" ")
        ),
        None,
    );
    writer.finish(NOW).unwrap();
    drop(writer);
    assert!(site.is_whole());
    assert_eq!(site.readable().len(), MESSAGES as usize);
}

/// The last chunk, which was whole and synced once, is not cut because it was damaged.
#[test]
fn a_damaged_last_chunk_is_not_cut() {
    let site = Site::new();
    let octets = fs::read(&site.path).unwrap();
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let second = backup.index().chunks().unwrap()[1].offset;
    drop(backup);
    fs::write(&site.path, &octets[..second as usize]).unwrap();
    // An index that fits.
    fs::remove_file(index_path(&site.path)).unwrap();
    drop(Writer::open(&site.path, NOW).unwrap());
    site.damage(2);
    let damaged = fs::read(&site.path).unwrap();
    let before = site.readable();
    site.reindex();
    assert_eq!(fs::read(&site.path).unwrap(), damaged);
    let after = site.readable();
    assert!(before.iter().all(|uid| after.contains(uid)));
    let before = after;
    let mut writer = Writer::open(&site.path, NOW).unwrap();
    append(&mut writer, "SUB %(USERID tom MBOXNAME user.tom)", None);
    writer.finish(NOW).unwrap();
    drop(writer);
    assert_eq!(site.readable(), before);
    assert!(fs::read(&site.path).unwrap().starts_with(&damaged));
}

/// The last member torn, and the one in front of it damaged: neither costs the other.
#[test]
fn a_torn_member_ends_damage() {
    let site = Site::new();
    site.damage(2);
    let before = site.readable();
    let octets = fs::read(&site.path).unwrap();
    fs::write(&site.path, &octets[..octets.len() - 5]).unwrap();
    fs::remove_file(index_path(&site.path)).unwrap();
    drop(Writer::open(&site.path, NOW).unwrap());
    assert!(site.readable().len() + LOST >= before.len());
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    assert_eq!(backup.index().subscriptions().unwrap().len(), 1);
    assert_eq!(backup.index().chunks().unwrap().len(), 2);
}

/// What a rebuild believes is what the check believes, line by line, also of what Cyrus wrote.
#[test]
fn a_rebuild_and_the_check_agree() {
    let source = "tests/fixtures/backups/main/one/a/alice_EPfRmx";
    for at in [300, 3_000, 5_000, 9_000, 12_000, 17_000, 25_000] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let mut octets = fs::read(source).unwrap();
        octets[at..at + 40].iter_mut().enumerate().for_each(|(i, o)| *o = (i * 37) as u8);
        fs::write(&path, octets).unwrap();
        fs::copy(format!("{source}.index"), index_path(&path)).unwrap();
        let site = Site { _dir: dir, path };
        for _ in 0..2 {
            site.reindex();
            let kinds = site.findings().0;
            let fine = ["unreadable", "gap", "unsent", "leftover", "orphans"];
            assert!(kinds.iter().all(|kind| fine.contains(kind)), "{at}: {kinds:?}");
        }
        site.compact();
        let kinds = site.findings().0;
        assert!(!kinds.contains(&"unreadable") && !kinds.contains(&"gap"), "{at}: {kinds:?}");
    }
}

/// What was synced stays, though what a session has left behind it has no line that could be read.
#[test]
fn what_was_synced_is_not_cut_along_with_a_torn_member() {
    for has_line in [false, true] {
        let site = Site::new();
        site.damage(2);
        let before = site.readable();
        let backup = Backup::open(&site.path, Wait::No).unwrap();
        let second = backup.index().chunks().unwrap()[1].offset as usize;
        drop(backup);
        let synced = fs::read(&site.path).unwrap();
        let mut writer = Writer::open(&site.path, NOW).unwrap();
        append(&mut writer, "SUB %(USERID tom MBOXNAME user.torn)", None);
        drop(writer);
        let mut octets = fs::read(&site.path).unwrap();
        assert!(octets.len() > synced.len());
        if !has_line {
            octets.truncate(synced.len() + 20);
        }
        // The member in between is lost from its beginning on.
        octets[second..second + 12].fill(0x55);
        fs::write(&site.path, &octets).unwrap();

        site.reindex();
        let after = fs::read(&site.path).unwrap();
        assert_eq!(after[..synced.len()], octets[..synced.len()]);
        let readable = site.readable();
        assert!(before.iter().all(|uid| readable.contains(uid)), "{has_line}: {readable:?}");
        let names = Backup::open(&site.path, Wait::No).unwrap().index().subscriptions().unwrap();
        assert_eq!(names.contains(&b"user.torn".to_vec()), has_line);
        // The same once more, and by what was made of it.
        site.reindex();
        assert_eq!(fs::read(&site.path).unwrap(), after);
        assert_eq!(site.readable(), readable);
    }
}

/// The end of a chunk and the beginning of the next one: neither is taken for part of the other.
#[test]
fn damage_across_two_chunks_is_told_once() {
    let site = Site::with_chunks(&[40]);
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let second = backup.index().chunks().unwrap()[1].offset as usize;
    drop(backup);
    let mut octets = fs::read(&site.path).unwrap();
    let hit = &mut octets[second - 2_000..second + 2_000];
    hit.iter_mut().enumerate().for_each(|(i, octet)| *octet = (i * 37) as u8);
    fs::write(&site.path, &octets).unwrap();
    let before = site.readable();
    assert!(before.len() + 2 * LOST >= MESSAGES as usize, "{before:?}");
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    let mut gaps = 0;
    verify::deep(&backup, &Deep { jobs: 1, owner: None }, &mut |event| {
        if let Event::Finding(finding) = event
            && let Fault::Gap { gap, .. } = &finding.fault
        {
            gaps += 1;
            let is_first = finding.chunk_id == Some(1);
            let (from, to) = (gap.from as usize, gap.to as usize);
            assert!(if is_first { to <= second } else { from >= second }, "{finding:?}");
        }
    })
    .unwrap();
    drop(backup);
    assert!(gaps >= 2);
    site.compact();
    assert_eq!(site.readable(), before);
    assert_eq!(site.findings().0, ["leftover"]);
}

/// What a very long line says is no line, wherever it was divided.
#[test]
fn nothing_is_taken_out_of_a_long_line() {
    let forged = "1 APPLY MAILBOX %(UNIQUEID f MBOXNAME user.tom.forged LAST_UID 0 HIGHESTMODSEQ 1 \
                  RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 \
                  PARTITION d ACL \"\" OPTIONS P SYNC_CRC 0 SYNC_CRC_ANNOT 0 RECORD ())\r\n";
    let site = Site::with_chunks(&[]);
    let first = fs::read(&site.path).unwrap().len();
    let mut content = Vec::new();
    for number in 0..150 {
        content.extend_from_slice(&noise(number));
    }
    let head =
        format!("SIEVE %(USERID tom FILENAME s LAST_UPDATE 1 CONTENT {{{}+}}\r\n", content.len());
    let at = (4 << 20) - head.len();
    let twice = forged.repeat(2);
    content[at..at + twice.len()].copy_from_slice(twice.as_bytes());
    let text = format!("{head}{})", String::from_utf8(content).unwrap());
    let mut writer = Writer::open(&site.path, NOW).unwrap();
    append(&mut writer, &text, None);
    append(&mut writer, "SUB %(USERID tom MBOXNAME user.tom)", None);
    writer.finish(NOW).unwrap();
    drop(writer);
    let mut octets = fs::read(&site.path).unwrap();
    octets[first + 100_000..first + 100_100].fill(0x55);
    fs::write(&site.path, octets).unwrap();
    assert_eq!(site.reindex(), 1);
    let backup = Backup::open(&site.path, Wait::No).unwrap();
    assert!(backup.index().mailbox_with_uniqueid(b"f").unwrap().is_none());
}
