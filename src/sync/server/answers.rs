//! Rows of an index as untagged lines.

use crate::store::index::{MailboxRow, RecordRow, SeenRow, SieveRow};
use crate::wire::dlist::{Fields, Literals, Printer, Value, parse_value};

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

    /// `* MAILBOX`, in the order of fields that Cyrus's backupd prints, and behind
    /// them what else the client sent; with the messages for FULLMAILBOX, in
    /// ascending order of UIDs.
    pub(super) fn mailbox(
        &mut self,
        row: &MailboxRow,
        extra: Option<&[u8]>,
        records: Option<&[RecordRow]>,
    ) {
        let out = &mut self.out;
        out.raw(b"* MAILBOX %(UNIQUEID ").string(&row.uniqueid);
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
        self.stored_list(" ANNOTATIONS ", &row.annotations);
        if let Some(records) = records {
            self.out.raw(b" RECORD (");
            for (i, record) in records.iter().enumerate() {
                self.out.separator(i);
                self.record(record);
            }
            self.out.raw(b")");
        }
        self.out.raw(b")\r\n");
    }

    fn record(&mut self, row: &RecordRow) {
        let Some(guid) = &row.guid else { return };
        let out = &mut self.out;
        out.raw(b"%(UID ").number(row.uid.into()).raw(b" MODSEQ ").number(row.modseq);
        out.raw(b" LAST_UPDATED ").number(row.last_updated as u64);
        out.raw(b" INTERNALDATE ").number(row.internaldate as u64);
        out.raw(b" GUID ").guid(guid).raw(b" SIZE ").number(row.size);
        out.raw(b" FLAGS (");
        let mut count = 0;
        for flag in list_of(&row.flags) {
            out.separator(count).value(&flag);
            count += 1;
        }
        if row.expunged.is_some() {
            out.separator(count).raw(b"\\Expunged");
        }
        out.raw(b")");
        self.stored_list(" ANNOTATIONS ", &row.annotations);
        self.out.raw(b")");
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

    /// `* MISSING`, left out if nothing is.
    pub(super) fn missing(&mut self, guids: &[crate::wire::Guid]) {
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

    /// A list that the index keeps as text, with literals in the form that
    /// clients read.
    fn stored_list(&mut self, name: &str, text: &[u8]) {
        if let Ok(value @ Value::List(_)) = parse_value(text) {
            self.out.raw(name.as_bytes()).value(&value);
        }
    }
}

fn list_of(text: &[u8]) -> impl Iterator<Item = Value<'_>> {
    parse_value(text).unwrap_or(Value::Nil).as_list().items()
}
