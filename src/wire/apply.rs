//! Typed payloads of the commands that a backup stores.
//!
//! A live session and a reader of the log go through [`Apply::read`] alike. A
//! line is accepted only if it can be indexed: a line in the log that cannot
//! be makes every later compaction by Cyrus fail. Which fields are mandatory is
//! what Cyrus's index demands; fields without a column there are skipped.

mod fields;
mod mailbox;
mod record;
mod user;

use std::borrow::Cow;

use self::fields::{Fields, fields};
pub use self::mailbox::{Mailbox, Since};
pub use self::record::Record;
pub use self::user::{Script, Seen, Sieve, Subscription};
use super::dlist::{FileHeader, List, Value};
use super::own::Own;

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

impl<'a> Apply<'a> {
    /// Reads the payload of `APPLY name value`. `LOCAL_` forms mean the same as
    /// the plain ones.
    pub fn read(name: &[u8], value: &Value<'a>) -> Result<Apply<'a>, Reject> {
        match plain(name) {
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

/// Whether [`Apply::read`] would give messages.
pub fn is_message(name: &[u8], value: &Value<'_>) -> bool {
    plain(name) == b"MESSAGE" && files(value).next().is_some()
}

/// A command's name without `LOCAL_`.
fn plain(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"LOCAL_").unwrap_or(name)
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

/// A sender that cannot read one of its messages puts NIL in its place.
fn files<'a>(value: &Value<'a>) -> impl Iterator<Item = FileHeader> + use<'a> {
    value.as_list().items().filter_map(|item| match item {
        Value::File(file) => Some(file),
        _ => None,
    })
}

fn messages<'a>(value: &Value<'a>) -> Result<Apply<'a>, Reject> {
    let files: Vec<FileHeader> = files(value).collect();
    if files.is_empty() { Err(Reject::Protocol) } else { Ok(Apply::Message(files)) }
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
