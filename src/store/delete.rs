//! Removing a backup for good.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::backup::{index_path, with_suffix};
use super::catalog::{Catalog, CatalogError, Change};
use super::data_file::{self, sync_directory_of};
use super::error::StoreError;
use crate::lock::Wait;

/// Why a backup is still there, or part of it.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// It cannot be locked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalog cannot be changed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Meanwhile the catalog has another path for the user.
    #[error("the backup was moved or deleted by somebody else meanwhile")]
    Overtaken,
    /// A file could not be removed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Forgets the backup of a user, whose data file is `path`, and unless `keep_files`
/// removes its files: data, index, and what compactions and rebuilds have left beside.
/// Returns the files removed. Cut short, it is completed by the next run: the catalog
/// forgets the user last.
pub fn run(
    catalog: &Catalog,
    userid: &[u8],
    path: &Path,
    keep_files: bool,
    wait: Wait,
) -> Result<Vec<PathBuf>, DeleteError> {
    // No session writes to it from here on. An earlier run may have removed it.
    let lock = match data_file::open(path, false, wait).map_err(StoreError::lock(path)) {
        Err(StoreError::Missing(_)) => None,
        other => Some(other?),
    };
    let mut removed = Vec::new();
    if !keep_files {
        removed = beside(path).map_err(|source| DeleteError::Io { path: path.into(), source })?;
        // The data file last, after a power cut too: without it nobody would find the others, and
        // an index without data is refused.
        removed.sort_by_key(|file| (file == path, file.clone()));
        let (others, data) = removed.split_at(removed.partition_point(|file| file != path));
        for files in [others, data] {
            remove_all(files)?;
        }
    }
    let change = Change { userid: userid.to_vec(), from: Some(path.into()), to: None };
    let refused = catalog.change_all(&[change])?;
    drop(lock);
    if refused.is_empty() { Ok(removed) } else { Err(DeleteError::Overtaken) }
}

/// Removes files of one directory; none is back after a power cut.
fn remove_all(files: &[PathBuf]) -> Result<(), DeleteError> {
    let io = |file: &PathBuf| {
        let path = file.clone();
        |source| DeleteError::Io { path, source }
    };
    for file in files {
        fs::remove_file(file).map_err(io(file))?;
    }
    files.last().map_or(Ok(()), |file| sync_directory_of(file).map_err(io(file)))
}

/// The data file and everything whose name is its own with one of the known endings.
fn beside(path: &Path) -> io::Result<Vec<PathBuf>> {
    let Some((directory, name)) = path.parent().zip(path.file_name()) else {
        return Ok(Vec::new());
    };
    let mut files = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let found = entry.file_name();
        let ending = found.as_bytes().strip_prefix(name.as_bytes());
        if ending.is_some_and(is_ending) && !entry.file_type()?.is_dir() {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// `ending = [".index"] ["-journal" / ".new" / ".moving" / ".cut" / 1*("." digits)]`
fn is_ending(ending: &[u8]) -> bool {
    let ending = ending.strip_prefix(b".index").unwrap_or(ending);
    let ending = ending.strip_suffix(b"-journal").unwrap_or(ending);
    let ending = ending.strip_prefix(b".cut").unwrap_or(ending);
    let mut parts = ending.split(|&c| c == b'.');
    parts.next() == Some(b"")
        && parts.all(|part| {
            matches!(part, b"new" | b"moving" | b"forward")
                || !part.is_empty() && part.iter().all(u8::is_ascii_digit)
        })
}

/// Octets of a backup's data file and index; zero for what is not there.
pub fn size(path: &Path) -> u64 {
    let len = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    len(path) + len(&index_path(path)) + len(&with_suffix(path, ".new"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::Backup;

    fn site() -> (tempfile::TempDir, Catalog, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("x/alice_AbCdEf");
        fs::create_dir(top.path().join("x")).unwrap();
        for ending in ["", ".index", ".1795000000", ".index.1795000000", ".cut.1795000000.7"] {
            fs::write(with_suffix(&path, ending), "").unwrap();
        }
        for name in ["alice_AbCdEfg", "alice_AbCdEf.txt", "alice_AbCdE", "bob_AbCdEf"] {
            fs::write(top.path().join("x").join(name), "").unwrap();
        }
        let catalog = Catalog::open(top.path().join("backups.db"));
        catalog.set(b"alice", &path).unwrap();
        (top, catalog, path)
    }

    fn count(top: &tempfile::TempDir) -> usize {
        fs::read_dir(top.path().join("x")).unwrap().count()
    }

    #[test]
    fn its_files_go_and_no_others() {
        let (top, catalog, path) = site();
        let removed = run(&catalog, b"alice", &path, false, Wait::No).unwrap();
        assert_eq!((removed.len(), count(&top)), (5, 4));
        assert_eq!(removed.last(), Some(&path));
        assert_eq!(catalog.lookup(b"alice").unwrap(), None);
    }

    #[test]
    fn files_can_be_kept_and_runs_repeated() {
        let (top, catalog, path) = site();
        assert!(run(&catalog, b"alice", &path, true, Wait::No).unwrap().is_empty());
        assert_eq!((catalog.lookup(b"alice").unwrap(), count(&top)), (None, 9));
        // Cut short behind the data file.
        catalog.set(b"alice", &path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(run(&catalog, b"alice", &path, false, Wait::No).unwrap().len(), 4);
        assert_eq!(catalog.lookup(b"alice").unwrap(), None);
        let again = run(&catalog, b"alice", &path, false, Wait::No);
        assert!(matches!(again, Err(DeleteError::Overtaken)));
    }

    #[test]
    fn a_backup_in_use_stays() {
        let (top, catalog, path) = site();
        fs::remove_file(index_path(&path)).unwrap();
        let held = Backup::open(&path, Wait::No).unwrap();
        let result = run(&catalog, b"alice", &path, false, Wait::No);
        assert!(matches!(result, Err(DeleteError::Store(StoreError::Locked(_)))));
        drop(held);
        assert_eq!(catalog.lookup(b"alice").unwrap(), Some(path));
        assert_eq!(count(&top), 9);
    }
}
