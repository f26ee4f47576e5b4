//! `RECORD`: one message of a mailbox.

use super::Reject;
use super::fields::Fields;
use crate::wire::Guid;
use crate::wire::dlist::{self, Literals, Printer, Value};
use crate::wire::sync_crc::CrcRecord;

/// One message of a mailbox.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// UID in its mailbox.
    pub uid: u32,
    /// Modification sequence.
    pub modseq: u64,
    /// Unix time, seconds.
    pub last_updated: i64,
    /// Canonical text of the flags without `\Expunged`; empty if none were sent.
    pub flags: Vec<u8>,
    /// Whether `\Expunged` was among the flags.
    pub expunged: bool,
    /// Unix time, seconds.
    pub internaldate: i64,
    /// Octets, if sent.
    pub size: Option<u64>,
    /// The message.
    pub guid: Guid,
    /// Canonical text of the annotations; empty if there are none.
    pub annotations: Vec<u8>,
}

impl Record {
    /// What it adds to the SYNC_CRC of its mailbox, if it is not expunged.
    pub fn crc(&self) -> u32 {
        CrcRecord {
            uid: self.uid,
            modseq: self.modseq,
            last_updated: self.last_updated,
            flags: &self.flags,
            internaldate: self.internaldate,
            guid: &self.guid,
        }
        .crc()
    }

    /// Reads one item of a list of records, from its fields.
    pub fn read(item: Option<dlist::Fields<'_>>) -> Result<Record, Reject> {
        let fields = Fields(item.ok_or(Reject::BadRecord)?);
        let mut record = Record::without_lists(&fields).map_err(|_| Reject::BadRecord)?;
        if let Some(value) = fields.get("FLAGS") {
            (record.flags, record.expunged) = flags(value);
        }
        record.annotations = fields.list("ANNOTATIONS");
        Ok(record)
    }

    /// Whether [`Record::read`] would give a record.
    pub(super) fn check(item: Option<dlist::Fields<'_>>) -> Result<(), Reject> {
        let fields = Fields(item.ok_or(Reject::BadRecord)?);
        Record::without_lists(&fields).map(drop).map_err(|_| Reject::BadRecord)
    }

    /// All that can be wrong with a record is outside its lists.
    fn without_lists(fields: &Fields<'_>) -> Result<Record, Reject> {
        Ok(Record {
            uid: fields.u32("UID")?,
            modseq: fields.u64("MODSEQ")?,
            last_updated: fields.time("LAST_UPDATED")?,
            flags: Vec::new(),
            expunged: false,
            internaldate: fields.time("INTERNALDATE")?,
            size: fields.u64("SIZE").ok(),
            guid: fields.get("GUID").and_then(|v| v.as_guid()).ok_or(Reject::BadRecord)?,
            annotations: Vec::new(),
        })
    }
}

/// Flags without `\Expunged`, in canonical text, and whether that was there.
fn flags(value: &Value<'_>) -> (Vec<u8>, bool) {
    let mut expunged = false;
    let mut printer = Printer::new(Literals::NonSync, b"(".to_vec());
    let mut count = 0;
    for flag in value.as_list().items() {
        if flag.as_text() == Some(b"\\Expunged") {
            expunged = true;
        } else {
            printer.separator(count).value(&flag);
            count += 1;
        }
    }
    printer.raw(b")");
    (printer.into_text(), expunged)
}
