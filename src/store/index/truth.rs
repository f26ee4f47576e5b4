//! What Cyrus's tables cannot say, so that every answer is exact.
//!
//! Cyrus keeps one row per mailbox and *message*: a second UID of the same message
//! overwrites the first, a message once expunged stays expunged although it came
//! back, and a record without its message is dropped. A replication client believes
//! the answers built from such rows, and renumbers or expunges mail on the server.
//!
//! The truth is one record per mailbox and *UID*: the rows of `mailbox_message`, except
//! where `cyrbk_record` has a row for the UID, which then counts instead. Exceptions are
//! rare, so the table is small. A row that is `hidden` takes its UID out of the mailbox:
//! the master's LAST_UID has gone back behind it. What it was is in [`super::gone`].
//!
//! `cyrbk_mailbox` keeps the fields of a MAILBOX line that have no column.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::read::{RecordRow, record_row};
use super::schema::SchemaError;
use super::{Index, Position, Result, Text, octets};
use crate::wire::Guid;
use crate::wire::apply::{Mailbox, Record};

pub(super) fn create(db: &Connection) -> std::result::Result<(), SchemaError> {
    Ok(db.execute_batch(
        "CREATE TABLE IF NOT EXISTS cyrbk_record( mailbox_id INTEGER NOT NULL, uid INTEGER NOT \
         NULL, last_chunk_id INTEGER NOT NULL, modseq INTEGER, last_updated INTEGER, flags TEXT, \
         internaldate INTEGER, annotations TEXT, expunged INTEGER, guid TEXT NOT NULL, size \
         INTEGER, hidden INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (mailbox_id, uid) ) WITHOUT \
         ROWID;
         CREATE TABLE IF NOT EXISTS cyrbk_mailbox( mailbox_id INTEGER PRIMARY KEY, extra TEXT );",
    )?)
}

/// Columns as [`record_row`] reads them.
const CYRUS: &str = "SELECT r.last_chunk_id, r.uid, r.modseq, r.last_updated, r.flags,
    r.internaldate, r.annotations, r.expunged, m.guid, m.size
    FROM mailbox_message r JOIN message m ON m.id = r.message_id WHERE r.mailbox_id = ?1";
const EXCEPTIONS: &str = "SELECT last_chunk_id, uid, modseq, last_updated, flags, internaldate,
    annotations, expunged, guid, size FROM cyrbk_record WHERE mailbox_id = ?1";

/// The messages of mailbox `?1` as the master has them; the second column is the UID.
pub(super) const TRUE_RECORDS: &str = "SELECT r.last_chunk_id, r.uid AS uid, r.modseq,
    r.last_updated, r.flags, r.internaldate, r.annotations, r.expunged, m.guid, m.size
    FROM mailbox_message r JOIN message m ON m.id = r.message_id WHERE r.mailbox_id = ?1
    AND NOT EXISTS (SELECT 1 FROM cyrbk_record x WHERE x.mailbox_id = ?1 AND x.uid = r.uid)
    UNION ALL SELECT last_chunk_id, uid, modseq, last_updated, flags, internaldate, annotations,
    expunged, guid, size FROM cyrbk_record WHERE mailbox_id = ?1 AND hidden = 0";

impl Index {
    /// The messages of a mailbox as the master has them, in the order of UIDs,
    /// expunged ones included.
    pub fn true_records(&self, mailbox_id: i64) -> Result<Vec<RecordRow>> {
        self.rows(&format!("{TRUE_RECORDS} ORDER BY 2"), [mailbox_id], record_row)
    }

    /// The records of one message, each with the row id of its mailbox, in the order of these.
    pub fn true_records_of(&self, guid: &Guid) -> Result<Vec<(i64, RecordRow)>> {
        let query = "SELECT r.last_chunk_id, r.uid, r.modseq, r.last_updated, r.flags,
             r.internaldate, r.annotations, r.expunged, m.guid, m.size, r.mailbox_id
             FROM mailbox_message r JOIN message m ON m.id = r.message_id WHERE m.guid = ?1
             AND NOT EXISTS (SELECT 1 FROM cyrbk_record x WHERE x.mailbox_id = r.mailbox_id AND
             x.uid = r.uid) UNION ALL SELECT last_chunk_id, uid, modseq, last_updated, flags,
             internaldate, annotations, expunged, guid, size, mailbox_id FROM cyrbk_record
             WHERE guid = ?1 AND hidden = 0 ORDER BY 11, 2";
        self.rows(query, [guid.to_string()], |row| Ok((row.get(10)?, record_row(row)?)))
    }

    /// [`Index::true_records`] of one UID.
    pub fn true_record(&self, mailbox_id: i64, uid: u32) -> Result<Option<RecordRow>> {
        let query = format!(
            "{CYRUS} AND r.uid = ?2 AND NOT EXISTS (SELECT 1 FROM cyrbk_record x WHERE
             x.mailbox_id = ?1 AND x.uid = ?2) UNION ALL {EXCEPTIONS} AND uid = ?2 AND hidden = 0"
        );
        let mut statement = self.db.prepare_cached(&query)?;
        Ok(statement.query_row(params![mailbox_id, uid], record_row).optional()?)
    }

    /// Fields of the mailbox's latest line that have no column: canonical text of
    /// a kvlist, `None` if there are none.
    pub fn extra_fields(&self, mailbox_id: i64) -> Result<Option<Vec<u8>>> {
        Ok(self
            .db
            .prepare_cached("SELECT extra FROM cyrbk_mailbox WHERE mailbox_id = ?1")?
            .query_row([mailbox_id], |row| octets(row, 0))
            .optional()?
            .flatten())
    }

    pub(super) fn set_extra_fields(&self, mailbox_id: i64, mailbox: &Mailbox<'_>) -> Result<()> {
        let extra = mailbox.extra_fields();
        let (sql, extra) = match &extra {
            Some(text) => (
                "INSERT INTO cyrbk_mailbox (mailbox_id, extra) VALUES (?1, ?2)
                 ON CONFLICT (mailbox_id) DO UPDATE SET extra = ?2",
                Some(Text(text)),
            ),
            None => ("UPDATE cyrbk_mailbox SET extra = ?2 WHERE mailbox_id = ?1", None),
        };
        self.db.prepare_cached(sql)?.execute(params![mailbox_id, extra])?;
        Ok(())
    }

    /// Takes UIDs above `last_uid` out of the mailbox.
    pub(super) fn hide_above(&self, mailbox_id: i64, last_uid: u32) -> Result<()> {
        self.db
            .prepare_cached(&format!(
                "INSERT OR REPLACE INTO cyrbk_record (last_chunk_id, uid, modseq, last_updated,
                 flags, internaldate, annotations, expunged, guid, size, mailbox_id, hidden)
                 SELECT *, ?1, 1 FROM ({CYRUS} AND r.uid > ?2)"
            ))?
            .execute(params![mailbox_id, last_uid])?;
        self.db
            .prepare_cached(
                "UPDATE cyrbk_record SET hidden = 1 WHERE mailbox_id = ?1 AND uid > ?2",
            )?
            .execute(params![mailbox_id, last_uid])?;
        Ok(())
    }

    pub(super) fn has_exceptions(&self, mailbox_id: i64) -> Result<bool> {
        Ok(self
            .db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM cyrbk_record WHERE mailbox_id = ?1)")?
            .query_row([mailbox_id], |row| row.get(0))?)
    }

    /// Whether a UID has an exception.
    pub(super) fn is_exception(&self, mailbox_id: i64, uid: u32) -> Result<bool> {
        Ok(self
            .db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM cyrbk_record WHERE mailbox_id = ?1 AND uid = ?2)",
            )?
            .query_row(params![mailbox_id, uid], |row| row.get(0))?)
    }

    /// Keeps the record that the Cyrus row (`message_id`) holds now as the truth
    /// about its UID, unless an exception already does: the row is about to be
    /// overwritten for another UID.
    pub(super) fn preserve(&self, mailbox_id: i64, message_id: i64) -> Result<()> {
        self.db
            .prepare_cached(&format!(
                "INSERT OR IGNORE INTO cyrbk_record (last_chunk_id, uid, modseq, last_updated,
                 flags, internaldate, annotations, expunged, guid, size, mailbox_id)
                 SELECT *, ?1 FROM ({CYRUS} AND r.message_id = ?2)"
            ))?
            .execute(params![mailbox_id, message_id])?;
        Ok(())
    }

    /// Whether Cyrus's table has a row of another message for this UID.
    pub(super) fn is_contested(&self, mailbox_id: i64, message_id: i64, uid: u32) -> Result<bool> {
        Ok(self
            .db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM mailbox_message WHERE uid = ?3 AND mailbox_id = ?1
                 AND message_id <> ?2)",
            )?
            .query_row(params![mailbox_id, message_id, uid], |row| row.get(0))?)
    }

    /// Makes `record` the truth about its UID.
    pub(super) fn set_exception(
        &self,
        at: Position,
        mailbox_id: i64,
        record: &Record,
    ) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO cyrbk_record (mailbox_id, uid, last_chunk_id, modseq, last_updated,
                 flags, internaldate, annotations, expunged, guid, size, hidden)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, COALESCE((SELECT size FROM
                 message WHERE guid = ?10), ?11), 0) ON CONFLICT (mailbox_id, uid) DO UPDATE SET
                 last_chunk_id = excluded.last_chunk_id, modseq = excluded.modseq,
                 last_updated = excluded.last_updated, flags = excluded.flags,
                 internaldate = excluded.internaldate, annotations = excluded.annotations,
                 expunged = CASE WHEN excluded.expunged IS NULL THEN NULL WHEN hidden OR guid <>
                 excluded.guid THEN excluded.expunged ELSE COALESCE(expunged, excluded.expunged)
                 END, guid = excluded.guid, size = excluded.size, hidden = 0",
            )?
            .execute(params![
                mailbox_id,
                record.uid,
                at.chunk_id,
                record.modseq as i64,
                record.last_updated,
                Text(&record.flags),
                record.internaldate,
                Text(&record.annotations),
                record.expunged.then_some(at.ts),
                record.guid.to_string(),
                record.size.map(|size| size as i64),
            ])?;
        Ok(())
    }

    /// Takes over the tables of this module from an index that was built from the
    /// same data; mailboxes are matched by their identity, chunks by their place.
    pub fn take_truth_from(&self, other: &Index) -> Result<()> {
        self.db.execute_batch(
            "DELETE FROM cyrbk_record; DELETE FROM cyrbk_mailbox; DELETE FROM cyrbk_doubt;",
        )?;
        self.take_own_from(other)?;
        let chunks = self.chunks_like_those_of(other)?;
        for theirs in other.mailboxes()? {
            let Some(ours) = self.mailbox_with_uniqueid(&theirs.uniqueid)? else { continue };
            if let Some(extra) = other.extra_fields(theirs.id)? {
                self.db
                    .prepare_cached(
                        "INSERT INTO cyrbk_mailbox (mailbox_id, extra) VALUES (?1, ?2)",
                    )?
                    .execute(params![ours.id, Text(&extra)])?;
            }
            self.set_doubt(ours.id, other.doubt(theirs.id)?)?;
            self.take_exceptions(other, theirs.id, ours.id, &chunks)?;
        }
        self.take_gone_from(other)
    }

    fn take_exceptions(
        &self,
        other: &Index,
        theirs: i64,
        ours: i64,
        chunks: &HashMap<i64, i64>,
    ) -> Result<()> {
        let mut insert = self.db.prepare_cached(
            "INSERT INTO cyrbk_record (mailbox_id, uid, last_chunk_id, modseq, last_updated, flags,
             internaldate, annotations, expunged, guid, size, hidden)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?;
        for hidden in [0, 1] {
            let query = format!("{EXCEPTIONS} AND hidden = {hidden}");
            for row in other.rows(&query, [theirs], record_row)? {
                insert.execute(params![
                    ours,
                    row.uid,
                    chunks.get(&row.last_chunk_id).copied().unwrap_or_default(),
                    row.modseq as i64,
                    row.last_updated,
                    Text(&row.flags),
                    row.internaldate,
                    Text(&row.annotations),
                    row.expunged,
                    row.guid.map(|guid| guid.to_string()),
                    row.size as i64,
                    hidden,
                ])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::apply::Apply;
    use crate::wire::dlist::parse_item;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn apply(index: &Index, ts: i64, line: &str) {
        let (name, value) = parse_item(line.as_bytes()).unwrap();
        let at = Position { chunk_id: 1, ts, offset: 0 };
        index.apply(at, &Apply::read(&name, &value).unwrap()).unwrap();
    }

    fn index() -> Index {
        let index = Index::scratch().unwrap();
        index.start_chunk(1, 0, "").unwrap();
        index
    }

    fn guid(number: u32) -> String {
        format!("{number:040x}")
    }

    fn message(index: &Index, number: u32) {
        let line = format!("MESSAGE (%{{d {} 7}}\r\n)", guid(number));
        apply(index, 1, &line);
    }

    fn mailbox(index: &Index, ts: i64, last_uid: u32, records: &[(u32, u32, u64, bool)]) {
        let records: Vec<String> = records
            .iter()
            .map(|(uid, message, modseq, expunged)| {
                let flags = if *expunged { "\\Expunged" } else { "" };
                format!(
                    "%(UID {uid} MODSEQ {modseq} LAST_UPDATED 1 FLAGS ({flags}) INTERNALDATE 1 \
                     SIZE 7 GUID {})",
                    guid(*message)
                )
            })
            .collect();
        let line = format!(
            "MAILBOX %(UNIQUEID u MBOXNAME user.a LAST_UID {last_uid} HIGHESTMODSEQ 1 RECENTUID 0 \
             RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 PARTITION d ACL \"\" \
             OPTIONS P FOLDERMODSEQ 7 RECORD ({}))",
            records.join(" ")
        );
        apply(index, ts, &line);
    }

    /// (uid, message, modseq, expunged)
    fn truth(index: &Index) -> Vec<(u32, u32, u64, bool)> {
        let id = index.mailbox_with_uniqueid(b"u").unwrap().unwrap().id;
        let rows = index.true_records(id).unwrap();
        rows.iter().map(|row| (row.uid, number(row), row.modseq, row.expunged.is_some())).collect()
    }

    /// (uid, message, since when)
    fn gone(index: &Index) -> Vec<(u32, u32, i64)> {
        let id = index.mailbox_with_uniqueid(b"u").unwrap().unwrap().id;
        let rows = index.gone_records(id).unwrap();
        rows.iter().map(|row| (row.uid, number(row), row.expunged.unwrap())).collect()
    }

    fn number(row: &RecordRow) -> u32 {
        u32::from_str_radix(&row.guid.unwrap().to_string()[32..], 16).unwrap()
    }

    #[test]
    fn a_second_uid_of_a_message_does_not_replace_the_first() {
        let index = index();
        message(&index, 1);
        mailbox(&index, 1, 2, &[(1, 1, 5, false), (2, 1, 6, false)]);
        assert_eq!(truth(&index), [(1, 1, 5, false), (2, 1, 6, false)]);
        mailbox(&index, 2, 2, &[(1, 1, 7, true)]);
        assert_eq!(truth(&index), [(1, 1, 7, true), (2, 1, 6, false)]);
    }

    #[test]
    fn a_message_that_comes_back_lives() {
        let index = index();
        message(&index, 1);
        mailbox(&index, 1, 1, &[(1, 1, 5, true)]);
        mailbox(&index, 2, 3, &[(3, 1, 8, false)]);
        assert_eq!(truth(&index), [(1, 1, 5, true), (3, 1, 8, false)]);
    }

    #[test]
    fn records_without_their_message_are_known() {
        let index = index();
        mailbox(&index, 1, 4, &[(4, 9, 5, true)]);
        assert_eq!(truth(&index), [(4, 9, 5, true)]);
        message(&index, 9);
        mailbox(&index, 2, 4, &[(4, 9, 6, true)]);
        assert_eq!(truth(&index), [(4, 9, 6, true)]);
    }

    #[test]
    fn a_master_that_went_back_takes_its_uids_with_it() {
        let index = index();
        (1..=4).for_each(|number| message(&index, number));
        mailbox(&index, 1, 3, &[(1, 1, 1, false), (2, 2, 2, false), (3, 3, 3, false)]);
        mailbox(&index, 2, 1, &[]);
        assert_eq!(truth(&index), [(1, 1, 1, false)]);
        mailbox(&index, 3, 2, &[(2, 4, 2, false)]);
        assert_eq!(truth(&index), [(1, 1, 1, false), (2, 4, 2, false)]);
        assert_eq!(gone(&index), [(2, 2, 2), (3, 3, 2)]);
    }

    #[test]
    fn what_another_message_displaces_is_gone_since_then() {
        let index = index();
        (1..=4).for_each(|number| message(&index, number));
        mailbox(&index, 1, 2, &[(1, 1, 1, false), (2, 2, 2, false)]);
        mailbox(&index, 2, 2, &[(1, 1, 1, true)]);
        mailbox(&index, 3, 2, &[(1, 3, 3, false), (2, 4, 3, false)]);
        assert_eq!(truth(&index), [(1, 3, 3, false), (2, 4, 3, false)]);
        // The one that was expunged before is so since then.
        assert_eq!(gone(&index), [(1, 1, 2), (2, 2, 3)]);
        // Flags and the like are no reason.
        mailbox(&index, 4, 2, &[(2, 4, 4, false)]);
        assert_eq!(gone(&index), [(1, 1, 2), (2, 2, 3)]);
        // It came back to its place, and the other one went.
        mailbox(&index, 5, 2, &[(2, 2, 5, false)]);
        assert_eq!(truth(&index), [(1, 3, 3, false), (2, 2, 5, false)]);
        assert_eq!(gone(&index), [(1, 1, 2), (2, 4, 5)]);
        let of = |number| index.gone_records_of(&Guid::from_hex(guid(number).as_bytes()).unwrap());
        assert_eq!(of(4).unwrap().len(), 1);
        assert_eq!(of(2).unwrap(), []);
    }

    /// Clients of before 3.4 send a doubtful mailbox in parts.
    #[test]
    fn what_the_next_part_brings_is_not_gone() {
        let index = index();
        (1..=4).for_each(|number| message(&index, number));
        let all = [(1, 1, 1, false), (2, 2, 2, false), (3, 3, 3, true), (4, 4, 4, false)];
        mailbox(&index, 1, 4, &all);
        mailbox(&index, 2, 2, &all[..2]);
        assert_eq!(gone(&index), [(3, 3, 1), (4, 4, 2)]);
        mailbox(&index, 3, 4, &all[2..]);
        assert_eq!(truth(&index), all);
        assert_eq!(gone(&index), []);
    }

    /// There is nothing to be given back.
    #[test]
    fn a_message_that_never_came_is_not_gone() {
        let index = index();
        mailbox(&index, 1, 2, &[(2, 9, 1, false)]);
        mailbox(&index, 2, 1, &[]);
        assert_eq!(gone(&index), []);
        message(&index, 9);
        assert_eq!(gone(&index), [(2, 9, 2)]);
    }

    #[test]
    fn fields_without_a_column_are_kept_and_go_with_their_line() {
        let index = index();
        mailbox(&index, 1, 0, &[]);
        let id = index.mailbox_with_uniqueid(b"u").unwrap().unwrap().id;
        assert_eq!(index.extra_fields(id).unwrap().unwrap(), b"%(FOLDERMODSEQ 7)");
        assert_eq!(index.extra_fields(id + 1).unwrap(), None);
    }

    type Line = (bool, Vec<(u32, u32, bool)>);

    fn lines() -> impl Strategy<Value = Vec<Line>> {
        let record = (1u32..8, 1u32..7, any::<bool>());
        let line = (prop::bool::weighted(0.15), prop::collection::vec(record, 0..5));
        prop::collection::vec(line, 1..12)
    }

    proptest! {
        /// Whatever the master says, the latest word about each UID is the truth, and a
        /// rebuilt index knows it too.
        #[test]
        fn the_latest_word_about_each_uid_counts(lines in lines()) {
            let index = index();
            (1..5).for_each(|number| message(&index, number));
            let mut model = BTreeMap::new();
            let mut lost = BTreeMap::new();
            let mut since = BTreeMap::new();
            let mut last_uid = 0;
            for (ts, (goes_back, records)) in lines.iter().enumerate() {
                let highest = records.iter().map(|record| record.0).max().unwrap_or(0);
                last_uid = if *goes_back { highest } else { highest.max(last_uid) };
                let mut lose = |(uid, of, _, gone): (u32, u32, u64, bool)| {
                    let expunged = if gone { since[&(uid, of)] } else { ts as i64 };
                    lost.insert((uid, of), expunged);
                };
                let above: Vec<_> = model.range(last_uid + 1..).map(|row| *row.1).collect();
                above.into_iter().for_each(&mut lose);
                model.retain(|uid, _| *uid <= last_uid);
                let modseq = ts as u64 + 1;
                let records: Vec<_> =
                    records.iter().map(|(uid, of, gone)| (*uid, *of, modseq, *gone)).collect();
                let mut told = BTreeMap::new();
                for record in &records {
                    let (uid, of, _, gone) = *record;
                    let is_repeated = told.insert(uid, ()).is_some();
                    let before = model.insert(uid, *record);
                    let was_expunged = before.is_some_and(|row| row.1 == of && row.3);
                    if let Some(before) = before.filter(|row| row.1 != of && !is_repeated) {
                        let expunged =
                            if before.3 { since[&(uid, before.1)] } else { ts as i64 };
                        lost.insert((uid, before.1), expunged);
                    }
                    if gone && !was_expunged {
                        since.insert((uid, of), ts as i64);
                    }
                    lost.remove(&(uid, of));
                }
                mailbox(&index, ts as i64, last_uid, &records);
                let expected: Vec<_> = model.values().copied().collect();
                prop_assert_eq!(truth(&index), expected);
                let expected = lost.iter().filter(|((_, of), _)| *of < 5);
                let expected: Vec<_> = expected.map(|((uid, of), ts)| (*uid, *of, *ts)).collect();
                prop_assert_eq!(gone(&index), expected);
            }
            for record in index.true_records(1).unwrap() {
                let of_message = index.true_records_of(&record.guid.unwrap()).unwrap();
                prop_assert!(of_message.contains(&(1, record)));
            }
            let before = (truth(&index), gone(&index));
            index.take_truth_from(&index_of(&index)).unwrap();
            prop_assert_eq!((truth(&index), gone(&index)), before);
        }
    }

    /// A second index with the same exceptions under other row ids.
    fn index_of(index: &Index) -> Index {
        let other = Index::scratch().unwrap();
        other.start_chunk(1, 99, "").unwrap();
        other.start_chunk(1, 0, "").unwrap();
        other
            .db
            .execute_batch(
                "INSERT INTO mailbox (id, uniqueid, mboxname, last_chunk_id)
            VALUES (1, 'x', 'x', 1), (5, 'u', 'user.a', 2)",
            )
            .unwrap();
        for row in index.rows(&format!("{EXCEPTIONS} ORDER BY uid"), [1], record_row).unwrap() {
            other.db.execute(
                "INSERT INTO cyrbk_record (mailbox_id, uid, last_chunk_id, modseq, last_updated,
                 flags, internaldate, annotations, expunged, guid, size, hidden)
                 VALUES (5, ?1, 2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                params![row.uid, row.modseq as i64, row.last_updated, Text(&row.flags),
                    row.internaldate, Text(&row.annotations), row.expunged,
                    row.guid.map(|g| g.to_string()), row.size as i64,
                    !truth(index).iter().any(|record| record.0 == row.uid)],
            ).unwrap();
        }
        for row in index.gone_records(1).unwrap() {
            let row = RecordRow { last_chunk_id: 2, ..row };
            let at = Position { chunk_id: 2, ts: 0, offset: 0 };
            other.set_aside(at, 5, &row, None).unwrap();
        }
        other
    }
}
