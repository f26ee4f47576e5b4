//! `cyr_backup ... show`: everything about some chunks, mailboxes or messages.
//!
//! What is not in the backup is passed over without a word, as in Cyrus, and so is a word that
//! was there already.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Write};

use super::dump::{UNKNOWN, chunk_row};
use super::headers;
use super::{Failure, Look, Show};
use crate::cmd::report::percent;
use crate::cmd::time::LocalTime;

pub(super) fn run(what: &Show, look: &Look<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    match what {
        Show::Chunks(ids) => once(ids).try_for_each(|id| chunk(id, look, out)),
        Show::Mailboxes(names) => once(names).try_for_each(|name| mailbox(name, look, out)),
        Show::Messages(guids) => once(guids).try_for_each(|guid| message(guid, look, out)),
    }
}

/// The words, each at its first place only.
fn once(words: &[OsString]) -> impl Iterator<Item = &OsString> {
    let mut seen = HashSet::new();
    words.iter().filter(move |word| seen.insert(*word))
}

/// Cyrus has no output to be equal to.
fn chunk(id: &OsString, look: &Look<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let chunk = chunk_row(id, look)?;
    let next = look.index(|index| index.chunks())?;
    let next = next.iter().find(|other| other.offset > chunk.offset).map(|other| other.offset);
    let len_file = look.backup.len_file().map_err(Failure::Store)?;
    let packed = next.unwrap_or(len_file).saturating_sub(chunk.offset);
    let (messages, mailboxes) = look.index(|index| index.contents_of_chunk(chunk.id))?;
    let time = LocalTime::new();
    writeln!(out, "chunk: {}", chunk.id)?;
    writeln!(out, "start time: {}", time.format(chunk.ts_start))?;
    writeln!(out, "end time:   {}", time.format(chunk.ts_end))?;
    writeln!(out, "offset: {}", chunk.offset)?;
    let ratio = percent(100.0 * packed as f64 / chunk.length as f64);
    writeln!(out, "length: {} ({packed} compressed, {ratio}%)", chunk.length)?;
    writeln!(out, "file sha1: {}", chunk.file_sha1)?;
    writeln!(out, "data sha1: {}", chunk.data_sha1)?;
    writeln!(out, "messages stored: {messages}")?;
    writeln!(out, "mailboxes last seen: {mailboxes}\n")?;
    Ok(())
}

fn mailbox(name: &OsString, look: &Look<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(mailbox) = look.find_mailbox_as_cyrus(name)? else { return Ok(()) };
    let records = look.index(|index| index.records_in_row_order(mailbox.id))?;
    let time = LocalTime::new();
    line(out, "mboxname: ", &mailbox.mboxname)?;
    line(out, "uniqueid: ", &mailbox.uniqueid)?;
    if let Some(deleted) = mailbox.deleted {
        writeln!(out, "deleted:  {}", time.format(deleted))?;
    }
    writeln!(out, "messages:\n{:>10}  {:<19}  guid", "uid", "expunged time")?;
    for record in records {
        let expunged = record.expunged.map_or(String::new(), |ts| time.format(ts));
        let guid = record.guid.map(|guid| guid.to_string()).unwrap_or_default();
        writeln!(out, "{:>10}  {expunged:<19}  {guid}", record.uid)?;
    }
    writeln!(out)?;
    Ok(())
}

fn line(out: &mut dyn Write, heading: &str, text: &[u8]) -> io::Result<()> {
    out.write_all(heading.as_bytes())?;
    out.write_all(text)?;
    out.write_all(b"\n")
}

fn message(guid: &OsString, look: &Look<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(row) = look.find_message(guid)? else { return Ok(()) };
    let Some(guid) = row.guid else { return Ok(()) };
    let places = look.index(|index| index.places_of(row.id))?;
    let content = look.content(&guid)?.ok_or(Failure::Text(UNKNOWN.into()))?;
    writeln!(out, "guid:\t{guid}\nmailboxes:")?;
    for place in places {
        out.write_all(b"\t")?;
        out.write_all(&place.uniqueid)?;
        line(out, "\t", &place.mboxname)?;
    }
    out.write_all(b"headers:\n")?;
    out.write_all(headers::block(&content))?;
    out.write_all(b"\n")?;
    Ok(())
}
