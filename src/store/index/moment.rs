//! An index of the state at an earlier moment: see [`crate::store::moment`].

use std::collections::HashSet;

use rusqlite::params;

use super::apply::INSERT_MAILBOX;
use super::{ChunkRow, Index, MailboxRow, Position, RecordRow, Result, Text, octets};
use crate::wire::apply::Record;
use crate::wire::mboxname::NameRules;

impl Index {
    /// Adds a row that another index has, under the number that it has there.
    pub fn add_chunk(&self, chunk: &ChunkRow) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO chunk (id, ts_start, ts_end, offset, length, file_sha1, data_sha1)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                chunk.id,
                chunk.ts_start,
                chunk.ts_end,
                chunk.offset as i64,
                chunk.length as i64,
                chunk.file_sha1,
                chunk.data_sha1
            ])?;
        Ok(())
    }

    /// Takes the row of a chunk back in which nothing was found.
    pub fn remove_chunk(&self, id: i64) -> Result<()> {
        self.db.prepare_cached("DELETE FROM chunk WHERE id = ?1")?.execute([id])?;
        Ok(())
    }

    /// Adds what the state at `moment` must have had, going by `later`: this index holds
    /// what the lines until then say, as far as a compaction has left them, and a line
    /// that was superseded after that moment is not among them.
    ///
    /// A message stored by then, that lives or was expunged after the moment, was there;
    /// with what flags is not known, so it gets those of later. It may have come by a copy
    /// after the moment: rather too much than too little. A compaction may have put
    /// it in front of lines that are older than it, so its own times have a say as well.
    /// A mailbox that a mail server has put aside since, under the name of a deleted one, has the
    /// name from before, if no living one has it: else nobody would find it among what lived.
    /// Returns how many records and mailboxes were added.
    pub fn add_what_outlived(&self, later: &Index, moment: i64, rules: &NameRules) -> Result<u64> {
        let Some(chunk) = self.last_chunk()? else { return Ok(0) };
        let at = Position { chunk_id: chunk.id, ts: moment, offset: 0 };
        // A compaction may have given their lines the later names.
        for ours in by_deletion(self.mailboxes()?, rules) {
            if ours.deleted.is_none()
                && let Some(name) = self.name_before(&ours.mboxname, moment, rules)?
            {
                self.db
                    .prepare_cached("UPDATE mailbox SET mboxname = ?2 WHERE id = ?1")?
                    .execute(params![ours.id, Text(&name)])?;
            }
        }
        let mut added = 0;
        for mut theirs in by_deletion(later.mailboxes()?, rules) {
            let was_deleted = theirs.deleted.is_some_and(|deleted| deleted <= moment);
            let ours = self.mailbox_with_uniqueid(&theirs.uniqueid)?;
            if was_deleted || ours.as_ref().is_some_and(|ours| ours.deleted.is_some()) {
                continue;
            }
            let records = self.outlived_by(later, &theirs, ours.as_ref(), moment)?;
            let id = match ours {
                Some(ours) => ours.id,
                // UIDVALIDITY is mostly the time of creation.
                None if records.is_empty() && i64::from(theirs.uidvalidity) > moment => continue,
                None => {
                    added += 1;
                    if let Some(name) = self.name_before(&theirs.mboxname, moment, rules)? {
                        theirs.mboxname = name;
                    }
                    self.add_mailbox(at, &theirs, later.extra_fields(theirs.id)?.as_deref())?
                }
            };
            for record in records {
                self.enter_record(at, id, &record)?;
                added += 1;
            }
        }
        Ok(added + self.add_subscriptions_ended(at, later, moment)?)
    }

    /// What a mailbox that was deleted after `moment` was called; `None` if its name is not that of
    /// one, or a living one has the name.
    fn name_before(&self, name: &[u8], moment: i64, rules: &NameRules) -> Result<Option<Vec<u8>>> {
        if rules.deleted_at(name).is_none_or(|deleted| deleted <= moment) {
            return Ok(None);
        }
        let Some(before) = rules.undeleted(name) else { return Ok(None) };
        Ok(if self.mailbox_named(&before)?.is_none() { Some(before) } else { None })
    }

    fn outlived_by(
        &self,
        later: &Index,
        theirs: &MailboxRow,
        ours: Option<&MailboxRow>,
        moment: i64,
    ) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        // What was displaced since had the place of what has it now.
        let mut candidates = later.gone_records(theirs.id)?;
        candidates.sort_by_key(|row| (row.uid, row.expunged));
        candidates.append(&mut later.true_records(theirs.id)?);
        let mut taken = HashSet::new();
        for row in candidates {
            if row.expunged.is_some_and(|expunged| expunged <= moment) || !taken.insert(row.uid) {
                continue;
            }
            let is_known = match ours {
                Some(ours) => self.true_record(ours.id, row.uid)?.is_some(),
                None => false,
            };
            if is_known || came_after(&row, ours.map_or(0, |ours| ours.last_uid), moment) {
                continue;
            }
            let Some(record) = living(row) else { continue };
            if self.message(&record.guid)?.is_some() {
                records.push(record);
            }
        }
        Ok(records)
    }

    fn add_mailbox(&self, at: Position, row: &MailboxRow, extra: Option<&[u8]>) -> Result<i64> {
        self.db.prepare_cached(INSERT_MAILBOX)?.execute(params![
            Text(&row.uniqueid),
            at.chunk_id,
            Text(&row.mboxname),
            row.mboxtype.as_deref().map(Text),
            row.last_uid,
            row.highestmodseq as i64,
            row.recentuid,
            row.recenttime,
            row.last_appenddate,
            row.pop3_last_login,
            row.pop3_show_after,
            row.uidvalidity,
            row.partition.as_deref().map(Text),
            row.acl.as_deref().map(Text),
            row.options.as_deref().map(Text),
            row.sync_crc,
            row.sync_crc_annot,
            row.xconvmodseq as i64,
            Text(&row.annotations),
        ])?;
        let id = self.db.last_insert_rowid();
        if let Some(extra) = extra {
            self.db
                .prepare_cached("INSERT INTO cyrbk_mailbox (mailbox_id, extra) VALUES (?1, ?2)")?
                .execute(params![id, Text(extra)])?;
        }
        Ok(id)
    }

    fn add_subscriptions_ended(&self, at: Position, later: &Index, moment: i64) -> Result<u64> {
        let query = "SELECT mboxname FROM subscription WHERE unsubscribed > ?1";
        let ended = later.rows(query, [moment], |row| octets(row, 0))?;
        let mut added = 0;
        for name in ended.into_iter().flatten() {
            added += self
                .db
                .prepare_cached(
                    "INSERT OR IGNORE INTO subscription (mboxname, last_chunk_id) VALUES (?1, ?2)",
                )?
                .execute(params![Text(&name), at.chunk_id])? as u64;
        }
        Ok(added)
    }
}

/// Those that were put aside first, in that order: of all that have borne one name since a moment,
/// the first one to be deleted had it then.
fn by_deletion(mut rows: Vec<MailboxRow>, rules: &NameRules) -> Vec<MailboxRow> {
    rows.sort_by_key(|row| rules.deleted_at(&row.mboxname).unwrap_or(i64::MAX));
    rows
}

/// Whether a message came into its mailbox, which had UIDs up to `last_uid` then, after `moment`.
/// An INTERNALDATE behind LAST_UPDATED is somebody's fancy and tells nothing.
fn came_after(row: &RecordRow, last_uid: u32, moment: i64) -> bool {
    row.uid > last_uid && row.internaldate > moment && row.internaldate <= row.last_updated
}

fn living(row: RecordRow) -> Option<Record> {
    Some(Record {
        uid: row.uid,
        modseq: row.modseq,
        last_updated: row.last_updated,
        flags: row.flags,
        expunged: false,
        internaldate: row.internaldate,
        size: Some(row.size),
        guid: row.guid?,
        annotations: row.annotations,
    })
}
