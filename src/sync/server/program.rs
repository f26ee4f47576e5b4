//! The program that is running, and whether another one has taken its place on disk.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A program's file as it was when the process started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    /// Inode, size, time of the last change: what Cyrus's services look at.
    state: (u64, u64, i64, i64),
}

impl Program {
    /// The program of this process. To be called early.
    pub fn own() -> io::Result<Program> {
        Program::at(std::env::current_exe()?)
    }

    fn at(path: PathBuf) -> io::Result<Program> {
        let state = state(&path)?;
        Ok(Program { path, state })
    }

    /// Whether there is another one now. None at all is no other one: it may be about to come.
    pub(super) fn has_changed(&self) -> bool {
        state(&self.path).is_ok_and(|now| now != self.state)
    }
}

fn state(path: &Path) -> io::Result<(u64, u64, i64, i64)> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_program_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::write(&path, "one").unwrap();
        let program = Program::at(path.clone()).unwrap();
        assert!(!program.has_changed());
        std::fs::remove_file(&path).unwrap();
        assert!(!program.has_changed());
        std::fs::write(dir.path().join("next"), "two").unwrap();
        std::fs::rename(dir.path().join("next"), &path).unwrap();
        assert!(program.has_changed());
        assert!(!Program::own().unwrap().has_changed());
    }
}
