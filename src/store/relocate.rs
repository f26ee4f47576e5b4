//! Moving a backup to another partition while the server runs.
//!
//! ```text
//! lock old -> copy to <new>.moving, sync -> read back and compare -> <new>
//!          -> catalog: new -> symbolic links old -> new take the old files' place
//! ```
//!
//! The old file's lock is held all the time: no session writes to it. Up to the change
//! of the catalog the old copy is the backup and nothing has happened to it; from then
//! on the new one is. A run that was cut short is completed by the next one. The links
//! are for whoever looked up the old path before the change and opens it after:
//! without them a session would begin a new, empty file there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};

use super::backup::{Backup, index_path, with_suffix};
use super::catalog::{Catalog, CatalogError, Change};
use super::data_file::{remove_if_there, sync_directory_of};
use super::error::StoreError;
use super::placement::{create_dirs, hash_letter};
use crate::lock::Wait;

/// Ending of a copy that is not complete.
const MOVING: &str = ".moving";
/// Ending of a link that is about to take a file's place.
const FORWARD: &str = ".forward";
const BUFFER: usize = 256 * 1024;

/// Why a backup was not moved. Unless it says otherwise the old copy is the backup,
/// and untouched.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// There is no such user.
    #[error("not found in backups.db")]
    Unknown,
    /// The backup cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalog cannot be read or changed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Something else is in the place where it should go.
    #[error("{0}: in the way, and no earlier copy of this backup")]
    InTheWay(PathBuf),
    /// What was read back is not what was written.
    #[error("{0}: the copy is not equal to the original")]
    Differs(PathBuf),
    /// Meanwhile the catalog has another path for the user.
    #[error("the backup was moved by somebody else meanwhile")]
    Overtaken,
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Result of moving.
pub type Result<T> = std::result::Result<T, MoveError>;

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> MoveError {
    let path = path.to_owned();
    move |source| MoveError::Io { path, source }
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Move<'m> {
    /// Whose backup.
    pub userid: &'m [u8],
    /// The partition's directory, absolute.
    pub partition: &'m Path,
    /// All partitions: where an interrupted run may have left an old copy.
    pub partitions: &'m [PathBuf],
    /// `fulldirhash`
    pub fulldirhash: bool,
    /// `umask`, for directories.
    pub umask: u32,
}

/// What was, or would be, done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It was there already. Old copies that an interrupted run had left are gone.
    Already {
        /// The data file.
        path: PathBuf,
        /// What was removed.
        removed: Vec<PathBuf>,
    },
    /// It is there now.
    Done {
        /// Where it was.
        from: PathBuf,
        /// Where it is.
        to: PathBuf,
    },
}

/// Where a backup is and where it would go; equal if it is there already.
pub fn destination(catalog: &Catalog, wanted: &Move<'_>) -> Result<(PathBuf, PathBuf)> {
    let from = catalog.lookup(wanted.userid)?.ok_or(MoveError::Unknown)?;
    let name = from.file_name().ok_or_else(|| MoveError::InTheWay(from.clone()))?;
    if from.starts_with(wanted.partition) {
        return Ok((from.clone(), from));
    }
    let letter = hash_letter(wanted.userid, wanted.fulldirhash).to_string();
    let to = wanted.partition.join(letter).join(name);
    Ok((from, to))
}

/// Moves a backup. On return it is durable where it is said to be.
pub fn run(catalog: &Catalog, wanted: &Move<'_>, wait: Wait) -> Result<Moved> {
    let (from, to) = destination(catalog, wanted)?;
    if from == to {
        let backup = Backup::open(&to, wait)?;
        let removed = remove_old_copies(&backup, wanted)?;
        return Ok(Moved::Already { path: to, removed });
    }
    // Opening rolls back what an interrupted transaction left in the index.
    let backup = Backup::open(&from, wait)?;
    if catalog.lookup(wanted.userid)?.as_deref() != Some(&*from) {
        return Err(MoveError::Overtaken);
    }
    let directory = to.parent().unwrap_or(wanted.partition);
    create_dirs(directory, wanted.umask).map_err(io_at(directory))?;
    make_way(&backup, &to)?;
    copy(&from, &to)?;
    let change =
        Change { userid: wanted.userid.to_vec(), from: Some(from.clone()), to: Some(to.clone()) };
    if !catalog.change_all(&[change])?.is_empty() {
        return Err(MoveError::Overtaken);
    }
    forward(&from, &to)?;
    drop(backup);
    Ok(Moved::Done { from, to })
}

/// Removes what an interrupted run has left at the destination. Only that: nothing
/// whose octets are not all in the backup too.
fn make_way(backup: &Backup, to: &Path) -> Result<()> {
    match fs::symlink_metadata(to) {
        Ok(meta) if meta.is_file() && is_prefix(to, backup.file())? => {
            remove(&index_path(to))?;
            remove(to)
        }
        // From an earlier move in the other direction. The copy takes its place at once:
        // whoever comes meanwhile finds the locked file, and not nothing.
        Ok(meta) if meta.is_symlink() && leads_to(to, backup.path()) => Ok(()),
        Ok(_) => Err(MoveError::InTheWay(to.to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => remove(&index_path(to)),
        Err(e) => Err(io_at(to)(e)),
    }
}

fn leads_to(link: &Path, target: &Path) -> bool {
    fs::canonicalize(link).is_ok_and(|found| fs::canonicalize(target).is_ok_and(|t| t == found))
}

/// Data and index, under their final names and durable when this returns.
fn copy(from: &Path, to: &Path) -> Result<()> {
    copy_file(&index_path(from), &index_path(to))?;
    copy_file(from, to)?;
    sync_directory_of(to).map_err(io_at(to))
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let source = File::open(from).map_err(io_at(from))?;
    let moving = with_suffix(to, MOVING);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    let target = options.open(&moving).map_err(io_at(&moving))?;
    let written = transfer(source, &target).map_err(io_at(&moving))?;
    target.sync_all().map_err(io_at(&moving))?;
    let read = digest(File::open(&moving).map_err(io_at(&moving))?).map_err(io_at(&moving))?;
    if read != written {
        remove(&moving)?;
        return Err(MoveError::Differs(moving));
    }
    fs::rename(&moving, to).map_err(io_at(to))
}

/// SHA-1 of what was copied.
fn transfer(mut from: File, mut to: &File) -> io::Result<[u8; 20]> {
    let mut sha1 = Sha1::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(sha1.finalize().into()),
            len => {
                sha1.update(&buffer[..len]);
                io::Write::write_all(&mut to, &buffer[..len])?;
            }
        }
    }
}

fn digest(mut file: File) -> io::Result<[u8; 20]> {
    let mut sha1 = Sha1::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(sha1.finalize().into()),
            len => sha1.update(&buffer[..len]),
        }
    }
}

/// Puts links in the place of the old files, which thereby are gone. The index's goes
/// first: whoever still finds the old data file finds it locked.
fn forward(from: &Path, to: &Path) -> Result<()> {
    for (from, to) in [(index_path(from), index_path(to)), (from.into(), to.into())] {
        let link = with_suffix(&from, FORWARD);
        remove(&link)?;
        symlink(&to, &link).map_err(io_at(&link))?;
        fs::rename(&link, &from).map_err(io_at(&from))?;
    }
    sync_directory_of(from).map_err(io_at(from))
}

/// Old copies of a backup that is where it should be: files of its name in other
/// partitions, all of whose octets it has too.
fn remove_old_copies(backup: &Backup, wanted: &Move<'_>) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    let Some(name) = backup.path().file_name() else { return Ok(removed) };
    let letter = hash_letter(wanted.userid, wanted.fulldirhash).to_string();
    for partition in wanted.partitions.iter().filter(|dir| *dir != wanted.partition) {
        let old = partition.join(&letter).join(name);
        let is_file = fs::symlink_metadata(&old).is_ok_and(|meta| meta.is_file());
        if is_file && is_prefix(&old, backup.file())? {
            forward(&old, backup.path())?;
            removed.push(old);
        }
    }
    Ok(removed)
}

/// Whether all octets of the file at `path` are the first ones of `file`.
fn is_prefix(path: &Path, file: &File) -> Result<bool> {
    let compare = || {
        let mut part = File::open(path)?;
        let (mut at, mut buffer) = (0, vec![0; BUFFER]);
        let mut other = vec![0; BUFFER];
        loop {
            let len = part.read(&mut buffer)?;
            if len == 0 {
                return Ok(true);
            }
            let other = &mut other[..len];
            match std::os::unix::fs::FileExt::read_exact_at(file, other, at) {
                Ok(()) if other == &buffer[..len] => at += len as u64,
                Ok(()) => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                Err(e) => return Err(e),
            }
        }
    };
    compare().map_err(io_at(path))
}

fn remove(path: &Path) -> Result<()> {
    remove_if_there(path).map_err(io_at(path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
