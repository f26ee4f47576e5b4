//! Rows of an index as untagged lines.

use crate::store::index::{
    ActiveRow, AnnotationRow, MailboxRow, MessageRow, RecordRow, SeenRow, SieveRow,
};
use crate::wire::Guid;
use crate::wire::dlist::{Fields, FileHeader, Literals, Printer, Value, parse_value};

/// Gathers the untagged lines of one reply.
pub(super) struct Answers {
    out: Printer,
}

impl Answers {
    pub(super) fn new() -> Answers {
        Answers { out: Printer::new(Literals::Sync, Vec::new()) }
    }

    /// The reply with its final line.
    pub(super) fn finish(mut self, status: &str) -> Vec<u8> {
        self.out.raw(status.as_bytes()).raw(b"\r\n");
        self.out.into_text()
    }

    /// `* MAILBOX`; with the messages for FULLMAILBOX, in ascending order of UIDs.
    pub(super) fn mailbox(
        &mut self,
        row: &MailboxRow,
        extra: Option<&[u8]>,
        records: Option<&[RecordRow]>,
    ) {
        self.out.raw(b"* MAILBOX %(");
        print_mailbox(&mut self.out, row, extra, records);
        self.out.raw(b"\r\n");
    }

    /// `* QUOTA`, from what the client sent.
    pub(super) fn quota(&mut self, fields: &[u8]) {
        if let Ok(value @ Value::KvList(_)) = parse_value(fields) {
            self.out.raw(b"* ").item(b"QUOTA", &value).raw(b"\r\n");
        }
    }

    /// `* ANNOTATION`
    pub(super) fn annotation(&mut self, row: &AnnotationRow) {
        let out = &mut self.out;
        out.raw(b"* ANNOTATION %(MBOXNAME ").string(&row.subject.mboxname);
        out.raw(b" ENTRY ").string(&row.subject.entry);
        out.raw(b" USERID ").string(&row.subject.userid);
        out.raw(b" VALUE ").string(&row.value).raw(b")\r\n");
    }

    /// `* MESSAGE`
    pub(super) fn message(&mut self, row: &MessageRow, octets: &[u8]) {
        let Some(guid) = row.guid else { return };
        let header = FileHeader { partition: row.partition.clone(), guid, size: row.size };
        self.out.raw(b"* MESSAGE ").file(&header).raw(octets).raw(b"\r\n");
    }

    /// `* LSUB`, left out if there is none.
    pub(super) fn subscriptions(&mut self, names: &[Vec<u8>]) {
        if names.is_empty() {
            return;
        }
        self.out.raw(b"* LSUB (");
        for (i, name) in names.iter().enumerate() {
            self.out.separator(i).string(name);
        }
        self.out.raw(b")\r\n");
    }

    /// `* SEEN`
    pub(super) fn seen(&mut self, row: &SeenRow) {
        let out = &mut self.out;
        out.raw(b"* SEEN %(UNIQUEID ").string(&row.uniqueid);
        out.raw(b" LASTREAD ").number(row.lastread as u64);
        out.raw(b" LASTUID ").number(row.lastuid.into());
        out.raw(b" LASTCHANGE ").number(row.lastchange as u64);
        out.raw(b" SEENUIDS ").string(&row.seenuids).raw(b")\r\n");
    }

    /// `* SIEVE`
    pub(super) fn sieve(&mut self, row: &SieveRow) {
        let out = &mut self.out;
        out.raw(b"* SIEVE %(FILENAME ").string(&row.filename);
        out.raw(b" LAST_UPDATE ").number(row.last_update as u64);
        out.raw(b" GUID ").string(row.guid.as_bytes()).raw(b" ISACTIVE 0)\r\n");
    }

    /// `* SIEVE` of the script that runs. As Cyrus's sync_server says it: of the compiled form,
    /// which is never sent, and whose identity is not known.
    pub(super) fn active_sieve(&mut self, row: &ActiveRow) {
        let out = &mut self.out;
        out.raw(b"* SIEVE %(FILENAME ").string(&row.filename);
        out.raw(b" LAST_UPDATE ").number(row.since as u64);
        out.raw(b" GUID ").guid(&Guid::from([0; 20])).raw(b" ISACTIVE 1)\r\n");
    }

    /// `* SIEVE` with the script's text.
    pub(super) fn script(&mut self, userid: &[u8], row: &SieveRow, content: &[u8]) {
        let out = &mut self.out;
        out.raw(b"* SIEVE %(USERID ").string(userid).raw(b" FILENAME ").string(&row.filename);
        out.raw(b" LAST_UPDATE ").number(row.last_update as u64);
        out.raw(b" CONTENT ").string(content).raw(b")\r\n");
    }

    /// `* MISSING`, left out if nothing is.
    pub(super) fn missing(&mut self, guids: &[Guid]) {
        if guids.is_empty() {
            return;
        }
        self.out.raw(b"* MISSING (");
        for (i, guid) in guids.iter().enumerate() {
            self.out.separator(i).guid(guid);
        }
        self.out.raw(b")\r\n");
    }

    /// `* ENABLED ()`: no capability is taken up. A client crashes on an OK
    /// without this line.
    pub(super) fn nothing_enabled(&mut self) {
        self.out.raw(b"* ENABLED ()\r\n");
    }
}

/// `MAILBOX %(...)` as a line of the log, with these records: all of them, or those that have
/// changed in a state that stays as it is otherwise.
pub(super) fn mailbox_line(
    row: &MailboxRow,
    extra: Option<&[u8]>,
    records: &[RecordRow],
    are_all: bool,
) -> Vec<u8> {
    let mut out = Printer::new(Literals::NonSync, b"MAILBOX %(".to_vec());
    if !are_all {
        out.raw(b"SINCE_MODSEQ ").number(row.highestmodseq).raw(b" ");
    }
    print_mailbox(&mut out, row, extra, Some(records));
    out.into_text()
}

/// What follows `MAILBOX %(`, in the order of fields that Cyrus's backupd prints, and behind them
/// what else the client sent.
fn print_mailbox(
    out: &mut Printer,
    row: &MailboxRow,
    extra: Option<&[u8]>,
    records: Option<&[RecordRow]>,
) {
    out.raw(b"UNIQUEID ").string(&row.uniqueid);
    out.raw(b" MBOXNAME ").string(&row.mboxname);
    out.raw(b" MBOXTYPE ").nstring(row.mboxtype.as_deref());
    for (name, number) in [
        (" LAST_UID ", row.last_uid.into()),
        (" HIGHESTMODSEQ ", row.highestmodseq),
        (" RECENTUID ", row.recentuid.into()),
        (" RECENTTIME ", row.recenttime as u64),
        (" LAST_APPENDDATE ", row.last_appenddate as u64),
        (" POP3_LAST_LOGIN ", row.pop3_last_login as u64),
        (" POP3_SHOW_AFTER ", row.pop3_show_after as u64),
        (" UIDVALIDITY ", row.uidvalidity.into()),
    ] {
        out.raw(name.as_bytes()).number(number);
    }
    out.raw(b" PARTITION ").nstring(row.partition.as_deref());
    out.raw(b" ACL ").nstring(row.acl.as_deref());
    out.raw(b" OPTIONS ").nstring(row.options.as_deref());
    out.raw(b" SYNC_CRC ").number(row.sync_crc.into());
    out.raw(b" SYNC_CRC_ANNOT ").number(row.sync_crc_annot.into());
    let extra = match extra.map(parse_value) {
        Some(Ok(Value::KvList(extra))) => extra.fields(),
        _ => Fields::default(),
    };
    if extra.get("QUOTAROOT").is_none() {
        out.raw(b" QUOTAROOT NIL");
    }
    out.raw(b" XCONVMODSEQ ").number(row.xconvmodseq);
    for (key, value) in extra.pairs() {
        out.raw(b" ").item(key, value);
    }
    // With literals in the form that the reader wants.
    if let Ok(value @ Value::List(_)) = parse_value(&row.annotations) {
        out.raw(b" ANNOTATIONS ").value(&value);
    }
    if let Some(records) = records {
        out.raw(b" RECORD (");
        let known = records.iter().filter_map(|record| Some((record, record.guid.as_ref()?)));
        for (i, (record, guid)) in known.enumerate() {
            record.print(guid, out.separator(i));
        }
        out.raw(b")");
    }
    out.raw(b")");
}
