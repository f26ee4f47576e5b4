//! Which messages of a mailbox are at the destination already.

use std::collections::HashMap;

use crate::store::index::RecordRow;
use crate::sync::client::FullMailbox;
use crate::wire::Guid;
use crate::wire::apply::Reject;

/// How often each message is in a mailbox.
#[derive(Debug, Default)]
pub(super) struct There(HashMap<Guid, Copies>);

#[derive(Debug, Default)]
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
