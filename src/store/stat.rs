//! How large a backup is, and how much of it still counts.

use super::backup::Backup;
use super::error::{Result, StoreError};
use super::index::ChunkRow;

/// Sizes of a backup, in octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Of the data file.
    pub len_packed: u64,
    /// Of the text of all chunks.
    pub len_plain: u64,
    /// Of the messages that a compaction would keep.
    pub len_live: u64,
    /// The chunk with the highest id.
    pub last_chunk: Option<ChunkRow>,
}

/// Reads the figures from the index. `since`: what was expunged at or before this
/// Unix time does not count; -1 if everything does.
pub fn stat(backup: &Backup, since: i64) -> Result<Stat> {
    let len_packed = backup.len_file()?;
    let figures = backup.index().at_once(|index| {
        Ok(Stat {
            len_packed,
            len_plain: index.sum_of_lengths()?,
            len_live: index.sum_of_live_messages(since)?,
            last_chunk: index.last_chunk()?,
        })
    });
    figures.flatten().map_err(StoreError::index(backup.path()))
}
