//! The text of a chunk, as it is.

use std::io::{self, Write};

use super::backup::Backup;
use super::chunk::{MemberError, MemberReader};
use super::error::StoreError;
use super::index::ChunkRow;

/// Octets inflated at a time.
const BUFFER: usize = 64 * 1024;

/// Why a chunk was not written to its end.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// It is damaged there.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its text could not be written.
    #[error("cannot write: {0}")]
    Output(io::Error),
}

/// Writes the inflated text of a chunk to `out`, up to the first damage, which is
/// then the error.
pub fn write_chunk(
    backup: &Backup,
    chunk: &ChunkRow,
    out: &mut dyn Write,
) -> Result<(), DumpError> {
    let damaged = |error: MemberError| StoreError::log(backup.path())(error.into());
    let mut reader = MemberReader::open(backup.file(), chunk.offset).map_err(damaged)?;
    let mut buffer = vec![0; BUFFER];
    let mut left = if backup.is_partial() { chunk.length } else { u64::MAX };
    while left > 0 {
        let len = match reader.read(&mut buffer).map_err(damaged)? {
            0 => break,
            len => left.min(len as u64),
        };
        left -= len;
        out.write_all(&buffer[..len as usize]).map_err(DumpError::Output)?;
    }
    Ok(())
}
