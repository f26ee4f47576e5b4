//! Where message bodies wait that are too large for memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sha1::{Digest, Sha1};

use crate::wire::{Body, Guid};

/// Names the staging directory in an error: whoever has to make room there sees no other name.
pub(super) fn naming(directory: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| {
        let text = format!("backup_staging_path {}: {error}", directory.display());
        io::Error::new(error.kind(), text)
    }
}

/// The staging area of one session: an unlinked file in the staging directory,
/// made when first needed, gone with the session however that ends.
#[derive(Debug)]
pub struct Staging {
    directory: PathBuf,
    file: Option<File>,
}

impl Staging {
    /// A staging area in `directory` (`backup_staging_path`).
    pub fn new(directory: PathBuf) -> Staging {
        Staging { directory, file: None }
    }

    /// Reads bodies that lie in a file which somebody else writes.
    pub(super) fn over(file: File) -> Staging {
        Staging { directory: PathBuf::new(), file: Some(file) }
    }

    /// Adds octets at the end. An error names the directory.
    pub fn add(&mut self, octets: &[u8]) -> io::Result<()> {
        self.try_add(octets).map_err(naming(&self.directory))
    }

    fn try_add(&mut self, octets: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            std::fs::create_dir_all(&self.directory)?;
            self.file = Some(tempfile::tempfile_in(&self.directory)?);
        }
        match &mut self.file {
            Some(file) => file.write_all(octets),
            None => Ok(()),
        }
    }

    /// Forgets what is staged; offsets begin at zero again.
    pub fn clear(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
        }
        Ok(())
    }

    /// The GUID that the octets of a body have.
    pub fn guid(&self, body: &Body) -> io::Result<Guid> {
        let mut sha1 = Sha1::new();
        self.read(body, |piece| {
            sha1.update(piece);
            Ok(())
        })?;
        Ok(Guid::from(<[u8; 20]>::from(sha1.finalize())))
    }

    /// Reads a body piece by piece.
    pub fn read(
        &self,
        body: &Body,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        match (body, &self.file) {
            (Body::Memory(octets), _) => take(octets),
            (Body::Staged { len: 0, .. }, _) => Ok(()),
            (Body::Staged { .. }, None) => Err(io::Error::other("nothing is staged")),
            (Body::Staged { offset, len }, Some(file)) => {
                let mut region = Region { file, at: *offset, left: *len };
                let mut buffer = vec![0; 256 * 1024];
                loop {
                    match region.read(&mut buffer)? {
                        0 if region.left == 0 => return Ok(()),
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        got => take(&buffer[..got])?,
                    }
                }
            }
        }
    }
}

struct Region<'f> {
    file: &'f File,
    at: u64,
    left: u64,
}

impl Read for Region<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = self.left.min(buffer.len() as u64) as usize;
        let got = self.file.read_at(&mut buffer[..want], self.at)?;
        self.at += got as u64;
        self.left -= got as u64;
        Ok(got)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(staging: &Staging, body: &Body) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        staging.read(body, |piece| {
            out.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(out)
    }

    #[test]
    fn bodies_come_back_from_either_place() {
        let dir = tempfile::tempdir().unwrap();
        let mut staging = Staging::new(dir.path().join("deep/er"));
        assert_eq!(read(&staging, &Body::Memory(b"abc".to_vec())).unwrap(), b"abc");
        staging.add(b"hello ").unwrap();
        staging.add(b"world").unwrap();
        assert_eq!(read(&staging, &Body::Staged { offset: 6, len: 5 }).unwrap(), b"world");
        assert!(read(&staging, &Body::Staged { offset: 6, len: 6 }).is_err());
        let here = Body::Memory(b"world".to_vec());
        let there = Body::Staged { offset: 6, len: 5 };
        assert_eq!(staging.guid(&here).unwrap(), staging.guid(&there).unwrap());
        assert_eq!(
            staging.guid(&here).unwrap().to_string(),
            "7c211433f02071597741e6ff5a8ea34789abbf43"
        );
        staging.clear().unwrap();
        staging.add(b"x").unwrap();
        assert_eq!(read(&staging, &Body::Staged { offset: 0, len: 1 }).unwrap(), b"x");
        assert!(std::fs::read_dir(dir.path().join("deep/er")).unwrap().next().is_none());
    }
}
