//! The narrow seam to the disk under a data file: all that appending, reading and
//! recovery need of it.
//!
//! The real file stands behind it; the crash tests put a disk there that forgets
//! what was never synced, and one whose n-th call fails.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

/// What tells that a file is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Octets of the file.
    pub len: u64,
    /// See [`Disk::inode`].
    pub inode: u64,
    /// See [`Disk::modified`].
    pub modified: Option<i64>,
}

/// A data file, read and written by offset. Whoever writes holds its lock.
pub trait Disk: Send + Sync {
    /// Octets of the file.
    fn len_file(&self) -> io::Result<u64>;
    /// Tells a file from another one that has taken its place.
    fn inode(&self) -> io::Result<u64>;
    /// When the file's octets were last changed, in nanoseconds since 1970; `None` if
    /// that is not known.
    fn modified(&self) -> io::Result<Option<i64>> {
        Ok(None)
    }
    /// All three.
    fn look(&self) -> io::Result<Look> {
        let (len, inode) = (self.len_file()?, self.inode()?);
        Ok(Look { len, inode, modified: self.modified()? })
    }
    /// Reads some octets at `at`; 0 only at the end.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
    /// Hands all of `octets` to the kernel. After an error some may be there.
    fn write_at(&self, octets: &[u8], at: u64) -> io::Result<()>;
    /// Cuts the file off behind `len` octets.
    fn cut(&self, len: u64) -> io::Result<()>;
    /// Everything written, and the length, survives a power cut when this returns
    /// `Ok`. After an error that is so of nothing since the last `Ok`, and a second
    /// try proves nothing: the kernel reports a lost write once.
    fn sync(&self) -> io::Result<()>;
}

impl Disk for File {
    fn len_file(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn inode(&self) -> io::Result<u64> {
        Ok(self.metadata()?.ino())
    }

    fn modified(&self) -> io::Result<Option<i64>> {
        Ok(self.look()?.modified)
    }

    fn look(&self) -> io::Result<Look> {
        let meta = self.metadata()?;
        let seconds = meta.mtime().checked_mul(1_000_000_000);
        let modified = seconds.and_then(|ns| ns.checked_add(meta.mtime_nsec()));
        Ok(Look { len: meta.len(), inode: meta.ino(), modified })
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        loop {
            match FileExt::read_at(self, buffer, at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_at(&self, octets: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(octets, at)
    }

    fn cut(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
