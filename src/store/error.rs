//! Why a backup cannot be opened, read or written.

use std::io;
use std::path::PathBuf;

use super::index::IndexError;
use super::log::LogError;
use crate::lock::LockError;

/// Why an operation on a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such data file.
    #[error("{0}: no such backup")]
    Missing(PathBuf),
    /// Another session or tool holds it. An expected answer, not a fault.
    #[error("{0}: locked")]
    Locked(PathBuf),
    /// There are data but no index.
    #[error("{0}: data without an index: rebuild it with `ctl_backups reindex`")]
    NoIndex(PathBuf),
    /// There is an index but no data.
    #[error(
        "{0}: the data file is gone, its index is there: bring the data file back, or move the \
         index away to begin a new backup"
    )]
    DataMissing(PathBuf),
    /// The index cannot be used.
    #[error("{path}: {source}")]
    Index {
        /// The data file.
        path: PathBuf,
        /// What is wrong.
        source: IndexError,
    },
    /// The data cannot be read.
    #[error("{path}: {source}")]
    Log {
        /// The data file.
        path: PathBuf,
        /// What is wrong, and where.
        source: LogError,
    },
    /// Data and index contradict each other.
    #[error("{path}: {what}")]
    Inconsistent {
        /// The data file.
        path: PathBuf,
        /// How.
        what: String,
    },
    /// An earlier write failed; nothing more is written until it is reopened.
    #[error("{0}: an earlier write failed")]
    Poisoned(PathBuf),
    /// A line that no reader of the log would take. Nothing of it was written.
    #[error("{path}: a line of {len} octets is not stored: it could not be read back")]
    TooLong {
        /// The data file.
        path: PathBuf,
        /// Of the line.
        len: usize,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Result of operations on backups.
pub type Result<T> = std::result::Result<T, StoreError>;

impl StoreError {
    /// Names the data file that a lock was wanted on.
    pub fn lock(path: impl Into<PathBuf>) -> impl FnOnce(LockError) -> StoreError {
        let path = path.into();
        move |error| match error {
            LockError::Busy => StoreError::Locked(path),
            LockError::Io(e) if e.kind() == io::ErrorKind::NotFound => StoreError::Missing(path),
            LockError::Io(source) => StoreError::Io { path, source },
        }
    }

    /// Names the file of an I/O error.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.into();
        move |source| StoreError::Io { path, source }
    }

    /// Names the data file of an index error.
    pub fn index(path: impl Into<PathBuf>) -> impl FnOnce(IndexError) -> StoreError {
        let path = path.into();
        move |source| StoreError::Index { path, source }
    }

    /// Of the work on an index that is being made at `new`: what is full is its own disk, and not
    /// that of temporary files, as with those that are read.
    pub(super) fn of_making(self, new: impl Into<PathBuf>) -> StoreError {
        match self {
            StoreError::Index { source, .. } if source.is_full() => {
                StoreError::io(new)(io::ErrorKind::StorageFull.into())
            }
            error => error,
        }
    }

    /// Names the data file of an error in its data.
    pub fn log(path: impl Into<PathBuf>) -> impl FnOnce(LogError) -> StoreError {
        let path = path.into();
        move |source| StoreError::Log { path, source }
    }
}
