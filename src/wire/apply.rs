//! Typed payloads of the commands that a backup stores.
//!
//! A live session and a reader of the log go through [`Apply::read`] alike. A
//! line is accepted only if it can be indexed: a line in the log that cannot
//! be makes every later compaction by Cyrus fail. Which fields are mandatory is
//! what Cyrus's index demands; fields without a column there are skipped.

use std::borrow::Cow;

use super::Guid;
use super::dlist::{FileHeader, KvList, List, Literals, Printer, Value};
use super::own::Own;
use super::sync_crc::CrcRecord;

/// Why a payload is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// Not a command of this protocol, or not of this shape.
    #[error("bad protocol")]
    Protocol,
    /// A mandatory field is missing or malformed.
    #[error("missing or malformed field")]
    BadParameters,
    /// A message record is malformed.
    #[error("malformed message record")]
    BadRecord,
}

/// A command to be stored.
#[derive(Debug)]
pub enum Apply<'a> {
    /// Messages, in the order of their bodies.
    Message(Vec<FileHeader>),
    /// The state of a mailbox and of some of its messages.
    Mailbox(Box<Mailbox<'a>>),
    /// A mailbox is gone.
    Unmailbox(Cow<'a, [u8]>),
    /// A mailbox has a new name, partition or UIDVALIDITY.
    Rename(Rename),
    /// Messages are gone from a mailbox.
    Expunge(Expunge<'a>),
    /// One user's seen state of somebody else's mailbox.
    Seen(Seen),
    /// Subscribed (`true`) or unsubscribed.
    Sub(Subscription, bool),
    /// A sieve script.
    Sieve(Sieve),
    /// A sieve script is gone.
    Unsieve(Script),
    /// Stored by Cyrus, without effect on the index.
    Reserve,
    /// What Cyrus's log has no line for; see [`super::own`].
    Own(Own),
}

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

/// `RENAME`
#[derive(Debug)]
pub struct Rename {
    /// Old internal name.
    pub from: Vec<u8>,
    /// New internal name; may equal the old one.
    pub to: Vec<u8>,
    /// Partition on the mail server.
    pub partition: Option<Vec<u8>>,
    /// UIDVALIDITY under the new name.
    pub uidvalidity: u32,
}

/// `EXPUNGE`
#[derive(Debug)]
pub struct Expunge<'a> {
    /// Internal name.
    pub mboxname: Vec<u8>,
    /// Must be that mailbox's.
    pub uniqueid: Vec<u8>,
    uids: List<'a>,
}

/// `SEEN`
#[derive(Debug)]
pub struct Seen {
    /// Whose state it is.
    pub userid: Vec<u8>,
    /// The mailbox.
    pub uniqueid: Vec<u8>,
    /// Unix time, seconds.
    pub lastread: i64,
    /// Last UID at that time.
    pub lastuid: u32,
    /// Unix time, seconds.
    pub lastchange: i64,
    /// IMAP sequence set.
    pub seenuids: Vec<u8>,
}

/// `SUB`, `UNSUB`
#[derive(Debug)]
pub struct Subscription {
    /// Who subscribes.
    pub userid: Vec<u8>,
    /// Internal name; need not exist.
    pub mboxname: Vec<u8>,
}

/// `SIEVE`
#[derive(Debug)]
pub struct Sieve {
    /// Whose script.
    pub script: Script,
    /// Unix time, seconds.
    pub last_update: i64,
    /// The script's text.
    pub content: Vec<u8>,
}

/// A sieve script's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Whose script.
    pub userid: Vec<u8>,
    /// File name.
    pub filename: Vec<u8>,
}

impl<'a> Apply<'a> {
    /// Reads the payload of `APPLY name value`. `LOCAL_` forms mean the same as
    /// the plain ones.
    pub fn read(name: &[u8], value: &Value<'a>) -> Result<Apply<'a>, Reject> {
        match name.strip_prefix(b"LOCAL_").unwrap_or(name) {
            b"MESSAGE" => messages(value),
            b"MAILBOX" => {
                Mailbox::read(&fields(value)?).map(|mailbox| Apply::Mailbox(Box::new(mailbox)))
            }
            b"UNMAILBOX" => match value {
                Value::Atom(name) => Ok(Apply::Unmailbox(name.clone())),
                _ => Err(Reject::Protocol),
            },
            b"RENAME" => Rename::read(&fields(value)?).map(Apply::Rename),
            b"EXPUNGE" => Expunge::read(&fields(value)?).map(Apply::Expunge),
            b"SEEN" => Seen::read(&fields(value)?).map(Apply::Seen),
            b"SUB" => Ok(Apply::Sub(Subscription::read(&fields(value)?)?, true)),
            b"UNSUB" => Ok(Apply::Sub(Subscription::read(&fields(value)?)?, false)),
            b"SIEVE" => Sieve::read(&fields(value)?).map(Apply::Sieve),
            b"UNSIEVE" => Script::read(&fields(value)?).map(Apply::Unsieve),
            b"RESERVE" => Ok(Own::unwrap(value).map_or(Apply::Reserve, Apply::Own)),
            name if Own::is_command(name) => Own::read(name, value).map(Apply::Own),
            _ => Err(Reject::Protocol),
        }
    }
}

impl<'a> Mailbox<'a> {
    fn read(fields: &Fields<'a>) -> Result<Mailbox<'a>, Reject> {
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
        mailbox.records().try_for_each(|record| record.map(drop))?;
        Ok(mailbox)
    }

    /// The records in the order sent.
    pub fn records(&self) -> impl Iterator<Item = Result<Record, Reject>> + use<'a> {
        self.records.items().map(|value| Record::read(&value))
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

    /// Reads one element of `RECORD`.
    pub fn read(value: &Value<'_>) -> Result<Record, Reject> {
        let fields = fields(value).map_err(|_| Reject::BadRecord)?;
        let read = || -> Result<Record, Reject> {
            let (flags, expunged) = match fields.get("FLAGS") {
                Some(value) => flags(value),
                None => (Vec::new(), false),
            };
            Ok(Record {
                uid: fields.u32("UID")?,
                modseq: fields.u64("MODSEQ")?,
                last_updated: fields.time("LAST_UPDATED")?,
                flags,
                expunged,
                internaldate: fields.time("INTERNALDATE")?,
                size: fields.u64("SIZE").ok(),
                guid: fields.get("GUID").and_then(|v| v.as_guid()).ok_or(Reject::BadRecord)?,
                annotations: fields.list("ANNOTATIONS"),
            })
        };
        read().map_err(|_| Reject::BadRecord)
    }
}

impl Rename {
    fn read(fields: &Fields<'_>) -> Result<Rename, Reject> {
        Ok(Rename {
            from: fields.text("OLDMBOXNAME").map_err(|_| Reject::Protocol)?,
            to: fields.text("NEWMBOXNAME").map_err(|_| Reject::Protocol)?,
            partition: fields.nullable("PARTITION")?,
            uidvalidity: fields.u32("UIDVALIDITY")?,
        })
    }
}

impl<'a> Expunge<'a> {
    fn read(fields: &Fields<'a>) -> Result<Expunge<'a>, Reject> {
        Ok(Expunge {
            mboxname: fields.text("MBOXNAME").map_err(|_| Reject::Protocol)?,
            uniqueid: fields.text("UNIQUEID")?,
            uids: fields.get("UID").ok_or(Reject::BadParameters)?.as_list(),
        })
    }

    /// The UIDs; what is not a number is left out.
    pub fn uids(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.uids.items().filter_map(|value| value.as_number().map(|n| n as u32))
    }
}

impl Seen {
    fn read(fields: &Fields<'_>) -> Result<Seen, Reject> {
        Ok(Seen {
            userid: fields.text("USERID").map_err(|_| Reject::Protocol)?,
            uniqueid: fields.text("UNIQUEID")?,
            lastread: fields.time("LASTREAD")?,
            lastuid: fields.u32("LASTUID")?,
            lastchange: fields.time("LASTCHANGE")?,
            seenuids: fields.text("SEENUIDS")?,
        })
    }
}

impl Subscription {
    fn read(fields: &Fields<'_>) -> Result<Subscription, Reject> {
        Ok(Subscription {
            userid: fields.text("USERID").map_err(|_| Reject::Protocol)?,
            mboxname: fields.text("MBOXNAME").map_err(|_| Reject::Protocol)?,
        })
    }
}

impl Sieve {
    fn read(fields: &Fields<'_>) -> Result<Sieve, Reject> {
        Ok(Sieve {
            script: Script::read(fields)?,
            last_update: fields.time("LAST_UPDATE")?,
            content: fields.text("CONTENT")?,
        })
    }
}

impl Script {
    fn read(fields: &Fields<'_>) -> Result<Script, Reject> {
        Ok(Script {
            userid: fields.text("USERID").map_err(|_| Reject::Protocol)?,
            filename: fields.text("FILENAME")?,
        })
    }
}

/// The fields of a payload, with the protocol's notion of "missing".
struct Fields<'a>(super::dlist::Fields<'a>);

fn fields<'a>(value: &Value<'a>) -> Result<Fields<'a>, Reject> {
    match value {
        Value::KvList(kv) => Ok(Fields(KvList::fields(kv))),
        _ => Err(Reject::Protocol),
    }
}

impl<'a> Fields<'a> {
    fn get(&self, name: &str) -> Option<&Value<'a>> {
        self.0.get(name)
    }

    fn u64(&self, name: &str) -> Result<u64, Reject> {
        self.0.number(name).ok_or(Reject::BadParameters)
    }

    /// 32-bit fields take the low 32 bits, as everywhere in this protocol.
    fn u32(&self, name: &str) -> Result<u32, Reject> {
        self.u64(name).map(|n| n as u32)
    }

    fn time(&self, name: &str) -> Result<i64, Reject> {
        i64::try_from(self.u64(name)?).map_err(|_| Reject::BadParameters)
    }

    fn text(&self, name: &str) -> Result<Vec<u8>, Reject> {
        self.0.text(name).map(<[u8]>::to_vec).ok_or(Reject::BadParameters)
    }

    fn nullable(&self, name: &str) -> Result<Option<Vec<u8>>, Reject> {
        match self.get(name) {
            Some(Value::Nil) => Ok(None),
            _ => self.text(name).map(Some),
        }
    }

    /// Canonical text of a kvlist of all fields but `known`; `None` if there are
    /// no others.
    fn others(&self, known: &[&[u8]]) -> Option<Vec<u8>> {
        let mut printer = Printer::new(Literals::NonSync, b"%(".to_vec());
        let others = self.0.pairs().filter(|(key, _)| !known.contains(key));
        let mut count = 0;
        for (key, value) in others {
            printer.separator(count).item(key, value);
            count += 1;
        }
        printer.raw(b")");
        (count > 0).then(|| printer.into_text())
    }

    /// Canonical text of a list, as the index keeps it; empty if absent.
    fn list(&self, name: &str) -> Vec<u8> {
        match self.get(name) {
            Some(value @ Value::List(_)) => canonical(value),
            _ => Vec::new(),
        }
    }
}

fn messages<'a>(value: &Value<'a>) -> Result<Apply<'a>, Reject> {
    // A sender that cannot read one of its messages puts NIL in its place.
    let files = value.as_list().items().filter_map(|item| match item {
        Value::File(file) => Some(file),
        _ => None,
    });
    let files: Vec<FileHeader> = files.collect();
    if files.is_empty() { Err(Reject::Protocol) } else { Ok(Apply::Message(files)) }
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

fn canonical(value: &Value<'_>) -> Vec<u8> {
    let mut printer = Printer::new(Literals::NonSync, Vec::new());
    printer.value(value);
    printer.into_text()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::dlist::parse_item;
    use super::*;

    const MAILBOX: &str = "UNIQUEID u MBOXNAME user.tom SYNC_CRC 4267957342 SYNC_CRC_ANNOT \
        1720205923 LAST_UID 1 HIGHESTMODSEQ 2 RECENTUID 0 RECENTTIME 0 LAST_APPENDDATE 5 \
        POP3_LAST_LOGIN 0 POP3_SHOW_AFTER 0 UIDVALIDITY 9 PARTITION default ACL \"tom\tlrs\t\" \
        OPTIONS P";
    const GUID: &str = "4eea1e78e5032625a64f9ba26611156942a8f86a";

    fn read(line: &str) -> Result<String, Reject> {
        let (name, value) = parse_item(line.as_bytes()).unwrap();
        Apply::read(&name, &value).map(|apply| format!("{apply:?}"))
    }

    #[test]
    fn a_mailbox_and_its_records() {
        let line = format!(
            "MAILBOX %({MAILBOX} ANNOTATIONS (%(ENTRY /c USERID \"\" MODSEQ 0 VALUE x)) RECORD \
             (%(UID 1 MODSEQ 2 LAST_UPDATED 3 FLAGS (\\Seen \\Expunged $Junk) INTERNALDATE 4 \
             SIZE 21 GUID {GUID})))"
        );
        let (name, value) = parse_item(line.as_bytes()).unwrap();
        let Apply::Mailbox(mailbox) = Apply::read(&name, &value).unwrap() else { panic!() };
        assert_eq!(mailbox.annotations, b"(%(ENTRY /c USERID \"\" MODSEQ 0 VALUE x))");
        assert_eq!(mailbox.acl.as_deref(), Some(&b"tom\tlrs\t"[..]));
        let records: Vec<Record> = mailbox.records().collect::<Result<_, _>>().unwrap();
        assert_eq!(records[0].flags, b"(\\Seen $Junk)");
        assert!(records[0].expunged);
        assert_eq!(records[0].size, Some(21));
    }

    #[test]
    fn every_mandatory_mailbox_field_is_missed() {
        let words: Vec<&str> = MAILBOX.split(' ').collect();
        assert!(read(&format!("MAILBOX %({MAILBOX} RECORD ())")).is_ok());
        assert_eq!(read(&format!("MAILBOX %({MAILBOX})")), Err(Reject::BadParameters));
        for pair in words.chunks(2) {
            let rest = MAILBOX.replacen(&pair.join(" "), "", 1);
            let result = read(&format!("MAILBOX %({rest} RECORD ())"));
            match pair[0] {
                "SYNC_CRC" | "SYNC_CRC_ANNOT" | "POP3_SHOW_AFTER" => assert!(result.is_ok()),
                "MBOXNAME" => assert_eq!(result, Err(Reject::Protocol)),
                name => assert_eq!(result, Err(Reject::BadParameters), "{name}"),
            }
        }
    }

    #[test]
    fn a_bad_record_refuses_the_line() {
        let line = |record: &str| read(&format!("MAILBOX %({MAILBOX} RECORD ({record}))"));
        assert_eq!(line("%(UID 1)"), Err(Reject::BadRecord));
        assert_eq!(line("x"), Err(Reject::BadRecord));
        let good = format!("%(UID 1 MODSEQ 2 LAST_UPDATED 3 INTERNALDATE 4 GUID {GUID})");
        assert!(line(&good).is_ok());
        assert_eq!(line(&good.replace("4eea", "4eeX")), Err(Reject::BadRecord));
        assert_eq!(line(&good.replace("UID 1", "UID -1")), Err(Reject::BadRecord));
    }

    #[test]
    fn placeholders_are_known_by_their_type() {
        for (kind, expected) in [("ei", true), ("d", true), ("e", false), ("NIL", false)] {
            let line = format!("MAILBOX %(UNIQUEID u MBOXNAME user.t.X MBOXTYPE {kind})");
            let (_, value) = parse_item(line.as_bytes()).unwrap();
            assert_eq!(Mailbox::is_placeholder(&value), expected, "{kind}");
        }
    }

    #[test]
    fn the_small_ones() {
        assert!(read("UNMAILBOX user.tom").is_ok());
        assert_eq!(read("UNMAILBOX NIL"), Err(Reject::Protocol));
        assert_eq!(read("UNMAILBOX (a)"), Err(Reject::Protocol));
        assert!(read("RENAME %(OLDMBOXNAME a NEWMBOXNAME b PARTITION p UIDVALIDITY 1)").is_ok());
        assert_eq!(
            read("RENAME %(OLDMBOXNAME a NEWMBOXNAME b PARTITION p)"),
            Err(Reject::BadParameters)
        );
        assert_eq!(read("RENAME %(NEWMBOXNAME b)"), Err(Reject::Protocol));
        assert!(read("LOCAL_UNMAILBOX user.tom").is_ok());
        assert!(read("SUB %(USERID a MBOXNAME b)").is_ok());
        assert!(read("SIEVE %(USERID a FILENAME f LAST_UPDATE 1 CONTENT keep)").is_ok());
        assert_eq!(read("SIEVE %(USERID a FILENAME f)"), Err(Reject::BadParameters));
        assert_eq!(read("MESSAGE ()"), Err(Reject::Protocol));
        assert_eq!(read("MESSAGE (x)"), Err(Reject::Protocol));
        assert!(read(&format!("MESSAGE (NIL %{{p {GUID} 0}}\r\n)")).is_ok());
        assert!(read("QUOTA %(ROOT x)").is_ok());
        assert_eq!(read("INCOMPLETE u"), Err(Reject::Protocol));
    }
}
