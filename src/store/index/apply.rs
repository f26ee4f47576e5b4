//! One line of the log to rows of the index: what Cyrus's index would hold
//! after the same line.

use rusqlite::{OptionalExtension, Params, ToSql, params};
use sha1::{Digest, Sha1};

use super::{Index, IndexError, RecordRow, Result, Text};
use crate::wire::Guid;
use crate::wire::apply::{
    Apply, Expunge, Mailbox, Record, Reject, Rename, Script, Seen, Sieve, Subscription,
};
use crate::wire::dlist::FileHeader;

/// Where a line stands.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// Row of its chunk.
    pub chunk_id: i64,
    /// Its time stamp.
    pub ts: i64,
    /// Inflated octets of the chunk in front of it.
    pub offset: u64,
}

impl Index {
    /// Enters the effect of a line. After an error some of it may be entered: the
    /// transaction is to be rolled back.
    pub fn apply(&self, at: Position, line: &Apply<'_>) -> Result<()> {
        match line {
            Apply::Message(files) => files.iter().try_for_each(|file| self.enter_message(at, file)),
            Apply::Mailbox(mailbox) => self.mailbox(at, mailbox),
            Apply::Unmailbox(name) => self.unmailbox(at, name),
            Apply::Rename(rename) => self.rename(rename),
            Apply::Expunge(expunge) => self.expunge(at, expunge),
            Apply::Seen(seen) => self.seen(at, seen),
            Apply::Sub(subscription, on) => self.subscription(at, subscription, *on),
            Apply::Sieve(sieve) => self.sieve(at, sieve),
            Apply::Unsieve(script) => self.unsieve(at, script),
            Apply::Own(own) => self.enter_own(at, own),
            Apply::Reserve => Ok(()),
        }
    }

    fn enter_message(&self, at: Position, file: &FileHeader) -> Result<()> {
        let guid = file.guid.hex();
        let (partition, offset, size) = (Text(&file.partition), at.offset as i64, file.size as i64);
        self.db
            .prepare_cached(
                "INSERT INTO message (guid, partition, chunk_id, offset, size)
                 VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (guid) DO UPDATE SET
                 partition = ?2, chunk_id = ?3, offset = ?4, size = ?5",
            )?
            .execute(params![Text(&guid), partition, at.chunk_id, offset, size])?;
        Ok(())
    }

    fn mailbox(&self, at: Position, mailbox: &Mailbox<'_>) -> Result<()> {
        let uniqueid = Text(&mailbox.uniqueid);
        let known = self.mailbox_with_uniqueid(&mailbox.uniqueid)?;
        if let Some(known) = &known {
            self.settle(known, mailbox)?;
        }
        self.db
            .prepare_cached(if known.is_some() { UPDATE_MAILBOX } else { INSERT_MAILBOX })?
            .execute(params![
                uniqueid,
                at.chunk_id,
                Text(&mailbox.mboxname),
                mailbox.mboxtype.as_deref().map(Text),
                mailbox.last_uid,
                mailbox.highestmodseq as i64,
                mailbox.recentuid,
                mailbox.recenttime,
                mailbox.last_appenddate,
                mailbox.pop3_last_login,
                mailbox.pop3_show_after,
                mailbox.uidvalidity,
                mailbox.partition.as_deref().map(Text),
                mailbox.acl.as_deref().map(Text),
                mailbox.options.as_deref().map(Text),
                mailbox.sync_crc,
                mailbox.sync_crc_annot,
                mailbox.xconvmodseq as i64,
                Text(&mailbox.annotations),
            ])?;
        let id = known.as_ref().map_or_else(|| self.db.last_insert_rowid(), |row| row.id);
        self.set_extra_fields(id, mailbox)?;
        let last_uid = known.as_ref().map_or(0, |row| row.last_uid);
        if let Some(before) = known.as_ref().filter(|before| mailbox.last_uid < before.last_uid) {
            self.set_aside_above(at, id, mailbox.last_uid, before.last_chunk_id)?;
            self.hide_above(id, mailbox.last_uid)?;
        }
        let mut comparison = self.compare(known)?;
        let has_exceptions = self.has_exceptions(id)?;
        let mut target = Target {
            id,
            known_uid: last_uid,
            last_uid: mailbox.last_uid,
            has_exceptions,
            lacks_message: false,
        };
        for record in mailbox.records() {
            let record = record.map_err(unreadable)?;
            let is_new = record.uid > target.known_uid;
            let known = self.known_record(&target, record.uid)?;
            // What this line itself has told before was never in the mailbox.
            let was_there = !comparison.has_told(record.uid);
            comparison.take_up(&record, known.as_ref().filter(|_| !is_new));
            if let Some(known) = known.filter(|row| was_there && row.guid != Some(record.guid)) {
                self.set_aside(at, id, &known, None)?;
            }
            self.record(at, &mut target, &record)?;
            target.known_uid = target.known_uid.max(record.uid);
        }
        comparison.lacks_message = target.lacks_message;
        self.conclude(at, id, &comparison, mailbox)
    }

    /// The true record of a UID, if there is one. One that is new has none, but for what a line
    /// told above its own LAST_UID.
    fn known_record(&self, mailbox: &Target, uid: u32) -> Result<Option<RecordRow>> {
        let may_be = uid <= mailbox.known_uid
            || mailbox.has_exceptions && self.is_exception(mailbox.id, uid)?;
        if may_be { self.true_record(mailbox.id, uid) } else { Ok(None) }
    }

    /// Enters one record, as if a MAILBOX line had brought it.
    pub(super) fn enter_record(
        &self,
        at: Position,
        mailbox_id: i64,
        record: &Record,
    ) -> Result<()> {
        let has_exceptions = self.has_exceptions(mailbox_id)?;
        let (known_uid, last_uid) = (u32::MAX, u32::MAX);
        let (id, lacks_message) = (mailbox_id, false);
        let mut target = Target { id, known_uid, last_uid, has_exceptions, lacks_message };
        self.record(at, &mut target, record)
    }

    /// Enters a record into Cyrus's table, and into ours if that cannot hold the
    /// truth about its UID. Cyrus leaves a record without its message out: expunged
    /// ones often come so, others only if the sender has lost the message.
    fn record(&self, at: Position, mailbox: &mut Target, record: &Record) -> Result<()> {
        let is_new = record.uid > mailbox.known_uid && self.new_record(at, mailbox.id, record)?;
        let is_unlike = match is_new {
            true => false,
            false => match self.message_id(&record.guid)? {
                Some(message_id) => self.cyrus_record(at, mailbox, message_id, record)?,
                None => {
                    if !record.expunged {
                        tracing::warn!(uid = record.uid, guid = %record.guid,
                            "the message of this record never came");
                        mailbox.lacks_message = true;
                    }
                    true
                }
            },
        };
        let is_exception = mailbox.has_exceptions && self.is_exception(mailbox.id, record.uid)?;
        if is_exception {
            self.take_back(mailbox.id, record)?;
        }
        // The next line will take it for new.
        let is_beyond = record.uid > mailbox.last_uid;
        if is_exception || is_unlike || is_beyond {
            mailbox.has_exceptions = true;
            self.set_exception(at, mailbox.id, record)?;
        }
        Ok(())
    }

    /// Enters the record of a UID that is new, in one step; `false` if its message is not there,
    /// or has a record in the mailbox.
    fn new_record(&self, at: Position, mailbox_id: i64, record: &Record) -> Result<bool> {
        let guid = record.guid.hex();
        let row = columns(at, mailbox_id, Text(&guid), record);
        Ok(self.db.prepare_cached(NEW_RECORD)?.execute(row)? > 0)
    }

    /// Enters a record of a message that is there. Returns whether Cyrus's table does not tell the
    /// truth about its UID.
    fn cyrus_record(
        &self,
        at: Position,
        mailbox: &Target,
        message_id: i64,
        record: &Record,
    ) -> Result<bool> {
        let known: Option<(u32, bool)> = self
            .db
            .prepare_cached(
                "SELECT uid, expunged IS NOT NULL FROM mailbox_message WHERE mailbox_id = ?1 AND
                 message_id = ?2",
            )?
            .query_row([mailbox.id, message_id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let moves = known.is_some_and(|(uid, _)| uid != record.uid);
        if moves {
            self.preserve(mailbox.id, message_id)?;
        }
        self.db
            .prepare_cached(if known.is_some() { UPDATE_RECORD } else { INSERT_RECORD })?
            .execute(columns(at, mailbox.id, message_id, record))?;
        let is_new_row = known.is_none() || moves;
        let sticks = known.is_some_and(|(_, expunged)| expunged) && (moves || !record.expunged);
        let is_contested = is_new_row
            && record.uid <= mailbox.known_uid
            && self.is_contested(mailbox.id, message_id, record.uid)?;
        Ok(moves || sticks || is_contested)
    }

    fn message_id(&self, guid: &Guid) -> Result<Option<i64>> {
        Ok(self
            .db
            .prepare_cached("SELECT id FROM message WHERE guid = ?1")?
            .query_row([Text(&guid.hex())], |row| row.get(0))
            .optional()?)
    }

    fn unmailbox(&self, at: Position, name: &[u8]) -> Result<()> {
        self.db
            .prepare_cached("UPDATE mailbox SET deleted = ?2 WHERE mboxname = ?1")?
            .execute(params![Text(name), at.ts])?;
        Ok(())
    }

    fn rename(&self, rename: &Rename) -> Result<()> {
        self.db
            .prepare_cached(
                "UPDATE mailbox SET mboxname = ?2, partition = ?3, uidvalidity = ?4
                 WHERE mboxname = ?1",
            )?
            .execute(params![
                Text(&rename.from),
                Text(&rename.to),
                rename.partition.as_deref().map(Text),
                rename.uidvalidity,
            ])?;
        Ok(())
    }

    /// In Cyrus's table, and where ours counts instead.
    fn expunge(&self, at: Position, expunge: &Expunge<'_>) -> Result<()> {
        for table in ["mailbox_message", "cyrbk_record"] {
            let mut statement = self.db.prepare_cached(&format!(
                "UPDATE {table} SET expunged = COALESCE(expunged, ?4) WHERE uid = ?3 AND
                 mailbox_id IN (SELECT id FROM mailbox WHERE uniqueid = ?1 AND mboxname = ?2)"
            ))?;
            for uid in expunge.uids() {
                let (uniqueid, name) = (Text(&expunge.uniqueid), Text(&expunge.mboxname));
                statement.execute(params![uniqueid, name, uid, at.ts])?;
            }
        }
        Ok(())
    }

    fn seen(&self, at: Position, seen: &Seen) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO seen (uniqueid, last_chunk_id, lastread, lastuid, lastchange, seenuids)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (uniqueid) DO UPDATE SET
                 last_chunk_id = ?2, lastread = ?3, lastuid = ?4, lastchange = ?5, seenuids = ?6",
            )?
            .execute(params![
                Text(&seen.uniqueid),
                at.chunk_id,
                seen.lastread,
                seen.lastuid,
                seen.lastchange,
                Text(&seen.seenuids),
            ])?;
        Ok(())
    }

    fn subscription(&self, at: Position, subscription: &Subscription, on: bool) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO subscription (mboxname, last_chunk_id, unsubscribed)
                 VALUES (?1, ?2, ?3) ON CONFLICT (mboxname) DO UPDATE SET
                 last_chunk_id = ?2, unsubscribed = ?3",
            )?
            .execute(params![Text(&subscription.mboxname), at.chunk_id, (!on).then_some(at.ts)])?;
        Ok(())
    }

    fn sieve(&self, at: Position, sieve: &Sieve) -> Result<()> {
        self.unsieve(at, &sieve.script)?;
        let guid = Guid::from(<[u8; 20]>::from(Sha1::digest(&sieve.content)));
        self.db
            .prepare_cached(
                "INSERT INTO sieve (chunk_id, last_update, filename, guid, offset)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                at.chunk_id,
                sieve.last_update,
                Text(&sieve.script.filename),
                guid.to_string(),
                at.offset as i64,
            ])?;
        Ok(())
    }

    fn unsieve(&self, at: Position, script: &Script) -> Result<()> {
        self.db
            .prepare_cached(
                "UPDATE sieve SET deleted = ?2 WHERE filename = ?1 AND deleted IS NULL",
            )?
            .execute(params![Text(&script.filename), at.ts])?;
        Ok(())
    }
}

/// Both statements take the same parameters and set every column: what a line
/// does not carry is reset.
const UPDATE_MAILBOX: &str = "UPDATE mailbox SET last_chunk_id = ?2, mboxname = ?3, mboxtype = ?4,
    last_uid = ?5, highestmodseq = ?6, recentuid = ?7, recenttime = ?8, last_appenddate = ?9,
    pop3_last_login = ?10, pop3_show_after = ?11, uidvalidity = ?12, partition = ?13, acl = ?14,
    options = ?15, sync_crc = ?16, sync_crc_annot = ?17, quotaroot = NULL, xconvmodseq = ?18,
    annotations = ?19, deleted = NULL WHERE uniqueid = ?1";
pub(super) const INSERT_MAILBOX: &str =
    "INSERT INTO mailbox (uniqueid, last_chunk_id, mboxname, mboxtype,
    last_uid, highestmodseq, recentuid, recenttime, last_appenddate, pop3_last_login,
    pop3_show_after, uidvalidity, partition, acl, options, sync_crc, sync_crc_annot, xconvmodseq,
    annotations) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16,
    ?17, ?18, ?19)";

/// Likewise; `expunged` is never taken back, as in Cyrus.
const UPDATE_RECORD: &str = "UPDATE mailbox_message SET last_chunk_id = ?3, uid = ?4, modseq = ?5,
    last_updated = ?6, flags = ?7, internaldate = ?8, annotations = ?9,
    expunged = COALESCE(expunged, ?10) WHERE mailbox_id = ?1 AND message_id = ?2";
const INSERT_RECORD: &str = "INSERT INTO mailbox_message (mailbox_id, message_id, last_chunk_id,
    uid, modseq, last_updated, flags, internaldate, annotations, expunged)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
/// Likewise, but `?2` is the GUID of the message, and nothing happens where that is not known or
/// has a row.
const NEW_RECORD: &str =
    "INSERT OR IGNORE INTO mailbox_message (mailbox_id, message_id, last_chunk_id, uid,
    modseq, last_updated, flags, internaldate, annotations, expunged)
    VALUES (?1, (SELECT id FROM message WHERE guid = ?2), ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// What these three statements take.
fn columns<'r>(
    at: Position,
    mailbox_id: i64,
    message: impl ToSql + 'r,
    record: &'r Record,
) -> impl Params + 'r {
    (
        mailbox_id,
        message,
        at.chunk_id,
        record.uid,
        record.modseq as i64,
        record.last_updated,
        Text(&record.flags),
        record.internaldate,
        Text(&record.annotations),
        record.expunged.then_some(at.ts),
    )
}

/// The mailbox that records are entered into.
struct Target {
    id: i64,
    /// UIDs above this are new: LAST_UID in front of the line, or what the line has
    /// brought since.
    known_uid: u32,
    /// LAST_UID of the line.
    last_uid: u32,
    has_exceptions: bool,
    /// A message that lives in it never came.
    lacks_message: bool,
}

/// Records were checked when the line was read.
fn unreadable(reject: Reject) -> IndexError {
    IndexError::Sqlite(rusqlite::Error::ToSqlConversionFailure(Box::new(reject)))
}
