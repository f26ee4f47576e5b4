//! Messages, mailboxes and records by chunk, for whoever looks at one chunk after the other:
//! Cyrus's tables have no order by which those of one chunk could be found without reading all.
//!
//! The order is kept in temporary tables. What is asked for comes some rows at a time: a chunk
//! may hold all there is.

use rusqlite::{OptionalExtension, Row, params};

use super::read::{MAILBOX, MESSAGE, MailboxRow, MessageRow, integer, mailbox_row, message_row};
use super::{Index, Result, octets};
use crate::wire::Guid;

/// Memory for pages of the index meanwhile.
const CACHE_KIB: u32 = 4 * 1024;

/// A record, as far as a line of the log can be compared with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The columns, one by one; see wire::apply::Record.
pub struct LinkRow {
    /// Row id.
    pub id: i64,
    /// Row id of its mailbox.
    pub mailbox_id: i64,
    pub guid: Guid,
    pub uid: u32,
    pub modseq: u64,
    pub last_updated: i64,
    pub internaldate: i64,
    pub size: u64,
}

/// Columns as [`link_row`] reads them.
const LINK: &str = "SELECT r.id, r.mailbox_id, m.guid, r.uid, r.modseq, r.last_updated,
    r.internaldate, m.size";

impl Index {
    /// Prepares for [`Index::sort_by_chunk`]: not within a transaction.
    pub fn work_by_chunk(&self) -> Result<()> {
        self.work_on_disk(CACHE_KIB)
    }

    /// Sorts them, in tables of this connection only.
    pub fn sort_by_chunk(&self) -> Result<()> {
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

    /// The record of a message in a mailbox, if it was last seen in this chunk.
    pub fn record_in_chunk(
        &self,
        mailbox_id: i64,
        guid: &Guid,
        chunk_id: i64,
    ) -> Result<Option<LinkRow>> {
        let query = format!(
            "{LINK} FROM message m JOIN mailbox_message r
             ON r.mailbox_id = ?1 AND r.message_id = m.id
             WHERE m.guid = ?2 AND r.last_chunk_id = ?3"
        );
        let mut statement = self.db.prepare_cached(&query)?;
        let params = params![mailbox_id, guid.to_string(), chunk_id];
        Ok(statement.query_row(params, link_row).optional()?.flatten())
    }

    /// Records that were last seen in a chunk, in the order of their row ids, from that of `first`
    /// on; at most `limit`.
    pub fn sorted_records(&self, chunk_id: i64, first: i64, limit: u32) -> Result<Vec<LinkRow>> {
        let query = format!(
            "{LINK} FROM (SELECT id AS number FROM record_by_chunk WHERE chunk_id = ?1 AND id >= ?2
             ORDER BY id LIMIT ?3) CROSS JOIN mailbox_message r ON r.id = number
             CROSS JOIN message m ON m.id = r.message_id"
        );
        let rows = self.rows(&query, params![chunk_id, first, limit], link_row)?;
        Ok(rows.into_iter().flatten().collect())
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

/// `None` if the GUID is not as it is written, so that nobody finds it.
fn link_row(row: &Row<'_>) -> rusqlite::Result<Option<LinkRow>> {
    let text = octets(row, 2)?.unwrap_or_default();
    let Some(guid) = Guid::from_hex(&text).filter(|guid| guid.hex()[..] == text) else {
        return Ok(None);
    };
    Ok(Some(LinkRow {
        id: row.get(0)?,
        mailbox_id: row.get(1)?,
        guid,
        uid: integer(row, 3)? as u32,
        modseq: integer(row, 4)? as u64,
        last_updated: integer(row, 5)?,
        internaldate: integer(row, 6)?,
        size: integer(row, 7)? as u64,
    }))
}
