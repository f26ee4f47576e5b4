//! One line of the log without the items that go.

use std::collections::HashSet;

use super::plan::Restated;
use crate::wire::dlist::{KvList, Literals, Printer, Value};

/// What stays of a line.
pub(super) enum Stays<'a> {
    /// All of it.
    All,
    /// The messages for which the flag is set, in the order of the line.
    Messages(&'a [bool]),
    /// The records with these UIDs, and the state of the mailbox.
    Records(&'a HashSet<u32>),
}

/// Canonical text of `name value` as far as it stays, and the offsets in it at which
/// message bodies belong.
pub(super) fn print(
    name: &[u8],
    value: &Value<'_>,
    stays: &Stays<'_>,
    restated: Option<&Restated>,
) -> (Vec<u8>, Vec<usize>) {
    let mut printer = Printer::new(Literals::NonSync, Vec::new());
    match (stays, value) {
        (Stays::Messages(flags), Value::List(list)) => {
            printer.raw(name).raw(b" (");
            let files = list.items().filter(|item| matches!(item, Value::File(_)));
            let kept = files.zip(*flags).filter(|(_, stays)| **stays);
            for (i, (item, _)) in kept.enumerate() {
                printer.separator(i).value(&item);
            }
            printer.raw(b")");
        }
        (Stays::Records(uids), Value::KvList(fields)) => {
            printer.raw(name).raw(b" ");
            mailbox(&mut printer, fields, uids, restated);
        }
        (_, Value::Atom(_)) if restated.is_some() => {
            printer.raw(name).raw(b" ");
            printer.nstring(restated.map(|now| &now.mboxname[..]));
        }
        _ => {
            printer.item(name, value);
        }
    }
    printer.into_parts()
}

fn mailbox(
    printer: &mut Printer,
    fields: &KvList<'_>,
    uids: &HashSet<u32>,
    restated: Option<&Restated>,
) {
    printer.raw(b"%(");
    for (i, (key, value)) in fields.pairs().enumerate() {
        printer.separator(i);
        match (&key[..], restated) {
            (b"RECORD", _) => {}
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
        let records = value.as_list();
        let kept = records.items().filter(|record| uid(record).is_some_and(|u| uids.contains(&u)));
        for (i, record) in kept.enumerate() {
            printer.separator(i).value(&record);
        }
        printer.raw(b")");
    }
    printer.raw(b")");
}

/// As `Record` reads it: the low 32 bits.
fn uid(record: &Value<'_>) -> Option<u32> {
    let Value::KvList(fields) = record else { return None };
    fields.fields().number("UID").map(|number| number as u32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::dlist::parse_item;

    fn printed(line: &str, stays: &Stays<'_>) -> String {
        let (name, value) = parse_item(line.as_bytes()).unwrap();
        String::from_utf8(print(&name, &value, stays, None).0).unwrap()
    }

    #[test]
    fn records_go_and_fields_stay() {
        let line = "MAILBOX %(UNIQUEID u MBOXNAME a RECORD (%(UID 1 MODSEQ 2) %(UID 5 MODSEQ 3) \
                    %(UID 7)) ANNOTATIONS (%(ENTRY /x VALUE \"a b\")))";
        assert_eq!(printed(line, &Stays::All), line);
        let uids = HashSet::from([5, 9]);
        assert_eq!(
            printed(line, &Stays::Records(&uids)),
            "MAILBOX %(UNIQUEID u MBOXNAME a RECORD (%(UID 5 MODSEQ 3)) ANNOTATIONS (%(ENTRY /x \
             VALUE \"a b\")))"
        );
        let none = printed(line, &Stays::Records(&HashSet::new()));
        assert!(none.contains("RECORD () ANNOTATIONS"), "{none}");
    }

    #[test]
    fn names_are_brought_up_to_date() {
        let now =
            Restated { mboxname: b"b c".to_vec(), partition: Some(b"q".to_vec()), uidvalidity: 7 };
        let restated = |line: &str| {
            let (name, value) = parse_item(line.as_bytes()).unwrap();
            let stays = Stays::Records(&HashSet::new());
            String::from_utf8(print(&name, &value, &stays, Some(&now)).0).unwrap()
        };
        assert_eq!(
            restated("MAILBOX %(UNIQUEID u MBOXNAME a UIDVALIDITY 1 PARTITION p RECORD ())"),
            "MAILBOX %(UNIQUEID u MBOXNAME \"b c\" UIDVALIDITY 7 PARTITION q RECORD ())"
        );
        assert_eq!(restated("UNMAILBOX a"), "UNMAILBOX \"b c\"");
    }

    #[test]
    fn messages_go_with_their_bodies() {
        let guid = "4eea1e78e5032625a64f9ba26611156942a8f86a";
        let line = format!("MESSAGE (%{{p {guid} 1}}\r\n NIL %{{q {guid} 2}}\r\n)");
        let (name, value) = parse_item(line.as_bytes()).unwrap();
        let (text, bodies) = print(&name, &value, &Stays::Messages(&[false, true]), None);
        let head = format!("MESSAGE (%{{q {guid} 2}}\r\n");
        assert_eq!(String::from_utf8(text).unwrap(), format!("{head})"));
        assert_eq!(bodies, [head.len()]);
    }
}
