//! Histories to be compacted, and what can be seen of a backup.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sha1::{Digest, Sha1};

use super::super::{Outcome, Policy, Sizes, run};
use crate::lock::Wait;
use crate::store::append::{Line, Writer};
use crate::store::backup::Backup;
use crate::store::index::{ActiveRow, AnnotationRow, ChunkRow, Index, MailboxRow, RecordRow};
use crate::store::message::StoredMessage;
use crate::store::staging::Staging;
use crate::wire::apply::{Apply, Record};
use crate::wire::dlist::{parse_item, parse_value};
use crate::wire::{Body, Guid};

/// One line, or the end of a chunk.
#[derive(Clone, Debug)]
pub(in crate::store) enum Op {
    Message(Vec<u32>),
    /// Identity, name, LAST_UID, and UID, message, whether expunged.
    Mailbox(u32, u32, u32, Vec<(u32, u32, bool)>),
    /// The same, and a checksum says that this is all.
    Whole(u32, u32, u32, Vec<(u32, u32, bool)>),
    Unmailbox(u32),
    /// Identity, name, UID.
    Expunge(u32, u32, u32),
    Rename(u32, u32),
    Sub(u32, bool),
    Seen(u32, u32),
    Sieve(u32, u32),
    Unsieve(u32),
    Reserve,
    Carrier(u32),
    /// Which of cyrbk's own lines, and which value.
    Own(u32, u32),
    EndChunk,
}

pub(in crate::store) fn ops() -> impl Strategy<Value = Vec<(u32, Op)>> {
    let record = (1u32..8, 0u32..6, prop::bool::weighted(0.3));
    let mailbox = (0u32..3, 0u32..3, 5u32..9, prop::collection::vec(record, 0..5));
    let op = prop_oneof![
        3 => prop::collection::vec(0u32..6, 1..4).prop_map(Op::Message),
        6 => (any::<bool>(), mailbox).prop_map(|(is_whole, (id, name, last, records))| {
            let op = if is_whole { Op::Whole } else { Op::Mailbox };
            op(id, name, last, records)
        }),
        2 => (0u32..3).prop_map(Op::Unmailbox),
        1 => (0u32..3, 0u32..3, 1u32..8).prop_map(|(id, name, uid)| Op::Expunge(id, name, uid)),
        2 => (0u32..3, 0u32..3).prop_map(|(from, to)| Op::Rename(from, to)),
        1 => (0u32..3, any::<bool>()).prop_map(|(name, on)| Op::Sub(name, on)),
        1 => (0u32..2, 0u32..9).prop_map(|(id, uids)| Op::Seen(id, uids)),
        1 => (0u32..2, 0u32..3).prop_map(|(name, text)| Op::Sieve(name, text)),
        1 => (0u32..2).prop_map(Op::Unsieve),
        1 => Just(Op::Reserve),
        1 => (0u32..3).prop_map(Op::Carrier),
        2 => (0u32..5, 0u32..3).prop_map(|(kind, value)| Op::Own(kind, value)),
        3 => Just(Op::EndChunk),
    ];
    prop::collection::vec((0u32..20, op), 1..40)
}

pub(in crate::store) fn body(number: u32) -> Vec<u8> {
    format!("Subject: {number}\r\n\r\n{}", "text ".repeat(20 * number as usize)).into_bytes()
}

pub(in crate::store) fn guid(number: u32) -> Guid {
    Guid::from(<[u8; 20]>::from(Sha1::digest(body(number))))
}

/// A backup in a directory of its own.
pub(in crate::store) struct Site {
    pub(in crate::store) dir: tempfile::TempDir,
    pub(in crate::store) path: PathBuf,
}

pub(in crate::store) const START: i64 = 1000;

impl Site {
    pub(in crate::store) fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        Site { dir, path }
    }

    /// Writes a history; returns the time at its end.
    pub(in crate::store) fn write(&self, ops: &[(u32, Op)]) -> i64 {
        let mut now = START;
        let mut writer = Writer::open(&self.path, now).unwrap();
        for (seconds, op) in ops {
            now += i64::from(*seconds);
            self.op(&mut writer, now, op);
        }
        writer.finish(now).unwrap();
        now
    }

    pub(in crate::store) fn op(&self, writer: &mut Writer, now: i64, op: &Op) {
        let name = |name: &u32| format!("user.a.{name}");
        let text = match op {
            Op::EndChunk => return writer.finish(now).unwrap(),
            Op::Message(numbers) => return self.message(writer, now, numbers),
            Op::Mailbox(id, name, last_uid, records) => {
                mailbox(*id, *name, *last_uid, &self::records(records, now), "", now)
            }
            Op::Whole(id, name, last_uid, records) => {
                let records = self::records(records, now);
                mailbox(*id, *name, *last_uid, &records, &checksum(&records), now)
            }
            Op::Expunge(id, mailbox, uid) => {
                format!("EXPUNGE %(MBOXNAME {} UNIQUEID u{id} UID ({uid}))", name(mailbox))
            }
            Op::Unmailbox(mailbox) => format!("UNMAILBOX {}", name(mailbox)),
            Op::Rename(from, to) => format!(
                "RENAME %(OLDMBOXNAME {} NEWMBOXNAME {} PARTITION p UIDVALIDITY {now})",
                name(from),
                name(to)
            ),
            Op::Sub(mailbox, true) => format!("SUB %(USERID a MBOXNAME {})", name(mailbox)),
            Op::Sub(mailbox, false) => format!("UNSUB %(USERID a MBOXNAME {})", name(mailbox)),
            Op::Seen(id, uids) => format!(
                "SEEN %(USERID a UNIQUEID u{id} LASTREAD 1 LASTUID {uids} LASTCHANGE 1 SEENUIDS \
                 1:{uids})"
            ),
            Op::Sieve(file, text) => {
                format!("SIEVE %(USERID a FILENAME s{file} LAST_UPDATE {now} CONTENT \"{text} ;\")")
            }
            Op::Unsieve(file) => format!("UNSIEVE %(USERID a FILENAME s{file})"),
            Op::Reserve => "RESERVE %(PARTITION p MBOXNAME (user.a) GUID ())".to_owned(),
            Op::Carrier(number) => format!(
                "RESERVE %(CYRBK %(QUOTA %(ROOT user.q{} LIMIT {number} STORAGE {number})))",
                number % 2
            ),
            Op::Own(kind, value) => format!("RESERVE %(CYRBK %({}))", own(*kind, *value)),
        };
        self.append(writer, now, &text, &[], &[]);
    }

    pub(super) fn message(&self, writer: &mut Writer, now: i64, numbers: &[u32]) {
        let mut text = String::from("MESSAGE (");
        let mut body_at = Vec::new();
        for (i, number) in numbers.iter().enumerate() {
            let space = if i > 0 { " " } else { "" };
            let len = body(*number).len();
            text.push_str(&format!("{space}%{{p {} {len}}}\r\n", guid(*number)));
            body_at.push(text.len());
        }
        text.push(')');
        let bodies: Vec<Body> = numbers.iter().map(|number| Body::Memory(body(*number))).collect();
        self.append(writer, now, &text, &body_at, &bodies);
    }

    pub(in crate::store) fn append(
        &self,
        writer: &mut Writer,
        now: i64,
        text: &str,
        body_at: &[usize],
        bodies: &[Body],
    ) {
        let (name, value) = parse_item(text.as_bytes()).unwrap();
        let apply = Apply::read(&name, &value).unwrap();
        let line = Line { text: text.as_bytes(), body_at, bodies, apply: &apply };
        writer.append(now, &line, &Staging::new(self.dir.path().join("staging"))).unwrap();
    }

    pub(in crate::store) fn policy(&self, since: Option<i64>) -> Policy {
        Policy {
            since,
            sizes: Sizes { min: 0, max: 0, work_threshold: 1 },
            force: true,
            keep_previous: false,
            dry_run: false,
            staging: self.dir.path().join("staging"),
        }
    }

    /// Compacts; everything that is told, and how it ended.
    pub(in crate::store) fn compact(&self, policy: &Policy) -> (Vec<String>, Outcome) {
        let mut events = Vec::new();
        let outcome = run(&self.path, policy, 1 << 32, Wait::No, &mut |event| {
            events.push(format!("{event:?}"));
        });
        (events, outcome.unwrap())
    }

    pub(in crate::store) fn seen(&self, since: Option<i64>) -> Seen {
        let backup = Backup::open(&self.path, Wait::No).unwrap();
        Seen::of(&backup, since, self.dir.path())
    }

    /// Overwrites all of one chunk.
    pub(super) fn lose_chunk(&self, which: usize) {
        let backup = Backup::open(&self.path, Wait::No).unwrap();
        let chunks = backup.index().chunks().unwrap().into_iter();
        let mut ends: Vec<usize> = chunks.map(|chunk| chunk.offset as usize).collect();
        let mut octets = std::fs::read(&self.path).unwrap();
        ends.push(octets.len());
        let which = which % (ends.len() - 1);
        octets[ends[which] + 20..ends[which + 1] - 12].fill(0xff);
        std::fs::write(&self.path, octets).unwrap();
    }

    /// Names of the files beside the data file.
    pub(in crate::store) fn files(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// A line of cyrbk's own.
fn own(kind: u32, value: u32) -> String {
    match kind {
        0 => format!("UNQUOTA user.q{}", value % 2),
        1 => format!("ACTIVATE_SIEVE %(USERID a FILENAME s{value}.bc)"),
        2 => "UNACTIVATE_SIEVE %(USERID a)".to_owned(),
        3 => {
            format!("ANNOTATION %(MBOXNAME \"\" ENTRY /e{} USERID \"\" VALUE {value})", value % 2)
        }
        _ => format!("UNANNOTATION %(MBOXNAME \"\" ENTRY /e{} USERID \"\")", value % 2),
    }
}

fn records(records: &[(u32, u32, bool)], now: i64) -> String {
    list(records.iter().map(|(uid, message, gone)| record(*uid, *message, *gone, now)))
}

/// A record as of `now`.
pub(super) fn record(uid: u32, message: u32, is_expunged: bool, now: i64) -> String {
    let flags = if is_expunged { "\\Expunged" } else { "\\Seen" };
    let (guid, len) = (guid(message), body(message).len());
    format!(
        "%(UID {uid} MODSEQ {now} LAST_UPDATED {now} FLAGS ({flags}) INTERNALDATE 1 SIZE {len} \
         GUID {guid})"
    )
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    format!("({})", items.collect::<Vec<_>>().join(" "))
}

/// The field that says that these records are all.
pub(super) fn checksum(records: &str) -> String {
    let list = parse_value(records.as_bytes()).unwrap().as_list();
    let living = Record::all_of(list).map(Result::unwrap).filter(|record| !record.expunged);
    let crc = living.fold(0, |crc, record| crc ^ record.crc());
    format!("SYNC_CRC {crc} SYNC_CRC_ANNOT 12345678 ")
}

/// `state` are further fields.
pub(super) fn mailbox(
    id: u32,
    name: u32,
    last_uid: u32,
    records: &str,
    state: &str,
    now: i64,
) -> String {
    format!(
        "MAILBOX %(UNIQUEID u{id} MBOXNAME user.a.{name} {state}LAST_UID {last_uid} HIGHESTMODSEQ \
         {now} RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE {now} POP3_LAST_LOGIN 0 UIDVALIDITY 1 \
         PARTITION p ACL \"a\tlrs\t\" OPTIONS P FOLDERMODSEQ {now} RECORD {records})"
    )
}

/// With its further fields, its records and what was displaced.
type MailboxSeen = (MailboxRow, Option<Vec<u8>>, Vec<RecordRow>, Vec<RecordRow>);

/// What GET and the tools can see, as far as it is not past its retention.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct Seen {
    mailboxes: Vec<MailboxSeen>,
    /// The identity of what a name leads to.
    names: BTreeMap<Vec<u8>, Vec<u8>>,
    subscriptions: BTreeSet<Vec<u8>>,
    seen: Vec<Vec<u8>>,
    scripts: Vec<(Vec<u8>, i64, String)>,
    quotas: Vec<Vec<u8>>,
    active_script: Option<ActiveRow>,
    annotations: Vec<AnnotationRow>,
    messages: BTreeMap<Guid, Vec<u8>>,
}

impl Seen {
    fn of(backup: &Backup, since: Option<i64>, staging: &Path) -> Seen {
        let index = backup.index();
        let stays = |time: Option<i64>| time.is_none() || since.is_none() || time > since;
        let mut mailboxes = Vec::new();
        let mut messages = BTreeMap::new();
        for row in index.mailboxes().unwrap().into_iter().filter(|row| stays(row.deleted)) {
            let seen = |records: Vec<RecordRow>| -> Vec<RecordRow> {
                let records = records.into_iter().filter(|record| stays(record.expunged));
                let seen = records.map(|record| RecordRow {
                    last_chunk_id: 0,
                    expunged: record.expunged.map(|_| 0),
                    ..record
                });
                seen.collect()
            };
            let records = seen(index.true_records(row.id).unwrap());
            let gone = seen(index.gone_records(row.id).unwrap());
            for guid in records.iter().chain(&gone).filter_map(|record| record.guid) {
                if index.message(&guid).unwrap().is_some() {
                    let mut octets = Vec::new();
                    let message = StoredMessage::read(backup, &guid, staging).unwrap();
                    message.write_to(&mut octets).unwrap();
                    messages.insert(guid, octets);
                }
            }
            let extra = index.extra_fields(row.id).unwrap();
            mailboxes.push((MailboxRow { id: 0, last_chunk_id: 0, ..row }, extra, records, gone));
        }
        mailboxes.sort_by(|a, b| a.0.uniqueid.cmp(&b.0.uniqueid));
        let mut scripts: Vec<_> = index
            .sieve_scripts()
            .unwrap()
            .into_iter()
            .map(|script| (script.filename, script.last_update, script.guid))
            .collect();
        scripts.sort();
        let mut seen: Vec<_> =
            index.seen_states().unwrap().into_iter().map(|row| row.seenuids).collect();
        seen.sort();
        Seen {
            names: names(index, &mailboxes),
            mailboxes,
            subscriptions: index.subscriptions().unwrap().into_iter().collect(),
            seen,
            scripts,
            quotas: index.quotas().unwrap(),
            active_script: index.active_script().unwrap(),
            annotations: index.annotations(b"").unwrap(),
            messages,
        }
    }

    pub(in crate::store) fn uids(&self) -> Vec<u32> {
        self.mailboxes.iter().flat_map(|(_, _, records, _)| records).map(|row| row.uid).collect()
    }

    pub(in crate::store) fn gone_uids(&self) -> Vec<u32> {
        self.mailboxes.iter().flat_map(|(.., gone)| gone).map(|row| row.uid).collect()
    }

    pub(in crate::store) fn message_count(&self) -> usize {
        self.messages.len()
    }

    pub(in crate::store) fn mailbox_names(&self) -> Vec<String> {
        let names = self.mailboxes.iter().map(|(row, ..)| row.mboxname.clone());
        names.map(|name| String::from_utf8(name).unwrap()).collect()
    }
}

/// Of live mailboxes whose name no other live one has.
fn names(index: &Index, mailboxes: &[MailboxSeen]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let live = || mailboxes.iter().map(|(row, ..)| row).filter(|row| row.deleted.is_none());
    live()
        .filter(|row| live().filter(|other| other.mboxname == row.mboxname).count() == 1)
        .map(|row| {
            let found = index.mailbox_named(&row.mboxname).unwrap().unwrap();
            (row.mboxname.clone(), found.uniqueid)
        })
        .collect()
}

/// All rows, to compare two indexes of the same data.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct Rows {
    chunks: Vec<ChunkRow>,
    mailboxes: Vec<(MailboxRow, [Vec<RecordRow>; 3])>,
    messages: Vec<crate::store::index::MessageRow>,
    subscriptions: Vec<Vec<u8>>,
}

impl Rows {
    pub(in crate::store) fn of(index: &Index) -> Rows {
        let mailboxes = index.mailboxes().unwrap().into_iter();
        let mailboxes = mailboxes.map(|row| {
            let (cyrus, truth) = (index.records(row.id), index.true_records(row.id));
            let gone = index.gone_records(row.id).unwrap();
            (row, [cyrus.unwrap(), truth.unwrap(), gone])
        });
        Rows {
            chunks: index.chunks().unwrap(),
            mailboxes: mailboxes.collect(),
            messages: index.messages().unwrap(),
            subscriptions: index.subscriptions().unwrap(),
        }
    }
}
