//! `MAILBOX`: the state of a mailbox.

use super::fields::Fields;
use super::{Record, Reject};
use crate::wire::dlist::{List, Value};

/// `MAILBOX`: the whole state of one mailbox, and records of messages.
#[derive(Debug)]
pub struct Mailbox<'a> {
    /// Identity over renames.
    pub uniqueid: Vec<u8>,
    /// Internal name.
    pub mboxname: Vec<u8>,
    /// Type letters; none for a plain mailbox.
    pub mboxtype: Option<Vec<u8>>,
    /// Highest UID ever used.
    pub last_uid: u32,
    /// Highest modification sequence.
    pub highestmodseq: u64,
    /// For `\Recent`.
    pub recentuid: u32,
    /// Unix time, seconds.
    pub recenttime: i64,
    /// Unix time, seconds.
    pub last_appenddate: i64,
    /// Unix time, seconds.
    pub pop3_last_login: i64,
    /// Unix time, seconds.
    pub pop3_show_after: i64,
    /// UIDVALIDITY.
    pub uidvalidity: u32,
    /// Partition on the mail server.
    pub partition: Option<Vec<u8>>,
    /// Access control list, internal form.
    pub acl: Option<Vec<u8>>,
    /// Option letters.
    pub options: Option<Vec<u8>>,
    /// CRC of the records, as sent.
    pub sync_crc: u32,
    /// CRC of the message annotations, as sent.
    pub sync_crc_annot: u32,
    /// Of conversations.
    pub xconvmodseq: u64,
    /// Canonical text of the mailbox annotations; empty if there are none.
    pub annotations: Vec<u8>,
    /// The state that the sender believes to be here, of which this line tells the changes.
    pub since: Option<Since>,
    records: List<'a>,
    extra: Option<Vec<u8>>,
}

/// `SINCE_MODSEQ`, `SINCE_CRC`, `SINCE_CRC_ANNOT`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// HIGHESTMODSEQ.
    pub modseq: u64,
    /// SYNC_CRC; 0 if it is not known.
    pub crc: u32,
    /// SYNC_CRC_ANNOT; 0 if it is not known.
    pub crc_annot: u32,
}

/// Fields of MAILBOX that the index has columns for, and those that speak of the
/// exchange and not of the mailbox.
const KNOWN_FIELDS: [&[u8]; 22] = [
    b"UNIQUEID",
    b"MBOXNAME",
    b"MBOXTYPE",
    b"LAST_UID",
    b"HIGHESTMODSEQ",
    b"RECENTUID",
    b"RECENTTIME",
    b"LAST_APPENDDATE",
    b"POP3_LAST_LOGIN",
    b"POP3_SHOW_AFTER",
    b"UIDVALIDITY",
    b"PARTITION",
    b"ACL",
    b"OPTIONS",
    b"SYNC_CRC",
    b"SYNC_CRC_ANNOT",
    b"XCONVMODSEQ",
    b"ANNOTATIONS",
    b"RECORD",
    b"SINCE_MODSEQ",
    b"SINCE_CRC",
    b"SINCE_CRC_ANNOT",
];

impl<'a> Mailbox<'a> {
    pub(super) fn read(fields: &Fields<'a>) -> Result<Mailbox<'a>, Reject> {
        let mailbox = Mailbox {
            mboxname: fields.text("MBOXNAME").map_err(|_| Reject::Protocol)?,
            uniqueid: fields.text("UNIQUEID")?,
            mboxtype: fields.nullable("MBOXTYPE").unwrap_or_default(),
            last_uid: fields.u32("LAST_UID")?,
            highestmodseq: fields.u64("HIGHESTMODSEQ")?,
            recentuid: fields.u32("RECENTUID")?,
            recenttime: fields.time("RECENTTIME")?,
            last_appenddate: fields.time("LAST_APPENDDATE")?,
            pop3_last_login: fields.time("POP3_LAST_LOGIN")?,
            pop3_show_after: fields.time("POP3_SHOW_AFTER").unwrap_or_default(),
            uidvalidity: fields.u32("UIDVALIDITY")?,
            partition: fields.nullable("PARTITION")?,
            acl: fields.nullable("ACL")?,
            options: fields.nullable("OPTIONS")?,
            sync_crc: fields.u32("SYNC_CRC").unwrap_or_default(),
            sync_crc_annot: fields.u32("SYNC_CRC_ANNOT").unwrap_or_default(),
            xconvmodseq: fields.u64("XCONVMODSEQ").unwrap_or_default(),
            annotations: fields.list("ANNOTATIONS"),
            since: fields.u64("SINCE_MODSEQ").ok().map(|modseq| Since {
                modseq,
                crc: fields.u32("SINCE_CRC").unwrap_or_default(),
                crc_annot: fields.u32("SINCE_CRC_ANNOT").unwrap_or_default(),
            }),
            records: fields.get("RECORD").ok_or(Reject::BadParameters)?.as_list(),
            extra: fields.others(&KNOWN_FIELDS),
        };
        mailbox.bare_records().try_for_each(|record| record.map(drop))?;
        Ok(mailbox)
    }

    /// The records in the order sent.
    pub fn records(&self) -> impl Iterator<Item = Result<Record, Reject>> + use<'a> {
        Record::all_of(self.records)
    }

    /// The same, each without flags and annotations.
    pub fn bare_records(&self) -> impl Iterator<Item = Result<Record, Reject>> + use<'a> {
        Record::all_bare_of(self.records)
    }

    /// The fields without a column of their own, as canonical text of a kvlist.
    pub fn extra_fields(&self) -> Option<Vec<u8>> {
        self.extra.clone()
    }

    /// Whether `value` is a mailbox that exists in name only: an intermediate
    /// (`i`) or a tombstone (`d`). It has no state to keep and may lack every
    /// field but its name.
    pub fn is_placeholder(value: &Value<'_>) -> bool {
        let Value::KvList(kv) = value else { return false };
        kv.pairs()
            .find(|(key, _)| &key[..] == b"MBOXTYPE")
            .and_then(|(_, value)| value.as_text().map(|t| t.iter().any(|c| b"id".contains(c))))
            .unwrap_or(false)
    }
}
