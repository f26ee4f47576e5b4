//! Puts the new pair in the place of the old one.
//!
//! 1. `<data>.new` and `<data>.index.new` are written; they and their names are synced.
//!    Until the next step the old pair counts; what is left after a crash is removed. So
//!    the order of these syncs means nothing, and the new index has no journal.
//! 2. `<data>.new` is renamed to `<data>`. After a crash here the data file is new and
//!    the index is not: `<data>.index.new` belongs to it.
//! 3. `<data>.index.new` is renamed to `<data>.index`, and the directory synced.
//!
//! [`complete_interrupted`] does step 3 where it is missing. Whether
//! `.index.new` belongs to the data file is not guessed: it remembers the inode number,
//! the length and the SHA-1 of the file it was made for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::CompactError;
use super::write::NewPair;
use crate::lock::{self, Kind, LockError, Wait};
use crate::store::aside;
use crate::store::backup::{index_path, with_suffix};
use crate::store::clock::now;
use crate::store::data_file::{remove_if_there, sync_directory_of};
use crate::store::disk::Disk;
use crate::store::error::{Result, StoreError};
use crate::store::file_hash::FileHash;
use crate::store::index::{Index, Open};

/// Octets that must remain free.
const RESERVE: u64 = 1 << 20;

/// The names of a pair that is being written: what has them goes away with this,
/// unless it was renamed.
pub(super) struct NewNames {
    data: PathBuf,
    index: PathBuf,
    is_armed: bool,
}

impl NewNames {
    /// Takes the names for the backup at `path`, whose lock is held. What an
    /// interrupted compaction has left there is removed.
    pub(super) fn claim(path: &Path) -> Result<NewNames> {
        let data = with_suffix(path, ".new");
        let index = with_suffix(path, ".index.new");
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true);
        match lock::open_locked(&data, &options, Kind::Exclusive, Wait::No) {
            // Gone or stale: nobody is at work on it.
            Ok(_) => {}
            Err(LockError::Io(e)) if e.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::lock(path)(error)),
        }
        remove_all(&data, &index).map_err(StoreError::io(&data))?;
        Ok(NewNames { data, index, is_armed: true })
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn index(&self) -> &Path {
        &self.index
    }

    /// Gives the files with these names the modes of the pair at `path`.
    pub(super) fn take_modes_of(&self, path: &Path) -> Result<()> {
        let io = |path: &Path| StoreError::io(path.to_owned());
        for (from, to) in [(path, &self.data), (&index_path(path), &self.index)] {
            let mode = fs::metadata(from).map_err(io(from))?.permissions();
            fs::set_permissions(to, mode).map_err(io(to))?;
        }
        Ok(())
    }
}

impl Drop for NewNames {
    fn drop(&mut self) {
        if self.is_armed && !is_killed() {
            // Nothing depends on it; the next compaction tries again.
            let _ = remove_all(&self.data, &self.index);
        }
    }
}

fn remove_all(data: &Path, index: &Path) -> io::Result<()> {
    for path in [data, index, &with_suffix(index, "-journal")] {
        remove_if_there(path)?;
    }
    Ok(())
}

/// Refuses to begin if the new pair, with a data file of at most `len_data` octets,
/// might not fit beside the old one.
pub(super) fn check_space(path: &Path, len_data: u64) -> std::result::Result<(), CompactError> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let stat = rustix::fs::statvfs(directory).map_err(|e| StoreError::io(path)(e.into()))?;
    let available = stat.f_bavail.saturating_mul(stat.f_frsize);
    let len_index = fs::metadata(index_path(path)).map_err(StoreError::io(path))?.len();
    let needed = len_data.saturating_add(len_index.saturating_mul(2)).saturating_add(RESERVE);
    if needed > available {
        return Err(CompactError::NoSpace { path: path.to_owned(), needed, available });
    }
    Ok(())
}

/// Puts the new pair, which was synced, in place. With `keep`, a time, the old pair stays beside it
/// as `<data>.<time>` and `<data>.index.<time>`; returns the former.
pub(super) fn replace(
    path: &Path,
    new: NewPair,
    keep: Option<i64>,
) -> std::result::Result<Option<PathBuf>, CompactError> {
    let io = |path: &Path| StoreError::io(path.to_owned());
    // Whoever waits for the old file finds the new one locked until all is done.
    let (_lock, mut names) = new.into_locked();
    let index = index_path(path);
    let previous = keep.map(|now| keep_previous(path, now)).transpose()?;
    if previous.is_some() {
        sync_directory_of(path).map_err(io(path))?;
    }
    fail_point()?;
    fs::rename(&names.data, path).map_err(io(path))?;
    // From here on there is only one way, and it is open to everybody.
    names.is_armed = false;
    fail_point()?;
    adopt_index(path, &names.index).map_err(io(&index))?;
    fail_point()?;
    sync_directory_of(path).map_err(io(path))?;
    Ok(previous)
}

/// Links the old pair to names that nobody has.
fn keep_previous(path: &Path, now: i64) -> Result<PathBuf> {
    let index = index_path(path);
    let mut at = now;
    loop {
        let data_link = with_suffix(path, &format!(".{at}"));
        let index_link = with_suffix(path, &format!(".index.{at}"));
        let is_taken = |e: &io::Error| e.kind() == io::ErrorKind::AlreadyExists;
        match fs::hard_link(path, &data_link) {
            Ok(()) => match fs::hard_link(&index, &index_link) {
                Ok(()) => return Ok(data_link),
                Err(e) => {
                    fs::remove_file(&data_link).map_err(StoreError::io(&data_link))?;
                    if !is_taken(&e) {
                        return Err(StoreError::io(&index_link)(e));
                    }
                }
            },
            Err(e) if is_taken(&e) => {}
            Err(e) => return Err(StoreError::io(&data_link)(e)),
        }
        at += 1;
    }
}

/// Renames `new` to the index of the data file `path`. A journal of the old one must not be
/// played into it.
pub(in crate::store) fn adopt_index(path: &Path, new: &Path) -> io::Result<()> {
    let index = index_path(path);
    remove_if_there(&with_suffix(&index, "-journal"))?;
    fs::rename(new, &index)
}

/// Completes a compaction that was cut short after its first rename, or a reindex in front of its
/// last one, and removes what was left by those that were cut short before. To be called under
/// the lock of `disk`, the data file at `path`, before its index is opened.
pub(in crate::store) fn complete_interrupted(path: &Path, disk: &dyn Disk) -> Result<()> {
    let new = with_suffix(path, ".index.new");
    if !fs::exists(&new).map_err(StoreError::io(&new))? {
        return Ok(());
    }
    if belongs_to(&new, disk).map_err(StoreError::io(path))? {
        tracing::warn!(file = %path.display(), "an index that was just made takes its place");
        keep_what_may_know_more(path, disk)
            .and_then(|()| adopt_index(path, &new))
            .and_then(|()| sync_directory_of(path))
            .map_err(StoreError::io(&new))?;
    }
    drop(NewNames::claim(path)?);
    Ok(())
}

/// A reindex that was cut short may have found damage: of what cannot be read the old index alone
/// knows. That of a compaction speaks of the data file that was there before.
fn keep_what_may_know_more(path: &Path, disk: &dyn Disk) -> io::Result<()> {
    let state = Index::open(&index_path(path), Open::Read).and_then(|index| index.state());
    if let Ok(Some(state)) = state
        && state.inode != disk.inode()?
    {
        return Ok(());
    }
    match aside::put_index_aside(path, now()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whether the index at `path` was made for just this data file.
fn belongs_to(path: &Path, disk: &dyn Disk) -> io::Result<bool> {
    if fs::exists(with_suffix(path, "-journal"))? {
        return Ok(false);
    }
    let state = Index::open(path, Open::Read).and_then(|index| index.state());
    let Ok(Some(state)) = state else { return Ok(false) };
    if (state.len_file, state.inode) != (disk.len_file()?, disk.inode()?) {
        return Ok(false);
    }
    let mut hash = FileHash::default();
    hash.update_from(disk, state.checkpoint.hashed)?;
    Ok(hash.checkpoint() == state.checkpoint)
}

/// A place at which tests let the process die.
#[cfg(not(test))]
pub(super) fn fail_point() -> Result<()> {
    Ok(())
}

#[cfg(not(test))]
fn is_killed() -> bool {
    false
}

#[cfg(test)]
use deaths::is_killed;
#[cfg(test)]
pub(super) use deaths::{die_at, fail_point};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_noticed_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        fs::write(index_path(&path), "1234").unwrap();
        check_space(&path, 0).unwrap();
        let error = check_space(&path, u64::MAX / 2).unwrap_err();
        assert!(matches!(error, CompactError::NoSpace { .. }), "{error}");
    }

    #[test]
    fn somebody_elses_work_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let new = with_suffix(&path, ".new");
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let held = lock::open_locked(&new, &options, Kind::Exclusive, Wait::No).unwrap();
        assert!(matches!(NewNames::claim(&path), Err(StoreError::Locked(_))));
        assert!(new.exists());
        drop(held);
        NewNames::claim(&path).unwrap();
        assert!(!new.exists());
    }
}

#[cfg(test)]
mod deaths {
    use std::cell::Cell;

    use super::{Result, StoreError};

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
        static KILLED: Cell<bool> = const { Cell::new(false) };
    }

    /// The process dies at the n-th place from now on, counted from 0; `None`: never.
    pub(in super::super) fn die_at(place: Option<u32>) {
        LEFT.set(place);
        KILLED.set(false);
    }

    pub(super) fn is_killed() -> bool {
        KILLED.get()
    }

    pub(in super::super) fn fail_point() -> Result<()> {
        match LEFT.get() {
            Some(0) => {
                KILLED.set(true);
                Err(StoreError::Poisoned("killed".into()))
            }
            left => {
                LEFT.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}
