//! The chunks that an index knows, entered once more: into an index of its own, for what
//! Cyrus's tables cannot say.

use std::path::Path;

use super::{Member, Replay};
use crate::store::disk::Disk;
use crate::store::error::{Result, StoreError};
use crate::store::file_hash::FileHash;
use crate::store::index::{ChunkRow, Index};
use crate::store::salvage;
use crate::store::verify::unindexed_lines;

/// A chunk that cannot be read to its end, or behind which there is more than the index knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Number of the chunk.
    pub chunk_id: i64,
    /// Where it begins in the data file.
    pub offset_file: u64,
    /// What is wrong with it.
    pub what: String,
}

/// What the lines of the chunks say that `index` knows and that begin in front of `end`: an index
/// that is thrown away, in a transaction that is not committed. Of damaged chunks the lines count
/// that a rebuild of the index would take.
pub(in crate::store) fn again(
    disk: &dyn Disk,
    path: &Path,
    index: &Index,
    end: u64,
) -> Result<(Index, Vec<Damage>)> {
    let fault = || StoreError::index(path);
    let scratch = Index::scratch().map_err(fault())?;
    scratch.begin().map_err(fault())?;
    let known = &index.all_restart_points().map_err(fault())?;
    let hash = FileHash::default();
    let mut replay = Replay { disk, path, index: &scratch, hash, last_ts: 0, known };
    let mut chunks = index.chunks().map_err(fault())?;
    chunks.sort_by_key(|chunk| chunk.offset);
    chunks.dedup_by_key(|chunk| chunk.offset);
    let mut damages = Vec::new();
    let mut read_to = 0;
    for (i, chunk) in chunks.iter().enumerate() {
        let ChunkRow { id: chunk_id, offset, .. } = *chunk;
        let mut damaged = |what| damages.push(Damage { chunk_id, offset_file: offset, what });
        if offset >= end {
            damaged("the data file ends in front of it".to_owned());
            continue;
        }
        match replay.member(offset, end)? {
            Member::Complete { end } => read_to = end,
            Member::Broken(what) => {
                tracing::error!(file = %path.display(), offset, %what, "damaged chunk");
                damaged(what.to_string());
                let next = chunks.get(i + 1).map(|next| next.offset);
                read_to = salvage::limit(offset, next).min(end);
                let salvage = replay.salvage(offset, read_to)?;
                replay.saved(offset, &salvage)?;
            }
        }
    }
    let unindexed = unindexed_lines(disk, path, read_to, end)?;
    if let Some(last) = chunks.last().filter(|_| unindexed > 0) {
        let what = format!("lines behind it that the index does not know: {unindexed}");
        damages.push(Damage { chunk_id: last.id, offset_file: last.offset, what });
    }
    Ok((scratch, damages))
}
