//! The exact state of a mailbox, also where only Cyrus has written the index.
//!
//! Cyrus's tables cannot say everything (see [`super::index`]); cyrbk's own tables say
//! the rest, as far as cyrbk has written. A backup that Cyrus has written to since is
//! read again from its data, into an index of its own that is thrown away.

use super::backup::Backup;
use super::error::{Result, StoreError};
use super::index::{Index, Position, RecordRow};
use super::log::{LogLine, LogReader, NoBodies};
use super::salvage::{self, Salvage, SavedLines};
use crate::wire::apply::Apply;

/// The messages of a mailbox, expunged ones and such as were displaced included, see
/// [`Index::all_records`]. For several mailboxes see [`Truth`].
pub fn all_records(backup: &Backup, uniqueid: &[u8]) -> Result<Vec<RecordRow>> {
    Truth::of(backup)?.all_records(uniqueid)
}

/// What is known after all lines, whoever has written the index. Where Cyrus has, the data are
/// read once, when this is made.
pub struct Truth<'b> {
    backup: &'b Backup,
    /// Unless the backup's own says it.
    whole: Option<Index>,
}

impl<'b> Truth<'b> {
    /// Of all mailboxes of a backup.
    pub fn of(backup: &'b Backup) -> Result<Truth<'b>> {
        Ok(Truth { backup, whole: whole_index(backup)? })
    }

    /// The messages of a mailbox as the master has them, see [`Index::true_records`].
    pub fn records(&self, uniqueid: &[u8]) -> Result<Vec<RecordRow>> {
        self.of_mailbox(uniqueid, Index::true_records)
    }

    /// Those that were displaced, see [`Index::gone_records`].
    pub fn gone_records(&self, uniqueid: &[u8]) -> Result<Vec<RecordRow>> {
        self.of_mailbox(uniqueid, Index::gone_records)
    }

    /// As [`all_records`].
    pub fn all_records(&self, uniqueid: &[u8]) -> Result<Vec<RecordRow>> {
        self.of_mailbox(uniqueid, Index::all_records)
    }

    fn of_mailbox(
        &self,
        uniqueid: &[u8],
        records: impl FnOnce(&Index, i64) -> super::index::Result<Vec<RecordRow>>,
    ) -> Result<Vec<RecordRow>> {
        self.ask(|index| match index.mailbox_with_uniqueid(uniqueid)? {
            Some(mailbox) => records(index, mailbox.id),
            None => Ok(Vec::new()),
        })
    }

    /// Asks an index that says everything.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&Index) -> super::index::Result<T>) -> Result<T> {
        let index = self.whole.as_ref().unwrap_or(self.backup.index());
        ask(index).map_err(StoreError::index(self.backup.path()))
    }
}

/// An index that says everything about the backup: `None` if its own does, else one that is
/// made from its data and thrown away.
pub fn whole_index(backup: &Backup) -> Result<Option<Index>> {
    match backup.index().knows_truth() {
        Ok(true) => Ok(None),
        Ok(false) => replay(backup).map(Some),
        Err(error) => Err(StoreError::index(backup.path())(error)),
    }
}

/// A new index of all lines that the backup's index knows and that can be read.
fn replay(backup: &Backup) -> Result<Index> {
    let fault = || StoreError::index(backup.path());
    let chunks = backup.index().chunks().map_err(fault())?;
    let scratch = Index::scratch().map_err(fault())?;
    scratch.begin().map_err(fault())?;
    for (i, chunk) in chunks.iter().enumerate() {
        let id =
            scratch.start_chunk(chunk.ts_start, chunk.offset, &chunk.file_sha1).map_err(fault())?;
        let enter = |line: &LogLine| {
            let Ok((name, value)) = line.item() else { return Ok(()) };
            let Ok(apply) = Apply::read(&name, &value) else { return Ok(()) };
            let at = Position { chunk_id: id, ts: line.ts, offset: line.offset };
            scratch.apply(at, &apply).map_err(fault())
        };
        let Ok(mut reader) = LogReader::open(backup.file(), chunk.offset) else { continue };
        let mut next = 0;
        let is_whole = loop {
            match reader.next_line(&mut NoBodies) {
                Ok(Some(line)) => enter(&line)?,
                end => break end.is_ok(),
            }
            next = reader.offset_plain();
        };
        if !is_whole {
            let behind = chunks.get(i + 1).map(|chunk| chunk.offset);
            let end = salvage::limit(chunk.offset, behind);
            let (file, len) = (backup.file(), backup.len_file()?.min(end));
            let salvage = Salvage::of_member(file, chunk.offset, len, &[]);
            let salvage = salvage.map_err(StoreError::io(backup.path()))?;
            let mut lines = SavedLines::new(file, &salvage);
            while let Ok(Some(line)) = lines.next_line(&mut NoBodies) {
                if line.offset >= next {
                    enter(&line)?;
                }
            }
        }
    }
    Ok(scratch)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::lock::Wait;
    use crate::store::Writer;

    /// Mailboxes with several UIDs of one message, and one that came back.
    #[test]
    fn the_same_whoever_wrote_the_index() {
        for name in ["one/a/alice_EPfRmx", "one/c/carol_cesxQB"] {
            let dir = tempfile::tempdir().unwrap();
            let source = format!("tests/fixtures/backups/main/{name}");
            let path = dir.path().join("data");
            std::fs::copy(&source, &path).unwrap();
            std::fs::copy(format!("{source}.index"), dir.path().join("data.index")).unwrap();
            let read = || {
                let backup = Backup::open(&path, Wait::No).unwrap();
                let mailboxes = backup.index().mailboxes().unwrap();
                let records = mailboxes.iter().map(|mailbox| {
                    let records = all_records(&backup, &mailbox.uniqueid).unwrap();
                    records.into_iter().map(|r| (r.uid, r.guid, r.expunged, r.flags))
                });
                (backup.index().knows_truth().unwrap(), records.flatten().collect::<Vec<_>>())
            };
            let (known, from_data) = read();
            assert!(!known);
            drop(Writer::open(&path, 1_800_000_000).unwrap());
            let (known, from_index) = read();
            assert!(known);
            assert_eq!(from_data, from_index, "{name}");
        }
    }
}
