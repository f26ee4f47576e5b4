//! One backup opened for reading: data file, index and lock held together.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::clock::now;
use super::compact::complete_interrupted;
use super::data_file;
use super::error::{Result, StoreError};
use super::index::{Index, IndexError, Open, State};
use super::recover;
use crate::lock::{self, Kind, Wait};

/// An open backup. The lock is held until it is dropped.
pub struct Backup {
    path: PathBuf,
    file: File,
    index: Index,
    /// Nobody else has it open.
    is_exclusive: bool,
    /// Where it ends, if only its beginning is looked at.
    end: Option<u64>,
}

/// The index of the backup at `path`.
pub fn index_path(path: &Path) -> PathBuf {
    with_suffix(path, ".index")
}

/// `path` with something appended to its last component.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn is_empty(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.len() == 0)
}

impl Backup {
    /// Opens the backup at `path` for reading, under its exclusive lock.
    ///
    /// A reader sees what was acknowledged: lines of cyrbk that a crash has left
    /// beyond the index are taken in first, as when the server opens the backup. If that
    /// cannot be done, a warning is logged and the index is read as it is. A backup that only
    /// Cyrus has written is never touched. On a read-only file system the lock is a shared one.
    ///
    /// Errors: [`StoreError::Missing`], [`StoreError::Locked`] (only with
    /// [`Wait::No`]), [`StoreError::NoIndex`] if there are data but no index or an
    /// empty one, [`StoreError::Index`].
    pub fn open(path: &Path, wait: Wait) -> Result<Backup> {
        let (file, is_exclusive) =
            data_file::open_to_read(path, wait).map_err(StoreError::lock(path))?;
        let len = file.metadata().map_err(StoreError::io(path))?.len();
        if let Err(error) = complete_interrupted(path, &file) {
            tracing::warn!("{error}: cannot complete an interrupted compaction");
        }
        let index_file = index_path(path);
        let mode = match std::fs::metadata(&index_file) {
            Ok(meta) if meta.len() > 0 => Open::Read,
            _ if len > 0 => return Err(StoreError::NoIndex(path.to_owned())),
            // A user who was seen but never sent anything.
            _ => Open::Create,
        };
        let (mut index, is_new) = match Index::open(&index_file, mode) {
            // Whoever was about to make it died, and its journal has just been played back.
            Err(IndexError::Unusable { .. }) if is_empty(&index_file) => {
                (Index::open(&index_file, Open::Create).map_err(StoreError::index(path))?, true)
            }
            index => (index.map_err(StoreError::index(path))?, false),
        };
        if let Err(error) = recover::take_in_for_reader(&file, path, &index, now()) {
            if is_new {
                return Err(error);
            }
            tracing::warn!("{error}: data beyond the index are not shown");
            // It is in the middle of a transaction.
            drop(index);
            index = Index::open(&index_file, mode).map_err(StoreError::index(path))?;
        }
        Ok(Backup { path: path.to_owned(), file, index, is_exclusive, end: None })
    }

    /// Opens the backup at `path` for reading, under a shared lock: others may read it
    /// meanwhile, nobody may write, and nothing is written here.
    ///
    /// Only if a crash has left something to be set right in it, it is first opened as by
    /// [`Backup::open`], which does so.
    pub fn open_shared(path: &Path, wait: Wait) -> Result<Backup> {
        match Backup::open_as_it_is(path, wait)? {
            Some(backup) => Ok(backup),
            None => {
                drop(Backup::open(path, wait)?);
                let backup = Backup::open_as_it_is(path, wait)?;
                // What could not be set right has been logged: the index is read as it is.
                backup.map_or_else(|| Backup::open(path, wait), Ok)
            }
        }
    }

    /// `None` if there is something to be set right, or no index.
    fn open_as_it_is(path: &Path, wait: Wait) -> Result<Option<Backup>> {
        let file = data_file::open_shared(path, wait).map_err(StoreError::lock(path))?;
        let index_file = index_path(path);
        let is_there = std::fs::metadata(&index_file).is_ok_and(|meta| meta.len() > 0);
        let has_beside = |suffix| with_suffix(&index_file, suffix).exists();
        if !is_there || has_beside("-journal") || has_beside(".new") {
            return Ok(None);
        }
        let index = Index::open(&index_file, Open::Read).map_err(StoreError::index(path))?;
        if recover::is_behind(&file, path, &index)? {
            return Ok(None);
        }
        Ok(Some(Backup { path: path.to_owned(), file, index, is_exclusive: false, end: None }))
    }

    /// Makes a new, empty backup at `path`, under its lock. Errors: that of
    /// [`std::io::ErrorKind::AlreadyExists`] if there is such a file.
    pub fn create(path: &Path) -> Result<Backup> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create_new(true).mode(0o600);
        let file = lock::open_locked(path, &options, Kind::Exclusive, Wait::No)
            .map_err(StoreError::lock(path))?;
        let index =
            Index::open(&index_path(path), Open::Create).map_err(StoreError::index(path))?;
        Ok(Backup { path: path.to_owned(), file, index, is_exclusive: true, end: None })
    }

    /// The data file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The data file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The same backup with another index, which knows the data in front of `end` only; see
    /// [`super::moment`].
    pub(super) fn looked_at_until(self, index: Index, end: u64) -> Backup {
        Backup { index, end: Some(end), ..self }
    }

    /// Whether only the beginning of the data is looked at, see [`super::moment`]: the
    /// last chunk may then go on behind what its row says.
    pub fn is_partial(&self) -> bool {
        self.end.is_some()
    }

    /// Whether nobody has changed the data file since all of it was hashed, when it was
    /// written or by [`Backup::trust`].
    pub(super) fn is_trusted(&self) -> Result<bool> {
        let state = self.index.state().map_err(StoreError::index(&self.path))?;
        let trusted = state.filter(|_| self.end.is_none());
        let trusted = trusted.map_or(Ok(false), |state| state.vouches_for(&self.file));
        trusted.map_err(StoreError::io(&self.path))
    }

    /// Notes in an index of cyrbk's that the data file, all of which has been hashed, was what
    /// it should be when it was last changed at `modified`. Only an attempt: without it, the
    /// next one hashes it again.
    pub(super) fn trust(&self, modified: Option<i64>) {
        if !self.is_exclusive || self.end.is_some() {
            return;
        }
        let noted = (|| {
            let state = self.index.state().map_err(StoreError::index(&self.path))?;
            let Some(state) = state else { return Ok(()) };
            let state = State { modified, ..state };
            if state.vouches_for(&self.file).map_err(StoreError::io(&self.path))? {
                self.index.note_modified(modified).map_err(StoreError::index(&self.path))?;
            }
            Ok::<(), StoreError>(())
        })();
        if let Err(error) = noted {
            tracing::debug!("{error}: the file is hashed again next time");
        }
    }

    /// Octets of the data file.
    pub fn len_file(&self) -> Result<u64> {
        if let Some(end) = self.end {
            return Ok(end);
        }
        Ok(self.file.metadata().map_err(StoreError::io(&self.path))?.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_and_writers_wait() {
        let dir = tempfile::tempdir().unwrap();
        let source = "tests/fixtures/backups/main/two/b/bob_5xHD5K";
        let path = dir.path().join("data");
        std::fs::copy(source, &path).unwrap();
        std::fs::copy(format!("{source}.index"), index_path(&path)).unwrap();
        let content = || (std::fs::read(&path).unwrap(), std::fs::read(index_path(&path)).unwrap());
        let before = content();
        let one = Backup::open_shared(&path, Wait::No).unwrap();
        let other = Backup::open_shared(&path, Wait::No).unwrap();
        let mailboxes = |backup: &Backup| backup.index().mailboxes().unwrap();
        assert_eq!(mailboxes(&one), mailboxes(&other));
        assert!(matches!(Backup::open(&path, Wait::No), Err(StoreError::Locked(_))));
        drop((one, other));
        assert_eq!(content(), before);
        let _writer = Backup::open(&path, Wait::No).unwrap();
        assert!(matches!(Backup::open_shared(&path, Wait::No), Err(StoreError::Locked(_))));
    }

    #[test]
    fn without_an_index_nothing_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        assert!(matches!(Backup::open_shared(&path, Wait::No), Err(StoreError::Missing(_))));
        std::fs::write(&path, "x").unwrap();
        assert!(matches!(Backup::open_shared(&path, Wait::No), Err(StoreError::NoIndex(_))));
    }

    /// A database in the middle of its first transaction, and its journal.
    fn leave_half_an_index(index: &Path) {
        let at_work = with_suffix(index, ".other");
        let db = rusqlite::Connection::open(&at_work).unwrap();
        db.execute_batch(
            "PRAGMA cache_size = 1; BEGIN; CREATE TABLE t (x);
             INSERT INTO t VALUES (zeroblob(99999))",
        )
        .unwrap();
        std::fs::copy(with_suffix(&at_work, "-journal"), with_suffix(index, "-journal")).unwrap();
        std::fs::copy(&at_work, index).unwrap();
        drop(db);
        std::fs::remove_file(&at_work).unwrap();
    }

    /// A server may die while it makes an index: of a new backup, or once more.
    #[test]
    fn an_index_that_was_about_to_be_made_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let data = std::fs::read("tests/fixtures/backups/main/two/b/bob_5xHD5K").unwrap();
        for open in [Backup::open, Backup::open_shared] {
            for data in [&[][..], &data] {
                std::fs::write(&path, data).unwrap();
                leave_half_an_index(&index_path(&path));
                let backup = open(&path, Wait::No).unwrap();
                assert_eq!(backup.index().mailboxes().unwrap().is_empty(), data.is_empty());
                assert!(!recover::is_behind(backup.file(), &path, backup.index()).unwrap());
                drop(backup);
                std::fs::remove_file(index_path(&path)).unwrap();
            }
        }
        // That nothing is left of it is another matter: whose it was is not known.
        std::fs::write(index_path(&path), "").unwrap();
        assert!(matches!(Backup::open(&path, Wait::No), Err(StoreError::NoIndex(_))));
    }
}
