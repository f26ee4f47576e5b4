//! The password file, read again when it was replaced.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::password_file::{Accounts, PasswordFile, PasswordFileError};
use super::stamp::{Stamp, stamp};

/// A password file and its content as last read.
#[derive(Debug)]
pub(super) struct CachedFile {
    file: PasswordFile,
    last: Mutex<Option<(Stamp, Arc<Accounts>)>>,
}

impl CachedFile {
    pub(super) fn new(path: PathBuf) -> Self {
        CachedFile { file: PasswordFile::new(path), last: Mutex::new(None) }
    }

    /// The content of the file as it is now. A file that became unusable is an
    /// error, whatever it said before.
    pub(super) fn accounts(&self) -> Result<Arc<Accounts>, PasswordFileError> {
        let io = |source: io::Error| self.file.io_error(source);
        let now = stamp(&std::fs::metadata(self.file.path()).map_err(io)?);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read_at, accounts)) = &*last
            && *read_at == now
        {
            return Ok(Arc::clone(accounts));
        }
        *last = None;
        let open = self.file.open()?;
        let read_at = stamp(&open.metadata().map_err(io)?);
        let accounts = Arc::new(self.file.load_open(&open)?);
        *last = Some((read_at, Arc::clone(&accounts)));
        Ok(accounts)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_files_are_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = CachedFile::new(dir.path().join("cyrbk.passwd"));
        file.file.set_with("tom", "one", 4096).unwrap();
        let first = file.accounts().unwrap();
        assert!(Arc::ptr_eq(&first, &file.accounts().unwrap()));
    }
}
