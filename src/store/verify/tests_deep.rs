//! The deep check: both directions.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};

use super::*;
use crate::lock::Wait;
use crate::store::append::Line;
use crate::store::staging::Staging;
use crate::store::{Backup, Writer, reindex};
use crate::wire::Body;
use crate::wire::apply::Apply;
use crate::wire::dlist::parse_item;

const NOW: i64 = 1_800_000_000;

struct Copy {
    dir: tempfile::TempDir,
    path: PathBuf,
}

fn copy(source: &Path) -> Copy {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    std::fs::copy(source, &path).unwrap();
    let mut index = source.as_os_str().to_owned();
    index.push(".index");
    std::fs::copy(index, dir.path().join("data.index")).unwrap();
    Copy { path, dir }
}

fn fixture(name: &str) -> Copy {
    copy(&Path::new("tests/fixtures/backups/main").join(name))
}

fn change_index(path: &Path, sql: &str) {
    let db = rusqlite::Connection::open(path.with_file_name("data.index")).unwrap();
    db.execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).unwrap();
}

/// Every finding in a few words; notes too. The same, whatever the number of threads.
fn findings(path: &Path) -> Vec<String> {
    let backup = Backup::open(path, Wait::No).unwrap();
    let [one, many] = [1, 3].map(|jobs| {
        let mut found = Vec::new();
        let mut errors = 0;
        let sound = deep(&backup, &Deep { jobs, owner: None }, &mut |event| {
            if let Event::Finding(finding) = event {
                errors += usize::from(!finding.fault.is_note());
                found.push(words(finding));
            }
        });
        assert_eq!(sound.unwrap(), errors == 0);
        found
    });
    assert_eq!(one, many);
    one
}

fn words(finding: &Finding) -> String {
    let chunk = finding.chunk_id.map(|id| format!("{id} ")).unwrap_or_default();
    let kind = finding.fault.kind();
    let filed: Vec<_> = finding.filed.iter().map(|filed| filed.uid.to_string()).collect();
    let filed = if filed.is_empty() { String::new() } else { format!(" uid {}", filed.join(",")) };
    let more = match &finding.fault {
        Fault::Row { table, difference: Difference::Columns(columns), subject } => {
            format!(" {} {} {:?}", table.name(), columns.join(","), subject.uid)
        }
        Fault::Row { table, subject, .. } => format!(" {} {:?}", table.name(), subject.uid),
        Fault::Unindexed { offset_file, end, lines } => format!(" {offset_file}-{end}: {lines}"),
        Fault::Garbage { offset_file, end } => format!(" {offset_file}-{end}"),
        Fault::Leftover { kind, .. } => format!(" {kind:?}"),
        Fault::Structure(what) => format!(" {what}"),
        _ => String::new(),
    };
    format!("{chunk}{kind}{more}{filed}")
}

/// What the real Cyrus has written passes, before and after cyrbk has opened it.
#[test]
fn backups_of_the_real_cyrus() {
    for (name, expected) in [
        ("main/one/a/alice_EPfRmx", &[][..]),
        ("main/one/c/carol_cesxQB", &[]),
        ("main/one/d/dave@virt.example_sPpR67", &["orphans"]),
        ("main/one/o/olga_9xYCcC", &[]),
        ("main/one/q/%SHARED_lEsHFy", &[]),
        ("main/two/b/ben_Vdtpxz", &[]),
        ("main/two/b/bob_5xHD5K", &[]),
        ("main/two/e/erin@virt.example_wW5elY", &[]),
        // Renamed without a MAILBOX line since: see quirk 10.
        ("main/two/t/tester_ygQSHr", &[]),
        ("compacted-upstream-3.6.1/one/a/alice_EPfRmx", &[]),
        ("torn/two/b/bob_5xHD5K", &["unindexed 8196-8916: 3"]),
        ("torn/two/b/ben_Vdtpxz", &["unindexed 6007-153463: 4"]),
        ("torn-appended/two/b/bob_5xHD5K", &["unindexed 8196-8916: 3"]),
    ] {
        let copy = copy(&Path::new("tests/fixtures/backups").join(name));
        assert_eq!(findings(&copy.path), expected, "{name}");
        if name.starts_with("main") {
            drop(Writer::open(&copy.path, NOW).unwrap());
            assert_eq!(findings(&copy.path), expected, "{name}, opened");
            reindex::run(&copy.path, Wait::No, false, NOW, &mut |_| {}).unwrap();
            assert_eq!(findings(&copy.path), expected, "{name}, rebuilt");
        }
    }
}

/// What each change of the index makes of it.
const CHANGES: [(&str, &[&str]); 24] = [
    ("UPDATE chunk SET file_sha1 = hex(zeroblob(20)) WHERE id = 1", &["1 file-checksum"]),
    ("UPDATE chunk SET length = length + 1 WHERE id = 1", &["1 data-length"]),
    ("UPDATE chunk SET data_sha1 = hex(zeroblob(20)) WHERE id = 2", &["2 data-checksum"]),
    ("UPDATE chunk SET ts_end = 0 WHERE id = 2", &["2 structure it ends at 0 and begins at T"]),
    ("UPDATE message SET offset = 30 WHERE id = 2", &["1 message-missing uid 2"]),
    (
        "UPDATE message SET guid = 'f' || substr(guid, 2) WHERE id = 1",
        &[
            "1 not-in-index message None",
            "1 message-missing uid 1",
            "1 not-in-index mailbox_message Some(1)",
            "1 not-in-log mailbox_message Some(1)",
        ],
    ),
    ("UPDATE message SET size = size + 1 WHERE id = 1", &["1 differs message size None"]),
    (
        "DELETE FROM mailbox_message WHERE id = 1",
        &["1 not-in-index mailbox_message Some(1)", "orphans"],
    ),
    (
        "INSERT INTO mailbox_message (mailbox_id, message_id, last_chunk_id, uid) VALUES
         (1, (SELECT max(id) FROM message), 1, 77)",
        &["1 not-in-log mailbox_message Some(77)"],
    ),
    (
        "UPDATE mailbox_message SET flags = 'x', expunged = 1 WHERE id = 1",
        &["1 differs mailbox_message flags,expunged Some(1)"],
    ),
    ("UPDATE mailbox SET acl = NULL WHERE id = 1", &["1 differs mailbox acl None"]),
    ("UPDATE mailbox SET deleted = 5 WHERE id = 1", &["1 differs mailbox deleted None"]),
    (
        "INSERT INTO mailbox (last_chunk_id, uniqueid, mboxname) VALUES (1, 'new', 'user.new')",
        &["1 not-in-log mailbox None"],
    ),
    (
        "INSERT INTO subscription (last_chunk_id, mboxname) VALUES (1, 'user.nobody')",
        &["1 not-in-log subscription None"],
    ),
    (
        "INSERT INTO seen (last_chunk_id, uniqueid) VALUES (1, 'nobody')",
        &["1 not-in-log seen None"],
    ),
    (
        "INSERT INTO sieve (chunk_id, filename, guid) VALUES (1, 'a.script', 'x')",
        &["1 not-in-log sieve None"],
    ),
    ("DELETE FROM chunk WHERE id = 2", &["1 structure T", "unindexed 6168-8196: 3", "2 T"]),
    (
        "INSERT INTO cyrbk_record (mailbox_id, uid, last_chunk_id, guid) VALUES (1, 99, 1, 'x')",
        &["1 not-in-log cyrbk_record Some(99)", "unsent"],
    ),
    (
        "INSERT OR REPLACE INTO cyrbk_mailbox (mailbox_id, extra) VALUES (1, 'x')",
        &["differs cyrbk_mailbox extra T"],
    ),
    (
        "INSERT INTO cyrbk_quota (root, fields) VALUES ('user.bob', 'x')",
        &["not-in-log cyrbk_quota None"],
    ),
    (
        "INSERT INTO cyrbk_active_sieve (id, filename, since) VALUES (1, 'a', 1)",
        &["not-in-log cyrbk_active_sieve None"],
    ),
    (
        "INSERT INTO cyrbk_annotation (mboxname, entry, userid, value) VALUES ('', '/a', '', 'x')",
        &["not-in-log cyrbk_annotation None"],
    ),
    ("DELETE FROM message WHERE id = 1", &["1 not-in-index message None", "T"]),
    ("UPDATE chunk SET offset = 1 << 40 WHERE id = 2", &["T"]),
];

/// Every row is compared, in both directions; rebuilding the index mends all of it.
#[test]
fn each_difference_of_index_and_log() {
    for (change, expected) in CHANGES {
        let copy = fixture("two/b/bob_5xHD5K");
        drop(Writer::open(&copy.path, NOW).unwrap());
        change_index(&copy.path, change);
        let found = findings(&copy.path);
        let fits = |(found, expected): (&String, &&str)| match expected.split_once('T') {
            Some((start, _)) => found.starts_with(start),
            None => found == expected,
        };
        let enough =
            expected.iter().any(|text| text.contains('T')) || found.len() == expected.len();
        let all = !found.is_empty() && found.iter().zip(expected).all(fits) && enough;
        assert!(all, "{change}: {found:?}");
        reindex::run(&copy.path, Wait::No, false, NOW, &mut |_| {}).unwrap();
        assert_eq!(findings(&copy.path), [""; 0], "{change}");
    }
}

/// What Cyrus does not compare is compared where Cyrus has written last, too, except in
/// tables that it does not know.
#[test]
fn tables_of_cyrbk_count_only_where_cyrbk_has_written_last() {
    let copy = fixture("two/b/bob_5xHD5K");
    drop(Writer::open(&copy.path, NOW).unwrap());
    change_index(
        &copy.path,
        "INSERT INTO cyrbk_quota (root, fields) VALUES ('user.bob', 'x'); DELETE FROM cyrbk_state;",
    );
    let backup = Backup::open(&copy.path, Wait::No).unwrap();
    assert!(!backup.index().knows_truth().unwrap());
    drop(backup);
    assert_eq!(findings(&copy.path), [""; 0]);
}

fn store(path: &Path, lines: &[(&str, Option<&[u8]>)]) {
    let staging = Staging::new(path.with_file_name("staging"));
    let mut writer = Writer::open(path, NOW).unwrap();
    for (text, body) in lines {
        let (name, value) = parse_item(text.as_bytes()).unwrap();
        let apply = Apply::read(&name, &value).unwrap();
        let body_at: Vec<usize> = body.iter().map(|_| text.len() - 1).collect();
        let bodies: Vec<Body> = body.iter().map(|octets| Body::Memory(octets.to_vec())).collect();
        let line =
            Line { text: text.as_bytes(), body_at: &body_at, bodies: &bodies, apply: &apply };
        writer.append(NOW, &line, &staging).unwrap();
    }
    writer.finish(NOW).unwrap();
}

fn guid(octets: &[u8]) -> String {
    Sha1::digest(octets).iter().map(|octet| format!("{octet:02x}")).collect()
}

fn message(claimed: &str, octets: &[u8]) -> String {
    format!("MESSAGE (%{{default {claimed} {}}}\r\n)", octets.len())
}

fn mailbox(records: &[(u32, &str)]) -> String {
    let records: Vec<_> = records
        .iter()
        .map(|(uid, guid)| {
            format!(
                "%(UID {uid} MODSEQ 1 LAST_UPDATED 1 FLAGS () INTERNALDATE 1 SIZE 5 GUID {guid})"
            )
        })
        .collect();
    format!(
        "MAILBOX %(UNIQUEID u MBOXNAME user.tom LAST_UID 9 HIGHESTMODSEQ 1 RECENTUID 0 RECENTTIME \
         0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 PARTITION default ACL \"\" OPTIONS P \
         RECORD ({}))",
        records.join(" ")
    )
}

#[test]
fn a_message_that_is_not_its_guid_is_told_with_its_mailboxes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (good, bad) = (guid(b"12345"), guid(b"another"));
    store(
        &path,
        &[
            (&message(&good, b"12345"), Some(b"12345")),
            (&message(&bad, b"54321"), Some(b"54321")),
            (&mailbox(&[(3, &good), (4, &bad)]), None),
        ],
    );
    assert_eq!(findings(&path), ["1 message-damaged uid 4"]);
    // Sent again, the damaged copy is of no account.
    store(&path, &[(&message(&bad, b"another"), Some(b"another"))]);
    assert_eq!(findings(&path), [""; 0]);
    // Cyrus 3.0 points at the first copy: here the damaged one.
    change_index(
        &path,
        "UPDATE message SET chunk_id = 1, offset = (SELECT offset FROM message WHERE id = 1)
         WHERE id = 2",
    );
    assert_eq!(findings(&path), ["1 message-missing uid 4"]);
}

#[test]
fn an_older_sound_copy_is_as_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let good = guid(b"12345");
    let line = message(&good, b"12345");
    store(&path, &[(&line, Some(b"12345")), (&mailbox(&[(3, &good)]), None)]);
    let at = Backup::open(&path, Wait::No).unwrap().index().messages().unwrap()[0].offset;
    store(&path, &[(&line, Some(b"12345"))]);
    change_index(&path, &format!("UPDATE message SET chunk_id = 1, offset = {at}"));
    assert_eq!(findings(&path), [""; 0]);
}

#[test]
fn messages_without_records_and_records_without_messages() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let (here, never) = (guid(b"12345"), guid(b"never"));
    store(&path, &[(&message(&here, b"12345"), Some(b"12345")), (&mailbox(&[(3, &never)]), None)]);
    assert_eq!(findings(&path), ["orphans", "unsent"]);
}

#[test]
fn mailboxes_of_somebody_else() {
    let copy = fixture("two/b/bob_5xHD5K");
    let backup = Backup::open(&copy.path, Wait::No).unwrap();
    let rules = crate::wire::mboxname::NameRules::default();
    let strangers = |owner: &[u8]| {
        let mut found = Vec::new();
        deep(&backup, &Deep { jobs: 1, owner: Some((owner, &rules)) }, &mut |event| {
            if let Event::Finding(finding) = event {
                found.push(words(finding));
            }
        })
        .unwrap();
        found
    };
    assert_eq!(strangers(b"bob"), [""; 0]);
    assert!(strangers(b"alice").iter().all(|found| found.ends_with("stranger")));
    assert!(!strangers(b"alice").is_empty());
}

/// One bit, at many places: found, told of the right chunk, and what a rebuild saves is
/// everything in front of it and in other chunks.
#[test]
fn flipped_bits_are_found_and_cost_what_they_hit() {
    let copy = fixture("one/c/carol_cesxQB");
    let octets = std::fs::read(&copy.path).unwrap();
    let chunks = Backup::open(&copy.path, Wait::No).unwrap().index().chunks().unwrap();
    let messages = Backup::open(&copy.path, Wait::No).unwrap().index().messages().unwrap();
    for at in (700..octets.len()).step_by(2_113) {
        let hit = chunks.iter().rfind(|chunk| chunk.offset as usize <= at).unwrap();
        let copy = fixture("one/c/carol_cesxQB");
        let file = std::fs::OpenOptions::new().write(true).open(&copy.path).unwrap();
        file.write_all_at(&[octets[at] ^ 0x10], at as u64).unwrap();
        let found = findings(&copy.path);
        let unreadable = format!("{} unreadable", hit.id);
        assert!(found.contains(&unreadable), "{at}: {found:?}");
        let is_of_hit = |found: &&String| {
            found.starts_with(&format!("{} ", hit.id)) || found.contains("not-in-log")
        };
        let others: Vec<_> = found.iter().filter(|found| !is_of_hit(found)).collect();
        let known = |found: &&&String| ["differs", "orphans"].iter().any(|w| found.contains(w));
        assert!(others.iter().all(|found| known(&found)), "{at}: {others:?}");
        reindex::run(&copy.path, Wait::No, false, NOW, &mut |_| {}).unwrap();
        let saved = Backup::open(&copy.path, Wait::No).unwrap().index().messages().unwrap();
        for message in &messages {
            let is_saved = saved.iter().any(|saved| saved.guid == message.guid);
            assert!(is_saved || message.chunk_id == hit.id, "{at}: {message:?}");
        }
    }
}

#[test]
fn what_stands_beside_is_told() {
    let copy = fixture("two/b/bob_5xHD5K");
    for ending in [".index.1700000000", ".cut.1700000000.12", ".1700000000", ".moving"] {
        std::fs::write(copy.dir.path().join(format!("data{ending}")), "x").unwrap();
    }
    let expected = ["leftover Previous", "leftover Cut", "leftover Previous", "leftover Move"];
    assert_eq!(findings(&copy.path), expected);
    let backup = Backup::open(&copy.path, Wait::No).unwrap();
    let mut told = 0;
    let sound = structure(&backup, &mut |event| {
        told += usize::from(matches!(event, Event::Finding(_)));
    });
    assert_eq!((sound.unwrap(), told), (true, 4));
}
