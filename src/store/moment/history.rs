//! How far back a log tells everything.
//!
//! A compaction drops lines that later ones have superseded. cyrbk's says so in the log, see
//! [`Compacted`]. Cyrus's says nothing, but leaves a trace: it writes members in one go.

use std::os::unix::fs::MetadataExt;

use super::super::backup::Backup;
use super::super::chunk::is_in_one_go;
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

/// How far back the log of `backup` tells everything. `chunks` are in the order of the file.
pub fn of(backup: &Backup, truth: &Truth<'_>, chunks: &[ChunkRow]) -> Result<History> {
    let ours = truth.index().compacted().map_err(StoreError::index(backup.path()))?;
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
        if is_in_one_go(backup.file(), chunk.offset, chunk.length, end).map_err(io())? {
            let written = backup.file().metadata().map_err(io())?.mtime();
            return Ok(Some(next.map_or(written, |next| next.ts_start)));
        }
    }
    Ok(None)
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
