//! One line of the log without the items that go.

use std::collections::HashSet;

use super::plan::Restated;
use crate::store::chunk::RESTART_EVERY;
use crate::wire::Body;
use crate::wire::dlist::{KvList, Literals, Printer, Value};

/// What stays of a line.
pub(super) enum Stays<'a> {
    /// All of it, except that it may say another name.
    All(Option<&'a Restated>),
    /// The messages for which the flag is set, in the order of the line.
    Messages(&'a [bool]),
    /// The records with these UIDs, and the state of the mailbox, which may have changed.
    Records(&'a HashSet<u32>, Option<&'a Restated>),
}

/// Divides the messages of a line into lines of about [`RESTART_EVERY`] octets, so that one of
/// them can be read without those in front of it. For each, the flags of those that stay, and
/// their bodies.
pub(super) fn divided<'b>(flags: &[bool], bodies: &'b [Body]) -> Vec<(Vec<bool>, Vec<&'b Body>)> {
    let mut parts = Vec::new();
    let (mut part, mut held, mut octets) = (vec![false; flags.len()], Vec::new(), 0u64);
    let places = flags.iter().enumerate().filter(|(_, stays)| **stays);
    for ((place, _), body) in places.zip(bodies) {
        if octets.saturating_add(body.len()) > RESTART_EVERY && !held.is_empty() {
            parts.push((part, std::mem::take(&mut held)));
            (part, octets) = (vec![false; flags.len()], 0);
        }
        part[place] = true;
        held.push(body);
        octets = octets.saturating_add(body.len());
    }
    parts.push((part, held));
    parts
}

/// Canonical text of `name value` as far as it stays, and the offsets in it at which
/// message bodies belong.
pub(super) fn print(name: &[u8], value: &Value<'_>, stays: &Stays<'_>) -> (Vec<u8>, Vec<usize>) {
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
        (Stays::Records(uids, restated), Value::KvList(fields)) => {
            printer.raw(name).raw(b" ");
            mailbox(&mut printer, fields, uids, *restated);
        }
        (Stays::All(Some(now)), Value::Atom(_)) => {
            printer.raw(name).raw(b" ").string(&now.mboxname);
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
        String::from_utf8(print(&name, &value, stays).0).unwrap()
    }

    #[test]
    fn records_go_and_fields_stay() {
        let line = "MAILBOX %(UNIQUEID u MBOXNAME a RECORD (%(UID 1 MODSEQ 2) %(UID 5 MODSEQ 3) \
                    %(UID 7)) ANNOTATIONS (%(ENTRY /x VALUE \"a b\")))";
        assert_eq!(printed(line, &Stays::All(None)), line);
        let uids = HashSet::from([5, 9]);
        assert_eq!(
            printed(line, &Stays::Records(&uids, None)),
            "MAILBOX %(UNIQUEID u MBOXNAME a RECORD (%(UID 5 MODSEQ 3)) ANNOTATIONS (%(ENTRY /x \
             VALUE \"a b\")))"
        );
        let none = printed(line, &Stays::Records(&HashSet::new(), None));
        assert!(none.contains("RECORD () ANNOTATIONS"), "{none}");
    }

    #[test]
    fn names_are_brought_up_to_date() {
        let now =
            Restated { mboxname: b"b c".to_vec(), partition: Some(b"q".to_vec()), uidvalidity: 7 };
        let restated = |line: &str| {
            let (name, value) = parse_item(line.as_bytes()).unwrap();
            let none = HashSet::new();
            let stays = match &name[..] {
                b"MAILBOX" => Stays::Records(&none, Some(&now)),
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

    #[test]
    fn messages_go_with_their_bodies() {
        let guid = "4eea1e78e5032625a64f9ba26611156942a8f86a";
        let line = format!("MESSAGE (%{{p {guid} 1}}\r\n NIL %{{q {guid} 2}}\r\n)");
        let (name, value) = parse_item(line.as_bytes()).unwrap();
        let (text, bodies) = print(&name, &value, &Stays::Messages(&[false, true]));
        let head = format!("MESSAGE (%{{q {guid} 2}}\r\n");
        assert_eq!(String::from_utf8(text).unwrap(), format!("{head})"));
        assert_eq!(bodies, [head.len()]);
    }

    #[test]
    fn messages_are_divided() {
        let large = RESTART_EVERY;
        let ends = |sizes: &[u64]| -> Vec<usize> {
            let body = |&len| Body::Staged { offset: 0, len };
            let bodies: Vec<Body> = sizes.iter().map(body).collect();
            // One between all that stay does not.
            let flags: Vec<bool> = (0..2 * sizes.len()).map(|i| i % 2 == 0).collect();
            let mut end = 0;
            let parts = divided(&flags, &bodies).into_iter().map(|(flags, held)| {
                assert_eq!(flags.iter().filter(|stays| **stays).count(), held.len());
                assert!(held.iter().zip(end..).all(|(body, i)| **body == bodies[i]));
                assert!(held.iter().zip(end..).all(|(_, i)| flags[2 * i]));
                end += held.len();
                end
            });
            parts.collect()
        };
        assert_eq!(ends(&[]), [0]);
        assert_eq!(ends(&[1, 2, 3]), [3]);
        assert_eq!(ends(&[large - 1, 1, 5]), [2, 3]);
        assert_eq!(ends(&[large, large, 1]), [1, 2, 3]);
        assert_eq!(ends(&[1, u64::MAX, 1]), [1, 2, 3]);
    }
}
