//! A copy of an index that Cyrus has written, with what its tables cannot say.

use std::path::PathBuf;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, ffi};

use super::schema::{self, SchemaError};
use super::{Index, IndexError, Open, Position, Result, SCRATCH_CACHE_KIB};
use crate::wire::apply::Record;

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

    /// Too much rather than too little, where `replayed` lacks lines, and has some that damage may
    /// have altered. Cyrus's rows count again where what took their place is nothing, or a message
    /// that nobody has. Records that only `replayed` has are added: Cyrus has one row for a message
    /// in a mailbox, and the line that overwrote it for another UID may be one of those lacking.
    pub(in crate::store) fn reconcile_damaged(&self, replayed: &Index) -> Result<()> {
        self.db.execute_batch(
            "DELETE FROM cyrbk_record WHERE (hidden = 1 OR NOT EXISTS (SELECT 1 FROM message m
             WHERE m.guid = cyrbk_record.guid)) AND EXISTS (SELECT 1 FROM mailbox_message r
             WHERE r.mailbox_id = cyrbk_record.mailbox_id AND r.uid = cyrbk_record.uid)",
        )?;
        for theirs in replayed.mailboxes()? {
            let Some(ours) = self.mailbox_with_uniqueid(&theirs.uniqueid)? else { continue };
            for row in replayed.true_records(theirs.id)? {
                let Some(guid) = row.guid else { continue };
                if self.true_record(ours.id, row.uid)?.is_some() {
                    continue;
                }
                let ts = row.expunged.unwrap_or_default();
                let at = Position { chunk_id: ours.last_chunk_id, ts, offset: 0 };
                let record = Record {
                    uid: row.uid,
                    modseq: row.modseq,
                    last_updated: row.last_updated,
                    flags: row.flags,
                    expunged: row.expunged.is_some(),
                    internaldate: row.internaldate,
                    size: Some(row.size),
                    guid,
                    annotations: row.annotations,
                };
                self.set_exception(at, ours.id, &record)?;
            }
        }
        Ok(())
    }
}
