//! Rows of the index as values.

use rusqlite::{OptionalExtension, Row, ToSql};

use super::{Index, Result, Text, octets};
use crate::wire::Guid;
use crate::wire::dlist::{Printer, Value, parse_value};
use crate::wire::sync_crc::CrcRecord;

/// A row of table `mailbox`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The columns, one by one; see wire::apply::Mailbox.
pub struct MailboxRow {
    pub id: i64,
    pub last_chunk_id: i64,
    pub uniqueid: Vec<u8>,
    pub mboxname: Vec<u8>,
    pub mboxtype: Option<Vec<u8>>,
    pub last_uid: u32,
    pub highestmodseq: u64,
    pub recentuid: u32,
    pub recenttime: i64,
    pub last_appenddate: i64,
    pub pop3_last_login: i64,
    pub pop3_show_after: i64,
    pub uidvalidity: u32,
    pub partition: Option<Vec<u8>>,
    pub acl: Option<Vec<u8>>,
    pub options: Option<Vec<u8>>,
    pub sync_crc: u32,
    pub sync_crc_annot: u32,
    pub quotaroot: Option<Vec<u8>>,
    pub xconvmodseq: u64,
    pub annotations: Vec<u8>,
    /// When it was deleted, Unix time; `None`: it lives.
    pub deleted: Option<i64>,
}

/// A message in a mailbox: a row of `mailbox_message` with its `message`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The columns, one by one; see wire::apply::Record.
pub struct RecordRow {
    pub last_chunk_id: i64,
    pub uid: u32,
    pub modseq: u64,
    pub last_updated: i64,
    pub flags: Vec<u8>,
    pub internaldate: i64,
    pub annotations: Vec<u8>,
    /// When it was expunged, Unix time; `None`: it lives.
    pub expunged: Option<i64>,
    pub guid: Option<Guid>,
    pub size: u64,
}

impl RecordRow {
    /// What it adds to the SYNC_CRC of its mailbox, if it lives.
    pub fn crc(&self) -> u32 {
        self.guid.as_ref().map_or(0, |guid| {
            CrcRecord {
                uid: self.uid,
                modseq: self.modseq,
                last_updated: self.last_updated,
                flags: &self.flags,
                internaldate: self.internaldate,
                guid,
            }
            .crc()
        })
    }

    /// Prints it as a RECORD of this message.
    pub fn print(&self, guid: &Guid, out: &mut Printer) {
        out.raw(b"%(UID ").number(self.uid.into()).raw(b" MODSEQ ").number(self.modseq);
        out.raw(b" LAST_UPDATED ").number(self.last_updated as u64);
        out.raw(b" INTERNALDATE ").number(self.internaldate as u64);
        out.raw(b" GUID ").guid(guid).raw(b" SIZE ").number(self.size);
        out.raw(b" FLAGS (");
        let flags = parse_value(&self.flags).unwrap_or(Value::Nil);
        let mut count = 0;
        for flag in flags.as_list().items() {
            out.separator(count).value(&flag);
            count += 1;
        }
        if self.expunged.is_some() {
            out.separator(count).raw(b"\\Expunged");
        }
        out.raw(b")");
        // With literals in the form that the reader wants.
        if let Ok(value @ Value::List(_)) = parse_value(&self.annotations) {
            out.raw(b" ANNOTATIONS ").value(&value);
        }
        out.raw(b")");
    }
}

/// A row of table `message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// Row id.
    pub id: i64,
    /// Its identity.
    pub guid: Option<Guid>,
    /// Partition on the mail server.
    pub partition: Vec<u8>,
    /// Chunk of the MESSAGE line.
    pub chunk_id: i64,
    /// Inflated octets of the chunk in front of that line.
    pub offset: u64,
    /// Octets of the message.
    pub size: u64,
}

/// A row of table `seen`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The columns, one by one; see wire::apply::Seen.
pub struct SeenRow {
    pub uniqueid: Vec<u8>,
    pub lastread: i64,
    pub lastuid: u32,
    pub lastchange: i64,
    pub seenuids: Vec<u8>,
}

/// A live row of table `sieve`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SieveRow {
    /// File name.
    pub filename: Vec<u8>,
    /// Unix time, seconds.
    pub last_update: i64,
    /// SHA-1 of the script, hex.
    pub guid: String,
    /// Chunk of the SIEVE line.
    pub chunk_id: i64,
    /// Inflated octets of the chunk in front of that line.
    pub offset: u64,
}

pub(super) const MAILBOX: &str = "SELECT id, last_chunk_id, uniqueid, mboxname, mboxtype, last_uid,
    highestmodseq, recentuid, recenttime, last_appenddate, pop3_last_login, pop3_show_after,
    uidvalidity, partition, acl, options, sync_crc, sync_crc_annot, quotaroot, xconvmodseq,
    annotations, deleted FROM mailbox";
pub(super) const RECORD: &str = "SELECT r.last_chunk_id, r.uid, r.modseq, r.last_updated, r.flags,
    r.internaldate, r.annotations, r.expunged, m.guid, m.size,
    b.uniqueid FROM mailbox_message r JOIN message m ON m.id = r.message_id
    JOIN mailbox b ON b.id = r.mailbox_id";
pub(super) const MESSAGE: &str = "SELECT id, guid, partition, chunk_id, offset, size FROM message";

impl Index {
    /// All mailboxes in the order of their first appearance.
    pub fn mailboxes(&self) -> Result<Vec<MailboxRow>> {
        self.rows(&format!("{MAILBOX} ORDER BY id"), [], mailbox_row)
    }

    /// Mailboxes whose latest state is in this chunk.
    pub fn mailboxes_of_chunk(&self, chunk_id: i64) -> Result<Vec<MailboxRow>> {
        self.rows(
            &format!("{MAILBOX} WHERE last_chunk_id = ?1 ORDER BY id"),
            [chunk_id],
            mailbox_row,
        )
    }

    /// The living mailbox of that name; of several the latest. Cyrus looks at the latest row
    /// only, and finds none if an older mailbox took back the name of a deleted one.
    pub fn mailbox_named(&self, name: &[u8]) -> Result<Option<MailboxRow>> {
        self.one_mailbox("mboxname = ?1 AND deleted IS NULL ORDER BY id DESC LIMIT 1", Text(name))
    }

    /// The mailbox of that name; of several the latest, deleted or not.
    pub fn latest_mailbox_named(&self, name: &[u8]) -> Result<Option<MailboxRow>> {
        self.one_mailbox("mboxname = ?1 ORDER BY id DESC LIMIT 1", Text(name))
    }

    /// The mailbox with that row id, deleted or not.
    pub fn mailbox_with_id(&self, id: i64) -> Result<Option<MailboxRow>> {
        self.one_mailbox("id = ?1", id)
    }

    /// The mailbox of that identity, deleted or not.
    pub fn mailbox_with_uniqueid(&self, uniqueid: &[u8]) -> Result<Option<MailboxRow>> {
        self.one_mailbox("uniqueid = ?1", Text(uniqueid))
    }

    fn one_mailbox(&self, wanted: &str, param: impl ToSql) -> Result<Option<MailboxRow>> {
        let query = format!("{MAILBOX} WHERE {wanted}");
        Ok(self.db.prepare_cached(&query)?.query_row([param], mailbox_row).optional()?)
    }

    /// The messages of a mailbox, in the order of their UIDs.
    pub fn records(&self, mailbox_id: i64) -> Result<Vec<RecordRow>> {
        self.rows(
            &format!("{RECORD} WHERE r.mailbox_id = ?1 ORDER BY r.uid"),
            [mailbox_id],
            record_row,
        )
    }

    /// The messages whose latest record is in this chunk, each with the identity
    /// of its mailbox.
    pub fn records_of_chunk(&self, chunk_id: i64) -> Result<Vec<(Vec<u8>, RecordRow)>> {
        let query = format!("{RECORD} WHERE r.last_chunk_id = ?1 ORDER BY r.id");
        self.rows(&query, [chunk_id], |row| {
            Ok((octets(row, 10)?.unwrap_or_default(), record_row(row)?))
        })
    }

    /// All messages in the order of their first appearance.
    pub fn messages(&self) -> Result<Vec<MessageRow>> {
        self.rows(&format!("{MESSAGE} ORDER BY id"), [], message_row)
    }

    /// Looks at each of them.
    pub fn each_message(&self, mut look: impl FnMut(MessageRow) -> Result<()>) -> Result<()> {
        let mut statement = self.db.prepare_cached(&format!("{MESSAGE} ORDER BY id"))?;
        let rows = statement.query_map([], message_row)?;
        rows.into_iter().try_for_each(|row| look(row?))
    }

    /// Messages stored in this chunk.
    pub fn messages_of_chunk(&self, chunk_id: i64) -> Result<Vec<MessageRow>> {
        self.rows(&format!("{MESSAGE} WHERE chunk_id = ?1 ORDER BY id"), [chunk_id], message_row)
    }

    /// Where a message is stored.
    pub fn message(&self, guid: &Guid) -> Result<Option<MessageRow>> {
        Ok(self
            .db
            .prepare_cached(&format!("{MESSAGE} WHERE guid = ?1"))?
            .query_row([guid.to_string()], message_row)
            .optional()?)
    }

    /// Seen states in the order of their first appearance, without the anchors of
    /// [`crate::wire::own`].
    pub fn seen_states(&self) -> Result<Vec<SeenRow>> {
        let query = "SELECT uniqueid, lastread, lastuid, lastchange, seenuids FROM seen
             WHERE substr(uniqueid, 1, 6) <> 'cyrbk-' ORDER BY id";
        self.rows(query, [], |row| {
            Ok(SeenRow {
                uniqueid: octets(row, 0)?.unwrap_or_default(),
                lastread: integer(row, 1)?,
                lastuid: integer(row, 2)? as u32,
                lastchange: integer(row, 3)?,
                seenuids: octets(row, 4)?.unwrap_or_default(),
            })
        })
    }

    /// Names of the mailboxes subscribed to.
    pub fn subscriptions(&self) -> Result<Vec<Vec<u8>>> {
        let query = "SELECT mboxname FROM subscription WHERE unsubscribed IS NULL ORDER BY id";
        self.rows(query, [], |row| Ok(octets(row, 0)?.unwrap_or_default()))
    }

    /// The sieve scripts that live.
    pub fn sieve_scripts(&self) -> Result<Vec<SieveRow>> {
        let query = "SELECT filename, last_update, guid, chunk_id, COALESCE(offset, 0) FROM sieve
             WHERE deleted IS NULL ORDER BY id";
        self.rows(query, [], |row| {
            Ok(SieveRow {
                filename: octets(row, 0)?.unwrap_or_default(),
                last_update: integer(row, 1)?,
                guid: row.get(2)?,
                chunk_id: row.get(3)?,
                offset: row.get::<_, i64>(4)? as u64,
            })
        })
    }

    pub(super) fn rows<T>(
        &self,
        query: &str,
        params: impl rusqlite::Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self.db.prepare_cached(query)?;
        let rows = statement.query_map(params, read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

pub(super) fn mailbox_row(row: &Row<'_>) -> rusqlite::Result<MailboxRow> {
    Ok(MailboxRow {
        id: row.get(0)?,
        last_chunk_id: row.get(1)?,
        uniqueid: octets(row, 2)?.unwrap_or_default(),
        mboxname: octets(row, 3)?.unwrap_or_default(),
        mboxtype: octets(row, 4)?,
        last_uid: integer(row, 5)? as u32,
        highestmodseq: integer(row, 6)? as u64,
        recentuid: integer(row, 7)? as u32,
        recenttime: integer(row, 8)?,
        last_appenddate: integer(row, 9)?,
        pop3_last_login: integer(row, 10)?,
        pop3_show_after: integer(row, 11)?,
        uidvalidity: integer(row, 12)? as u32,
        partition: octets(row, 13)?,
        acl: octets(row, 14)?,
        options: octets(row, 15)?,
        sync_crc: integer(row, 16)? as u32,
        sync_crc_annot: integer(row, 17)? as u32,
        quotaroot: octets(row, 18)?,
        xconvmodseq: integer(row, 19)? as u64,
        annotations: octets(row, 20)?.unwrap_or_default(),
        deleted: row.get(21)?,
    })
}

pub(super) fn record_row(row: &Row<'_>) -> rusqlite::Result<RecordRow> {
    Ok(RecordRow {
        last_chunk_id: row.get(0)?,
        uid: integer(row, 1)? as u32,
        modseq: integer(row, 2)? as u64,
        last_updated: integer(row, 3)?,
        flags: octets(row, 4)?.unwrap_or_default(),
        internaldate: integer(row, 5)?,
        annotations: octets(row, 6)?.unwrap_or_default(),
        expunged: row.get(7)?,
        guid: octets(row, 8)?.and_then(|text| Guid::from_hex(&text)),
        size: integer(row, 9)? as u64,
    })
}

pub(super) fn message_row(row: &Row<'_>) -> rusqlite::Result<MessageRow> {
    Ok(MessageRow {
        id: row.get(0)?,
        guid: octets(row, 1)?.and_then(|text| Guid::from_hex(&text)),
        partition: octets(row, 2)?.unwrap_or_default(),
        chunk_id: integer(row, 3)?,
        offset: integer(row, 4)? as u64,
        size: integer(row, 5)? as u64,
    })
}

/// A number; NULL reads as zero.
pub(super) fn integer(row: &Row<'_>, column: usize) -> rusqlite::Result<i64> {
    Ok(row.get::<_, Option<i64>>(column)?.unwrap_or_default())
}
