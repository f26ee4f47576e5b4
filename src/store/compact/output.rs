//! The new data file, hashed as it grows.

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::FileExt;

use crate::store::file_hash::FileHash;

/// Octets gathered before they are handed to the kernel.
const PENDING_MAX: usize = 256 * 1024;

/// The new data file.
pub(super) struct Output {
    pub(super) file: File,
    /// Of everything written.
    pub(super) hash: FileHash,
    pending: Vec<u8>,
    /// On their way from another file.
    taken: Vec<u8>,
}

/// Octets of another file that were taken over.
pub(super) struct Copied {
    /// Where they begin.
    pub(super) offset: u64,
    /// SHA-1 of everything in front of them, hex.
    pub(super) file_sha1: String,
    /// CRC-32 of them.
    pub(super) crc: u32,
}

impl Output {
    /// Begins an empty file.
    pub(super) fn new(file: File) -> Output {
        Output { file, hash: FileHash::default(), pending: Vec::new(), taken: Vec::new() }
    }

    /// Takes over the octets `at..end` of another file.
    pub(super) fn copy(&mut self, from: &File, (at, end): (u64, u64)) -> io::Result<Copied> {
        let mut taken = mem::take(&mut self.taken);
        taken.resize(PENDING_MAX, 0);
        let copied = self.copy_through(&mut taken, from, (at, end));
        self.taken = taken;
        copied
    }

    fn copy_through(
        &mut self,
        buffer: &mut [u8],
        from: &File,
        (mut at, end): (u64, u64),
    ) -> io::Result<Copied> {
        let (offset, file_sha1) = (self.hash.len(), self.hash.hex());
        let mut crc = crc32fast::Hasher::new();
        while at < end {
            let want = (end - at).min(buffer.len() as u64) as usize;
            match from.read_at(&mut buffer[..want], at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => {
                    crc.update(&buffer[..got]);
                    self.write_all(&buffer[..got])?;
                    at += got as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Copied { offset, file_sha1, crc: crc.finalize() })
    }
}

impl Write for Output {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.hash.update(octets);
        if self.pending.len() + octets.len() > PENDING_MAX {
            self.flush()?;
        }
        match octets.len() < PENDING_MAX {
            true => self.pending.extend_from_slice(octets),
            false => self.file.write_all(octets)?,
        }
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }
}
