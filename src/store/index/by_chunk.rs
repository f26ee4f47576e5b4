//! Messages, mailboxes and records by chunk, for whoever looks at one chunk after the other:
//! Cyrus's tables have no order by which those of one chunk could be found without reading all.
//!
//! The order is kept in temporary tables. What is asked for comes some rows at a time: a chunk
//! may hold all there is.

use rusqlite::{OptionalExtension, params};

use super::read::{MAILBOX, MESSAGE, MailboxRow, MessageRow, RecordRow, mailbox_row, message_row};
use super::{Index, Result, octets};
use crate::wire::Guid;

/// Memory for pages of the index meanwhile.
const CACHE_KIB: u32 = 4 * 1024;

impl Index {
    /// Sorts them, in tables of this connection only.
    pub fn sort_by_chunk(&self) -> Result<()> {
        self.work_on_disk(CACHE_KIB)?;
        Ok(self.db.execute_batch(
            "CREATE TEMP TABLE IF NOT EXISTS message_by_chunk(chunk_id, offset, id, PRIMARY KEY \
             (chunk_id, offset, id)) WITHOUT ROWID;
             CREATE TEMP TABLE IF NOT EXISTS mailbox_by_chunk(chunk_id, id, PRIMARY KEY \
             (chunk_id, id)) WITHOUT ROWID;
             CREATE TEMP TABLE IF NOT EXISTS record_by_chunk(chunk_id, id, PRIMARY KEY \
             (chunk_id, id)) WITHOUT ROWID;
             DELETE FROM message_by_chunk; DELETE FROM mailbox_by_chunk;
             DELETE FROM record_by_chunk;
             INSERT INTO message_by_chunk SELECT chunk_id, COALESCE(offset, 0), id FROM message
             WHERE chunk_id IS NOT NULL ORDER BY 1, 2, 3;
             INSERT INTO mailbox_by_chunk SELECT last_chunk_id, id FROM mailbox ORDER BY 1, 2;
             INSERT INTO record_by_chunk SELECT last_chunk_id, id FROM mailbox_message
             WHERE last_chunk_id IS NOT NULL ORDER BY 1, 2;",
        )?)
    }

    /// Messages that are stored in a chunk, in the order of their offsets and row ids: those
    /// behind `after`, an offset and a row id; at most `limit`.
    pub fn sorted_messages(
        &self,
        chunk_id: i64,
        after: (i64, i64),
        limit: u32,
    ) -> Result<Vec<MessageRow>> {
        let query = format!(
            "{MESSAGE} JOIN (SELECT offset AS line, id AS number FROM message_by_chunk
             WHERE chunk_id = ?1 AND (offset, id) > (?2, ?3) ORDER BY offset, id LIMIT ?4)
             ON id = number ORDER BY line, number"
        );
        self.rows(&query, params![chunk_id, after.0, after.1, limit], message_row)
    }

    /// Mailboxes whose latest state is in a chunk.
    pub fn sorted_mailboxes(&self, chunk_id: i64) -> Result<Vec<MailboxRow>> {
        let query = format!(
            "{MAILBOX} WHERE id IN (SELECT id FROM mailbox_by_chunk WHERE chunk_id = ?1)
             ORDER BY id"
        );
        self.rows(&query, [chunk_id], mailbox_row)
    }

    /// The record of a message in a mailbox, and its row id, if it was last seen in this chunk.
    pub fn record_in_chunk(
        &self,
        mailbox_id: i64,
        guid: &Guid,
        chunk_id: i64,
    ) -> Result<Option<(i64, RecordRow)>> {
        let query = "SELECT r.last_chunk_id, r.uid, r.modseq, r.last_updated, r.flags,
             r.internaldate, r.annotations, r.expunged, m.guid, m.size, r.id FROM message m
             JOIN mailbox_message r ON r.mailbox_id = ?1 AND r.message_id = m.id
             WHERE m.guid = ?2 AND r.last_chunk_id = ?3";
        let mut statement = self.db.prepare_cached(query)?;
        let row = statement.query_row(params![mailbox_id, guid.to_string(), chunk_id], |row| {
            Ok((row.get(10)?, super::read::record_row(row)?))
        });
        Ok(row.optional()?)
    }

    /// Tells the row ids of the records that were last seen in a chunk.
    pub fn each_record_of_chunk(&self, chunk_id: i64, mut tell: impl FnMut(i64)) -> Result<()> {
        let query = "SELECT id FROM record_by_chunk WHERE chunk_id = ?1 ORDER BY id";
        let mut statement = self.db.prepare_cached(query)?;
        let mut rows = statement.query([chunk_id])?;
        while let Some(row) = rows.next()? {
            tell(row.get(0)?);
        }
        Ok(())
    }

    /// The mailbox's identity and the UID of a record.
    pub fn place_of_record(&self, id: i64) -> Result<Option<(Vec<u8>, u32)>> {
        let query = "SELECT b.uniqueid, r.uid FROM mailbox_message r
             JOIN message m ON m.id = r.message_id JOIN mailbox b ON b.id = r.mailbox_id
             WHERE r.id = ?1";
        let mut statement = self.db.prepare_cached(query)?;
        let place = |row: &rusqlite::Row<'_>| {
            let uid = row.get::<_, Option<i64>>(1)?.unwrap_or_default();
            Ok((octets(row, 0)?.unwrap_or_default(), uid as u32))
        };
        Ok(statement.query_row([id], place).optional()?)
    }
}
