//! Lines to append, and a reader that checks everything that is stored.

use std::fs::File;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use sha1::{Digest, Sha1};

use super::super::backup::index_path;
use super::super::chunk::RESTART_EVERY;
use super::super::index::{Index, Open};
use super::super::log::{BodySink, LogReader};
use super::super::staging::Staging;
use super::super::{Line, Writer, error::Result, replay};
use super::random::Random;
use crate::store::file_hash::FileHash;
use crate::wire::apply::Apply;
use crate::wire::dlist::{FileHeader, Literals, Printer, parse_item};
use crate::wire::{Body, Guid};

/// A line as a session would hand it to the writer.
#[derive(Clone)]
pub(super) struct Step {
    text: Vec<u8>,
    body_at: Vec<usize>,
    bodies: Vec<Body>,
    files: Vec<FileHeader>,
}

fn message_line(files: &[FileHeader]) -> (Vec<u8>, Vec<usize>) {
    let mut printer = Printer::new(Literals::NonSync, b"MESSAGE (".to_vec());
    for (i, file) in files.iter().enumerate() {
        printer.separator(i).file(file);
    }
    printer.raw(b")");
    printer.into_parts()
}

pub(super) fn guid_of(octets: &[u8]) -> Guid {
    Guid::from(<[u8; 20]>::from(Sha1::digest(octets)))
}

impl Step {
    pub(super) fn text(text: &str) -> Step {
        Step { text: text.into(), body_at: Vec::new(), bodies: Vec::new(), files: Vec::new() }
    }

    pub(super) fn message(bodies: &[Vec<u8>]) -> Step {
        let header = |body: &Vec<u8>| FileHeader {
            partition: b"default".to_vec(),
            guid: guid_of(body),
            size: body.len() as u64,
        };
        let files: Vec<FileHeader> = bodies.iter().map(header).collect();
        let (text, body_at) = message_line(&files);
        let bodies = bodies.iter().cloned().map(Body::Memory).collect();
        Step { text, body_at, bodies, files }
    }

    /// A mailbox with these messages, (uid, modseq, expunged, guid).
    pub(super) fn mailbox(name: &str, last_uid: u32, records: &[(u32, u64, bool, Guid)]) -> Step {
        let records: Vec<String> = records
            .iter()
            .map(|(uid, modseq, expunged, guid)| {
                let flags = if *expunged { "\\Seen \\Expunged" } else { "\\Seen" };
                format!(
                    "%(UID {uid} MODSEQ {modseq} LAST_UPDATED 1700000000 FLAGS ({flags}) \
                     INTERNALDATE 1600000000 SIZE 7 GUID {guid})"
                )
            })
            .collect();
        Step::text(&format!(
            "MAILBOX %(UNIQUEID id-{name} MBOXNAME user.tom.{name} LAST_UID {last_uid} \
             HIGHESTMODSEQ {last_uid} RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN \
             0 UIDVALIDITY 7 PARTITION default ACL \"tom lrswipkxtecda \" OPTIONS P QUOTAROOT \
             user.tom FOLDERMODSEQ {last_uid} RECORD ({}))",
            records.join(" ")
        ))
    }

    /// A sieve script of any octets.
    pub(super) fn script(content: &[u8]) -> Step {
        let mut text = b"SIEVE %(USERID tom FILENAME y LAST_UPDATE 5 CONTENT ".to_vec();
        text.extend_from_slice(format!("{{{}+}}\r\n", content.len()).as_bytes());
        text.extend_from_slice(content);
        text.push(b')');
        Step { text, ..Step::text("") }
    }

    pub(super) fn append_to(&self, writer: &mut Writer, now: i64) -> Result<()> {
        let item = parse_item(&self.text);
        let apply = match (&self.files, &item) {
            (files, _) if !files.is_empty() => Apply::Message(files.clone()),
            (_, Ok((name, value))) => Apply::read(name, value).unwrap(),
            (_, Err(e)) => panic!("{e}"),
        };
        let line =
            Line { text: &self.text, body_at: &self.body_at, bodies: &self.bodies, apply: &apply };
        writer.append(now, &line, &Staging::new("/nonexistent".into()))
    }

    /// The lines that it becomes.
    pub(super) fn shown(&self) -> Vec<String> {
        // What a line of one message at least must hold to be divided.
        const LARGE: u64 = RESTART_EVERY / 2;
        if self.files.is_empty() || self.bodies.iter().map(Body::len).sum::<u64>() < LARGE {
            return vec![format!("{:?}", parse_item(&self.text).unwrap())];
        }
        let mut lines = Vec::new();
        let mut part: Vec<FileHeader> = Vec::new();
        for (number, file) in self.files.iter().enumerate() {
            part.push(file.clone());
            let len: u64 = part.iter().map(|file| file.size).sum();
            if len >= LARGE || number + 1 == self.files.len() {
                lines.push(message_line(&part).0);
                part.clear();
            }
        }
        lines.iter().map(|text| format!("{:?}", parse_item(text).unwrap())).collect()
    }
}

/// A day in the life of a backup, in sessions: short and long lines, octets that
/// deflate stores as they are, a message sent twice, one that comes back.
pub(super) fn history(random: &mut Random) -> Vec<Vec<Step>> {
    let small = b"Subject: one\r\n\r\nText text text.\r\n".to_vec();
    let large = random.octets(9_000);
    let middle = random.octets(700);
    let text = b"All work and no play makes Jack a dull boy.\r\n".repeat(300);
    // Many sectors of lines that no GUID guards.
    let gone: Vec<_> = (1..90).map(|uid| (uid, 9, true, guid_of(&random.octets(8)))).collect();
    let [g1, g2, g3, g4] = [&small, &large, &middle, &text].map(|body| guid_of(body));
    vec![
        vec![
            Step::message(std::slice::from_ref(&small)),
            Step::mailbox("a", 1, &[(1, 1, false, g1)]),
            Step::text("SUB %(USERID tom MBOXNAME user.tom.a)"),
        ],
        vec![
            Step::message(&[large, middle]),
            Step::message(&[text]),
            Step::mailbox("a", 4, &[(1, 5, true, g1), (2, 2, false, g2), (3, 3, false, g1)]),
            Step::mailbox("d", 90, &gone),
            Step::script(&random.octets(3_000)),
            Step::mailbox("b", 2, &[(1, 1, false, g3), (2, 2, false, g4)]),
            Step::text("SIEVE %(USERID tom FILENAME x LAST_UPDATE 5 CONTENT {7+}\r\nkeep;\r\n)"),
        ],
        vec![
            Step::text(
                "SEEN %(USERID tom UNIQUEID id-a LASTREAD 5 LASTUID 3 LASTCHANGE 5 SEENUIDS 1:3)",
            ),
            Step::text(
                "RENAME %(OLDMBOXNAME user.tom.b NEWMBOXNAME user.tom.c PARTITION default \
                 UIDVALIDITY 9)",
            ),
            Step::message(&[small]),
            Step::text("UNMAILBOX user.tom.a"),
        ],
    ]
}

/// Opens the backup as the server does and checks all of it: every row fits the data,
/// every message has its GUID, the index is what the data say, and one can go on. Returns how
/// many of `steps` are there; they must be the first ones. Of the next one some lines may be
/// there, if it becomes several.
pub(super) fn check(path: &Path, steps: &[Step]) -> usize {
    drop(Writer::open(path, 2_000).unwrap());
    let found = check_closed(path, steps);
    let mut writer = Writer::open(path, 2_000).unwrap();
    Step::text("UNSUB %(USERID tom MBOXNAME x)").append_to(&mut writer, 2_000).unwrap();
    writer.finish(2_000).unwrap();
    found
}

fn check_closed(path: &Path, steps: &[Step]) -> usize {
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let index = Index::open(&index_path(path), Open::Read).unwrap();
    let mut hash = FileHash::default();
    let mut end = 0;
    let mut lines = Vec::new();
    for chunk in index.chunks().unwrap() {
        assert_eq!(chunk.offset, end, "chunks follow each other");
        hash.update_from(&file, chunk.offset).unwrap();
        assert_eq!(hash.hex(), chunk.file_sha1);
        let totals = replay::totals(&file, chunk.offset, len).unwrap();
        assert_eq!((totals.len_plain, &totals.data_sha1), (chunk.length, &chunk.data_sha1));
        end = totals.end;
        let mut stored = index.messages_of_chunk(chunk.id).unwrap();
        let mut bodies = Bodies::default();
        let mut reader = LogReader::open(&file, chunk.offset).unwrap();
        while let Some(line) = reader.next_line(&mut bodies).unwrap() {
            lines.push(format!("{:?}", line.item().unwrap()));
            let found = std::mem::take(&mut bodies.found);
            stored.retain(|row| row.offset != line.offset || !found.contains(&row.guid.unwrap()));
        }
        assert!(stored.is_empty(), "messages where the index says: {stored:?}");
    }
    assert_eq!(end, len, "the index accounts for the whole file");
    assert_eq!(dump(&index_path(path)), dump_of_rebuilt(path));
    let mut left = &lines[..];
    for (number, step) in steps.iter().enumerate() {
        let shown = step.shown();
        let here = shown.len().min(left.len());
        assert_eq!(left[..here], shown[..here]);
        left = &left[here..];
        if here < shown.len() {
            assert!(left.is_empty());
            return number;
        }
    }
    assert!(left.is_empty(), "nothing came from nowhere");
    steps.len()
}

#[derive(Default)]
struct Bodies {
    current: Option<(Guid, Sha1)>,
    found: Vec<Guid>,
}

impl BodySink for Bodies {
    fn start(&mut self, header: &FileHeader) {
        self.current = Some((header.guid, Sha1::new()));
    }
    fn data(&mut self, octets: &[u8]) {
        self.current.as_mut().unwrap().1.update(octets);
    }
    fn end(&mut self) {
        let (guid, sha1) = self.current.take().unwrap();
        assert_eq!(guid, Guid::from(<[u8; 20]>::from(sha1.finalize())));
        self.found.push(guid);
    }
}

/// The rows that an index built from the data file alone holds.
pub(super) fn dump_of_rebuilt(path: &Path) -> Vec<String> {
    let dir = fast_dir();
    let copy = dir.path().join("data");
    std::fs::copy(path, &copy).unwrap();
    drop(Writer::open(&copy, 2_000).unwrap());
    dump(&index_path(&copy))
}

/// All rows but those that only say how far the index has come. A session notes as the end of
/// a chunk when it was closed, a rebuild the time of its last line.
pub(super) fn dump(index: &Path) -> Vec<String> {
    let db = Connection::open(index).unwrap();
    let mut rows = Vec::new();
    for table in [
        "(SELECT id, ts_start, offset, length, file_sha1, data_sha1 FROM chunk)",
        "message",
        "mailbox",
        "mailbox_message",
        "subscription",
        "seen",
        "sieve",
        "cyrbk_record",
        "cyrbk_gone",
        "cyrbk_mailbox",
    ] {
        let mut statement = db.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
        let columns = statement.column_count();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let values: Vec<Sql> = (0..columns).map(|i| row.get(i).unwrap()).collect();
            rows.push(format!("{table} {values:?}"));
        }
    }
    rows
}

/// A directory in memory if there is one: thousands of commits are synced here.
pub(super) fn fast_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}
