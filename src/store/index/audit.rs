//! Comparing two indexes table by table: of a backup, and of what its log says.
//!
//! Equal tables are found equal by a sum of hashes of their rows, in one scan without
//! sorting; only tables that differ are looked at row by row. A chunk must have the same
//! row id in both.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};

use rusqlite::types::ValueRef;
use rusqlite::{Row, params};

use super::{ChunkRow, Index, Result, octets};
use crate::wire::Guid;

/// A table, or a part of one, that the log determines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Which messages there are, and where.
    Message,
    /// Mailboxes.
    Mailbox,
    /// Messages in mailboxes.
    Record,
    /// Subscriptions.
    Subscription,
    /// Seen states.
    Seen,
    /// Sieve scripts.
    Sieve,
    /// Of cyrbk: the truth about UIDs, where Cyrus's table cannot say it.
    Exception,
    /// Of cyrbk: records that were displaced.
    Gone,
    /// Of cyrbk: fields of a mailbox without a column.
    Extra,
    /// Of cyrbk: quotas.
    Quota,
    /// Of cyrbk: the script that runs.
    ActiveSieve,
    /// Of cyrbk: annotations of the server and of mailboxes.
    Annotation,
}

impl Table {
    /// Those of Cyrus.
    pub const OF_CYRUS: [Table; 6] = [
        Table::Message,
        Table::Mailbox,
        Table::Record,
        Table::Subscription,
        Table::Seen,
        Table::Sieve,
    ];
    /// Those of cyrbk.
    pub const OF_CYRBK: [Table; 6] = [
        Table::Exception,
        Table::Gone,
        Table::Extra,
        Table::Quota,
        Table::ActiveSieve,
        Table::Annotation,
    ];

    /// Its name in the index.
    pub fn name(self) -> &'static str {
        match self {
            Table::Message => "message",
            Table::Mailbox => "mailbox",
            Table::Record => "mailbox_message",
            Table::Subscription => "subscription",
            Table::Seen => "seen",
            Table::Sieve => "sieve",
            Table::Exception => "cyrbk_record",
            Table::Gone => "cyrbk_gone",
            Table::Extra => "cyrbk_mailbox",
            Table::Quota => "cyrbk_quota",
            Table::ActiveSieve => "cyrbk_active_sieve",
            Table::Annotation => "cyrbk_annotation",
        }
    }

    /// All rows; first, two columns that together are the key, then that of the chunk.
    fn query(self) -> &'static str {
        match self {
            Table::Message => "SELECT guid, '', chunk_id, offset, size FROM message",
            Table::Mailbox => {
                "SELECT uniqueid, '', last_chunk_id, mboxname, mboxtype, last_uid, highestmodseq,
                 recentuid, recenttime, last_appenddate, pop3_last_login, pop3_show_after,
                 uidvalidity, partition, acl, options, sync_crc, sync_crc_annot, quotaroot,
                 xconvmodseq, annotations, deleted FROM mailbox"
            }
            Table::Record => {
                "SELECT b.uniqueid, m.guid, r.last_chunk_id, r.uid, r.modseq, r.last_updated,
                 r.flags, r.internaldate, r.annotations, r.expunged FROM mailbox_message r
                 JOIN message m ON m.id = r.message_id JOIN mailbox b ON b.id = r.mailbox_id"
            }
            Table::Subscription => {
                "SELECT mboxname, '', last_chunk_id, unsubscribed FROM subscription"
            }
            Table::Seen => {
                "SELECT uniqueid, '', last_chunk_id, lastread, lastuid, lastchange, seenuids
                 FROM seen"
            }
            Table::Sieve => {
                "SELECT filename, offset, chunk_id, last_update, guid, deleted FROM sieve"
            }
            Table::Exception => {
                "SELECT b.uniqueid, r.guid, r.last_chunk_id, r.uid, r.modseq, r.last_updated,
                 r.flags, r.internaldate, r.annotations, r.expunged, r.size, r.hidden
                 FROM cyrbk_record r JOIN mailbox b ON b.id = r.mailbox_id"
            }
            Table::Gone => {
                "SELECT b.uniqueid, r.guid, r.last_chunk_id, r.uid, r.modseq, r.last_updated,
                 r.flags, r.internaldate, r.annotations, r.expunged, r.size, r.gone_chunk_id,
                 r.higher_chunk_id FROM cyrbk_gone r JOIN mailbox b ON b.id = r.mailbox_id"
            }
            Table::Extra => {
                "SELECT b.uniqueid, '', NULL, x.extra FROM cyrbk_mailbox x
                 JOIN mailbox b ON b.id = x.mailbox_id WHERE x.extra IS NOT NULL"
            }
            Table::Quota => "SELECT root, '', NULL, fields FROM cyrbk_quota",
            Table::ActiveSieve => "SELECT filename, '', NULL, since FROM cyrbk_active_sieve",
            Table::Annotation => {
                "SELECT mboxname, entry || ' ' || userid, NULL, value FROM cyrbk_annotation"
            }
        }
    }
}

/// A table in short: equal for tables with equal rows, in whatever order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSum {
    rows: u64,
    sums: [u64; 2],
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// An integer.
    Integer(i64),
    /// Text or octets.
    Octets(Vec<u8>),
    /// Bits of a real number, which no column should hold.
    Real(u64),
}

/// A record whose message never came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsentRow {
    /// Identity of its mailbox.
    pub uniqueid: Vec<u8>,
    /// Internal name of that.
    pub mboxname: Vec<u8>,
    /// Its UID.
    pub uid: u32,
    /// The message.
    pub guid: Option<Guid>,
}

/// Rows of a table by their keys; those of one key in the order of their content.
pub type Rows = BTreeMap<(Vec<u8>, Vec<u8>), Vec<Vec<Cell>>>;

impl Index {
    /// Makes the row of a chunk that another index has, with its id.
    pub fn copy_chunk(&self, row: &ChunkRow) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO chunk (id, ts_start, ts_end, offset) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![row.id, row.ts_start, row.ts_end, row.offset as i64])?;
        Ok(())
    }

    /// Whether there is such a table: older versions have fewer.
    pub fn has_table(&self, table: Table) -> Result<bool> {
        Ok(self.db.table_exists(None, table.name())?)
    }

    /// A table in short.
    pub fn table_sum(&self, table: Table) -> Result<TableSum> {
        let mut sum = TableSum::default();
        let mut statement = self.db.prepare(table.query())?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut hash = DefaultHasher::new();
            for column in 0..columns {
                hash_cell(row.get_ref(column)?, &mut hash);
            }
            let first = hash.finish();
            hash.write_u8(1);
            sum.rows += 1;
            sum.sums[0] = sum.sums[0].wrapping_add(first);
            sum.sums[1] = sum.sums[1].wrapping_add(hash.finish());
        }
        Ok(sum)
    }

    /// Identities of the mailboxes whose records `other` has otherwise.
    pub fn mailboxes_that_differ(&self, other: &Index) -> Result<Vec<Vec<u8>>> {
        let (ours, theirs) = (self.sums_of_records()?, other.sums_of_records()?);
        let differs = |(id, sum): &(&Vec<u8>, &TableSum)| theirs.get(*id) != Some(sum);
        let mut ids: Vec<_> = ours.iter().filter(differs).map(|(id, _)| id.clone()).collect();
        ids.extend(theirs.keys().filter(|id| !ours.contains_key(*id)).cloned());
        Ok(ids)
    }

    fn sums_of_records(&self) -> Result<BTreeMap<Vec<u8>, TableSum>> {
        let mut sums: BTreeMap<Vec<u8>, TableSum> = BTreeMap::new();
        let mut statement = self.db.prepare(Table::Record.query())?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut hash = DefaultHasher::new();
            for column in 1..columns {
                hash_cell(row.get_ref(column)?, &mut hash);
            }
            let sum = sums.entry(octets(row, 0)?.unwrap_or_default()).or_default();
            sum.rows += 1;
            sum.sums[0] = sum.sums[0].wrapping_add(hash.finish());
        }
        Ok(sums)
    }

    /// The rows of a table; of records, those of one mailbox.
    pub fn table_rows(&self, table: Table, uniqueid: Option<&[u8]>) -> Result<Rows> {
        let query = match uniqueid {
            Some(_) => format!("{} WHERE b.uniqueid = ?1", table.query()),
            None => table.query().to_owned(),
        };
        let mut statement = self.db.prepare(&query)?;
        if let Some(uniqueid) = uniqueid {
            statement.raw_bind_parameter(1, super::Text(uniqueid))?;
        }
        let columns = statement.column_count();
        let mut found = Rows::new();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let key = (key(row, 0)?, key(row, 1)?);
            let cells = (2..columns).map(|column| Ok(cell(row.get_ref(column)?)));
            let cells: Vec<Cell> = cells.collect::<rusqlite::Result<_>>()?;
            found.entry(key).or_default().push(cells);
        }
        for rows in found.values_mut() {
            rows.sort_by_cached_key(|row| format!("{row:?}"));
        }
        Ok(found)
    }

    /// Names of the columns of [`Index::table_rows`].
    pub fn table_columns(&self, table: Table) -> Result<Vec<String>> {
        let statement = self.db.prepare(table.query())?;
        let names = statement.column_names().skip(2).map(str::to_owned);
        Ok(names.collect())
    }

    /// How many messages no record refers to, and their octets.
    pub fn orphans(&self) -> Result<(u64, u64)> {
        let mut query = "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM message
             WHERE id NOT IN (SELECT message_id FROM mailbox_message)"
            .to_owned();
        for table in [Table::Exception, Table::Gone] {
            if self.has_table(table)? {
                query += &format!(" AND guid NOT IN (SELECT guid FROM {})", table.name());
            }
        }
        let counts = self.db.query_row(&query, [], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        });
        Ok(counts?)
    }

    /// Records that live in living mailboxes and whose message never came.
    pub fn unsent(&self) -> Result<Vec<UnsentRow>> {
        if !self.is_ours()? {
            return Ok(Vec::new());
        }
        let query = "SELECT b.uniqueid, b.mboxname, r.uid, r.guid FROM cyrbk_record r
            JOIN mailbox b ON b.id = r.mailbox_id WHERE r.expunged IS NULL AND NOT r.hidden
            AND b.deleted IS NULL AND NOT EXISTS (SELECT 1 FROM message m WHERE m.guid = r.guid)
            ORDER BY b.mboxname, r.uid";
        self.rows(query, [], |row| {
            let text = |column| octets(row, column).map(Option::unwrap_or_default);
            Ok(UnsentRow {
                uniqueid: text(0)?,
                mboxname: text(1)?,
                uid: row.get(2)?,
                guid: octets(row, 3)?.and_then(|hex| Guid::from_hex(&hex)),
            })
        })
    }

    /// Where each of some messages is filed: name of the mailbox and UID, by row id of the
    /// message. One scan, however many they are.
    pub fn filed(&self, wanted: &dyn Fn(i64) -> bool) -> Result<Vec<(i64, Vec<u8>, u32)>> {
        let mut statement = self.db.prepare(
            "SELECT r.message_id, b.mboxname, r.uid FROM mailbox_message r
             JOIN mailbox b ON b.id = r.mailbox_id",
        )?;
        let (mut rows, mut found) = (statement.query([])?, Vec::new());
        while let Some(row) = rows.next()? {
            if wanted(row.get(0)?) {
                found.push((row.get(0)?, octets(row, 1)?.unwrap_or_default(), row.get(2)?));
            }
        }
        Ok(found)
    }
}

fn hash_cell(value: ValueRef<'_>, hash: &mut DefaultHasher) {
    match value {
        ValueRef::Null => hash.write_u8(0),
        ValueRef::Integer(number) => {
            hash.write_u8(1);
            hash.write_i64(number);
        }
        ValueRef::Text(octets) | ValueRef::Blob(octets) => {
            hash.write_u8(2);
            hash.write_usize(octets.len());
            hash.write(octets);
        }
        ValueRef::Real(number) => {
            hash.write_u8(3);
            hash.write_u64(number.to_bits());
        }
    }
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Integer(number),
        ValueRef::Text(octets) | ValueRef::Blob(octets) => Cell::Octets(octets.to_vec()),
        ValueRef::Real(number) => Cell::Real(number.to_bits()),
    }
}

/// A part of a key, whatever its type.
fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(match cell(row.get_ref(column)?) {
        Cell::Octets(octets) => octets,
        Cell::Integer(number) => number.to_string().into_bytes(),
        Cell::Null | Cell::Real(_) => Vec::new(),
    })
}
