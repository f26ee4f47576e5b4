//! Messages that were acknowledged before it was known in which backup they belong.
//!
//! They wait in a file of their session's own in the staging directory until that is known, and
//! outlive the process there. The file is named `cyrbk-waiting-<random>`, and as long as its
//! owner lives it is locked.
//!
//! ```text
//! file    = "# cyrbk: waiting messages" CRLF *(lacking / message)
//! lacking = "LACKING (" key *(SP key) ")" CRLF         backups that lack what follows
//! message = "MESSAGE (%{" partition SP guid SP size "}" CRLF *OCTET ")" CRLF
//! ```
//!
//! A line that is not whole was not acknowledged. What a dead owner has left is read by
//! [`Leftover`].

mod leftover;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::staging::Staging;
use crate::lock::{self, Kind, LockError, Wait};
use crate::wire::Body;
use crate::wire::dlist::{FileHeader, Literals, Printer};

pub use leftover::{Group, Groups, Leftover, WaitingError, leftovers};

/// What the names of these files begin with.
const PREFIX: &str = "cyrbk-waiting-";
/// The first line, without line end.
const TITLE: &[u8] = b"# cyrbk: waiting messages";
/// Octets gathered before they are written.
const BUFFER: usize = 256 * 1024;
/// Names tried before giving up: somebody else removes files as soon as they are made.
const TRIES: usize = 16;

/// The file of one session, open for its owner.
#[derive(Debug)]
pub struct WaitingFile {
    path: PathBuf,
    /// Holds the lock.
    file: File,
    /// The same, for reading bodies.
    staging: Staging,
    /// Octets that were acknowledged: all of them complete lines.
    len_kept: u64,
    /// Octets that were written.
    len: u64,
    buffer: Vec<u8>,
    /// Whom the latest LACKING line names.
    lacking: Vec<Vec<u8>>,
    /// Octets that count for nothing could not be cut off.
    is_broken: bool,
}

impl WaitingFile {
    /// Makes a file in `directory`, which is made if it is missing.
    pub fn create(directory: &Path) -> io::Result<WaitingFile> {
        fs::create_dir_all(directory)?;
        let (path, file) = create_locked(directory)?;
        let title = [TITLE, b"\r\n"].concat();
        let staging = file.write_all_at(&title, 0).and_then(|()| file.try_clone());
        let staging = Staging::over(staging.inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?);
        let len = title.len() as u64;
        Ok(WaitingFile {
            path,
            file,
            staging,
            len_kept: len,
            len,
            buffer: Vec::new(),
            lacking: Vec::new(),
            is_broken: false,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the bodies that [`WaitingFile::add`] has returned are read from, once they are kept.
    pub fn staging(&self) -> &Staging {
        &self.staging
    }

    /// Adds a message that these backups lack; `from` is where its body is. Returns where the
    /// body will be. Nothing is promised before [`WaitingFile::keep`].
    pub fn add(
        &mut self,
        lacking: &[Vec<u8>],
        file: &FileHeader,
        body: &Body,
        from: &Staging,
    ) -> io::Result<Body> {
        if self.lacking != lacking {
            self.write(&lacking_line(lacking))?;
            self.lacking = lacking.to_vec();
        }
        let mut printer = Printer::new(Literals::NonSync, b"MESSAGE (".to_vec());
        printer.file(file);
        self.write(&printer.into_text())?;
        let kept = Body::Staged { offset: self.len + self.buffer.len() as u64, len: body.len() };
        from.read(body, |piece| self.write(piece))?;
        self.write(b")\r\n")?;
        Ok(kept)
    }

    /// When this has returned `Ok`, what was added survives the death of the process at any
    /// instant; of a power cut nothing is said.
    pub fn keep(&mut self) -> io::Result<()> {
        self.flush()?;
        self.len_kept = self.len;
        Ok(())
    }

    /// Takes back what was added and not kept. If that fails nothing can be added any more.
    pub fn take_back(&mut self) {
        self.buffer.clear();
        // The line may be gone that it was said in.
        self.lacking.clear();
        match self.file.set_len(self.len_kept) {
            Ok(()) => self.len = self.len_kept,
            Err(error) => {
                tracing::error!(file = %self.path.display(), %error, "cannot shorten the file");
                self.is_broken = true;
            }
        }
    }

    /// Ends it: no message waits any more.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Err(io::Error::other("an earlier write failed"));
        }
        if self.buffer.len() + octets.len() > BUFFER {
            self.flush()?;
        }
        if octets.len() > BUFFER {
            self.file.write_all_at(octets, self.len)?;
            self.len += octets.len() as u64;
        } else {
            self.buffer.extend_from_slice(octets);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.len)?;
        self.len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// A new file, locked. Between its making and its locking it may be taken for one without an
/// owner, and be removed: then another one is made.
fn create_locked(directory: &Path) -> io::Result<(PathBuf, File)> {
    for _ in 0..TRIES {
        let named =
            tempfile::Builder::new().prefix(PREFIX).rand_bytes(12).tempfile_in(directory)?;
        match lock::acquire(named.as_file(), Kind::Exclusive, Wait::No) {
            Err(LockError::Busy) => {
                // Whoever has the lock removes it.
                let _ = named.keep();
            }
            Err(LockError::Io(error)) => return Err(error),
            Ok(()) if lock::is_current(named.as_file(), named.path())? => {
                let (file, path) = named.keep().map_err(|error| error.error)?;
                return Ok((path, file));
            }
            Ok(()) => {}
        }
    }
    Err(io::Error::other("every new file is taken away at once"))
}

fn lacking_line(keys: &[Vec<u8>]) -> Vec<u8> {
    let mut printer = Printer::new(Literals::NonSync, b"LACKING (".to_vec());
    for (i, key) in keys.iter().enumerate() {
        printer.separator(i).string(key);
    }
    printer.raw(b")\r\n");
    printer.into_text()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
