//! Do the lines of a chunk say of mailboxes and records what the index says?

use std::collections::HashMap;

use super::finding::Fault;
use crate::store::index::{Index, IndexError, MailboxRow, RecordRow};
use crate::wire::Guid;
use crate::wire::apply::{Mailbox, Record};

/// The rows whose latest state should be in a chunk.
pub(super) struct Links {
    mailboxes: Vec<MailboxRow>,
    records: Vec<(Vec<u8>, RecordRow)>,
    /// Rows of `mailboxes` that no line has confirmed yet.
    mailboxes_due: HashMap<Vec<u8>, usize>,
    /// Rows of `records` that no line has confirmed yet, by mailbox.
    records_due: HashMap<Vec<u8>, HashMap<Guid, usize>>,
}

impl Links {
    /// After [`Index::sort_by_chunk`].
    pub(super) fn of_chunk(index: &Index, chunk_id: i64) -> Result<Links, IndexError> {
        let mailboxes = index.mailboxes_of_chunk(chunk_id)?;
        let records = index.sorted_records(chunk_id)?;
        let due = |(i, row): (usize, &MailboxRow)| (row.uniqueid.clone(), i);
        let mailboxes_due = mailboxes.iter().enumerate().map(due).collect();
        let mut records_due: HashMap<Vec<u8>, HashMap<Guid, usize>> = HashMap::new();
        for (i, (uniqueid, row)) in records.iter().enumerate() {
            if !records_due.contains_key(uniqueid) {
                records_due.insert(uniqueid.clone(), HashMap::new());
            }
            if let (Some(due), Some(guid)) = (records_due.get_mut(uniqueid), row.guid) {
                due.insert(guid, i);
            }
        }
        Ok(Links { mailboxes, records, mailboxes_due, records_due })
    }

    /// Confirms the rows that this line agrees with.
    pub(super) fn compare(&mut self, line: &Mailbox<'_>) {
        if let Some(&i) = self.mailboxes_due.get(&line.uniqueid)
            && same_mailbox(&self.mailboxes[i], line)
        {
            self.mailboxes_due.remove(&line.uniqueid);
        }
        let Some(due) = self.records_due.get_mut(&line.uniqueid) else { return };
        for record in line.records().filter_map(Result::ok) {
            if let Some(&i) = due.get(&record.guid)
                && same_record(&self.records[i].1, &record)
            {
                due.remove(&record.guid);
            }
        }
    }

    /// Mailboxes, then records, each in the order of their rows.
    pub(super) fn faults(self) -> Vec<Fault> {
        let due = &self.mailboxes_due;
        let mailboxes = self.mailboxes.into_iter().filter(|row| due.contains_key(&row.uniqueid));
        let due = &self.records_due;
        let records = self.records.into_iter().filter(|(uniqueid, row)| {
            row.guid.is_none_or(|guid| due.get(uniqueid).is_some_and(|d| d.contains_key(&guid)))
        });
        mailboxes
            .map(|row| Fault::NoMailbox { uniqueid: row.uniqueid, mboxname: row.mboxname })
            .chain(records.map(|(uniqueid, row)| Fault::NoRecord { uniqueid, uid: row.uid }))
            .collect()
    }
}

fn same_mailbox(row: &MailboxRow, line: &Mailbox<'_>) -> bool {
    row.mboxname == line.mboxname
        && row.last_uid == line.last_uid
        && row.highestmodseq == line.highestmodseq
        && row.recentuid == line.recentuid
        && row.recenttime == line.recenttime
        && row.last_appenddate == line.last_appenddate
        && row.uidvalidity == line.uidvalidity
        && row.partition == line.partition
        && row.acl == line.acl
        && row.options == line.options
        && row.xconvmodseq == line.xconvmodseq
        && row.sync_crc == line.sync_crc
        && row.sync_crc_annot == line.sync_crc_annot
}

fn same_record(row: &RecordRow, line: &Record) -> bool {
    row.uid == line.uid
        && row.modseq == line.modseq
        && row.last_updated == line.last_updated
        && row.internaldate == line.internaldate
        && line.size.is_none_or(|size| size == row.size)
}
