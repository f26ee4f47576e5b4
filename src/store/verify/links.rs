//! Do the lines of a chunk say of mailboxes and records what the index says?

use std::collections::HashMap;

use super::finding::Fault;
use crate::store::index::{Index, IndexError, LinkRow, MailboxRow};
use crate::wire::Guid;
use crate::wire::apply::{Mailbox, Record};

/// Rows looked at at a time.
const PAGE: u32 = if cfg!(test) { 3 } else { 512 };

/// The rows whose latest state should be in a chunk.
pub(super) struct Links<'i> {
    index: &'i Index,
    chunk_id: i64,
    mailboxes: Vec<MailboxRow>,
    /// Rows of `mailboxes` that no line has confirmed yet.
    mailboxes_due: HashMap<Vec<u8>, usize>,
    confirmed: Bits,
    /// Some rows in their order, which mostly is that of the log: by mailbox and message.
    page: HashMap<(i64, Guid), LinkRow>,
    /// Row id of the last of these, of which only later ones take the place.
    last: i64,
}

impl<'i> Links<'i> {
    /// After [`Index::sort_by_chunk`].
    pub(super) fn of_chunk(index: &'i Index, chunk_id: i64) -> Result<Links<'i>, IndexError> {
        let mailboxes = index.sorted_mailboxes(chunk_id)?;
        let due = |(i, row): (usize, &MailboxRow)| (row.uniqueid.clone(), i);
        let mailboxes_due = mailboxes.iter().enumerate().map(due).collect();
        let (confirmed, page, last) = (Bits::default(), HashMap::new(), i64::MIN);
        Ok(Links { index, chunk_id, mailboxes, mailboxes_due, confirmed, page, last })
    }

    /// Confirms the rows that this line agrees with.
    pub(super) fn compare(&mut self, line: &Mailbox<'_>) -> Result<(), IndexError> {
        if let Some(&i) = self.mailboxes_due.get(&line.uniqueid)
            && same_mailbox(&self.mailboxes[i], line)
        {
            self.mailboxes_due.remove(&line.uniqueid);
        }
        let Some(mailbox) = self.index.mailbox_with_uniqueid(&line.uniqueid)? else {
            return Ok(());
        };
        for record in line.bare_records().filter_map(Result::ok) {
            if let Some(row) = self.row(mailbox.id, &record.guid)?
                && same_record(&row, &record)
            {
                self.confirmed.set(row.id);
            }
        }
        Ok(())
    }

    /// The row of a message in a mailbox, if it was last seen in this chunk.
    fn row(&mut self, mailbox_id: i64, guid: &Guid) -> Result<Option<LinkRow>, IndexError> {
        if let Some(row) = self.page.get(&(mailbox_id, *guid)) {
            return Ok(Some(*row));
        }
        let row = self.index.record_in_chunk(mailbox_id, guid, self.chunk_id)?;
        if let Some(row) = row.as_ref().filter(|row| row.id > self.last) {
            let rows = self.index.sorted_records(self.chunk_id, row.id, PAGE)?;
            self.last = rows.last().map_or(row.id, |row| row.id);
            self.page = rows.into_iter().map(|row| ((row.mailbox_id, row.guid), row)).collect();
        }
        Ok(row)
    }

    /// Mailboxes, then records, each in the order of their rows.
    pub(super) fn faults(self) -> Result<Vec<Fault>, IndexError> {
        let due = &self.mailboxes_due;
        let mailboxes = self.mailboxes.into_iter().filter(|row| due.contains_key(&row.uniqueid));
        let mut faults: Vec<Fault> = mailboxes
            .map(|row| Fault::NoMailbox { uniqueid: row.uniqueid, mboxname: row.mboxname })
            .collect();
        let mut unconfirmed = Vec::new();
        self.index.each_record_of_chunk(self.chunk_id, |id| {
            if !self.confirmed.has(id) {
                unconfirmed.push(id);
            }
        })?;
        for id in unconfirmed {
            let place = self.index.place_of_record(id)?;
            faults.extend(place.map(|(uniqueid, uid)| Fault::NoRecord { uniqueid, uid }));
        }
        Ok(faults)
    }
}

/// A set of row ids: a bit for each, for those of a chunk lie close together. They may be
/// anything where the index is damaged, and take no more memory then than there are of them.
#[derive(Default)]
struct Bits(HashMap<i64, u64>);

const BITS: i64 = u64::BITS as i64;

impl Bits {
    fn set(&mut self, id: i64) {
        *self.0.entry(id.div_euclid(BITS)).or_default() |= 1 << id.rem_euclid(BITS);
    }

    fn has(&self, id: i64) -> bool {
        let word = self.0.get(&id.div_euclid(BITS));
        word.is_some_and(|word| word >> id.rem_euclid(BITS) & 1 == 1)
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

fn same_record(row: &LinkRow, line: &Record) -> bool {
    row.uid == line.uid
        && row.modseq == line.modseq
        && row.last_updated == line.last_updated
        && row.internaldate == line.internaldate
        && line.size.is_none_or(|size| size == row.size)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::index::Position;
    use crate::wire::apply::Apply;
    use crate::wire::dlist::parse_item;

    fn read<T>(line: &str, look: impl FnOnce(&Apply<'_>) -> T) -> T {
        let (name, value) = parse_item(line.as_bytes()).unwrap();
        look(&Apply::read(&name, &value).unwrap())
    }

    /// A line with these UIDs, of messages of the same numbers.
    fn line(uids: impl IntoIterator<Item = u32>, modseq: impl Fn(u32) -> u32) -> String {
        let record = |uid| {
            let modseq = modseq(uid);
            format!(
                "%(UID {uid} MODSEQ {modseq} LAST_UPDATED 1 FLAGS (\\Seen) INTERNALDATE 1 \
                 SIZE 7 GUID {uid:040x})"
            )
        };
        let records: Vec<String> = uids.into_iter().map(record).collect();
        format!(
            "MAILBOX %(UNIQUEID u MBOXNAME user.a LAST_UID 20 HIGHESTMODSEQ 1 RECENTUID 0 \
             RECENTTIME 0 LAST_APPENDDATE 0 POP3_LAST_LOGIN 0 UIDVALIDITY 1 PARTITION d ACL \"\" \
             OPTIONS P RECORD ({}))",
            records.join(" ")
        )
    }

    #[test]
    fn records_are_found_in_whatever_order_they_come() {
        let index = Index::scratch().unwrap();
        let chunk_id = index.start_chunk(1, 0, "").unwrap();
        let at = Position { chunk_id, ts: 1, offset: 0 };
        let enter = |line: &str| read(line, |apply| index.apply(at, apply).unwrap());
        let files: Vec<String> = (1..=20).map(|n| format!("%{{d {n:040x} 7}}\r\n")).collect();
        enter(&format!("MESSAGE ({})", files.join(" ")));
        enter(&line(1..=20, |_| 5));
        index.sort_by_chunk().unwrap();
        let in_turns = (1..=20).filter(|n| n % 2 == 0).chain((1..=20).filter(|n| n % 2 == 1));
        for order in [(1..=20).collect(), (1..=20).rev().collect(), in_turns.collect::<Vec<_>>()] {
            let mut links = Links::of_chunk(&index, chunk_id).unwrap();
            // 7 is missing, 9 has changed, 4 comes twice.
            let uids = order.iter().copied().filter(|uid| *uid != 7).chain([4]);
            read(&line(uids, |uid| if uid == 9 { 6 } else { 5 }), |apply| {
                let Apply::Mailbox(mailbox) = apply else { panic!("{apply:?}") };
                links.compare(mailbox).unwrap();
            });
            let uid = |fault: &Fault| match fault {
                Fault::NoRecord { uid, .. } => *uid,
                fault => panic!("{fault:?}"),
            };
            let missing: Vec<u32> = links.faults().unwrap().iter().map(uid).collect();
            assert_eq!(missing, [7, 9], "{order:?}");
        }
    }

    #[test]
    fn a_set_of_numbers() {
        let numbers = [500, 3, 64, 63, 1000, 129, 128];
        let mut bits = Bits::default();
        assert!(!bits.has(3));
        for (i, &number) in numbers.iter().enumerate() {
            bits.set(number);
            for other in 0..2000 {
                assert_eq!(bits.has(other), numbers[..=i].contains(&other), "{number} {other}");
            }
        }
        for number in [i64::MAX, i64::MIN, -1] {
            assert!(!bits.has(number));
            bits.set(number);
            assert!(bits.has(number) && bits.has(500));
        }
    }
}
