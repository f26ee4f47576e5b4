//! The lines that create mailboxes and put messages into them.

use super::plan::Target;
use crate::store::index::{MailboxRow, RecordRow};
use crate::wire::dlist::{Literals, Printer, Value, parse_value};

/// Fields that came with the mailbox and are not sent back: the root follows from the limits
/// that the destination has, the version is that of a file.
const NOT_SENT_BACK: [&[u8]; 2] = [b"QUOTAROOT", b"VERSION"];

/// `MAILBOX`, for APPLY: exactly that mailbox, as far as its UIDs up to `last_uid`.
pub(super) struct Exact<'l> {
    pub(super) target: &'l Target,
    pub(super) source: &'l MailboxRow,
    /// Fields without a column, canonical text of a kvlist.
    pub(super) extra: Option<&'l [u8]>,
    pub(super) uniqueid: &'l [u8],
    pub(super) last_uid: u32,
    pub(super) with_annotations: bool,
    pub(super) local_only: bool,
}

impl Exact<'_> {
    /// The line with some records.
    pub(super) fn line(&self, records: &[RecordRow]) -> Vec<u8> {
        let row = self.source;
        let mut printer = Printer::new(Literals::NonSync, command(self.local_only));
        printer.raw(b"UNIQUEID ").string(self.uniqueid);
        printer.raw(b" MBOXNAME ").string(&self.target.name);
        if let Some(letters) = &row.mboxtype {
            printer.raw(b" MBOXTYPE ").string(letters);
        }
        // Checksums: 0 stands for unknown. What came of it is compared afterwards.
        printer.raw(b" SYNC_CRC 0 SYNC_CRC_ANNOT 0");
        for (name, number) in [
            (" LAST_UID ", u64::from(self.last_uid)),
            (" HIGHESTMODSEQ ", row.highestmodseq),
            (" RECENTUID ", row.recentuid.into()),
            (" RECENTTIME ", time(row.recenttime)),
            (" LAST_APPENDDATE ", time(row.last_appenddate)),
            (" POP3_LAST_LOGIN ", time(row.pop3_last_login)),
            (" POP3_SHOW_AFTER ", time(row.pop3_show_after)),
            (" UIDVALIDITY ", row.uidvalidity.into()),
        ] {
            printer.raw(name.as_bytes()).number(number);
        }
        if row.xconvmodseq > 0 {
            printer.raw(b" XCONVMODSEQ ").number(row.xconvmodseq);
        }
        printer.raw(b" PARTITION ").nstring(self.target.partition.as_deref());
        printer.raw(b" ACL ").string(self.target.acl.as_deref().unwrap_or_default());
        printer.raw(b" OPTIONS ").string(row.options.as_deref().unwrap_or_default());
        if let Some(Ok(Value::KvList(extra))) = self.extra.map(parse_value) {
            for (key, value) in extra.pairs().filter(|(key, _)| !NOT_SENT_BACK.contains(&&key[..]))
            {
                printer.raw(b" ").item(&key, &value);
            }
        }
        if self.with_annotations && !row.annotations.is_empty() {
            printer.raw(b" ANNOTATIONS ").raw(&row.annotations);
        }
        print_records(&mut printer, records, |_, record| record.uid);
        printer.into_text()
    }
}

/// `MAILBOX`, for RESTORE: an empty mailbox with ids that the server chooses.
pub(super) fn create(target: &Target, local_only: bool) -> Vec<u8> {
    let mut printer = Printer::new(Literals::NonSync, command(local_only));
    printer.raw(b"UNIQUEID NIL MBOXNAME ").string(&target.name);
    print_type(&mut printer, target);
    printer.raw(b" LAST_UID 0 HIGHESTMODSEQ 0 UIDVALIDITY 0");
    if let Some(partition) = &target.partition {
        printer.raw(b" PARTITION ").string(partition);
    }
    if let Some(acl) = &target.acl {
        printer.raw(b" ACL ").string(acl);
    }
    let first = target.sources.first().map(|source| &source.mailbox);
    if let Some(options) = first.and_then(|row| row.options.as_ref()) {
        printer.raw(b" OPTIONS ").string(options);
    }
    print_records(&mut printer, &[], |_, _| 0);
    printer.into_text()
}

/// `MAILBOX`, for RESTORE: more messages in a mailbox that is there, which get new UIDs.
/// A server refuses them if they come without the type that the mailbox has.
pub(super) fn append(target: &Target, records: &[RecordRow], local_only: bool) -> Vec<u8> {
    let mut printer = Printer::new(Literals::NonSync, command(local_only));
    printer.raw(b"UNIQUEID NIL MBOXNAME ").string(&target.name);
    print_type(&mut printer, target);
    printer.raw(b" LAST_UID 0 HIGHESTMODSEQ 0 UIDVALIDITY 0");
    // UIDs have to ascend; which ones they are does not matter.
    print_records(&mut printer, records, |i, _| i as u32 + 1);
    printer.into_text()
}

fn print_type(printer: &mut Printer, target: &Target) {
    let first = target.sources.first().map(|source| &source.mailbox);
    if let Some(letters) = first.and_then(|row| row.mboxtype.as_ref()) {
        printer.raw(b" MBOXTYPE ").string(letters);
    }
}

fn command(local_only: bool) -> Vec<u8> {
    if local_only { b"LOCAL_MAILBOX %(".to_vec() } else { b"MAILBOX %(".to_vec() }
}

/// Ends the line.
fn print_records(
    printer: &mut Printer,
    records: &[RecordRow],
    uid: impl Fn(usize, &RecordRow) -> u32,
) {
    printer.raw(b" RECORD (");
    let known = records.iter().filter_map(|record| Some((record, record.guid?)));
    for (i, (record, guid)) in known.enumerate() {
        printer.separator(i).raw(b"%(UID ").number(uid(i, record).into());
        printer.raw(b" MODSEQ ").number(record.modseq);
        printer.raw(b" LAST_UPDATED ").number(time(record.last_updated));
        printer.raw(b" FLAGS ");
        print_flags(printer, record);
        printer.raw(b" INTERNALDATE ").number(time(record.internaldate));
        printer.raw(b" SIZE ").number(record.size).raw(b" GUID ").guid(&guid);
        if !record.annotations.is_empty() {
            printer.raw(b" ANNOTATIONS ").raw(&record.annotations);
        }
        printer.raw(b")");
    }
    printer.raw(b"))");
}

fn print_flags(printer: &mut Printer, record: &RecordRow) {
    printer.raw(b"(");
    let flags = parse_value(&record.flags).unwrap_or(Value::Nil).as_list();
    let expunged = record.expunged.map(|_| Value::Flag(b"\\Expunged"));
    for (i, flag) in expunged.into_iter().chain(flags.items()).enumerate() {
        printer.separator(i).value(&flag);
    }
    printer.raw(b")");
}

/// The protocol has no times before 1970.
fn time(unix: i64) -> u64 {
    u64::try_from(unix).unwrap_or(0)
}
