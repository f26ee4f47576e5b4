//! What Cyrus's log cannot say: quota, the active sieve script, server annotations, what a
//! compaction has dropped.
//!
//! Cyrus answers these commands OK and forgets them, and its tools stop at a line that they
//! cannot index. RESERVE is the one line that they keep and index as nothing, so the command
//! travels inside one:
//!
//! ```text
//! RESERVE %(CYRBK %(QUOTA %(ROOT user.tom LIMIT 1000 STORAGE 1000 MODSEQ 3)))
//! ```
//!
//! The key is the command's name, the value is its value, with one difference: newer releases of
//! Cyrus cannot read back a `{n+}` literal that they wrote themselves, and lose the rest of the
//! chunk. So a string that would be a literal is written `%(BASE64 (part part ...))`.
//!
//! Cyrus's compact drops a chunk in which nothing lives. Rows of `seen` live for ever, so a line
//! that is to survive is followed by an *anchor*, a SEEN line with a unique id of its own, which
//! keeps the chunk of the latest word on that subject:
//!
//! ```text
//! SEEN %(USERID tom UNIQUEID cyrbk-<SHA-1 of the subject> LASTREAD 0 LASTUID 0 LASTCHANGE 0
//!  SEENUIDS "")
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha1::{Digest, Sha1};

use super::Guid;
use super::apply::{Reject, Script};
use super::dlist::{Literals, Printer, Value, parse_value};

/// How the unique ids of anchors begin.
pub const ANCHOR_PREFIX: &[u8] = b"cyrbk-";
/// The key of a RESERVE line of ours.
const KEY: &[u8] = b"CYRBK";
/// Subject of `Compacted`.
const COMPACTED: &[u8] = b"compacted";
/// Octets in front of the encoding to base64; a part stays far below the length at which a
/// string becomes a literal.
const PART: usize = 600;

/// A command that is carried inside a RESERVE line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Own {
    /// Limits of a quota root.
    Quota(Quota),
    /// A quota root is gone.
    Unquota(Vec<u8>),
    /// An annotation of the server, or of a mailbox.
    Annotation(Subject, Vec<u8>),
    /// An annotation is gone.
    Unannotation(Subject),
    /// The script that runs, as clients name it: `main.bc` for `main.script`.
    ActivateSieve(Script),
    /// No script runs.
    UnactivateSieve(Vec<u8>),
    /// The mailbox of this unique id is not known well enough to be shown to a client, until the
    /// client has sent it whole.
    Incomplete(Vec<u8>),
    /// Lines in front of this one were dropped by a compaction.
    Compacted(Compacted),
}

/// `COMPACTED`: how far back the log tells everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Unix time of the compaction: from then on nothing was dropped.
    pub at: i64,
    /// Unix time: what was deleted or expunged then or before is gone. `None`: nothing of that
    /// kind is.
    pub since: Option<i64>,
}

/// `QUOTA`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Internal name of the mailbox at which it begins.
    pub root: Vec<u8>,
    /// Canonical text of the whole value, the root included.
    pub fields: Vec<u8>,
}

/// What an annotation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Internal name; empty for the server.
    pub mboxname: Vec<u8>,
    /// Entry name.
    pub entry: Vec<u8>,
    /// Whose; empty if shared.
    pub userid: Vec<u8>,
}

impl Own {
    /// Whether `name` is such a command in APPLY. `Incomplete` and `Compacted` are not: no client
    /// sends them.
    pub fn is_command(name: &[u8]) -> bool {
        matches!(
            name,
            b"QUOTA"
                | b"UNQUOTA"
                | b"ANNOTATION"
                | b"UNANNOTATION"
                | b"ACTIVATE_SIEVE"
                | b"UNACTIVATE_SIEVE"
        )
    }

    /// Reads the payload of `APPLY name value`.
    pub fn read(name: &[u8], value: &Value<'_>) -> Result<Own, Reject> {
        match name {
            b"QUOTA" => {
                let mut printer = Printer::new(Literals::NonSync, Vec::new());
                printer.value(value);
                let root = field(value, "ROOT")?;
                Ok(Own::Quota(Quota { root, fields: printer.into_text() }))
            }
            b"UNQUOTA" => Ok(Own::Unquota(text(value)?)),
            b"ANNOTATION" => Ok(Own::Annotation(Subject::read(value)?, field(value, "VALUE")?)),
            b"UNANNOTATION" => Ok(Own::Unannotation(Subject::read(value)?)),
            b"ACTIVATE_SIEVE" => {
                let (userid, filename) = (field(value, "USERID")?, field(value, "FILENAME")?);
                Ok(Own::ActivateSieve(Script { userid, filename }))
            }
            b"UNACTIVATE_SIEVE" => Ok(Own::UnactivateSieve(field(value, "USERID")?)),
            b"INCOMPLETE" => Ok(Own::Incomplete(text(value)?)),
            b"COMPACTED" => Ok(Own::Compacted(Compacted::read(value)?)),
            _ => Err(Reject::Protocol),
        }
    }

    /// Reads the value of a RESERVE line; `None` if it is not one of ours, or says what this
    /// version does not know.
    pub(super) fn unwrap(reserve: &Value<'_>) -> Option<Own> {
        let (name, value) = only_pair(&only_field(reserve, KEY)?)?;
        let text = plain(&value)?;
        Own::read(&name, &parse_value(&text).ok()?).ok()
    }

    /// Canonical text of the RESERVE line that carries it.
    pub fn line(&self) -> Vec<u8> {
        let mut printer = Printer::new(Literals::NonSync, b"RESERVE %(CYRBK %(".to_vec());
        let string = |printer: &mut Printer, name: &str, text: &[u8]| {
            printer.raw(name.as_bytes());
            carry(printer, &Value::Atom(text.into()));
        };
        match self {
            Own::Quota(quota) => {
                printer.raw(b"QUOTA ");
                carry(&mut printer, &parse_value(&quota.fields).unwrap_or(Value::Nil));
            }
            Own::Unquota(root) => string(&mut printer, "UNQUOTA ", root),
            Own::Annotation(subject, value) => {
                printer.raw(b"ANNOTATION ");
                subject.print(&mut printer);
                string(&mut printer, " VALUE ", value);
                printer.raw(b")");
            }
            Own::Unannotation(subject) => {
                printer.raw(b"UNANNOTATION ");
                subject.print(&mut printer);
                printer.raw(b")");
            }
            Own::ActivateSieve(active) => {
                string(&mut printer, "ACTIVATE_SIEVE %(USERID ", &active.userid);
                string(&mut printer, " FILENAME ", &active.filename);
                printer.raw(b")");
            }
            Own::UnactivateSieve(userid) => {
                string(&mut printer, "UNACTIVATE_SIEVE %(USERID ", userid);
                printer.raw(b")");
            }
            Own::Incomplete(uniqueid) => string(&mut printer, "INCOMPLETE ", uniqueid),
            Own::Compacted(Compacted { at, since }) => {
                let since = since.map_or_else(|| "NIL".to_owned(), |since| since.to_string());
                printer.raw(format!("COMPACTED %(AT {at} SINCE {since})").as_bytes());
            }
        }
        printer.raw(b"))");
        printer.into_text()
    }

    /// Canonical text of the SEEN line that keeps the chunk of [`Own::line`] alive in Cyrus's
    /// compact, in the backup of `userid`.
    pub fn anchor(&self, userid: &[u8]) -> Vec<u8> {
        let subject = match self {
            Own::Quota(Quota { root, .. }) | Own::Unquota(root) => subject(&[b"quota", root]),
            Own::Annotation(of, _) | Own::Unannotation(of) => {
                subject(&[b"annotation", &of.mboxname, &of.entry, &of.userid])
            }
            Own::ActivateSieve(_) | Own::UnactivateSieve(_) => subject(&[b"sieve"]),
            Own::Incomplete(uniqueid) => subject(&[b"incomplete", uniqueid]),
            Own::Compacted(_) => subject(&[COMPACTED]),
        };
        let mut printer = Printer::new(Literals::NonSync, b"SEEN %(USERID ".to_vec());
        // Not needed in the log; a literal there would do harm (`%SHARED` would be one).
        let userid = if needs_literal(userid) { b"" } else { userid };
        printer.string(userid).raw(b" UNIQUEID ").raw(&subject);
        printer.raw(b" LASTREAD 0 LASTUID 0 LASTCHANGE 0 SEENUIDS \"\")");
        printer.into_text()
    }

    /// The unique id in the anchor of `Compacted`.
    pub fn compaction_anchor() -> Vec<u8> {
        subject(&[COMPACTED])
    }
}

/// The unique id of an anchor.
fn subject(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = Sha1::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash = Guid::from(<[u8; 20]>::from(hash.finalize()));
    [ANCHOR_PREFIX, hash.to_string().as_bytes()].concat()
}

impl Compacted {
    fn read(value: &Value<'_>) -> Result<Compacted, Reject> {
        let Value::KvList(kv) = value else { return Err(Reject::Protocol) };
        let fields = kv.fields();
        let time = |name| match fields.number(name).map(i64::try_from) {
            Some(Ok(time)) => Some(time),
            _ => None,
        };
        let at = time("AT").ok_or(Reject::BadParameters)?;
        Ok(Compacted { at, since: time("SINCE") })
    }
}

impl Subject {
    fn read(value: &Value<'_>) -> Result<Subject, Reject> {
        Ok(Subject {
            mboxname: field(value, "MBOXNAME")?,
            entry: field(value, "ENTRY")?,
            userid: field(value, "USERID")?,
        })
    }

    /// Leaves the list open.
    fn print(&self, printer: &mut Printer) {
        for (name, text) in
            [("%(MBOXNAME ", &self.mboxname), (" ENTRY ", &self.entry), (" USERID ", &self.userid)]
        {
            printer.raw(name.as_bytes());
            carry(printer, &Value::Atom(text.as_slice().into()));
        }
    }
}

fn text(value: &Value<'_>) -> Result<Vec<u8>, Reject> {
    value.as_text().map(<[u8]>::to_vec).ok_or(Reject::Protocol)
}

fn field(value: &Value<'_>, name: &str) -> Result<Vec<u8>, Reject> {
    let Value::KvList(kv) = value else { return Err(Reject::Protocol) };
    kv.fields().text(name).map(<[u8]>::to_vec).ok_or(Reject::BadParameters)
}

/// The only key and value of a kvlist.
fn only_pair<'a>(value: &Value<'a>) -> Option<(Vec<u8>, Value<'a>)> {
    let Value::KvList(kv) = value else { return None };
    let mut pairs = kv.pairs();
    let (key, value) = pairs.next()?;
    pairs.next().is_none().then(|| (key.into_owned(), value))
}

fn only_field<'a>(value: &Value<'a>, name: &[u8]) -> Option<Value<'a>> {
    only_pair(value).and_then(|(key, value)| (key == name).then_some(value))
}

/// Prints a value without literals.
fn carry(printer: &mut Printer, value: &Value<'_>) {
    match value {
        Value::Atom(text) if needs_literal(text) => {
            printer.raw(b"%(BASE64 (");
            for (i, part) in text.chunks(PART).enumerate() {
                printer.separator(i).string(BASE64.encode(part).as_bytes());
            }
            printer.raw(b"))");
        }
        Value::List(list) => {
            printer.raw(b"(");
            for (i, item) in list.items().enumerate() {
                carry(printer.separator(i), &item);
            }
            printer.raw(b")");
        }
        Value::KvList(kv) => {
            printer.raw(b"%(");
            let plain_keys = kv.pairs().filter(|(key, _)| !needs_literal(key));
            for (i, (key, value)) in plain_keys.enumerate() {
                printer.separator(i).string(&key).raw(b" ");
                carry(printer, &value);
            }
            printer.raw(b")");
        }
        // A message has no place here.
        Value::File(_) => {
            printer.raw(b"NIL");
        }
        other => {
            printer.value(other);
        }
    }
}

fn needs_literal(text: &[u8]) -> bool {
    let mut printer = Printer::new(Literals::NonSync, Vec::new());
    printer.string(text);
    printer.into_text().first() == Some(&b'{')
}

/// Canonical text of a carried value, literals where they were; `None` if it is malformed.
fn plain(value: &Value<'_>) -> Option<Vec<u8>> {
    let mut printer = Printer::new(Literals::NonSync, Vec::new());
    print_plain(&mut printer, value)?;
    Some(printer.into_text())
}

fn print_plain(printer: &mut Printer, value: &Value<'_>) -> Option<()> {
    match value {
        Value::KvList(kv) => {
            if let Some(parts) = only_field(value, b"BASE64") {
                let mut text = Vec::new();
                for part in parts.as_list().items() {
                    text.extend(BASE64.decode(part.as_text()?).ok()?);
                }
                printer.string(&text);
                return Some(());
            }
            printer.raw(b"%(");
            for (i, (key, value)) in kv.pairs().enumerate() {
                printer.separator(i).string(&key).raw(b" ");
                print_plain(printer, &value)?;
            }
            printer.raw(b")");
        }
        Value::List(list) => {
            printer.raw(b"(");
            for (i, item) in list.items().enumerate() {
                print_plain(printer.separator(i), &item)?;
            }
            printer.raw(b")");
        }
        other => {
            printer.value(other);
        }
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::apply::Apply;
    use super::super::dlist::parse_item;
    use super::*;
    use proptest::prelude::*;

    fn own(command: &str) -> Own {
        let (name, value) = parse_item(command.as_bytes()).unwrap();
        Own::read(&name, &value).unwrap()
    }

    fn read_back(line: &[u8]) -> Own {
        let (name, value) = parse_item(line).unwrap();
        match Apply::read(&name, &value).unwrap() {
            Apply::Own(own) => own,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_command_is_carried() {
        for (command, carried) in [
            (
                "QUOTA %(ROOT user.tom LIMIT 1000 STORAGE 1000 MODSEQ 3)",
                "QUOTA %(ROOT user.tom LIMIT 1000 STORAGE 1000 MODSEQ 3)",
            ),
            ("UNQUOTA user.tom", "UNQUOTA user.tom"),
            (
                "ANNOTATION %(MBOXNAME \"\" ENTRY /comment USERID \"\" VALUE \"to all\")",
                "ANNOTATION %(MBOXNAME \"\" ENTRY /comment USERID \"\" VALUE \"to all\")",
            ),
            (
                "ANNOTATION %(MBOXNAME \"\" ENTRY /comment USERID tom VALUE {4+}\r\n50%\n)",
                "ANNOTATION %(MBOXNAME \"\" ENTRY /comment USERID tom VALUE %(BASE64 (NTAlCg==)))",
            ),
            (
                "UNANNOTATION %(MBOXNAME \"\" ENTRY /comment USERID \"\")",
                "UNANNOTATION %(MBOXNAME \"\" ENTRY /comment USERID \"\")",
            ),
            (
                "ACTIVATE_SIEVE %(USERID tom FILENAME main.bc)",
                "ACTIVATE_SIEVE %(USERID tom FILENAME main.bc)",
            ),
            ("UNACTIVATE_SIEVE %(USERID tom)", "UNACTIVATE_SIEVE %(USERID tom)"),
            ("INCOMPLETE u1", "INCOMPLETE u1"),
            ("COMPACTED %(AT 70 SINCE 7)", "COMPACTED %(AT 70 SINCE 7)"),
            ("COMPACTED %(AT 70 SINCE NIL)", "COMPACTED %(AT 70 SINCE NIL)"),
        ] {
            let own = own(command);
            let line = own.line();
            let expected = format!("RESERVE %(CYRBK %({carried}))");
            assert_eq!(String::from_utf8_lossy(&line), expected);
            assert_eq!(read_back(&line), own);
        }
    }

    #[test]
    fn what_is_not_ours_is_a_reservation() {
        for line in [
            "RESERVE %(PARTITION default MBOXNAME (user.tom) GUID ())",
            "RESERVE %(CYRBK x)",
            "RESERVE %(CYRBK %(TOMORROW %(A b)))",
            "RESERVE %(CYRBK %(UNQUOTA a UNQUOTA b))",
            "RESERVE %(CYRBK %(UNQUOTA %(BASE64 (!))))",
            "RESERVE %(CYRBK %(UNQUOTA a) PARTITION x)",
        ] {
            let (name, value) = parse_item(line.as_bytes()).unwrap();
            assert!(matches!(Apply::read(&name, &value), Ok(Apply::Reserve)), "{line}");
        }
    }

    #[test]
    fn malformed_commands_are_refused() {
        for (command, reject) in [
            ("QUOTA x", Reject::Protocol),
            ("QUOTA %(LIMIT 1)", Reject::BadParameters),
            ("UNQUOTA NIL", Reject::Protocol),
            ("ANNOTATION %(MBOXNAME \"\" ENTRY /x USERID \"\")", Reject::BadParameters),
            ("ACTIVATE_SIEVE %(USERID tom)", Reject::BadParameters),
            ("FORCE %()", Reject::Protocol),
        ] {
            let (name, value) = parse_item(command.as_bytes()).unwrap();
            assert_eq!(Own::read(&name, &value), Err(reject), "{command}");
        }
    }

    #[test]
    fn each_subject_has_its_anchor() {
        let anchor = |command: &str| own(command).anchor(b"tom");
        let quota = anchor("QUOTA %(ROOT user.tom LIMIT 1)");
        assert_eq!(quota, anchor("UNQUOTA user.tom"));
        assert_ne!(quota, anchor("UNQUOTA user.tom.A"));
        let text = String::from_utf8(quota).unwrap();
        assert!(text.starts_with("SEEN %(USERID tom UNIQUEID cyrbk-"), "{text}");
        let (name, value) = parse_item(text.as_bytes()).unwrap();
        assert!(matches!(Apply::read(&name, &value), Ok(Apply::Seen(_))));
        let shared = own("UNQUOTA a").anchor(b"%SHARED");
        assert!(shared.starts_with(b"SEEN %(USERID \"\" UNIQUEID cyrbk-"));
        // The parts of a name cannot be mistaken for each other.
        assert_ne!(
            anchor("UNANNOTATION %(MBOXNAME ab ENTRY c USERID d)"),
            anchor("UNANNOTATION %(MBOXNAME a ENTRY bc USERID d)")
        );
    }

    proptest! {
        #[test]
        fn any_octets_come_back_and_no_literal_is_written(
            value in prop::collection::vec(any::<u8>(), 0..3000),
            entry in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let subject = Subject { mboxname: Vec::new(), entry, userid: b"tom".to_vec() };
            let own = Own::Annotation(subject, value);
            let line = own.line();
            let has_literal = line.windows(2).any(|pair| pair == b"+}");
            prop_assert!(!has_literal);
            prop_assert_eq!(read_back(&line), own);
        }
    }
}
