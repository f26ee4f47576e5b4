//! Lines of the log without the items that go.

use std::collections::HashSet;

use super::plan::Restated;
use super::spool::Message;
use crate::store::chunk::RESTART_EVERY;
use crate::store::index::RecordRow;
use crate::store::printed;
use crate::wire::Guid;
use crate::wire::dlist::{KvList, Literals, Printer, Value};

/// What stays of a line.
pub(super) enum Stays<'a> {
    /// All of it, except that it may say another name.
    All(Option<&'a Restated>),
    /// These records, and the state of the mailbox, which may have changed.
    Records(Records<'a>, Option<&'a Restated>),
}

/// Records that a MAILBOX line is to have.
#[derive(Clone, Copy)]
pub(super) struct Records<'a> {
    /// UIDs of those that it has and that stay.
    pub(super) of_line: Option<&'a HashSet<u32>>,
    /// Those of expunged messages, which are so because it told all and did not mention them. What
    /// is left of it will no longer be all, so it is to say so.
    pub(super) left_out: &'a [RecordRow],
    /// Unless the line has to go without its checksum, by which it told that these are all.
    pub(super) may_be_all: bool,
}

/// Divides the messages of a line into lines of about [`RESTART_EVERY`] octets, so that one of
/// them can be read without those in front of it.
pub(super) fn divided(messages: &[Message]) -> impl Iterator<Item = &[Message]> {
    let mut octets = 0u64;
    messages.chunk_by(move |one, next| {
        octets = octets.saturating_add(one.body.len());
        let goes_on = octets.saturating_add(next.body.len()) <= RESTART_EVERY;
        if !goes_on {
            octets = 0;
        }
        goes_on
    })
}

/// Canonical text of a line with these messages, and the offsets in it at which their bodies
/// belong. What `LOCAL_MESSAGE` said means the same.
pub(super) fn print_messages(messages: &[Message]) -> (Vec<u8>, Vec<usize>) {
    printed::messages(messages.iter().map(|message| &message.file))
}

/// Canonical text of `name value` as far as it stays, and the messages that it has records of.
pub(super) fn print(name: &[u8], value: &Value<'_>, stays: &Stays<'_>) -> (Vec<u8>, Vec<Guid>) {
    let mut printer = Printer::new(Literals::NonSync, Vec::new());
    let mut records_of = Vec::new();
    match (stays, value) {
        (Stays::Records(records, restated), Value::KvList(fields)) => {
            printer.raw(name).raw(b" ");
            records_of = mailbox(&mut printer, fields, *records, *restated);
        }
        (Stays::All(Some(now)), Value::Atom(_)) => {
            printer.raw(name).raw(b" ").string(&now.mboxname);
        }
        _ => {
            printer.item(name, value);
        }
    }
    (printer.into_parts().0, records_of)
}

/// Returns the messages that the records are of.
fn mailbox(
    printer: &mut Printer,
    fields: &KvList<'_>,
    records: Records<'_>,
    restated: Option<&Restated>,
) -> Vec<Guid> {
    let mut records_of = Vec::new();
    printer.raw(b"%(");
    for (i, (key, value)) in fields.pairs().enumerate() {
        printer.separator(i);
        match (&key[..], restated) {
            (b"RECORD", _) => {}
            (b"SYNC_CRC" | b"SYNC_CRC_ANNOT", _) if !records.may_be_all => {
                printer.string(&key).raw(b" ").number(0);
                continue;
            }
            (b"MBOXNAME", Some(now)) => {
                printer.string(&key).raw(b" ").string(&now.mboxname);
                continue;
            }
            (b"PARTITION", Some(now)) => {
                printer.string(&key).raw(b" ").nstring(now.partition.as_deref());
                continue;
            }
            (b"UIDVALIDITY", Some(now)) => {
                printer.string(&key).raw(b" ").number(now.uidvalidity.into());
                continue;
            }
            _ => {
                printer.item(&key, &value);
                continue;
            }
        }
        printer.raw(b"RECORD (");
        let mut count = 0;
        for record in value.as_list().items() {
            let Some((uid, guid)) = identity(&record) else { continue };
            if records.of_line.is_some_and(|uids| uids.contains(&uid)) {
                printer.separator(count).value(&record);
                records_of.extend(guid);
                count += 1;
            }
        }
        for record in records.left_out {
            let Some(guid) = &record.guid else { continue };
            record.print(guid, printer.separator(count));
            records_of.push(*guid);
            count += 1;
        }
        printer.raw(b")");
    }
    printer.raw(b")");
    records_of
}

/// UID and message of a record. The UID is as `Record` reads it: the low 32 bits.
fn identity(record: &Value<'_>) -> Option<(u32, Option<Guid>)> {
    let Value::KvList(fields) = record else { return None };
    let fields = fields.fields();
    let guid = fields.get("GUID").and_then(Value::as_guid);
    Some((fields.number("UID")? as u32, guid))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::Body;
    use crate::wire::dlist::{FileHeader, parse_item};

    fn printed(line: &str, stays: &Stays<'_>) -> String {
        let (name, value) = parse_item(line.as_bytes()).unwrap();
        String::from_utf8(print(&name, &value, stays).0).unwrap()
    }

    #[test]
    fn records_go_and_fields_stay() {
        let line = "MAILBOX %(UNIQUEID u MBOXNAME a RECORD (%(UID 1 MODSEQ 2) %(UID 5 MODSEQ 3) \
                    %(UID 7)) ANNOTATIONS (%(ENTRY /x VALUE \"a b\")))";
        assert_eq!(printed(line, &Stays::All(None)), line);
        let uids = HashSet::from([5, 9]);
        let of = |uids| Records { of_line: uids, left_out: &[], may_be_all: true };
        assert_eq!(
            printed(line, &Stays::Records(of(Some(&uids)), None)),
            "MAILBOX %(UNIQUEID u MBOXNAME a RECORD (%(UID 5 MODSEQ 3)) ANNOTATIONS (%(ENTRY /x \
             VALUE \"a b\")))"
        );
        let record = RecordRow {
            last_chunk_id: 3,
            uid: 6,
            modseq: 4,
            last_updated: 5,
            flags: b"(\\Seen)".to_vec(),
            internaldate: 8,
            annotations: Vec::new(),
            expunged: Some(9),
            guid: Some(Guid::from([7; 20])),
            size: 10,
        };
        let records = Records { of_line: Some(&uids), left_out: &[record], may_be_all: true };
        assert_eq!(
            printed(line, &Stays::Records(records, None)),
            format!(
                "MAILBOX %(UNIQUEID u MBOXNAME a RECORD (%(UID 5 MODSEQ 3) %(UID 6 MODSEQ 4 \
                 LAST_UPDATED 5 INTERNALDATE 8 GUID {} SIZE 10 FLAGS (\\Seen \\Expunged))) \
                 ANNOTATIONS (%(ENTRY /x VALUE \"a b\")))",
                "07".repeat(20)
            )
        );
        let none = printed(line, &Stays::Records(of(None), None));
        assert!(none.contains("RECORD () ANNOTATIONS"), "{none}");
    }

    #[test]
    fn names_are_brought_up_to_date() {
        let now =
            Restated { mboxname: b"b c".to_vec(), partition: Some(b"q".to_vec()), uidvalidity: 7 };
        let restated = |line: &str| {
            let (name, value) = parse_item(line.as_bytes()).unwrap();
            let none = Records { of_line: None, left_out: &[], may_be_all: true };
            let stays = match &name[..] {
                b"MAILBOX" => Stays::Records(none, Some(&now)),
                _ => Stays::All(Some(&now)),
            };
            String::from_utf8(print(&name, &value, &stays).0).unwrap()
        };
        assert_eq!(
            restated("MAILBOX %(UNIQUEID u MBOXNAME a UIDVALIDITY 1 PARTITION p RECORD ())"),
            "MAILBOX %(UNIQUEID u MBOXNAME \"b c\" UIDVALIDITY 7 PARTITION q RECORD ())"
        );
        assert_eq!(restated("UNMAILBOX a"), "UNMAILBOX \"b c\"");
    }

    fn message(octets: u64) -> Message {
        let body = Body::Staged { offset: 0, len: octets };
        let file = FileHeader { partition: b"p".to_vec(), guid: Guid::from([7; 20]), size: octets };
        Message::new(file, body)
    }

    #[test]
    fn messages_are_printed_with_places_for_their_bodies() {
        let (text, bodies) = print_messages(&[message(1), message(2)]);
        let guid = "07".repeat(20);
        let head = format!("MESSAGE (%{{p {guid} 1}}\r\n");
        let both = format!("{head} %{{p {guid} 2}}\r\n");
        assert_eq!(String::from_utf8(text).unwrap(), format!("{both})"));
        assert_eq!(bodies, [head.len(), both.len()]);
    }

    #[test]
    fn messages_are_divided() {
        let large = RESTART_EVERY;
        let lens = |sizes: &[u64]| -> Vec<usize> {
            let messages: Vec<Message> = sizes.iter().map(|&size| message(size)).collect();
            divided(&messages).map(<[Message]>::len).collect()
        };
        assert!(lens(&[]).is_empty());
        assert_eq!(lens(&[1, 2, 3]), [3]);
        assert_eq!(lens(&[large - 1, 1, 5]), [2, 1]);
        assert_eq!(lens(&[large, large, 1, large - 1, 1]), [1, 1, 2, 1]);
        assert_eq!(lens(&[1, u64::MAX, 1]), [1, 1, 1]);
    }
}
