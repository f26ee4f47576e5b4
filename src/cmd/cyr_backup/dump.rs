//! `cyr_backup ... dump`: one item octet for octet.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Dump, Failure, Look, dump_mailbox};
use crate::cmd::{Streams, atoi};
use crate::store::dump::{self, DumpError};
use crate::store::index::ChunkRow;
use crate::store::message::{MessageError, StoredMessage};
use crate::wire::Guid;

/// Nothing of that name is in the backup.
pub(super) const UNKNOWN: &str = "Item does not exist";

pub(super) fn run(what: &Dump, look: &Look<'_>, streams: &mut Streams<'_>) -> Result<(), Failure> {
    match what {
        Dump::Chunk(id) => chunk(id, look, streams),
        Dump::Message(guid) => message(guid, look, streams),
        Dump::Mailbox { name, form, expunged } => {
            dump_mailbox::run(name, form, *expunged, look, streams)
        }
    }
}

/// The row of a chunk by its number as typed.
pub(super) fn chunk_row(id: &OsStr, look: &Look<'_>) -> Result<ChunkRow, Failure> {
    let number = atoi(id.as_bytes());
    if number <= 0 {
        return Err(Failure::Text(format!("not the id of a chunk: {}", id.display())));
    }
    let chunk = look.index(|index| index.chunk(number))?;
    chunk.ok_or_else(|| look.unknown(&format!("chunk {number}")))
}

fn chunk(id: &OsStr, look: &Look<'_>, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let chunk = chunk_row(id, look)?;
    match dump::write_chunk(look.backup, &chunk, streams.out) {
        Ok(()) => Ok(()),
        Err(DumpError::Store(error)) => Err(Failure::Store(error)),
        Err(DumpError::Output(error)) => Err(error.into()),
    }
}

fn message(guid: &OsStr, look: &Look<'_>, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let unknown = || look.unknown(&guid.to_string_lossy());
    let guid = Guid::from_hex(guid.as_bytes()).ok_or_else(unknown)?;
    match StoredMessage::read(look.backup, &guid, &look.settings.backup_staging_path) {
        Ok(message) => Ok(message.write_to(streams.out)?),
        Err(MessageError::Unknown { .. }) => Err(unknown()),
        Err(MessageError::Store(error)) => Err(Failure::Store(error)),
        Err(error) => Err(Failure::Text(error.to_string())),
    }
}
