//! APPLY: every line to the backup it belongs to.

use std::collections::BTreeSet;

use super::super::answers::{self, Answers};
use super::super::request::{Refusal, item};
use super::{Lease, Reply, read, slowly};
use crate::store::Line;
use crate::store::index::MailboxRow;
use crate::wire::Body;
use crate::wire::apply::{Apply, Expunge, Mailbox};
use crate::wire::dlist::{Literals, Printer, Value, parse_item};
use crate::wire::own::Own;

impl Lease {
    pub(super) fn apply(&mut self, text: &[u8], bodies: Vec<Body>) -> Reply {
        let (name, value) = item("Apply", text)?;
        let mut answers = Answers::new();
        let name = name.strip_prefix(b"LOCAL_").unwrap_or(&name);
        if !bodies.is_empty() && name != b"MESSAGE" {
            // Such a line could not be read back: the body would be missing.
            return Err(Refusal::Protocol);
        }
        match name {
            b"RESERVE" => return self.reserve(&value),
            b"MESSAGE" => self.messages(&value, bodies)?,
            b"MAILBOX" if Mailbox::is_placeholder(&value) => {}
            b"MAILBOX" | b"UNMAILBOX" | b"RENAME" | b"EXPUNGE" | b"SEEN" | b"SUB" | b"UNSUB"
            | b"SIEVE" | b"UNSIEVE" => self.store(name, &value, text)?,
            b"CAPABILITIES" => answers.nothing_enabled(),
            b"FORCE" => self.is_forced = true,
            b"UNUSER" => self.unuser(&value)?,
            name if Own::is_command(name) => slowly(self.store_own_command(name, &value))?,
            _ => return Err(Refusal::Protocol),
        }
        Ok(answers)
    }

    /// Appends a line that Cyrus has a place for. `sent` is how it came.
    fn store(&mut self, name: &[u8], value: &Value<'_>, sent: &[u8]) -> Result<(), Refusal> {
        let apply = Apply::read(name, value)?;
        let names = &self.site.names;
        let key = match &apply {
            Apply::Mailbox(mailbox) => names.backup_key(&mailbox.mboxname),
            Apply::Unmailbox(mboxname) => names.backup_key(mboxname),
            Apply::Rename(rename) => names.backup_key(&rename.from),
            Apply::Expunge(expunge) => names.backup_key(&expunge.mboxname),
            Apply::Seen(seen) => names.userid_key(&seen.userid),
            Apply::Sub(subscription, _) => names.userid_key(&subscription.userid),
            Apply::Sieve(sieve) => names.userid_key(&sieve.script.userid),
            Apply::Unsieve(script) => names.userid_key(&script.userid),
            Apply::Message(_) | Apply::Reserve | Apply::Own(_) => return Err(Refusal::Protocol),
        };
        let at = self.open(&key)?;
        // The client asks anew after a rename: that is no repetition.
        if !self.is_forced || matches!(apply, Apply::Rename(_)) {
            self.asked.1 = 0;
        }
        match &apply {
            Apply::Rename(rename) => {
                let known = read(&self.open[at], |index| index.mailbox_named(&rename.from))?;
                let row = known.ok_or(Refusal::Nonexistent)?;
                let new_key = self.site.names.backup_key(&rename.to);
                if new_key != key {
                    return self.move_mailbox(&key, &new_key, &row, rename);
                }
                self.end_others(at, &rename.to, &row.uniqueid)?;
            }
            Apply::Mailbox(mailbox) => {
                self.claim_messages(at, mailbox)?;
                self.check_state(at, mailbox)?;
                self.end_others(at, &mailbox.mboxname, &mailbox.uniqueid)?;
                self.append_read(at, name, value, sent, &apply)?;
                return self.check_whole(at, mailbox);
            }
            Apply::Expunge(expunge) => return self.expunge(at, expunge),
            Apply::Unsieve(script) => {
                self.append_line(at, name, value)?;
                return self.unactivate(at, &script.userid, Some(&script.filename));
            }
            _ => {}
        }
        self.append_read(at, name, value, sent, &apply)
    }

    /// Stores what is gone as records that say so: Cyrus's own tools crash on a log with an EXPUNGE
    /// line. There is no checksum of this state, as behind a part of a mailbox. Of one that is
    /// in doubt the client will tell everything.
    fn expunge(&mut self, at: usize, expunge: &Expunge<'_>) -> Result<(), Refusal> {
        let held = &self.open[at];
        let known = read(held, |index| index.mailbox_with_uniqueid(&expunge.uniqueid))?;
        let is_meant = |row: &MailboxRow| row.deleted.is_none() && row.mboxname == expunge.mboxname;
        let Some(row) = known.filter(is_meant) else { return Ok(()) };
        if !read(held, |index| index.is_whole(&row))? {
            return Ok(());
        }
        let mut records = Vec::new();
        for uid in expunge.uids().collect::<BTreeSet<_>>() {
            let record = read(held, |index| index.true_record(row.id, uid))?;
            records.extend(record.filter(|record| record.expunged.is_none()));
        }
        if records.is_empty() {
            return Ok(());
        }
        records.iter_mut().for_each(|record| record.expunged = Some(record.last_updated));
        let extra = read(held, |index| index.extra_fields(row.id))?;
        let row = MailboxRow { sync_crc: 0, sync_crc_annot: 0, ..row };
        let text = answers::mailbox_line(&row, extra.as_deref(), &records, false);
        self.append_text(at, &text)
    }

    /// Appends a line that was read. As a rule it came in canonical text already, and need not be
    /// read again as what is stored.
    fn append_read(
        &mut self,
        at: usize,
        name: &[u8],
        value: &Value<'_>,
        sent: &[u8],
        apply: &Apply<'_>,
    ) -> Result<(), Refusal> {
        let text = canonical(name, value);
        if text == sent {
            return self.append(at, &Line { text: sent, body_at: &[], bodies: &[], apply });
        }
        self.append_text(at, &text)
    }

    /// Refuses changes to a state that is not the one here: a client that remembers what it
    /// sent, or that raced with another, would leave a gap.
    fn check_state(&self, at: usize, line: &Mailbox<'_>) -> Result<(), Refusal> {
        let Some(since) = line.since else { return Ok(()) };
        let held = &self.open[at];
        let row = read(held, |index| index.mailbox_with_uniqueid(&line.uniqueid))?;
        let row = row.filter(|row| row.deleted.is_none()).ok_or(Refusal::Changed)?;
        let differs = |here: u32, there: u32| here != there && here != 0 && there != 0;
        if since.modseq != row.highestmodseq
            || differs(since.crc, row.sync_crc)
            || differs(since.crc_annot, row.sync_crc_annot)
            || !read(held, |index| index.is_whole(&row))?
        {
            return Err(Refusal::Changed);
        }
        Ok(())
    }

    /// The mail server has one mailbox of a name. One that was known under it and has another
    /// identity is gone, though nobody said so: it was deleted and made anew between two syncs.
    pub(super) fn end_others(
        &mut self,
        at: usize,
        name: &[u8],
        uniqueid: &[u8],
    ) -> Result<(), Refusal> {
        let named = read(&self.open[at], |index| index.mailbox_named(name))?;
        if named.is_some_and(|row| row.uniqueid != uniqueid) {
            self.append_line(at, b"UNMAILBOX", &Value::Atom(name.into()))?;
        }
        Ok(())
    }

    /// If changes, now stored, do not lead to what the master has, the client is made to ask
    /// again: it finds no such mailbox, and sends all of it. A line that was to tell all is not
    /// refused: the client would have nothing else to send.
    fn check_whole(&self, at: usize, line: &Mailbox<'_>) -> Result<(), Refusal> {
        let held = &self.open[at];
        let row = read(held, |index| index.mailbox_with_uniqueid(&line.uniqueid))?;
        match row {
            Some(row) if line.since.is_some() && !read(held, |index| index.is_whole(&row))? => {
                Err(Refusal::Checksum)
            }
            _ => Ok(()),
        }
    }

    pub(super) fn append_line(
        &mut self,
        at: usize,
        name: &[u8],
        value: &Value<'_>,
    ) -> Result<(), Refusal> {
        self.append_text(at, &canonical(name, value))
    }

    /// Appends a line of canonical text.
    pub(super) fn append_text(&mut self, at: usize, text: &[u8]) -> Result<(), Refusal> {
        let (name, value) = parse_item(text).map_err(|_| Refusal::Internal)?;
        let apply = Apply::read(&name, &value)?;
        self.append(at, &Line { text, body_at: &[], bodies: &[], apply: &apply })
    }

    /// Stores what Cyrus has no place for. A client that is refused here asks for a user
    /// without a name and gives up its round, again and again: what makes no sense is
    /// answered OK, as Cyrus does, and a lock is waited for.
    fn store_own_command(&mut self, name: &[u8], value: &Value<'_>) -> Result<(), Refusal> {
        let own = match Own::read(name, value) {
            Ok(own) => own,
            Err(reject) => {
                tracing::warn!(command = %name.escape_ascii(), %reject, "passed over");
                return Ok(());
            }
        };
        let names = &self.site.names;
        let key = match &own {
            Own::Quota(quota) => names.backup_key(&quota.root),
            Own::Unquota(root) => names.backup_key(root),
            Own::Annotation(subject, _) | Own::Unannotation(subject) => {
                self.annotation_key(&subject.mboxname)
            }
            Own::ActivateSieve(script) => names.userid_key(&script.userid),
            Own::UnactivateSieve(userid) => names.userid_key(userid),
            Own::Incomplete(_) | Own::Compacted(_) => return Err(Refusal::Protocol),
        };
        let at = self.open_patiently(&key)?;
        self.append_own(at, &own)
    }

    /// Appends a line of our own, unless it would change nothing, and what keeps it alive.
    fn append_own(&mut self, at: usize, own: &Own) -> Result<(), Refusal> {
        if read(&self.open[at], |index| index.says_already(own))? {
            return Ok(());
        }
        let anchor = own.anchor(&self.open[at].key);
        self.append_text(at, &own.line())?;
        self.append_text(at, &anchor)
    }

    /// No script runs any more; of `only` that one, if it did.
    fn unactivate(&mut self, at: usize, userid: &[u8], only: Option<&[u8]>) -> Result<(), Refusal> {
        let active = read(&self.open[at], |index| index.active_script())?;
        if active.is_none_or(|active| only.is_some_and(|name| name != active.filename)) {
            return Ok(());
        }
        self.append_own(at, &Own::UnactivateSieve(userid.to_vec()))
    }

    /// A user is gone: all that is alive ends now, in lines that every tool understands, and
    /// is kept for the retention time. A user without a backup does not get one.
    fn unuser(&mut self, value: &Value<'_>) -> Result<(), Refusal> {
        // As Cyrus: what is no name is nobody.
        let Some(userid) = value.as_text().filter(|userid| !userid.is_empty()) else {
            return Ok(());
        };
        let userid = userid.to_vec();
        let key = self.site.names.userid_key(&userid);
        if self.place(&key).is_err() && self.site.catalog.lookup(&key)?.is_none() {
            return Ok(());
        }
        let at = self.open(&key)?;
        let held = &self.open[at];
        let mailboxes = read(held, |index| index.mailboxes())?;
        let subscriptions = read(held, |index| index.subscriptions())?;
        let scripts = read(held, |index| index.sieve_scripts())?;
        let roots = read(held, |index| index.quota_roots())?;
        for row in mailboxes.iter().filter(|row| row.deleted.is_none()) {
            self.append_line(at, b"UNMAILBOX", &Value::Atom(row.mboxname.as_slice().into()))?;
        }
        for name in &subscriptions {
            self.append_pair(at, "UNSUB", &userid, ("MBOXNAME", name))?;
        }
        for row in &scripts {
            self.append_pair(at, "UNSIEVE", &userid, ("FILENAME", &row.filename))?;
        }
        for root in roots {
            self.append_own(at, &Own::Unquota(root))?;
        }
        self.unactivate(at, &userid, None)
    }

    /// Appends `NAME %(USERID userid KEY text)`.
    fn append_pair(
        &mut self,
        at: usize,
        name: &str,
        userid: &[u8],
        (key, text): (&str, &[u8]),
    ) -> Result<(), Refusal> {
        let mut printer = Printer::new(Literals::NonSync, name.as_bytes().to_vec());
        printer.raw(b" %(USERID ").string(userid).raw(b" ").raw(key.as_bytes()).raw(b" ");
        printer.string(text).raw(b")");
        self.append_text(at, &printer.into_text())
    }
}

fn canonical(name: &[u8], value: &Value<'_>) -> Vec<u8> {
    let mut printer = Printer::new(Literals::NonSync, Vec::new());
    printer.item(name, value);
    printer.into_text()
}
