//! `RECORD`: one message of a mailbox.

use super::Reject;
use super::fields::canonical_list;
use crate::wire::Guid;
use crate::wire::dlist::{List, Literals, Printer, Value};
use crate::wire::sync_crc::CrcRecord;

/// What a record has.
const FIELDS: [&[u8]; 8] = [
    b"UID",
    b"MODSEQ",
    b"LAST_UPDATED",
    b"FLAGS",
    b"INTERNALDATE",
    b"SIZE",
    b"GUID",
    b"ANNOTATIONS",
];

/// The values of these.
type Values<'a> = [Option<Value<'a>>; FIELDS.len()];

/// FLAGS and ANNOTATIONS.
type Lists<'a> = [Option<Value<'a>>; 2];

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

    /// The records of a list, in the order sent.
    pub fn all_of(list: List<'_>) -> impl Iterator<Item = Result<Record, Reject>> {
        list.named(FIELDS).map(|values| {
            let (mut record, [flags, annotations]) = Record::without_lists(values)?;
            if let Some(value) = &flags {
                (record.flags, record.expunged) = without_expunged(value);
            }
            record.annotations = canonical_list(annotations.as_ref());
            Ok(record)
        })
    }

    /// The same, without flags and annotations: a record is as if none were sent. All that can be
    /// wrong with it is outside these.
    pub fn all_bare_of(list: List<'_>) -> impl Iterator<Item = Result<Record, Reject>> {
        list.named(FIELDS).map(|values| Record::without_lists(values).map(|(record, _)| record))
    }

    /// A record without its lists, flags and annotations; and these. `None` is no kvlist.
    fn without_lists(values: Option<Values<'_>>) -> Result<(Record, Lists<'_>), Reject> {
        let [uid, modseq, last_updated, flags, internaldate, size, guid, annotations] =
            values.ok_or(Reject::BadRecord)?;
        let optional = |value: Option<Value<'_>>| value.and_then(|value| value.as_number());
        let number = |value| optional(value).ok_or(Reject::BadRecord);
        let time = |value| i64::try_from(number(value)?).map_err(|_| Reject::BadRecord);
        let record = Record {
            // 32-bit fields take the low 32 bits.
            uid: number(uid)? as u32,
            modseq: number(modseq)?,
            last_updated: time(last_updated)?,
            flags: Vec::new(),
            expunged: false,
            internaldate: time(internaldate)?,
            size: optional(size),
            guid: guid.and_then(|value| value.as_guid()).ok_or(Reject::BadRecord)?,
            annotations: Vec::new(),
        };
        Ok((record, [flags, annotations]))
    }
}

/// Flags without `\Expunged`, in canonical text, and whether that was there.
fn without_expunged(value: &Value<'_>) -> (Vec<u8>, bool) {
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
