//! Who may touch a file: whole-file record locks that exclude the real Cyrus
//! tools and are excluded by them.
//!
//! Cyrus takes POSIX `fcntl` record locks over the whole file. cyrbk takes
//! open-file-description locks, which conflict with those in both directions
//! but belong to one open file instead of to the process: two sessions of one
//! process exclude each other, and closing another descriptor of the same
//! file drops nothing. The kernel releases them when the last descriptor of
//! the open file goes, so a dead process leaves none.
//!
//! `flock(2)` (and so `std::fs::File::lock`) does not see Cyrus's locks at all.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Shared or exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Many holders at once; needs a readable descriptor.
    Shared,
    /// One holder; needs a writable descriptor.
    Exclusive,
}

/// What to do when somebody else holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Give up at once with [`LockError::Busy`].
    No,
    /// Block until the lock is granted.
    Yes,
}

/// Why a lock was not obtained.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process, or another session of this one, holds it. An expected
    /// answer, not a fault.
    #[error("locked by another process")]
    Busy,
    /// The file could not be opened, examined or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes a lock over the whole of `file` (`l_start = 0, l_len = 0`), or
/// changes the kind of the one already held through this open file.
pub fn acquire(file: &File, kind: Kind, wait: Wait) -> Result<(), LockError> {
    let l_type = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
    };
    let request = whole_file(l_type);
    loop {
        let arg = match wait {
            Wait::No => FcntlArg::F_OFD_SETLK(&request),
            Wait::Yes => FcntlArg::F_OFD_SETLKW(&request),
        };
        match fcntl(file.as_fd(), arg) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return Err(LockError::Busy),
            Err(errno) => return Err(LockError::Io(errno.into())),
        }
    }
}

/// Gives up the lock held through this open file; closing it does the same.
pub fn release(file: &File) -> io::Result<()> {
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK)))?;
    Ok(())
}

/// Opens `path` and locks it, until the file that was locked is the one that
/// the path names: a compaction or a database repack replaces the file under
/// whoever waits for its lock.
///
/// After this returns, the caller holds the lock on the current file until the
/// returned [`File`] is dropped.
pub fn open_locked(
    path: &Path,
    options: &OpenOptions,
    kind: Kind,
    wait: Wait,
) -> Result<File, LockError> {
    loop {
        let file = options.open(path)?;
        acquire(&file, kind, wait)?;
        if is_current(&file, path)? {
            return Ok(file);
        }
    }
}

/// Whether `path` still names the open `file`.
pub fn is_current(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn whole_file(l_type: i32) -> libc::flock {
    libc::flock {
        l_type: l_type as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read_write() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options
    }

    #[test]
    fn two_opens_in_one_process_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let held = open_locked(&path, &read_write(), Kind::Exclusive, Wait::No).unwrap();
        let second = open_locked(&path, &read_write(), Kind::Shared, Wait::No);
        assert!(matches!(second, Err(LockError::Busy)), "{second:?}");
        drop(held);
        open_locked(&path, &read_write(), Kind::Exclusive, Wait::No).unwrap();
    }

    #[test]
    fn closing_another_descriptor_keeps_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let _held = open_locked(&path, &read_write(), Kind::Exclusive, Wait::No).unwrap();
        drop(File::open(&path).unwrap());
        let second = open_locked(&path, &read_write(), Kind::Exclusive, Wait::No);
        assert!(matches!(second, Err(LockError::Busy)), "{second:?}");
    }

    #[test]
    fn shared_locks_coexist_and_release_lets_a_writer_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let one = open_locked(&path, &read_write(), Kind::Shared, Wait::No).unwrap();
        let two = open_locked(&path, &read_write(), Kind::Shared, Wait::No).unwrap();
        let writer = open_locked(&path, &read_write(), Kind::Exclusive, Wait::No);
        assert!(matches!(writer, Err(LockError::Busy)), "{writer:?}");
        release(&one).unwrap();
        drop(two);
        open_locked(&path, &read_write(), Kind::Exclusive, Wait::No).unwrap();
    }

    #[test]
    fn a_waiter_follows_the_replaced_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let held = open_locked(&path, &read_write(), Kind::Exclusive, Wait::No).unwrap();
        let waiter = {
            let path = path.clone();
            std::thread::spawn(move || {
                open_locked(&path, &read_write(), Kind::Exclusive, Wait::Yes).unwrap()
            })
        };
        let fresh = dir.path().join("data.new");
        std::fs::write(&fresh, b"new").unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        drop(held);
        let file = waiter.join().unwrap();
        assert!(is_current(&file, &path).unwrap());
        assert_eq!(file.metadata().unwrap().len(), 3);
    }
}
