//! Backups of the real Cyrus, whole and damaged.

use std::os::unix::fs::FileExt;
use std::path::Path;

use super::*;
use crate::lock::Wait;
use crate::store::Backup;
use crate::store::error::Result;

struct Copy {
    _dir: tempfile::TempDir,
    backup: Backup,
}

fn copy(name: &str) -> Copy {
    let dir = tempfile::tempdir().unwrap();
    let source = format!("tests/fixtures/backups/main/{name}");
    let path = dir.path().join("data");
    std::fs::copy(&source, &path).unwrap();
    std::fs::copy(format!("{source}.index"), dir.path().join("data.index")).unwrap();
    Copy { backup: Backup::open(&path, Wait::No).unwrap(), _dir: dir }
}

fn change_index(backup: &Backup, sql: &str) {
    let path = crate::store::backup::index_path(backup.path());
    rusqlite::Connection::open(Path::new(&path)).unwrap().execute_batch(sql).unwrap();
}

/// The faults found, and a word for each event.
fn run(check: fn(&Backup, &mut Sink<'_>) -> Result<bool>, backup: &Backup) -> (bool, Vec<String>) {
    let mut said = Vec::new();
    let sound = check(backup, &mut |event| {
        said.push(match event {
            Event::Begin { chunk_id, check } => format!("{} {check:?}", chunk_id.unwrap()),
            Event::Step(step) => format!("{step:?}"),
            Event::Finding(finding) => {
                let fault = format!("{:?}", finding.fault);
                fault.split([' ', '{']).next().unwrap().to_owned()
            }
            Event::End { sound } => format!("{sound}"),
        });
    });
    (sound.unwrap(), said)
}

#[test]
fn whole_backups_are_sound() {
    for name in [
        "one/a/alice_EPfRmx",
        "one/c/carol_cesxQB",
        "one/q/%SHARED_lEsHFy",
        "one/o/olga_9xYCcC",
        "two/e/erin@virt.example_wW5elY",
    ] {
        let copy = copy(name);
        assert!(run(full, &copy.backup).0, "{name}");
        assert!(run(quick, &copy.backup).0, "{name}");
    }
}

#[test]
fn events_come_in_order() {
    let copy = copy("two/e/erin@virt.example_wW5elY");
    let expected = [
        "1 Checksums",
        "FileChecksum",
        "DataLength",
        "DataChecksum",
        "true",
        "1 Messages",
        "true",
        "1 MailboxLinks",
        "true",
    ];
    assert_eq!(run(full, &copy.backup).1, expected);
    assert_eq!(run(quick, &copy.backup).1, expected[..5]);
}

/// One bit of every octet, one after the other. Nothing covers what follows the
/// method in the last member's header: flags, time, level and system.
#[test]
fn no_flipped_bit_passes_and_none_takes_for_ever() {
    let copy = copy("two/b/bob_5xHD5K");
    let file = copy.backup.file().try_clone().unwrap();
    let writable = std::fs::OpenOptions::new().write(true).open(copy.backup.path()).unwrap();
    let last = copy.backup.index().last_chunk().unwrap().unwrap().offset;
    for at in (0..copy.backup.len_file().unwrap()).step_by(13) {
        let mut octet = [0];
        file.read_exact_at(&mut octet, at).unwrap();
        writable.write_all_at(&[octet[0] ^ (1 << (at % 8))], at).unwrap();
        let covered = at < last + 3 || at >= last + 10;
        assert_eq!(run(full, &copy.backup).0, !covered, "octet {at}");
        assert_eq!(run(quick, &copy.backup).0, !covered, "octet {at}");
        writable.write_all_at(&octet, at).unwrap();
    }
    assert!(run(full, &copy.backup).0);
}

#[test]
fn a_file_cut_anywhere_is_noticed() {
    let copy = copy("two/b/bob_5xHD5K");
    let writable = std::fs::OpenOptions::new().write(true).open(copy.backup.path()).unwrap();
    let len = copy.backup.len_file().unwrap();
    // Backwards, so that each cut only takes more away.
    for cut in (0..len).rev().step_by(101) {
        writable.set_len(cut).unwrap();
        assert!(!run(full, &copy.backup).0, "{cut}");
        assert!(!run(quick, &copy.backup).0, "{cut}");
    }
}

#[test]
fn each_row_is_compared() {
    for (change, fault) in [
        ("UPDATE chunk SET file_sha1 = 'x' WHERE id = 1", "FileChecksum"),
        ("UPDATE chunk SET length = length + 1 WHERE id = 1", "DataLength"),
        ("UPDATE chunk SET data_sha1 = NULL WHERE id = 2", "DataChecksum"),
        ("UPDATE chunk SET offset = offset + 1 WHERE id = 2", "FileChecksum"),
        ("UPDATE chunk SET offset = 1 << 40 WHERE id = 2", "FileChecksum"),
        ("UPDATE message SET offset = 30 WHERE id = 2", "NoMessage"),
        ("UPDATE message SET guid = 'f' || substr(guid, 2) WHERE id = 1", "NoMessage"),
        ("UPDATE message SET guid = 'nonsense' WHERE id = 1", "NoMessage"),
        ("UPDATE mailbox SET mboxname = 'x' WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox SET last_uid = last_uid + 1 WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox SET highestmodseq = highestmodseq + 1 WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox SET recentuid = recentuid + 1 WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox SET recenttime = recenttime + 1 WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox SET last_appenddate = 1 WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox SET uidvalidity = uidvalidity + 1 WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox SET partition = 'x' WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox SET acl = NULL WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox SET options = 'Z' WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox SET xconvmodseq = xconvmodseq + 1 WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox SET sync_crc = sync_crc + 1 WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox SET sync_crc_annot = sync_crc_annot + 1 WHERE id = 1", "NoMailbox"),
        ("UPDATE mailbox_message SET uid = uid + 1 WHERE id = 1", "NoRecord"),
        ("UPDATE mailbox_message SET modseq = modseq + 1 WHERE id = 1", "NoRecord"),
        ("UPDATE mailbox_message SET last_updated = 1 WHERE id = 1", "NoRecord"),
        ("UPDATE mailbox_message SET internaldate = 1 WHERE id = 1", "NoRecord"),
        ("UPDATE mailbox_message SET mailbox_id = 2 WHERE id = 1", "NoRecord"),
        ("UPDATE message SET size = size + 1 WHERE id = 1", "NoRecord"),
    ] {
        let copy = copy("two/b/bob_5xHD5K");
        change_index(&copy.backup, change);
        let (sound, said) = run(full, &copy.backup);
        assert!(!sound && said.iter().any(|word| word == fault), "{change}: {said:?}");
        assert_eq!(said.last().unwrap(), "false");
    }
}

/// The row of the older message is that of a record which another one has superseded.
#[test]
fn two_messages_of_one_uid_in_a_chunk_are_sound() {
    use crate::store::compact::tests::history::{Op, Site};
    let site = Site::new();
    let _ = site.write(&[
        (0, Op::Message(vec![1, 2])),
        (0, Op::Mailbox(0, 0, 1, vec![(1, 1, false)])),
        (0, Op::Mailbox(0, 0, 1, vec![(1, 2, false)])),
    ]);
    let (sound, said) = run(full, &Backup::open(&site.path, Wait::No).unwrap());
    assert!(sound, "{said:?}");
}
