//! The exact state of a mailbox, also where only Cyrus has written the index.
//!
//! Cyrus's tables cannot say everything (see [`super::index`]); cyrbk's own tables say
//! the rest, as far as cyrbk has written. A backup that Cyrus has written to since is
//! read again from its data, and a copy of its index completed, which is thrown away: it says
//! what the backup's own will say once a server has opened it. So what Cyrus's tables have is there
//! whatever has become of the lines that they have it from.

use super::backup::Backup;
use super::error::{Result, StoreError};
use super::index::{Index, RecordRow};
use super::replay;
pub use super::replay::Damage;

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
    damages: Vec<Damage>,
}

impl<'b> Truth<'b> {
    /// Of all mailboxes of a backup.
    ///
    /// Errors: those of reading the index or the data file; damage is no error, see
    /// [`Truth::damages`].
    pub fn of(backup: &'b Backup) -> Result<Truth<'b>> {
        let (index, path) = (backup.index(), backup.path());
        if index.knows_truth().map_err(StoreError::index(path))? {
            return Ok(Truth { backup, whole: None, damages: Vec::new() });
        }
        let (replayed, damages) = replay::again(backup.file(), path, index, backup.len_file()?)?;
        let whole = index.with_truth_from(&replayed).map_err(StoreError::index(path))?;
        if !damages.is_empty() {
            whole.reconcile_damaged(&replayed).map_err(StoreError::index(path))?;
        }
        Ok(Truth { backup, whole: Some(whole), damages })
    }

    /// What it is about, and where the messages are.
    pub fn backup(&self) -> &'b Backup {
        self.backup
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
        let found = match self.index().mailbox_with_uniqueid(uniqueid) {
            Ok(Some(mailbox)) => records(self.index(), mailbox.id),
            Ok(None) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        found.map_err(StoreError::index(self.backup.path()))
    }

    /// An index that says everything.
    pub fn index(&self) -> &Index {
        self.whole.as_ref().unwrap_or(self.backup.index())
    }

    /// What could not be read of the data, and may have said more. Nothing, if the index says
    /// everything without them.
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::lock::Wait;
    use crate::store::message::MessageError;
    use crate::store::{Writer, export};

    const ALICE: &str = "one/a/alice_EPfRmx";
    /// Has mailboxes with several UIDs of one message.
    const CAROL: &str = "one/c/carol_cesxQB";

    /// A copy of a backup that only Cyrus has written.
    fn fixture(name: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let source = format!("tests/fixtures/backups/main/{name}");
        let path = dir.path().join("data");
        std::fs::copy(&source, &path).unwrap();
        std::fs::copy(format!("{source}.index"), dir.path().join("data.index")).unwrap();
        (dir, path)
    }

    fn all_records(truth: &Truth<'_>) -> Vec<Vec<RecordRow>> {
        let mailboxes = truth.index().mailboxes().unwrap();
        mailboxes.iter().map(|mailbox| truth.records(&mailbox.uniqueid).unwrap()).collect()
    }

    /// Mailboxes with several UIDs of one message, and one that came back.
    #[test]
    fn the_same_whoever_wrote_the_index() {
        for name in [ALICE, CAROL] {
            let (_dir, path) = fixture(name);
            let read = || {
                let backup = Backup::open(&path, Wait::No).unwrap();
                let truth = Truth::of(&backup).unwrap();
                assert_eq!(truth.damages(), []);
                let records = all_records(&truth).into_iter().flatten();
                let records = records.map(|r| (r.uid, r.guid, r.expunged, r.flags));
                (backup.index().knows_truth().unwrap(), records.collect::<Vec<_>>())
            };
            let (known, from_data) = read();
            assert!(!known);
            drop(Writer::open(&path, 1_800_000_000).unwrap());
            let (known, from_index) = read();
            assert!(known);
            assert_eq!(from_data, from_index, "{name}");
        }
    }

    fn flip(path: &Path, at: usize) {
        let mut octets = std::fs::read(path).unwrap();
        octets[at] ^= 0x10;
        std::fs::write(path, octets).unwrap();
    }

    /// The records stand in lines by themselves: damage of these costs no message, and Cyrus's
    /// tables know what they said. What lives has not gone because of it.
    #[test]
    fn damage_hides_nothing_that_the_index_knows() {
        let mut told = 0;
        for name in [ALICE, CAROL] {
            let (_dir, path) = fixture(name);
            let backup = Backup::open(&path, Wait::No).unwrap();
            let sound = all_records(&Truth::of(&backup).unwrap());
            let chunks = backup.index().chunks().unwrap();
            let len = backup.len_file().unwrap();
            drop(backup);
            for (i, chunk) in chunks.iter().enumerate().filter(|(_, chunk)| chunk.length > 1000) {
                let end = chunks.get(i + 1).map_or(len, |next| next.offset);
                for part in 1..10 {
                    let (_dir, path) = fixture(name);
                    flip(&path, (chunk.offset + (end - chunk.offset) * part / 10) as usize);
                    let backup = Backup::open(&path, Wait::No).unwrap();
                    let truth = Truth::of(&backup).unwrap();
                    // Some bits mean nothing.
                    let mut found = truth.damages().iter();
                    assert!(found.all(|damage| damage.chunk_id == chunk.id), "{part}");
                    told += truth.damages().len();
                    let records = all_records(&truth);
                    assert_eq!(records.len(), sound.len(), "{part} of {} of {name}", chunk.id);
                    for (found, sound) in records.iter().zip(&sound) {
                        let lacks = |row: &&RecordRow| {
                            // That it came back Cyrus's tables do not know.
                            let may_be_gone = row.expunged.is_some() || name == CAROL;
                            let is_it = |found: &&RecordRow| {
                                found.guid == row.guid && (found.expunged.is_none() || may_be_gone)
                            };
                            !found.iter().any(|found| is_it(&found))
                        };
                        let lost = sound.iter().find(lacks);
                        assert_eq!(lost, None, "{part} of {} of {name}", chunk.id);
                    }
                }
            }
        }
        assert!(told > 70, "{told}");
    }

    /// Cyrus's index has no places at which reading can begin.
    #[test]
    fn messages_behind_damage_can_be_had() {
        let (dir, path) = fixture(ALICE);
        let first = Backup::open(&path, Wait::No).unwrap().index().chunks().unwrap();
        let mut octets = std::fs::read(&path).unwrap();
        let half = (first[1].offset / 2) as usize;
        octets[half..half + 64].fill(0xff);
        std::fs::write(&path, octets).unwrap();
        let backup = Backup::open(&path, Wait::No).unwrap();
        let rows = backup.index().messages().unwrap();
        let mut places = Vec::new();
        let row = |guid| rows.iter().find(|row| row.guid == Some(guid)).unwrap();
        let guids = rows.iter().filter(|row| row.chunk_id == 1).filter_map(|row| row.guid);
        let failed = export::messages(&backup, guids, dir.path(), &mut |guid, _| {
            places.push(row(*guid).offset);
            Ok(())
        });
        let lost = failed.unwrap().into_iter().filter_map(|error| match error {
            MessageError::Absent { offset, .. } => Some(offset),
            _ => None,
        });
        let lost = lost.max().unwrap();
        assert!(places.iter().any(|place| *place > lost), "{lost} {places:?}");
    }

    /// A server of Cyrus's died, and nobody has entered its last lines.
    #[test]
    fn lines_that_the_index_does_not_know_are_told() {
        let (dir, path) = fixture(ALICE);
        let index = rusqlite::Connection::open(dir.path().join("data.index")).unwrap();
        let cut = "PRAGMA foreign_keys = OFF; DELETE FROM chunk WHERE id > 4";
        index.execute_batch(cut).unwrap();
        let backup = Backup::open(&path, Wait::No).unwrap();
        let truth = Truth::of(&backup).unwrap();
        let [damage] = truth.damages() else { panic!("{:?}", truth.damages()) };
        assert_eq!(damage.chunk_id, 4);
        assert!(damage.what.starts_with("lines behind it that the index does not know: "));
    }

    #[test]
    fn a_file_that_ends_too_early_costs_what_is_gone() {
        let (_dir, path) = fixture(ALICE);
        let chunks = Backup::open(&path, Wait::No).unwrap().index().chunks().unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(chunks[2].offset + 100).unwrap();
        let backup = Backup::open(&path, Wait::No).unwrap();
        let truth = Truth::of(&backup).unwrap();
        let found: Vec<i64> = truth.damages().iter().map(|damage| damage.chunk_id).collect();
        assert_eq!(found, chunks[2..].iter().map(|chunk| chunk.id).collect::<Vec<_>>());
        assert!(all_records(&truth).iter().any(|records| !records.is_empty()));
    }
}
