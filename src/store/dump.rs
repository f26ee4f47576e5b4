//! The text of a chunk, as it is.

use std::io::{self, Write};

use super::backup::Backup;
use super::chunk::MemberReader;
use super::error::{Result, StoreError};
use super::index::ChunkRow;

/// Octets inflated at a time.
const BUFFER: usize = 64 * 1024;

/// Writes the inflated text of a chunk to `out`, up to the first damage, which is
/// then the error. The inner result is that of writing.
pub fn write_chunk(
    backup: &Backup,
    chunk: &ChunkRow,
    out: &mut dyn Write,
) -> Result<io::Result<()>> {
    let damaged = |e: super::chunk::MemberError| StoreError::log(backup.path())(e.into());
    let mut reader = MemberReader::open(backup.file(), chunk.offset).map_err(damaged)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let len = reader.read(&mut buffer).map_err(damaged)?;
        if len == 0 {
            return Ok(Ok(()));
        }
        if let Err(e) = out.write_all(&buffer[..len]) {
            return Ok(Err(e));
        }
    }
}
