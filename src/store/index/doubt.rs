//! Is the truth about a mailbox the master's?
//!
//! A master tells changes only. One that was restored from an older state and has gone on does
//! not know what it once sent: the backup would keep mail that is not there, and lack mail that
//! came under the same UIDs. SYNC_CRC, the checksum over the living messages that comes with
//! each line, shows it. A line is compared by what it changes, in time proportional to the line;
//! if that does not fit the mailbox is *suspected*, and compared as a whole before it is shown to
//! a client again. One that does not compare equal is not shown, and the client sends all of it.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::read::{RecordRow, record_row};
use super::schema::SchemaError;
use super::truth::TRUE_RECORDS;
use super::{Index, MailboxRow, Position, Result};
use crate::wire::apply::{Mailbox, Record};

/// SYNC_CRC_ANNOT of a mailbox without annotations, so also of one without messages.
const ANNOT_OF_NOTHING: u32 = 12_345_678;

/// What is wrong with a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// Nothing.
    Nothing = 0,
    /// It is to be compared as a whole.
    Suspected = 1,
    /// It is to be sent whole, whatever a comparison says.
    Resend = 2,
    /// The checksums of its sender are not understood: if it does not fit, nothing is wrong.
    Unverifiable = 3,
}

pub(super) fn create(db: &Connection) -> std::result::Result<(), SchemaError> {
    Ok(db.execute_batch(
        "CREATE TABLE IF NOT EXISTS cyrbk_doubt( mailbox_id INTEGER PRIMARY KEY, state INTEGER \
         NOT NULL );",
    )?)
}

/// Compares a MAILBOX line with what is known, record by record.
pub(super) struct Comparison {
    before: Option<MailboxRow>,
    doubt: Doubt,
    /// What the checksum should be after the records so far.
    expected: u32,
    /// Checksum of the records alone.
    told_crc: u32,
    told: HashSet<u32>,
    /// A message that lives in the mailbox never came.
    pub(super) lacks_message: bool,
}

impl Comparison {
    /// Whether the line has told a record of that UID.
    pub(super) fn has_told(&self, uid: u32) -> bool {
        self.told.contains(&uid)
    }

    /// Takes up a record, before it is entered, with what is `known` of its UID. Of one above
    /// LAST_UID nothing should be: if there is something all the same, the mailbox is suspected.
    pub(super) fn take_up(&mut self, record: &Record, known: Option<&RecordRow>) {
        let crc = if record.expunged { 0 } else { record.crc() };
        self.told_crc ^= crc;
        self.told.insert(record.uid);
        let known = known.filter(|row| row.expunged.is_none());
        self.expected ^= crc ^ known.map_or(0, RecordRow::crc);
    }
}

impl Index {
    /// Lines that nobody can read any more lie between those entered so far and those to come:
    /// whatever they said, every mailbox is to be compared as a whole before it is shown, also
    /// one whose first line, for all that is known, is entered from now on.
    pub fn miss_lines(&self) -> Result<()> {
        self.expect_missing_lines();
        self.db.execute(
            "INSERT OR REPLACE INTO cyrbk_doubt (mailbox_id, state) SELECT id, ?1 FROM mailbox
             WHERE id NOT IN (SELECT mailbox_id FROM cyrbk_doubt WHERE state = ?2)",
            params![Doubt::Suspected as i64, Doubt::Resend as i64],
        )?;
        Ok(())
    }

    /// cyrbk's compaction has dropped records in front of this: that a first line did not fit
    /// says nothing of its sender.
    pub(super) fn doubt_misfits(&self) -> Result<()> {
        self.db
            .prepare_cached("UPDATE cyrbk_doubt SET state = ?1 WHERE state = ?2")?
            .execute([Doubt::Suspected as i64, Doubt::Unverifiable as i64])?;
        Ok(())
    }

    /// Before a line is entered that may tell the whole mailbox: a suspicion is looked into, as
    /// when the mailbox was last to be shown.
    pub(super) fn settle(&self, known: &MailboxRow, line: &Mailbox<'_>) -> Result<()> {
        let is_due =
            line.since.is_none() && has_checksum(line) && self.doubt(known.id)? == Doubt::Suspected;
        if is_due && self.fits_its_checksum(known)? {
            self.set_doubt(known.id, Doubt::Nothing)?;
        }
        Ok(())
    }

    /// Lines may have been dropped, with live mail in them, as Cyrus's compaction does: a mailbox
    /// whose first line that is left does not fit is to be compared as a whole before it is shown.
    pub fn expect_missing_lines(&self) {
        self.misses_lines.set(true);
    }

    /// Identities of the mailboxes that are not what their master last had.
    pub fn doubtful_mailboxes(&self) -> Result<Vec<Vec<u8>>> {
        let mut doubtful = Vec::new();
        for row in self.mailboxes()? {
            if row.deleted.is_none() && !self.is_whole(&row)? {
                doubtful.push(row.uniqueid);
            }
        }
        Ok(doubtful)
    }

    /// Begins a comparison with what was known `before` the line.
    pub(super) fn compare(&self, before: Option<MailboxRow>) -> Result<Comparison> {
        let doubt = match &before {
            Some(row) => self.doubt(row.id)?,
            None => Doubt::Nothing,
        };
        let expected = before.as_ref().map_or(0, |row| row.sync_crc);
        Ok(Comparison {
            before,
            doubt,
            expected,
            told_crc: 0,
            told: HashSet::new(),
            lacks_message: false,
        })
    }

    /// Draws the conclusion, after all records were entered.
    pub(super) fn conclude(
        &self,
        at: Position,
        id: i64,
        with: &Comparison,
        line: &Mailbox<'_>,
    ) -> Result<()> {
        let is_whole = line.since.is_none() && fits(line, with.told_crc);
        let mut doubt = with.doubt;
        if is_whole {
            if with.before.is_some() {
                self.expunge_all_but(at, id, &with.told)?;
            }
            doubt = Doubt::Nothing;
        } else if let Some(before) = &with.before {
            // Older clients send parts of a mailbox without a checksum. Behind such a part there
            // is none to go on from.
            let is_expected =
                is_known(before.sync_crc, before.sync_crc_annot) && fits(line, with.expected);
            let differs = doubt == Doubt::Nothing && has_checksum(line) && !is_expected;
            let is_suspect = has_less(line, before) || differs || before.deleted.is_some();
            if with.told.contains(&line.last_uid) && begins_anew(with.doubt, before, line) {
                // The last part has a checksum, and is compared. What has no place in it is not
                // taken away here: a compaction drops lines, and another one might then begin.
                doubt = Doubt::Nothing;
            } else if !self.misses_lines.get() && is_misunderstood(with.doubt, before, line) {
                doubt = Doubt::Unverifiable;
            } else if is_suspect && doubt != Doubt::Resend {
                doubt = Doubt::Suspected;
            }
        } else if !has_checksum(line) {
            // The first part of a mailbox. The last one has a checksum, and is compared.
        } else if self.misses_lines.get() || line.since.is_some() {
            // What came first, or what this is a part of, may be among what is missing.
            doubt = Doubt::Suspected;
        } else {
            doubt = Doubt::Unverifiable;
        }
        if with.lacks_message && doubt != Doubt::Resend {
            doubt = Doubt::Suspected;
        }
        if doubt != with.doubt { self.set_doubt(id, doubt) } else { Ok(()) }
    }

    /// Whether what is known of the mailbox is what its master last had, as far as can be told.
    /// One that was suspected, and is as it should be, is no longer.
    pub fn is_whole(&self, row: &MailboxRow) -> Result<bool> {
        match self.doubt(row.id)? {
            Doubt::Nothing => Ok(true),
            Doubt::Resend => Ok(false),
            Doubt::Suspected => self.clear_doubt(row),
            // Its sender may have been misunderstood once only.
            Doubt::Unverifiable => self.clear_doubt(row).map(|_| true),
        }
    }

    /// Compares a mailbox as a whole; if it is as it should be it is in doubt no longer.
    fn clear_doubt(&self, row: &MailboxRow) -> Result<bool> {
        let is_whole = self.fits_its_checksum(row)?;
        if is_whole {
            // Not to be forgotten with what only reads.
            let was_held = self.let_go()?;
            self.set_doubt(row.id, Doubt::Nothing)?;
            if was_held {
                self.hold()?;
            }
        }
        Ok(is_whole)
    }

    fn fits_its_checksum(&self, row: &MailboxRow) -> Result<bool> {
        Ok(is_known(row.sync_crc, row.sync_crc_annot)
            && self.checksum(row.id)? == row.sync_crc
            && !self.lacks_message(row.id)?)
    }

    /// SYNC_CRC of what lives in a mailbox, record by record.
    fn checksum(&self, mailbox_id: i64) -> Result<u32> {
        let mut statement = self.db.prepare_cached(TRUE_RECORDS)?;
        let mut records = statement.query_map([mailbox_id], record_row)?;
        records.try_fold(0, |crc, record| {
            let record = record?;
            Ok(if record.expunged.is_none() { crc ^ record.crc() } else { crc })
        })
    }

    /// Only an exception can speak of a message that is not there.
    fn lacks_message(&self, mailbox_id: i64) -> Result<bool> {
        Ok(self
            .db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM cyrbk_record WHERE mailbox_id = ?1 AND hidden = 0
                 AND expunged IS NULL AND guid NOT IN (SELECT guid FROM message))",
            )?
            .query_row([mailbox_id], |row| row.get(0))?)
    }

    /// Whether the mailbox is kept from clients until it was sent whole.
    pub fn is_to_be_resent(&self, uniqueid: &[u8]) -> Result<bool> {
        let row = self.mailbox_with_uniqueid(uniqueid)?;
        Ok(match row {
            Some(row) => self.doubt(row.id)? == Doubt::Resend,
            None => false,
        })
    }

    pub(super) fn doubt(&self, mailbox_id: i64) -> Result<Doubt> {
        let state: Option<i64> = self
            .db
            .prepare_cached("SELECT state FROM cyrbk_doubt WHERE mailbox_id = ?1")?
            .query_row([mailbox_id], |row| row.get(0))
            .optional()?;
        Ok(match state {
            None | Some(0) => Doubt::Nothing,
            Some(2) => Doubt::Resend,
            Some(3) => Doubt::Unverifiable,
            Some(_) => Doubt::Suspected,
        })
    }

    pub(super) fn set_doubt(&self, mailbox_id: i64, doubt: Doubt) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO cyrbk_doubt (mailbox_id, state) VALUES (?1, ?2)",
            )?
            .execute(params![mailbox_id, doubt as i64])?;
        Ok(())
    }

    /// The sender has told the whole mailbox: what it has not mentioned is gone, as of now.
    fn expunge_all_but(&self, at: Position, mailbox_id: i64, uids: &HashSet<u32>) -> Result<()> {
        for row in self.true_records(mailbox_id)? {
            if row.expunged.is_none() && !uids.contains(&row.uid) {
                self.expunge_record(at, mailbox_id, row)?;
            }
        }
        Ok(())
    }

    fn expunge_record(&self, at: Position, mailbox_id: i64, row: RecordRow) -> Result<()> {
        let Some(guid) = row.guid else { return Ok(()) };
        // As it will be read if a compaction has to say so.
        let flags = if row.flags.is_empty() { b"()".to_vec() } else { row.flags };
        let record = Record {
            uid: row.uid,
            modseq: row.modseq,
            last_updated: row.last_updated,
            flags,
            expunged: true,
            internaldate: row.internaldate,
            size: Some(row.size),
            guid,
            annotations: row.annotations,
        };
        self.set_exception(at, mailbox_id, &record)
    }
}

/// Whether a line, which tells its LAST_UID, is the first part of a mailbox that was not shown to
/// its client: rolling clients before 3.4 send 8,192 records at a time (`sync_batchsize`), with the
/// LAST_UID and HIGHESTMODSEQ of the last of them and no checksum. They go on from there only if
/// that is what they are shown.
fn begins_anew(doubt: Doubt, before: &MailboxRow, line: &Mailbox<'_>) -> bool {
    if line.since.is_some() || has_checksum(line) {
        return false;
    }
    match doubt {
        Doubt::Resend => true,
        Doubt::Suspected => {
            // The same part again: it was not shown behind the first one.
            let is_same = line.last_uid == before.last_uid
                && line.highestmodseq == before.highestmodseq
                && !is_known(before.sync_crc, before.sync_crc_annot);
            has_less(line, before) || is_same
        }
        Doubt::Nothing | Doubt::Unverifiable => false,
    }
}

/// Whether a line, which does not fit, tells the whole of a mailbox that was not shown to its
/// client: nothing that its sender could say would fit.
fn is_misunderstood(doubt: Doubt, before: &MailboxRow, line: &Mailbox<'_>) -> bool {
    matches!(doubt, Doubt::Suspected | Doubt::Resend)
        && line.since.is_none()
        && has_checksum(line)
        // Else it may be the last part, from a client that does not tell what it goes on from.
        && is_known(before.sync_crc, before.sync_crc_annot)
}

/// Whether a line tells of an earlier state, or of less.
fn has_less(line: &Mailbox<'_>, before: &MailboxRow) -> bool {
    line.last_uid < before.last_uid
        || line.highestmodseq < before.highestmodseq
        || line.uidvalidity < before.uidvalidity
}

/// Zero is "not known", as in a partial update; but so is the checksum of no message, beside
/// which stands the other one's beginning.
fn is_known(sync_crc: u32, sync_crc_annot: u32) -> bool {
    sync_crc != 0 || sync_crc_annot == ANNOT_OF_NOTHING
}

fn has_checksum(line: &Mailbox<'_>) -> bool {
    is_known(line.sync_crc, line.sync_crc_annot)
}

fn fits(line: &Mailbox<'_>, crc: u32) -> bool {
    has_checksum(line) && line.sync_crc == crc
}
