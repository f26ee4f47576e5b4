//! The data file of one backup: locked, append-only, hashed as it grows.
//!
//! The only place that appends to a data file. After an error nothing more is
//! written or synced through it: what reached the disk is then unknown, and is
//! found out at the next open.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::file_hash::FileHash;
use crate::lock::{self, Kind, LockError, Wait};

/// Octets gathered before they are handed to the kernel in mid-line.
const PENDING_MAX: usize = 256 * 1024;

/// An open data file.
pub(super) struct DataFile {
    disk: Box<dyn Disk>,
    path: PathBuf,
    /// Of everything up to the end of `pending`.
    hash: FileHash,
    /// Belongs at the end of what was handed to the kernel.
    pending: Vec<u8>,
    /// Everything up to here is whole lines that were acknowledged, or stood here
    /// before.
    acknowledged: u64,
    failed: bool,
}

/// Opens and locks a data file, exclusively as everybody does, also for reading.
pub(super) fn open(path: &Path, create: bool, wait: Wait) -> Result<File, LockError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false).mode(0o600);
    lock::open_locked(path, &options, Kind::Exclusive, wait)
}

/// [`open`] for a reader. On a read-only file system, where nobody can write, the lock is
/// a shared one. Whether it is exclusive is told.
pub(super) fn open_to_read(path: &Path, wait: Wait) -> Result<(File, bool), LockError> {
    match open(path, false, wait) {
        Err(LockError::Io(e)) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            Ok((open_shared(path, wait)?, false))
        }
        opened => Ok((opened?, true)),
    }
}

/// Opens a data file that nobody writes while it is open, under a shared lock.
pub(super) fn open_shared(path: &Path, wait: Wait) -> Result<File, LockError> {
    lock::open_locked(path, OpenOptions::new().read(true), Kind::Shared, wait)
}

impl DataFile {
    /// Takes over a locked file whose octets `hash` has seen all.
    pub(super) fn new(disk: Box<dyn Disk>, path: PathBuf, hash: FileHash) -> DataFile {
        let acknowledged = hash.len();
        DataFile { disk, path, hash, pending: Vec::new(), acknowledged, failed: false }
    }

    /// Its length, with what is still gathered here.
    pub(super) fn len(&self) -> u64 {
        self.hash.len()
    }

    /// The SHA-1 of everything up to [`DataFile::len`].
    pub(super) fn hash(&self) -> &FileHash {
        &self.hash
    }

    /// Tells this file from one that takes its place.
    pub(super) fn inode(&self) -> io::Result<u64> {
        self.disk.inode()
    }

    /// When it was last written to, see [`Disk::modified`].
    pub(super) fn modified(&self) -> io::Result<Option<i64>> {
        self.disk.modified()
    }

    /// Hands everything gathered to the kernel: it then survives the death of
    /// this process, not yet a power cut.
    pub(super) fn push(&mut self) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        let at = self.hash.len() - pending.len() as u64;
        self.latched(|this| this.disk.write_at(&pending, at))
    }

    /// Everything pushed survives a power cut when this returns `Ok`. Never
    /// repeated after an error.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.push()?;
        self.latched(|this| this.disk.sync())
    }

    /// Makes the file's name survive a power cut.
    pub(super) fn sync_name(&mut self) -> io::Result<()> {
        self.latched(|this| sync_directory_of(&this.path))
    }

    /// What was pushed so far is acknowledged and will not be taken back.
    pub(super) fn acknowledge(&mut self) {
        self.acknowledged = self.hash.len() - self.pending.len() as u64;
    }

    /// Takes back what was pushed and not acknowledged, so that a line which found
    /// the disk full does not keep it full. Only an attempt: what stays is dealt
    /// with at the next open. Nothing can be appended afterwards.
    pub(super) fn abandon(&mut self) {
        self.failed = true;
        if let Err(error) = self.disk.cut(self.acknowledged) {
            tracing::warn!(file = %self.path.display(), %error, "cannot take back a failed line");
        }
    }

    fn latched(&mut self, act: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier write to this file failed"));
        }
        let result = act(self);
        self.failed = result.is_err();
        result
    }
}

impl Write for DataFile {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.hash.update(octets);
        self.pending.extend_from_slice(octets);
        if self.pending.len() >= PENDING_MAX {
            self.push()?;
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

/// Removes the file at `path`, if there is one.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Syncs the directory that holds `path`.
pub(super) fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
