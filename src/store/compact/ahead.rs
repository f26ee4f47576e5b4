//! A chunk read for the survey, by whichever thread has time for it.

use std::fs::File;

use crate::store::chunk::MemberError;
use crate::store::disk::Disk;
use crate::store::index::RestartPoint;
use crate::store::log::{Hashed, LogError, LogReader};
use crate::store::replay::{self, Line, Scanned};
use crate::store::salvage::Salvage;

/// What a chunk holds.
pub(super) enum Chunk {
    /// Its member is whole.
    Whole(Scanned),
    /// It is damaged: how, and what can be read of it.
    Damaged(MemberError, Salvage),
}

/// Reads the chunk at `offset`, in front of `until`. `known` are the restart points that the index
/// has. Errors are those of the disk.
pub(super) fn read(
    file: &File,
    offset: u64,
    until: u64,
    known: &[RestartPoint],
) -> Result<Chunk, MemberError> {
    let io = |source| MemberError::Io { at: offset, source };
    let len = file.len_file().map_err(io)?;
    match replay::scan_member_hashing(file, offset, len) {
        Ok(scanned) => Ok(Chunk::Whole(scanned)),
        Err(error @ MemberError::Io { .. }) => Err(error),
        Err(damage) => {
            let salvage = Salvage::of_member(file, offset, len.min(until), known).map_err(io)?;
            Ok(Chunk::Damaged(damage, salvage))
        }
    }
}

/// Reads it line by line, as long as `take` wants more of it: one with lines too long to be held.
pub(super) fn each(
    file: &File,
    offset: u64,
    mut take: impl FnMut(&Line) -> bool,
) -> Result<bool, LogError> {
    let mut reader = LogReader::open(file, offset)?;
    let mut bodies = Hashed::default();
    while let Some(line) = reader.next_line(&mut bodies)? {
        let bodies = std::mem::take(&mut bodies.found);
        if !take(&Line { line, bodies, end_plain: reader.offset_plain() }) {
            return Ok(false);
        }
    }
    Ok(true)
}
