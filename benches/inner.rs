//! The inner loops, each alone: `cargo bench --bench inner`.
//!
//! For figures that do not depend on who else uses the machine, count instructions: build with
//! `cargo bench --bench inner --no-run`, then run it under `valgrind --tool=callgrind` with the
//! name of one loop. How the whole server and the tools do is `bench/compare`'s business.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::hint::black_box;
use std::path::Path;

use cyrbk::store::chunk::{CHUNK_HEADER, MemberReader, MemberWriter, Packer, Piece};
use cyrbk::store::index::{Index, Position};
use cyrbk::wire::Guid;
use cyrbk::wire::apply::Apply;
use cyrbk::wire::dlist::{Literals, Printer, parse_item};
use cyrbk::wire::frame::{Event, Framer, Limits};
use divan::Bencher;
use divan::counter::BytesCount;
use sha1::{Digest, Sha1};

/// Messages of a line.
const MESSAGES: usize = 256;
/// Records of a mailbox.
const RECORDS: usize = 1000;

fn main() {
    divan::main();
}

/// Mail from the fixtures, each message different.
fn mail() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/mail");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    let texts: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let message = |i: usize| [format!("X-No: {i}\n").as_bytes(), &texts[i % texts.len()]].concat();
    (0..MESSAGES).map(message).collect()
}

fn guid(number: usize) -> Guid {
    Guid::from(<[u8; 20]>::from(Sha1::digest(number.to_le_bytes())))
}

/// `MESSAGE ( ... )` with its line end, bodies included.
fn message_line() -> Vec<u8> {
    let mut line = b"MESSAGE (".to_vec();
    for (i, body) in mail().iter().enumerate() {
        let blank = if i > 0 { " " } else { "" };
        let head = format!("{blank}%{{default {} {}}}\r\n", guid(i), body.len());
        line.extend_from_slice(head.as_bytes());
        line.extend_from_slice(body);
    }
    line.extend_from_slice(b")\r\n");
    line
}

/// As Cyrus 3.6 sends it.
fn mailbox_line() -> Vec<u8> {
    let record = |i: usize| {
        format!(
            "%(UID {uid} MODSEQ {uid} LAST_UPDATED 1795250341 FLAGS (\\Seen) INTERNALDATE \
             1600000000 SIZE 4321 GUID {} ANNOTATIONS (%(ENTRY \
             /vendor/cmu/cyrus-imapd/savedate USERID \"\" MODSEQ 0 VALUE 1795250341) %(ENTRY \
             /vendor/cmu/cyrus-imapd/createdmodseq USERID \"\" MODSEQ 0 VALUE {uid})))",
            guid(i),
            uid = i + 1
        )
    };
    let records: Vec<String> = (0..RECORDS).map(record).collect();
    format!(
        "MAILBOX %(UNIQUEID oy47mhrzscsurirwweiafg28 MBOXNAME user.tom SYNC_CRC 1 SYNC_CRC_ANNOT \
         2 LAST_UID {RECORDS} HIGHESTMODSEQ {RECORDS} RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 5 \
         POP3_LAST_LOGIN 0 POP3_SHOW_AFTER 0 UIDVALIDITY 9 PARTITION default ACL \
         \"tom\tlrswipkxtecdan\t\" OPTIONS P QUOTAROOT user.tom CREATEDMODSEQ 1 FOLDERMODSEQ 1 \
         RECORD ({}))",
        records.join(" ")
    )
    .into_bytes()
}

/// Octets of a stream to lines and bodies.
#[divan::bench]
fn frame(bencher: Bencher<'_, '_>) {
    let stream = message_line();
    bencher.counter(BytesCount::of_slice(&stream)).bench(|| {
        let mut framer = Framer::new(Limits::LOG);
        let mut bodies = 0;
        for mut piece in stream.chunks(256 * 1024) {
            loop {
                match framer.next(&mut piece) {
                    Event::More => break,
                    Event::Line => drop(black_box(framer.take_line())),
                    Event::Body(octets) => bodies += octets.len(),
                    _ => {}
                }
            }
        }
        bodies
    });
}

/// A line to a checked value.
#[divan::bench]
fn dlist_read(bencher: Bencher<'_, '_>) {
    let line = mailbox_line();
    bencher.counter(BytesCount::of_slice(&line)).bench(|| parse_item(&line).map(drop));
}

/// A checked value to its fields and records.
#[divan::bench]
fn apply_read(bencher: Bencher<'_, '_>) {
    let line = mailbox_line();
    let (name, value) = parse_item(&line).unwrap();
    bencher.counter(BytesCount::of_slice(&line)).bench(|| Apply::read(&name, &value).map(drop));
}

/// A checked value to canonical text.
#[divan::bench]
fn dlist_print(bencher: Bencher<'_, '_>) {
    let line = mailbox_line();
    let (name, value) = parse_item(&line).unwrap();
    bencher.counter(BytesCount::of_slice(&line)).bench(|| {
        let mut printer = Printer::new(Literals::NonSync, Vec::new());
        printer.item(&name, &value);
        printer.into_text()
    });
}

/// Messages and a mailbox with their records to rows of an index.
#[divan::bench(sample_count = 20)]
fn index_apply(bencher: Bencher<'_, '_>) {
    let mailbox = mailbox_line();
    let header = |i| format!("%{{default {} 4321}}\r\n", guid(i));
    let headers: Vec<String> = (0..RECORDS).map(header).collect();
    let messages = format!("MESSAGE ({})", headers.join(" "));
    bencher.counter(divan::counter::ItemsCount::new(RECORDS)).bench(|| {
        let index = Index::scratch().unwrap();
        index.begin().unwrap();
        let chunk_id = index.start_chunk(1, 0, "").unwrap();
        for (offset, line) in [messages.as_bytes(), &mailbox].into_iter().enumerate() {
            let (name, value) = parse_item(line).unwrap();
            let apply = Apply::read(&name, &value).unwrap();
            let at = Position { chunk_id, ts: 1, offset: offset as u64 };
            index.apply(at, &apply).unwrap();
        }
        index.commit().unwrap();
        index
    });
}

/// One member of the log: deflate, CRC-32 and SHA-1.
fn member(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = MemberWriter::start(&mut out).unwrap();
    writer.write(CHUNK_HEADER, &mut out).unwrap();
    for line in plain.chunks(1 << 20) {
        writer.write(line, &mut out).unwrap();
        writer.end_line(&mut out).unwrap();
    }
    writer.finish(&mut out).unwrap();
    out
}

#[divan::bench(sample_count = 20)]
fn member_write(bencher: Bencher<'_, '_>) {
    let plain = message_line();
    bencher.counter(BytesCount::of_slice(&plain)).bench(|| member(&plain));
}

/// The same by one thread in pieces that could be packed by several.
#[divan::bench(sample_count = 20)]
fn member_in_pieces(bencher: Bencher<'_, '_>) {
    let plain = message_line();
    bencher.counter(BytesCount::of_slice(&plain)).bench(|| {
        let mut out = Vec::new();
        let mut writer = MemberWriter::start(&mut out).unwrap();
        let mut packer = Packer::default();
        for piece in Piece::all_of(plain.clone()) {
            writer.add_segment(&packer.pack(piece).unwrap(), &mut out).unwrap();
        }
        writer.finish(&mut out).unwrap();
        out
    });
}

/// Inflates a member and cuts it into lines, as verify and reindex do.
#[divan::bench(sample_count = 50)]
fn inflate_and_scan(bencher: Bencher<'_, '_>) {
    let plain = message_line();
    let file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut &file, &member(&plain)).unwrap();
    bencher.counter(BytesCount::of_slice(&plain)).bench(|| {
        let mut reader = MemberReader::open(&file, 0).unwrap();
        let mut framer = Framer::new(Limits::LOG);
        let mut buffer = vec![0; 64 * 1024];
        let mut lines = 0;
        loop {
            let count = reader.read(&mut buffer).unwrap();
            if count == 0 {
                break lines;
            }
            let mut piece = &buffer[..count];
            loop {
                match framer.next(&mut piece) {
                    Event::More => break,
                    Event::Line => {
                        drop(framer.take_line());
                        lines += 1;
                    }
                    _ => {}
                }
            }
        }
    });
}

/// Messages of ordinary size.
#[divan::bench]
fn sha1(bencher: Bencher<'_, '_>) {
    let mail = mail();
    let total: usize = mail.iter().map(Vec::len).sum();
    bencher.counter(BytesCount::new(total)).bench(|| {
        for message in &mail {
            black_box(Sha1::digest(message));
        }
    });
}
