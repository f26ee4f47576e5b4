//! `cyr_backup ... list`: the chunks, mailboxes or messages of a backup.

use std::io::{self, Write};

use super::{Failure, List};
use crate::cmd::report::percent;
use crate::cmd::time::LocalTime;
use crate::cmd::{Streams, tool_log};
use crate::store::index::ChunkRow;
use crate::store::{Backup, StoreError};

pub(super) fn run(what: List, backup: &Backup, streams: &mut Streams<'_>) -> Result<(), Failure> {
    match what {
        List::Chunks => chunks(backup, streams.out),
        List::Mailboxes => mailboxes(backup, streams.out),
        List::Messages => messages(backup, streams.out),
        List::All => all(backup, streams),
    }
}

/// The headings go where they do not disturb. A part that fails is left out.
fn all(backup: &Backup, streams: &mut Streams<'_>) -> Result<(), Failure> {
    type Part = fn(&Backup, &mut dyn Write) -> Result<(), Failure>;
    let parts: [(&str, Part); 3] = [
        ("listing chunks:\n", chunks),
        ("\nlisting mailboxes:\n", mailboxes),
        ("\nlisting messages:\n", messages),
    ];
    for (heading, part) in parts {
        streams.err.write_all(heading.as_bytes())?;
        match part(backup, streams.out) {
            Ok(()) | Err(Failure::Text(_)) => {}
            Err(Failure::Store(error)) => tool_log::store_error(&error),
            Err(stop) => return Err(stop),
        }
        streams.out.flush()?;
    }
    Ok(())
}

fn rows<T>(backup: &Backup, rows: crate::store::index::Result<T>) -> Result<T, Failure> {
    rows.map_err(|e| Failure::Store(StoreError::index(backup.path())(e)))
}

fn chunks(backup: &Backup, out: &mut dyn Write) -> Result<(), Failure> {
    let chunks = rows(backup, backup.index().chunks())?;
    let len_file = backup.len_file().map_err(Failure::Store)?;
    let time = LocalTime::new();
    writeln!(out, "{:>7} offset\tlength\tratio%\t{:<20} end time", "id", "start time")?;
    for (i, chunk) in chunks.iter().enumerate() {
        let end = chunks.get(i + 1).map_or(len_file, |next| next.offset);
        write_chunk(chunk, end, &time, out)?;
    }
    Ok(())
}

/// `end`: where the next chunk begins in the file.
fn write_chunk(
    chunk: &ChunkRow,
    end: u64,
    time: &LocalTime,
    out: &mut dyn Write,
) -> io::Result<()> {
    let packed = end as i64 - chunk.offset as i64;
    let ratio = percent(100.0 * packed as f64 / chunk.length as f64);
    let (start, end) = (time.format(chunk.ts_start), time.format(chunk.ts_end));
    let (id, offset, length) = (chunk.id, chunk.offset, chunk.length);
    writeln!(out, "{id:>7} {offset}\t{length}\t{ratio:>6}\t{start}  {end}")
}

fn mailboxes(backup: &Backup, out: &mut dyn Write) -> Result<(), Failure> {
    let mailboxes = rows(backup, backup.index().mailboxes())?;
    let time = LocalTime::new();
    writeln!(out, "{:<36}  {:<19}  mboxname", "uniqueid", "last append date")?;
    for mailbox in mailboxes {
        out.write_all(&mailbox.uniqueid)?;
        write!(out, "  {}  ", time.format(mailbox.last_appenddate))?;
        out.write_all(&mailbox.mboxname)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn messages(backup: &Backup, out: &mut dyn Write) -> Result<(), Failure> {
    for message in rows(backup, backup.index().messages())? {
        match message.guid {
            Some(guid) => writeln!(out, "{guid}")?,
            None => {
                let what = format!("message {} has no guid in the index", message.id);
                return Err(Failure::Text(what));
            }
        }
    }
    Ok(())
}
