//! Which messages of a mailbox are at the destination already.

use std::collections::HashMap;

use crate::store::index::RecordRow;
use crate::sync::client::FullMailbox;
use crate::wire::Guid;
use crate::wire::apply::Reject;

/// How often each message is in a mailbox.
#[derive(Clone, Debug, Default)]
pub(super) struct There(HashMap<Guid, Copies>);

#[derive(Clone, Debug, Default)]
struct Copies {
    living: u32,
    expunged: u32,
}

impl There {
    /// Counts what a server says of a mailbox.
    pub(super) fn of(mailbox: &FullMailbox) -> Result<There, Reject> {
        let mut there = There::default();
        for record in mailbox.records() {
            let record = record?;
            there.add(record.guid, record.expunged);
        }
        Ok(there)
    }

    /// Counts what is going to be there.
    pub(super) fn add_records(&mut self, records: &[RecordRow]) {
        for record in records {
            if let Some(guid) = record.guid {
                self.add(guid, record.expunged.is_some());
            }
        }
    }

    fn add(&mut self, guid: Guid, expunged: bool) {
        let copies = self.0.entry(guid).or_default();
        if expunged { copies.expunged += 1 } else { copies.living += 1 }
    }

    /// Takes out what is there, each copy once, and counts it. A message that is to be
    /// restored as expunged is there if any copy is.
    pub(super) fn take_from(&mut self, records: &mut Vec<RecordRow>) -> u64 {
        let before = records.len();
        records.retain(|record| {
            let Some(copies) = record.guid.and_then(|guid| self.0.get_mut(&guid)) else {
                return true;
            };
            if record.expunged.is_some() && copies.expunged > 0 {
                copies.expunged -= 1;
                return false;
            }
            if record.expunged.is_none() && copies.living > 0 {
                copies.living -= 1;
                return false;
            }
            record.expunged.is_none() || copies.living == 0
        });
        (before - records.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(uid: u32, message: u8, expunged: bool) -> RecordRow {
        RecordRow {
            last_chunk_id: 1,
            uid,
            modseq: 1,
            last_updated: 1,
            flags: Vec::new(),
            internaldate: 1,
            annotations: Vec::new(),
            expunged: expunged.then_some(1),
            guid: Some(Guid::from([message; 20])),
            size: 1,
        }
    }

    /// What is left of `records`, UIDs only, and how many are there.
    fn left(there: &[(u8, bool)], records: &[(u32, u8, bool)]) -> (Vec<u32>, u64) {
        let mut copies = There::default();
        for (message, expunged) in there {
            copies.add(Guid::from([*message; 20]), *expunged);
        }
        let records = records.iter().map(|(uid, message, gone)| record(*uid, *message, *gone));
        let mut records: Vec<RecordRow> = records.collect();
        let count = copies.take_from(&mut records);
        (records.iter().map(|record| record.uid).collect(), count)
    }

    #[test]
    fn each_copy_counts_once() {
        let records = [(1, 7, false), (2, 7, false), (3, 8, false)];
        assert_eq!(left(&[], &records), (vec![1, 2, 3], 0));
        assert_eq!(left(&[(7, false)], &records), (vec![2, 3], 1));
        assert_eq!(left(&[(7, false), (7, false), (8, false)], &records), (vec![], 3));
    }

    #[test]
    fn expunged_copies_are_no_living_ones() {
        let living = [(1, 7, false)];
        assert_eq!(left(&[(7, true)], &living), (vec![1], 0));
        // But whoever sees a message need not have it as expunged as well.
        let expunged = [(1, 7, true)];
        assert_eq!(left(&[(7, false)], &expunged), (vec![], 1));
        assert_eq!(left(&[(7, true)], &expunged), (vec![], 1));
        assert_eq!(left(&[], &expunged), (vec![1], 0));
    }
}
