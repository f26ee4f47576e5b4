//! `cyr_backup ... dump`: one item octet for octet.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Dump, Failure, Look, dump_mailbox};
use crate::cmd::report::store_error;
use crate::cmd::{Streams, atoi};
use crate::config::Settings;
use crate::store::dump::DumpError;
use crate::store::index::ChunkRow;
use crate::store::message::{MessageError, StoredMessage};
use crate::store::{Backup, StoreError, dump};
use crate::wire::Guid;

/// Nothing of that name is in the backup.
pub(super) const UNKNOWN: &str = "Item does not exist";

pub(super) fn run(what: &Dump, look: &Look<'_>, streams: &mut Streams<'_>) -> Result<(), Failure> {
    match what {
        Dump::Chunk(id) => chunk(id, look.backup, streams),
        Dump::Message(guid) => message(guid, look.backup, look.settings, streams),
        Dump::Mailbox { name, form, expunged } => {
            dump_mailbox::run(name, form, *expunged, look, streams)
        }
    }
}

/// The row of a chunk by its number as typed.
pub(super) fn chunk_row(id: &OsStr, backup: &Backup) -> Result<ChunkRow, Failure> {
    let number = atoi(id.as_bytes());
    if number <= 0 {
        return Err(Failure::Text(format!("not the id of a chunk: {}", id.display())));
    }
    let chunk = backup.index().chunk(number).map_err(StoreError::index(backup.path()));
    let chunk = chunk.map_err(|error| Failure::Text(store_error(&error)))?;
    chunk.ok_or(Failure::Text(UNKNOWN.into()))
}

fn chunk(id: &OsStr, backup: &Backup, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let text = |error| Failure::Text(store_error(&error));
    let chunk = chunk_row(id, backup)?;
    match dump::write_chunk(backup, &chunk, streams.out) {
        Ok(()) => Ok(()),
        Err(DumpError::Store(error)) => Err(text(error)),
        Err(DumpError::Output(error)) => Err(error.into()),
    }
}

fn message(
    guid: &OsStr,
    backup: &Backup,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let unknown = || Failure::Text(UNKNOWN.into());
    let guid = Guid::from_hex(guid.as_bytes()).ok_or_else(unknown)?;
    match StoredMessage::read(backup, &guid, &settings.backup_staging_path) {
        Ok(message) => Ok(message.write_to(streams.out)?),
        Err(MessageError::Unknown { .. }) => Err(unknown()),
        Err(MessageError::Store(error)) => Err(Failure::Text(store_error(&error))),
        Err(error) => Err(Failure::Text(error.to_string())),
    }
}
