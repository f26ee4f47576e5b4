//! Sums over the index, and rows in the order in which Cyrus's tools show them.

use rusqlite::{OptionalExtension, params};

use super::read::{RecordRow, record_row};
use super::{Index, Result, octets};

/// Where a message is filed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Identity of the mailbox.
    pub uniqueid: Vec<u8>,
    /// Its internal name.
    pub mboxname: Vec<u8>,
}

impl Index {
    /// Whether [`Index::true_records`] can be relied upon: cyrbk has written this index,
    /// and nobody else after.
    pub fn knows_truth(&self) -> Result<bool> {
        Ok(self.knows_present()? && !self.lacks_gone()?)
    }

    /// The same, but an older version may have made it, which knew nothing of [`super::gone`].
    pub(super) fn knows_present(&self) -> Result<bool> {
        let query = "SELECT COUNT(*) = 2 FROM sqlite_master WHERE type = 'table'
            AND name IN ('cyrbk_state', 'cyrbk_record')";
        if !self.db.query_row(query, [], |row| row.get::<_, bool>(0))? {
            return Ok(false);
        }
        let len_file = self.state()?.map_or(0, |state| state.len_file);
        Ok(self.last_chunk()?.is_none_or(|chunk| chunk.offset < len_file))
    }

    /// Inflated octets of all chunks.
    pub fn sum_of_lengths(&self) -> Result<u64> {
        let query = "SELECT COALESCE(SUM(length), 0) FROM chunk";
        Ok(self.db.query_row(query, [], |row| row.get::<_, i64>(0))? as u64)
    }

    /// Octets of the messages that still live somewhere, or were expunged after
    /// `since` (Unix time).
    pub fn sum_of_live_messages(&self, since: i64) -> Result<u64> {
        let query = "SELECT COALESCE(SUM(size), 0) FROM message WHERE chunk_id IN (SELECT id FROM
            chunk) AND EXISTS (SELECT 1 FROM mailbox_message r WHERE r.message_id = message.id
            AND (r.expunged IS NULL OR r.expunged > ?1))";
        Ok(self.db.query_row(query, [since], |row| row.get::<_, i64>(0))? as u64)
    }

    /// The messages of a mailbox as Cyrus's tools list them: first those that were stored first.
    pub fn records_in_row_order(&self, mailbox_id: i64) -> Result<Vec<RecordRow>> {
        self.rows(
            "SELECT r.last_chunk_id, r.uid, r.modseq, r.last_updated, r.flags, r.internaldate,
             r.annotations, r.expunged, m.guid, m.size FROM mailbox_message r
             JOIN message m ON m.id = r.message_id WHERE r.mailbox_id = ?1 ORDER BY r.message_id",
            [mailbox_id],
            record_row,
        )
    }

    /// The mailboxes that a message is in, deleted ones and expunged copies included.
    pub fn places_of(&self, message_id: i64) -> Result<Vec<Place>> {
        let query = "SELECT b.uniqueid, b.mboxname FROM mailbox_message r
            JOIN mailbox b ON b.id = r.mailbox_id WHERE r.message_id = ?1 ORDER BY r.mailbox_id";
        self.rows(query, [message_id], |row| {
            Ok(Place {
                uniqueid: octets(row, 0)?.unwrap_or_default(),
                mboxname: octets(row, 1)?.unwrap_or_default(),
            })
        })
    }

    /// How many messages were stored in a chunk, and how many mailboxes were last
    /// seen in it.
    pub fn contents_of_chunk(&self, chunk_id: i64) -> Result<(u64, u64)> {
        let query = "SELECT (SELECT COUNT(*) FROM message WHERE chunk_id = ?1),
            (SELECT COUNT(*) FROM mailbox WHERE last_chunk_id = ?1)";
        let counts = self
            .db
            .query_row(query, params![chunk_id], |row| {
                Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
            })
            .optional()?;
        Ok(counts.unwrap_or_default())
    }
}
