//! Which lines of the log the present state comes from.
//!
//! For a compaction the log is replayed into an index of its own in which *every
//! line is a chunk*: a row that names its latest chunk then names its latest line.
//! From those rows [`Index::choose`] derives what a retention time leaves of the
//! state, in tables named `kept_...`, and [`Index::wanted`] the lines and items
//! that must stay for it.

use std::collections::{BTreeSet, HashMap, HashSet};

use rusqlite::{OptionalExtension, params};

use super::gone::GONE_RECORDS;
use super::read::{RecordRow, record_row};
use super::truth::TRUE_RECORDS;
use super::{Index, Position, Result, Text, octets};
use crate::wire::Guid;
use crate::wire::apply::Expunge;
use crate::wire::dlist::FileHeader;

/// What must stay of a run of lines.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Lines of which something stays.
    pub lines: BTreeSet<i64>,
    /// Messages that stay, by line.
    pub messages: HashMap<i64, HashSet<Guid>>,
    /// UIDs whose records stay, by line.
    pub uids: HashMap<i64, HashSet<u32>>,
    /// Records of messages that are gone because a line, which told all of a mailbox, did not
    /// mention them: they stay, by line, and no line has them.
    pub left_out: HashMap<i64, Vec<RecordRow>>,
    /// Lines that told all of a mailbox and must not do so any more: they left out what came back
    /// to it by a line that goes, and is expunged since then.
    pub not_whole: HashSet<i64>,
    /// Lines that no row points at, and for what time they stay: see [`super::needed`].
    pub held: HashMap<i64, i64>,
}

/// That a row `r` of Cyrus's table tells the truth.
const NO_EXCEPTION: &str = "NOT EXISTS (SELECT 1 FROM cyrbk_record x
    WHERE x.mailbox_id = r.mailbox_id AND x.uid = r.uid)";

/// Whether `column`, a time, is NULL or after `?1`, the end of retention; NULL there
/// means for ever.
fn unexpired(column: &str) -> String {
    format!("({column} IS NULL OR ?1 IS NULL OR {column} > ?1)")
}

impl Index {
    /// Prepares an empty index for lines in place of chunks.
    pub fn prepare_provenance(&self) -> Result<()> {
        self.prepare_sources()?;
        Ok(self.db.execute_batch(
            "CREATE TABLE expunge_item(line INTEGER NOT NULL, mailbox_id INTEGER NOT NULL, uid \
             INTEGER NOT NULL, ts INTEGER NOT NULL);
             CREATE TABLE left_out(line INTEGER NOT NULL, uid INTEGER NOT NULL, PRIMARY KEY \
             (line, uid)) WITHOUT ROWID;
             CREATE INDEX record_line ON cyrbk_record(last_chunk_id);
             CREATE TABLE lost(guid TEXT PRIMARY KEY) WITHOUT ROWID;",
        )?)
    }

    /// Makes the row of a line and returns its number: 1, 2, ...
    pub fn add_line(&self, ts: i64) -> Result<i64> {
        self.db.prepare_cached("INSERT INTO chunk (ts_start) VALUES (?1)")?.execute(params![ts])?;
        Ok(self.db.last_insert_rowid())
    }

    /// Enters a message, unless a copy of it was entered before.
    pub fn add_first_copy(&self, at: Position, file: &FileHeader) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO message (guid, partition, chunk_id, offset, size)
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (guid) DO NOTHING",
            )?
            .execute(params![
                Text(&file.guid.hex()),
                Text(&file.partition),
                at.chunk_id,
                at.offset as i64,
                file.size as i64,
            ])?;
        Ok(())
    }

    /// Remembers that a record of a line is of an expunged message: the first one says since when.
    pub fn add_expunged_item(&self, line: i64, ts: i64, uniqueid: &[u8], uid: u32) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO expunge_item SELECT ?1, id, ?2, ?3 FROM mailbox WHERE uniqueid = ?4",
            )?
            .execute(params![line, uid, ts, Text(uniqueid)])?;
        Ok(())
    }

    /// Remembers which messages are gone because a MAILBOX line, which was just entered and has
    /// records of the UIDs in `told`, did not mention them.
    pub fn add_left_out(&self, line: i64, told: &HashSet<u32>) -> Result<()> {
        let query = "SELECT uid FROM cyrbk_record WHERE last_chunk_id = ?1 AND NOT hidden";
        let mut insert = self.db.prepare_cached("INSERT INTO left_out VALUES (?1, ?2)")?;
        let uids = self.rows(query, [line], |row| row.get::<_, u32>(0))?;
        let mut left_out = uids.iter().filter(|uid| !told.contains(uid));
        left_out.try_for_each(|uid| insert.execute(params![line, uid]).map(drop))?;
        Ok(())
    }

    /// A message that was stored once and cannot be read any more; its records go
    /// too, so that the mail server sends it again.
    pub fn add_lost(&self, guid: &Guid) -> Result<()> {
        self.db
            .prepare_cached("INSERT OR IGNORE INTO lost VALUES (?1)")?
            .execute([guid.to_string()])?;
        Ok(())
    }

    /// Row ids of the mailboxes that have this name, deleted ones included.
    pub fn mailboxes_called(&self, name: &[u8]) -> Result<Vec<i64>> {
        self.rows("SELECT id FROM mailbox WHERE mboxname = ?1", [Text(name)], |row| row.get(0))
    }

    /// Derives what stays when everything deleted or expunged at `since` or before is
    /// dropped; `None`: nothing of that kind is.
    pub fn choose(&self, since: Option<i64>) -> Result<()> {
        let step = |sql: String| self.db.execute(&sql, [since]);
        self.db.execute_batch(
            "CREATE TABLE kept_mailbox(id INTEGER PRIMARY KEY, line INTEGER NOT NULL);
             CREATE TABLE kept_record(mailbox_id INTEGER NOT NULL, uid INTEGER NOT NULL, \
             message_id INTEGER NOT NULL, line INTEGER NOT NULL, expunged INTEGER, gone_line \
             INTEGER, PRIMARY KEY (mailbox_id, uid, message_id)) WITHOUT ROWID;
             CREATE TABLE kept_item(line INTEGER NOT NULL, uid INTEGER NOT NULL, PRIMARY KEY \
             (line, uid)) WITHOUT ROWID;
             CREATE TABLE kept_left_out(line INTEGER NOT NULL, mailbox_id INTEGER NOT NULL, uid \
             INTEGER NOT NULL, PRIMARY KEY (line, uid)) WITHOUT ROWID;
             CREATE TABLE not_whole(line INTEGER PRIMARY KEY);
             CREATE TABLE kept_message(line INTEGER NOT NULL, message_id INTEGER NOT NULL, \
             PRIMARY KEY (line, message_id)) WITHOUT ROWID;
             CREATE TABLE kept_line(line INTEGER PRIMARY KEY);
             CREATE TABLE held_line(line INTEGER PRIMARY KEY, ts INTEGER NOT NULL);",
        )?;
        step(format!(
            "INSERT INTO kept_mailbox SELECT id, last_chunk_id FROM mailbox WHERE {}",
            unexpired("deleted")
        ))?;
        // A message that was lost has no row, so that only an exception can speak of it.
        step(format!(
            "INSERT INTO kept_record SELECT r.mailbox_id, r.uid, r.message_id, r.last_chunk_id,
             r.expunged, NULL FROM mailbox_message r
             WHERE r.mailbox_id IN (SELECT id FROM kept_mailbox) AND {} AND {NO_EXCEPTION}",
            unexpired("r.expunged")
        ))?;
        step(format!(
            "INSERT INTO kept_record SELECT mailbox_id, uid, COALESCE((SELECT id FROM message m
             WHERE m.guid = cyrbk_record.guid), 0), last_chunk_id, expunged, NULL FROM cyrbk_record
             WHERE NOT hidden AND mailbox_id IN (SELECT id FROM kept_mailbox) AND {}
             AND guid NOT IN (SELECT guid FROM lost)",
            unexpired("expunged")
        ))?;
        step(format!(
            "INSERT INTO kept_record SELECT g.mailbox_id, g.uid, COALESCE(m.id, -row_number()
             OVER ()), g.last_chunk_id, g.expunged, g.gone_chunk_id FROM cyrbk_gone g
             LEFT JOIN message m ON m.guid = g.guid
             WHERE g.mailbox_id IN (SELECT id FROM kept_mailbox) AND {}",
            unexpired("g.expunged")
        ))?;
        self.choose_displacing_lines()?;
        self.db.execute_batch(
            "INSERT INTO kept_left_out SELECT line, mailbox_id, uid FROM kept_record
             JOIN left_out USING (line, uid);
             INSERT OR IGNORE INTO kept_item SELECT line, uid FROM kept_record
             EXCEPT SELECT line, uid FROM kept_left_out;
             INSERT OR IGNORE INTO not_whole SELECT l.line FROM left_out l
             JOIN naming_line n ON n.line = l.line
             JOIN kept_record k ON k.mailbox_id = n.mailbox_id AND k.uid = l.uid
             WHERE k.line > l.line AND k.expunged IS NOT NULL AND k.gone_line IS NULL;
             CREATE TEMP TABLE first_expunged AS SELECT min(e.line) AS line, e.uid AS uid,
             e.ts AS ts FROM expunge_item e
             JOIN kept_record k ON k.mailbox_id = e.mailbox_id AND k.uid = e.uid
             WHERE k.expunged = e.ts AND e.line < k.line GROUP BY e.mailbox_id, e.uid;
             INSERT OR IGNORE INTO kept_item SELECT line, uid FROM first_expunged;
             INSERT OR IGNORE INTO held_line SELECT line, ts FROM first_expunged;
             DROP TABLE first_expunged;
             INSERT INTO kept_message SELECT chunk_id, id FROM message
             WHERE id IN (SELECT message_id FROM kept_record);
             INSERT OR IGNORE INTO kept_line SELECT line FROM kept_mailbox;
             INSERT OR IGNORE INTO kept_line SELECT DISTINCT line FROM kept_item;
             INSERT OR IGNORE INTO kept_line SELECT DISTINCT line FROM kept_left_out;
             INSERT OR IGNORE INTO kept_line SELECT DISTINCT line FROM kept_message;
             INSERT OR IGNORE INTO kept_line SELECT last_chunk_id FROM seen;",
        )?;
        step(format!(
            "INSERT OR IGNORE INTO kept_line SELECT last_chunk_id FROM subscription WHERE {}",
            unexpired("unsubscribed")
        ))?;
        step(format!(
            "INSERT OR IGNORE INTO kept_line SELECT chunk_id FROM sieve WHERE {}",
            unexpired("deleted")
        ))?;
        Ok(())
    }

    /// What displaced a record stays with it: the line whose LAST_UID was lower than that of the
    /// line in front of it, or the record that took its place. If that came as expunged it does
    /// not, lest it tells since when of one that lived again: then the next one of that UID
    /// that stays takes the place, and there is one.
    fn choose_displacing_lines(&self) -> Result<()> {
        Ok(self.db.execute_batch(
            "CREATE TEMP TABLE displaced AS SELECT k.mailbox_id AS mailbox_id, k.uid AS uid,
             k.gone_line AS line, g.higher_chunk_id AS higher FROM kept_record k
             JOIN cyrbk_gone g ON g.mailbox_id = k.mailbox_id AND g.uid = k.uid
             AND g.gone_chunk_id = k.gone_line;
             INSERT OR IGNORE INTO kept_item SELECT line, uid FROM displaced
             WHERE higher IS NULL AND (line, uid) NOT IN (SELECT line, uid FROM expunge_item);
             INSERT OR IGNORE INTO kept_line SELECT line FROM displaced WHERE higher IS NOT NULL
             UNION SELECT higher FROM displaced WHERE higher IS NOT NULL;
             DROP TABLE displaced;",
        )?)
    }

    /// Keeps one more line.
    pub fn keep_line(&self, line: i64) -> Result<()> {
        self.db.prepare_cached("INSERT OR IGNORE INTO kept_line VALUES (?1)")?.execute([line])?;
        Ok(())
    }

    /// Does not keep a line after all.
    pub fn drop_line(&self, line: i64) -> Result<()> {
        self.db.prepare_cached("DELETE FROM kept_line WHERE line = ?1")?.execute([line])?;
        Ok(())
    }

    /// Whether mailbox `id` stays, and its last MAILBOX line comes before `line`.
    pub fn is_kept_before(&self, mailbox_id: i64, line: i64) -> Result<bool> {
        let query = "SELECT 1 FROM kept_mailbox WHERE id = ?1 AND line < ?2";
        Ok(self
            .db
            .prepare_cached(query)?
            .query_row([mailbox_id, line], |_| Ok(()))
            .optional()?
            .is_some())
    }

    /// Whether a script that stays was deleted by the UNSIEVE at `line`.
    pub fn is_unsieve_needed(
        &self,
        filename: &[u8],
        line: i64,
        ts: i64,
        since: Option<i64>,
    ) -> Result<bool> {
        let query = "SELECT 1 FROM sieve WHERE filename = ?1 AND chunk_id < ?2 AND deleted = ?3
                     AND (?4 IS NULL OR deleted > ?4)";
        Ok(self
            .db
            .prepare_cached(query)?
            .query_row(params![Text(filename), line, ts, since], |_| Ok(()))
            .optional()?
            .is_some())
    }

    /// Whether a record that stays was expunged by the EXPUNGE at `line`.
    pub fn is_expunge_needed(&self, expunge: &Expunge<'_>, line: i64, ts: i64) -> Result<bool> {
        let mut statement = self.db.prepare_cached(
            "SELECT 1 FROM kept_record k JOIN mailbox b ON b.id = k.mailbox_id
             WHERE b.uniqueid = ?1 AND k.uid = ?2 AND k.line < ?3 AND k.expunged = ?4",
        )?;
        for uid in expunge.uids() {
            let row = params![Text(&expunge.uniqueid), uid, line, ts];
            if statement.exists(row)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What must stay of the lines from `first` up to, not including, `end`.
    pub fn wanted(&self, first: i64, end: i64) -> Result<Wanted> {
        let range = [first, end];
        let mut wanted = Wanted::default();
        let query = "SELECT line FROM kept_line WHERE line >= ?1 AND line < ?2";
        wanted.lines.extend(self.rows(query, range, |row| row.get::<_, i64>(0))?);
        let query = "SELECT line, guid FROM kept_message JOIN message ON id = message_id
                     WHERE line >= ?1 AND line < ?2";
        for (line, guid) in self.rows(query, range, |row| Ok((row.get(0)?, octets(row, 1)?)))? {
            if let Some(guid) = guid.and_then(|text| Guid::from_hex(&text)) {
                wanted.messages.entry(line).or_default().insert(guid);
            }
        }
        let query = "SELECT line, uid FROM kept_item WHERE line >= ?1 AND line < ?2";
        for (line, uid) in self.rows(query, range, |row| Ok((row.get(0)?, row.get(1)?)))? {
            wanted.uids.entry(line).or_default().insert(uid);
        }
        let query = "SELECT line, mailbox_id, uid FROM kept_left_out
                     WHERE line >= ?1 AND line < ?2 ORDER BY line, uid";
        for (line, mailbox_id, uid) in
            self.rows(query, range, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        {
            let is_its = |row: &RecordRow| row.last_chunk_id == line;
            let record = match self.true_record(mailbox_id, uid)?.filter(is_its) {
                Some(record) => Some(record),
                // It was displaced since.
                None => self.gone_record_from(mailbox_id, uid, line)?,
            };
            wanted.left_out.entry(line).or_default().extend(record);
        }
        let query = "SELECT line FROM not_whole WHERE line >= ?1 AND line < ?2";
        wanted.not_whole.extend(self.rows(query, range, |row| row.get::<_, i64>(0))?);
        let query = "SELECT line, ts FROM held_line WHERE line >= ?1 AND line < ?2";
        let held =
            self.rows(query, range, |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)));
        wanted.held.extend(held?);
        Ok(wanted)
    }

    /// Row ids of the mailboxes that stay.
    pub fn kept_mailboxes(&self) -> Result<HashSet<i64>> {
        let ids = self.rows("SELECT id FROM kept_mailbox", [], |row| row.get(0))?;
        Ok(ids.into_iter().collect())
    }

    /// Compares the messages that stay in a mailbox with all those of one in `other`, pair by
    /// pair in the order of UIDs, until two are not the same; whether there was none.
    pub fn keeps_records_of(
        &self,
        mailbox_id: i64,
        (other, other_id): (&Index, i64),
        is_same: impl Fn(&RecordRow, &RecordRow) -> bool,
    ) -> Result<bool> {
        let kept = format!(
            "SELECT * FROM ({TRUE_RECORDS}) t WHERE EXISTS (SELECT 1 FROM kept_record k
             WHERE k.mailbox_id = ?1 AND k.uid = t.uid AND k.gone_line IS NULL) ORDER BY 2"
        );
        let mut due = self.db.prepare_cached(&kept)?;
        let mut due = due.query_map([mailbox_id], record_row)?;
        let mut found = other.db.prepare_cached(&format!("{TRUE_RECORDS} ORDER BY 2"))?;
        let mut found = found.query_map([other_id], record_row)?;
        loop {
            match (due.next().transpose()?, found.next().transpose()?) {
                (None, None) => return Ok(true),
                (Some(due), Some(found)) if is_same(&due, &found) => {}
                _ => return Ok(false),
            }
        }
    }

    /// The same of records that were displaced, of which `other` may have more.
    pub fn keeps_gone_records_of(
        &self,
        mailbox_id: i64,
        (other, other_id): (&Index, i64),
        is_same: impl Fn(&RecordRow, &RecordRow) -> bool,
    ) -> Result<bool> {
        let kept = format!(
            "{GONE_RECORDS} JOIN kept_record k ON k.mailbox_id = g.mailbox_id AND k.uid = g.uid
             AND k.message_id = m.id WHERE g.mailbox_id = ?1 AND k.gone_line IS NOT NULL
             ORDER BY g.uid, g.guid"
        );
        let due = self.rows(&kept, [mailbox_id], record_row)?;
        let mut found = other.gone_records(other_id)?.into_iter();
        Ok(due.iter().all(|due| found.any(|found| is_same(due, &found))))
    }

    /// How many messages stay.
    pub fn count_kept_messages(&self) -> Result<u64> {
        self.count("SELECT count(*) FROM kept_message")
    }

    /// How many messages the index knows.
    pub fn count_messages(&self) -> Result<u64> {
        self.count("SELECT count(*) FROM message")
    }

    fn count(&self, query: &str) -> Result<u64> {
        Ok(self.db.prepare_cached(query)?.query_row([], |row| row.get::<_, i64>(0))? as u64)
    }

    /// Tells the length of each chunk, in row order, and whether it holds something of the
    /// present state, as far as rows say: Cyrus's rule, except that the truth about UIDs counts,
    /// and nothing in a mailbox whose retention is over.
    pub fn live_chunks(&self, since: Option<i64>, mut tell: impl FnMut(u64, bool)) -> Result<()> {
        let query = format!(
            "WITH box AS (SELECT id, last_chunk_id, deleted FROM mailbox WHERE {deleted}),
             truth AS (SELECT r.mailbox_id, r.last_chunk_id AS line, r.expunged, m.guid
             FROM mailbox_message r JOIN message m ON m.id = r.message_id WHERE {NO_EXCEPTION}
             UNION ALL SELECT mailbox_id, last_chunk_id, expunged, guid FROM cyrbk_record
             WHERE NOT hidden
             UNION ALL SELECT mailbox_id, last_chunk_id, expunged, guid FROM cyrbk_gone
             UNION ALL SELECT mailbox_id, gone_chunk_id, expunged, guid FROM cyrbk_gone
             UNION ALL SELECT mailbox_id, higher_chunk_id, expunged, guid FROM cyrbk_gone
             WHERE higher_chunk_id IS NOT NULL),
             record AS (SELECT line, guid, expunged FROM truth WHERE {expunged}
             AND mailbox_id IN (SELECT id FROM box)),
             live AS (SELECT last_chunk_id FROM box UNION SELECT line FROM record
             UNION SELECT chunk_id FROM message WHERE guid IN (SELECT guid FROM record)
             UNION SELECT last_chunk_id FROM subscription WHERE {unsubscribed}
             UNION SELECT last_chunk_id FROM seen
             UNION SELECT chunk_id FROM sieve WHERE {deleted}
             UNION SELECT chunk_id FROM cyrbk_needed WHERE {needed} AND ts IN (SELECT deleted
             FROM box UNION ALL SELECT deleted FROM sieve UNION ALL SELECT expunged FROM record))
             SELECT COALESCE(length, 0), id IN live FROM chunk ORDER BY id",
            deleted = unexpired("deleted"),
            expunged = unexpired("expunged"),
            unsubscribed = unexpired("unsubscribed"),
            needed = unexpired("ts"),
        );
        let mut statement = self.db.prepare(&query)?;
        let mut rows = statement.query([since])?;
        while let Some(row) = rows.next()? {
            tell(row.get::<_, i64>(0)? as u64, row.get(1)?);
        }
        Ok(())
    }
}
