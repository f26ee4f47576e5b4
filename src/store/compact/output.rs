//! The new data file, hashed as it grows.

use std::fs::File;
use std::io::{self, Write};
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
}

impl Output {
    /// Begins an empty file.
    pub(super) fn new(file: File) -> Output {
        Output { file, hash: FileHash::default(), pending: Vec::new() }
    }

    /// Takes over octets of another file; returns their CRC-32.
    pub(super) fn copy(&mut self, from: &File, mut at: u64, end: u64) -> io::Result<u32> {
        let mut crc = crc32fast::Hasher::new();
        let mut buffer = vec![0; PENDING_MAX];
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
        Ok(crc.finalize())
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
