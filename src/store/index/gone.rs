//! Records that lost their place without being expunged: their mail server went back to an
//! earlier state.
//!
//! One that was restored from a snapshot tells a lower LAST_UID, or another message under a UID
//! that is taken. What was there is no longer the master's, so no client is told of it; but nobody
//! has expunged it, and the backup may be all that is left of it. Such a record goes to
//! `cyrbk_gone`: as expunged when the line came that displaced it, unless it was expunged before.
//! The tools that give mail back see it as any expunged one, and a compaction keeps it as long.
//! If the same message comes back to its place, the record is the master's again and not gone.
//!
//! Whatever is gone has left a row for its UID in `cyrbk_record`, so that nothing needs to be
//! looked up here for a mailbox that has none there.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::read::{RecordRow, record_row};
use super::schema::SchemaError;
use super::{Index, Position, Result, Text};
use crate::wire::Guid;
use crate::wire::apply::Record;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS cyrbk_gone( mailbox_id INTEGER NOT NULL, uid \
    INTEGER NOT NULL, guid TEXT NOT NULL, last_chunk_id INTEGER NOT NULL, modseq INTEGER, \
    last_updated INTEGER, flags TEXT, internaldate INTEGER, annotations TEXT, expunged INTEGER \
    NOT NULL, size INTEGER, gone_chunk_id INTEGER NOT NULL, higher_chunk_id INTEGER, PRIMARY KEY \
    (mailbox_id, uid, guid) ) WITHOUT ROWID;";

/// Columns as [`record_row`] reads them, of all whose messages are there.
pub(super) const GONE_RECORDS: &str = "SELECT g.last_chunk_id, g.uid, g.modseq, g.last_updated,
    g.flags, g.internaldate, g.annotations, g.expunged, g.guid, g.size, g.mailbox_id
    FROM cyrbk_gone g JOIN message m ON m.guid = g.guid";

/// The lines that displace a record, by their chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Displaced {
    /// The line that brings another message under its UID, or a lower LAST_UID.
    pub(super) by: i64,
    /// The line in front of that whose LAST_UID was higher; `None`: another message comes.
    pub(super) higher: Option<i64>,
}

/// Makes the table, unless an index of an older version may have lost something that belongs into
/// it: then whoever opens it to write finds that out from the log.
pub(super) fn create(db: &Connection) -> std::result::Result<(), SchemaError> {
    if !has_exceptions(db)? {
        db.execute_batch(TABLE)?;
    }
    Ok(())
}

fn has_exceptions(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("SELECT EXISTS (SELECT 1 FROM cyrbk_record)", [], |row| row.get(0))
}

impl Index {
    /// Whether an index of cyrbk's is of a version without this table, and may have lost something
    /// that belongs into it.
    pub fn lacks_gone(&self) -> Result<bool> {
        Ok(!self.has_gone()?
            && self.db.table_exists(None, "cyrbk_record")?
            && has_exceptions(&self.db)?)
    }

    pub(super) fn has_gone(&self) -> Result<bool> {
        Ok(self.db.table_exists(None, "cyrbk_gone")?)
    }

    /// What is gone from a mailbox, as far as its messages are there, in the order of UIDs.
    pub fn gone_records(&self, mailbox_id: i64) -> Result<Vec<RecordRow>> {
        if !self.has_gone()? {
            return Ok(Vec::new());
        }
        let query = format!("{GONE_RECORDS} WHERE g.mailbox_id = ?1 ORDER BY g.uid, g.guid");
        self.rows(&query, [mailbox_id], record_row)
    }

    /// Where one message is gone from: each record with the row id of its mailbox.
    pub fn gone_records_of(&self, guid: &Guid) -> Result<Vec<(i64, RecordRow)>> {
        if !self.has_gone()? {
            return Ok(Vec::new());
        }
        let query = format!("{GONE_RECORDS} WHERE g.guid = ?1 ORDER BY g.mailbox_id, g.uid");
        self.rows(&query, [guid.to_string()], |row| Ok((row.get(10)?, record_row(row)?)))
    }

    /// What is gone from a UID and was last seen in a chunk.
    pub(super) fn gone_record_from(
        &self,
        mailbox_id: i64,
        uid: u32,
        chunk_id: i64,
    ) -> Result<Option<RecordRow>> {
        let query = format!(
            "{GONE_RECORDS} WHERE g.mailbox_id = ?1 AND g.uid = ?2 AND g.last_chunk_id = ?3"
        );
        let mut statement = self.db.prepare_cached(&query)?;
        let row = statement.query_row(params![mailbox_id, uid, chunk_id], record_row);
        Ok(row.optional()?)
    }

    /// All messages that a mailbox has, or has had, as far as can be told, in the order of UIDs:
    /// of several under one UID the first is the master's.
    pub fn all_records(&self, mailbox_id: i64) -> Result<Vec<RecordRow>> {
        let mut records = self.true_records(mailbox_id)?;
        records.append(&mut self.gone_records(mailbox_id)?);
        records.sort_by_key(|record| record.uid);
        Ok(records)
    }

    /// Keeps the true record of a UID that another one is to take the place of.
    pub(super) fn set_aside(
        &self,
        at: Position,
        mailbox_id: i64,
        row: &RecordRow,
        higher: Option<i64>,
    ) -> Result<()> {
        let expunged = row.expunged.unwrap_or(at.ts);
        self.insert_gone(mailbox_id, row, expunged, Displaced { by: at.chunk_id, higher })
    }

    /// Keeps the true records of UIDs above `last_uid`, which the line in chunk `higher` still had.
    pub(super) fn set_aside_above(
        &self,
        at: Position,
        mailbox_id: i64,
        last_uid: u32,
        higher: i64,
    ) -> Result<()> {
        let rows = self.true_records(mailbox_id)?;
        rows.iter()
            .filter(|row| row.uid > last_uid)
            .try_for_each(|row| self.set_aside(at, mailbox_id, row, Some(higher)))
    }

    /// This record is the master's again.
    pub(super) fn take_back(&self, mailbox_id: i64, record: &Record) -> Result<()> {
        let guid = record.guid.hex();
        self.db
            .prepare_cached(
                "DELETE FROM cyrbk_gone WHERE mailbox_id = ?1 AND uid = ?2 AND guid = ?3",
            )?
            .execute(params![mailbox_id, record.uid, Text(&guid)])?;
        Ok(())
    }

    fn insert_gone(
        &self,
        mailbox_id: i64,
        row: &RecordRow,
        expunged: i64,
        displaced: Displaced,
    ) -> Result<()> {
        let Some(guid) = row.guid else { return Ok(()) };
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO cyrbk_gone (mailbox_id, uid, guid, last_chunk_id, modseq,
                 last_updated, flags, internaldate, annotations, expunged, size, gone_chunk_id,
                 higher_chunk_id) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            )?
            .execute(params![
                mailbox_id,
                row.uid,
                Text(&guid.hex()),
                row.last_chunk_id,
                row.modseq as i64,
                row.last_updated,
                Text(&row.flags),
                row.internaldate,
                Text(&row.annotations),
                expunged,
                row.size as i64,
                displaced.by,
                displaced.higher,
            ])?;
        Ok(())
    }

    /// Takes over this table from an index that was built from the same data, and makes it if it
    /// is not there. What is in its place here is not gone.
    pub fn take_gone_from(&self, other: &Index) -> Result<()> {
        self.db.execute_batch(TABLE)?;
        self.db.execute_batch("DELETE FROM cyrbk_gone")?;
        let chunks = self.chunks_like_those_of(other)?;
        let chunk = |id: i64| chunks.get(&id).copied().unwrap_or_default();
        let query = "SELECT last_chunk_id, uid, modseq, last_updated, flags, internaldate,
             annotations, expunged, guid, size, gone_chunk_id, higher_chunk_id FROM cyrbk_gone
             WHERE mailbox_id = ?1";
        for theirs in other.mailboxes()? {
            let Some(ours) = self.mailbox_with_uniqueid(&theirs.uniqueid)? else { continue };
            let read = |row: &rusqlite::Row<'_>| {
                let higher: Option<i64> = row.get(11)?;
                let displaced = Displaced { by: chunk(row.get(10)?), higher: higher.map(chunk) };
                Ok((record_row(row)?, displaced))
            };
            for (row, displaced) in other.rows(query, [theirs.id], read)? {
                let present = self.true_record(ours.id, row.uid)?;
                if present.is_some_and(|present| present.guid == row.guid) {
                    continue;
                }
                let row = RecordRow { last_chunk_id: chunk(row.last_chunk_id), ..row };
                let expunged = row.expunged.unwrap_or_default();
                self.insert_gone(ours.id, &row, expunged, displaced)?;
            }
        }
        Ok(())
    }

    /// The rows of `other`'s chunks with those here that have the same place.
    pub(super) fn chunks_like_those_of(&self, other: &Index) -> Result<HashMap<i64, i64>> {
        let ours: HashMap<u64, i64> =
            self.chunks()?.into_iter().map(|chunk| (chunk.offset, chunk.id)).collect();
        let pair = |chunk: super::ChunkRow| Some((chunk.id, *ours.get(&chunk.offset)?));
        Ok(other.chunks()?.into_iter().filter_map(pair).collect())
    }
}
