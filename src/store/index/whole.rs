//! A copy of an index that Cyrus has written, with what its tables cannot say.

use std::path::PathBuf;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, ffi};

use super::schema::{self, SchemaError};
use super::{Index, IndexError, Open, Result, SCRATCH_CACHE_KIB};

/// To SQLite: all pages at once.
const ALL_PAGES: i32 = -1;

impl Index {
    /// A copy that is thrown away, with what `replayed` says besides: as the index will be once a
    /// server has opened it. Memory and disk are used as by [`Index::scratch`].
    pub(in crate::store) fn with_truth_from(&self, replayed: &Index) -> Result<Index> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags("", flags)?;
        match Backup::new(&self.db, &mut db)?.step(ALL_PAGES)? {
            StepResult::Done => {}
            // Somebody is at work on it who does not hold the lock of the data file.
            _ => {
                let busy = ffi::Error::new(ffi::SQLITE_BUSY);
                return Err(rusqlite::Error::SqliteFailure(busy, None).into());
            }
        }
        let copy = Index::over(db);
        copy.configure(Open::Read)?;
        copy.work_on_disk(SCRATCH_CACHE_KIB)?;
        match schema::prepare(&copy.db, Open::Write) {
            Ok(()) => {}
            Err(SchemaError::Sqlite(error)) => return Err(error.into()),
            Err(what) => {
                let (path, what) = (PathBuf::new(), what.to_string());
                return Err(IndexError::Unusable { path, what });
            }
        }
        copy.begin()?;
        match self.knows_present()? {
            true => copy.take_gone_from(replayed)?,
            false => copy.take_truth_from(replayed)?,
        }
        Ok(copy)
    }
}
