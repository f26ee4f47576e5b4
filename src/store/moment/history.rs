//! How far back a log tells everything.
//!
//! A compaction drops lines that later ones have superseded. cyrbk's says so in the log, see
//! [`Compacted`]. Cyrus's says nothing, but leaves a trace: it writes a member without the
//! flush that ends each line of a session, so also without the one in front of its end.
//!
//! ```text
//! a session's member ends    00 00 ff ff   03 00   crc32 length
//! a compaction's             ..........................  crc32 length
//! ```

use std::os::unix::fs::MetadataExt;

use super::super::backup::Backup;
use super::super::chunk::CHUNK_HEADER;
use super::super::disk::Disk;
use super::super::error::{Result, StoreError};
use super::super::exact::Truth;
use super::super::index::ChunkRow;
use crate::wire::own::Compacted;

/// Whose compaction has dropped lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// cyrbk's: it has said so.
    Cyrbk,
    /// Another, which says nothing of when it ran.
    Cyrus,
}

/// How far back the log tells everything. Times are Unix times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// No line was ever dropped, as far as can be told.
    Complete,
    /// Lines were dropped.
    Since {
        /// From then on every state is exactly known.
        complete: i64,
        /// What was deleted or expunged then or before is gone, if that is known.
        gone: Option<i64>,
        /// Whose compaction it was.
        by: By,
    },
}

impl History {
    /// Whether the state at `moment` is exactly known.
    pub fn is_complete_at(&self, moment: i64) -> bool {
        match self {
            History::Complete => true,
            History::Since { complete, .. } => *complete <= moment,
        }
    }
}

/// Octets of a member without content, as versions of zlib before 1.2.12 leave them.
const EMPTY_MEMBER: [u8; 20] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// The flush behind a last line, and the empty block that ends a member.
const SESSION_END: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];
/// CRC-32 and length.
const TRAILER: usize = 8;
/// Members without content that are passed over.
const EMPTY_MAX: usize = 64;

/// How far back the log of `backup` tells everything. `chunks` are in the order of the file.
pub fn of(backup: &Backup, truth: &Truth<'_>, chunks: &[ChunkRow]) -> Result<History> {
    let ours = truth.ask(|index| index.compacted())?;
    let ours = ours.map(|Compacted { at, since }| History::Since {
        complete: at,
        gone: since,
        by: By::Cyrbk,
    });
    let theirs = of_cyrus(backup, chunks)?;
    Ok(match (ours, theirs) {
        // The later one counts.
        (Some(ours), Some(theirs)) if !ours.is_complete_at(theirs - 1) => ours,
        (_, Some(complete)) => History::Since { complete, gone: None, by: By::Cyrus },
        (Some(ours), None) => ours,
        (None, None) => History::Complete,
    })
}

/// When a compaction of Cyrus's had ended at the latest, if there was one: before the next
/// session began, or, if none did, when the file was last written.
fn of_cyrus(backup: &Backup, chunks: &[ChunkRow]) -> Result<Option<i64>> {
    let io = || StoreError::io(backup.path());
    let len = backup.len_file()?;
    for (i, chunk) in chunks.iter().enumerate().rev() {
        let next = chunks.get(i + 1);
        let end = next.map_or(len, |next| next.offset);
        if is_compacted(backup.file(), chunk, end).map_err(io())? {
            let written = backup.file().metadata().map_err(io())?.mtime();
            return Ok(Some(next.map_or(written, |next| next.ts_start)));
        }
    }
    Ok(None)
}

/// Whether the member of a chunk, in front of `end`, was written in one go. `false` also if
/// that cannot be told.
fn is_compacted(file: &dyn Disk, chunk: &ChunkRow, mut end: u64) -> std::io::Result<bool> {
    if chunk.length <= CHUNK_HEADER.len() as u64 {
        return Ok(false);
    }
    for _ in 0..EMPTY_MAX {
        let mut tail = [0; EMPTY_MEMBER.len()];
        let Some(at) = end.checked_sub(tail.len() as u64).filter(|at| *at >= chunk.offset) else {
            return Ok(false);
        };
        if file.read_at(&mut tail, at)? < tail.len() {
            return Ok(false);
        }
        if tail == EMPTY_MEMBER {
            end = at;
            continue;
        }
        let (body, trailer) = tail.split_at(tail.len() - TRAILER);
        // Something else stands in front of `end`: nothing is known of the member.
        let is_its_end = trailer[4..] == (chunk.length as u32).to_le_bytes();
        return Ok(is_its_end && !body.ends_with(&SESSION_END));
    }
    Ok(false)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::lock::Wait;

    fn of_fixture(name: &str) -> History {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let source = format!("tests/fixtures/backups/{name}");
        std::fs::copy(&source, &path).unwrap();
        std::fs::copy(format!("{source}.index"), dir.path().join("data.index")).unwrap();
        let backup = Backup::open(&path, Wait::No).unwrap();
        of(&backup, &Truth::of(&backup).unwrap(), &backup.index().chunks().unwrap()).unwrap()
    }

    #[test]
    fn cyrus_compact_leaves_a_trace_and_sessions_do_not() {
        for name in ["a/alice_EPfRmx", "c/carol_cesxQB", "d/dave@virt.example_sPpR67"] {
            assert_eq!(of_fixture(&format!("main/one/{name}")), History::Complete, "{name}");
        }
        // With members of no content in between.
        assert_eq!(of_fixture("main/one/o/olga_9xYCcC"), History::Complete);
        let compacted = of_fixture("compacted-upstream-3.6.1/one/a/alice_EPfRmx");
        assert!(
            matches!(compacted, History::Since { gone: None, by: By::Cyrus, .. }),
            "{compacted:?}"
        );
    }
}
