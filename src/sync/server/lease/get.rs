//! GET: what is known, and nothing else. A client acts upon what it is told: a value that its
//! master never sent, or a mailbox that is not known whole, can cost mail there.

use super::super::answers::Answers;
use super::super::request::{Get, Message, Refusal};
use super::read_back::Batch;
use super::{Held, Lease, Reply, read, slowly};
use crate::store::index::{MailboxRow, SieveRow};
use crate::wire::Guid;
use crate::wire::mboxname::SHARED;

/// A message above this many octets is not given back in a session.
const FETCH_MAX: u64 = 64 << 20;
/// How often a client asks the same before it gives up.
const ASKED_MAX: usize = 3;

impl Lease {
    pub(super) fn get(&mut self, text: &[u8]) -> Reply {
        let mut answers = Answers::new();
        match Get::read(text)? {
            Get::User(userid) => self.get_user(&userid, &mut answers)?,
            Get::Meta(userid) => {
                let at = self.open_current(&userid)?;
                meta(&self.open[at], &mut answers)?;
            }
            Get::Mailboxes(names) => self.get_mailboxes(&names, &mut answers)?,
            Get::UniqueIds(ids) => {
                for id in ids {
                    for held in &self.open {
                        let row = read(held, |index| index.mailbox_with_uniqueid(&id))?;
                        if let Some(row) = row.filter(|row| row.deleted.is_none()) {
                            mailbox(held, &row, &mut answers)?;
                        }
                    }
                }
            }
            Get::FullMailbox(name) => self.get_full_mailbox(&name, &mut answers)?,
            Get::Quota(root) => {
                let at = slowly(self.open_patiently(&self.site.names.backup_key(&root)))?;
                let quota = read(&self.open[at], |index| index.quota(&root))?;
                quota.iter().for_each(|fields| answers.quota(fields));
            }
            Get::Annotation(mboxname) => {
                let at = slowly(self.open_patiently(&self.annotation_key(&mboxname)))?;
                let rows = read(&self.open[at], |index| index.annotations(&mboxname))?;
                rows.iter().for_each(|row| answers.annotation(row));
            }
            Get::Fetch(message) => self.fetch(&message, &mut answers)?,
            Get::FetchSieve(script) => {
                let at = self.open(&self.site.names.userid_key(&script.userid))?;
                let held = &self.open[at];
                let rows = read(held, |index| index.sieve_scripts())?;
                let named = |row: &&SieveRow| row.filename == script.filename;
                let row = rows.iter().find(named).ok_or(Refusal::Nonexistent)?;
                let content = held.script(row)?;
                answers.script(&script.userid, row, &content);
            }
        }
        Ok(answers)
    }

    /// The backup that holds the annotations of a mailbox; those of the server (`""`) are in
    /// the shared one.
    pub(super) fn annotation_key(&self, mboxname: &[u8]) -> Vec<u8> {
        if mboxname.is_empty() { SHARED.to_vec() } else { self.site.names.backup_key(mboxname) }
    }

    fn get_user(&mut self, userid: &[u8], answers: &mut Answers) -> Result<(), Refusal> {
        let at = self.open_current(userid)?;
        let told_max = self.told_max(self.open[at].key.clone());
        let held = &self.open[at];
        let rows = read(held, |index| index.mailboxes())?;
        for row in rows.iter().filter(|row| row.deleted.is_none()).take(told_max) {
            mailbox(held, row, answers)?;
        }
        for fields in read(held, |index| index.quotas())? {
            answers.quota(&fields);
        }
        meta(held, answers)
    }

    /// How many mailboxes the answer to this question is to tell.
    ///
    /// A client that cannot bring about what it wants asks for the same again (GET USER, and from
    /// 3.12 GET MAILBOXES), gives up the third time, and so for ever: with `-O` if it has purged
    /// more than the backup knows of, before 3.12 if two mailboxes have changed names. So the
    /// third time in a row it is told of the first mailbox only; with `-O` the second time, and of
    /// none the third time. What it is not told of it sends whole.
    ///
    /// Nothing is noted of that. Others ask three times too, and a mailbox that were kept from
    /// them until it was sent, and is not sent because its master has deleted it, would live on
    /// here.
    fn told_max(&mut self, question: Vec<u8>) -> usize {
        let count = if self.asked.0 == question { self.asked.1 + 1 } else { 1 };
        self.asked = (question, count % ASKED_MAX);
        match (count, self.is_forced) {
            (2, true) | (ASKED_MAX, false) => 1,
            (ASKED_MAX, true) => 0,
            _ => usize::MAX,
        }
    }

    fn get_mailboxes(&mut self, names: &[Vec<u8>], answers: &mut Answers) -> Result<(), Refusal> {
        self.end_group();
        // No userid holds a NUL, with which this begins.
        let told_max = self.told_max([&[0], &*names.join(&0)].concat());
        let mut told = 0;
        for name in names {
            let key = self.site.names.backup_key(name);
            let at = self.open(&key)?;
            if !self.current.contains(&key) {
                self.current.push(key);
            }
            let held = &self.open[at];
            if let Some(row) = read(held, |index| index.mailbox_named(name))?
                && told < told_max
            {
                told += 1;
                mailbox(held, &row, answers)?;
            }
        }
        Ok(())
    }

    fn get_full_mailbox(&mut self, name: &[u8], answers: &mut Answers) -> Result<(), Refusal> {
        let key = self.site.names.backup_key(name);
        let at = self.open(&key)?;
        let held = &self.open[at];
        let row = read(held, |index| index.mailbox_named(name))?.ok_or(Refusal::Nonexistent)?;
        if !read(held, |index| index.is_whole(&row))? {
            return Err(Refusal::Nonexistent);
        }
        let extra = read(held, |index| index.extra_fields(row.id))?;
        let records = read(held, |index| index.true_records(row.id))?;
        answers.mailbox(&row, extra.as_deref(), Some(&records));
        Ok(())
    }

    fn fetch(&mut self, message: &Message, answers: &mut Answers) -> Result<(), Refusal> {
        let at = self.open(&self.site.names.backup_key(&message.mboxname))?;
        let row = read(&self.open[at], |index| index.message(&message.guid))?;
        let row = row.filter(|row| row.size <= FETCH_MAX).ok_or(Refusal::Nonexistent)?;
        let mut batch = Batch::default();
        let wanted: [Guid; 1] = [message.guid];
        let source = self.open[at].read_back(&wanted)?;
        source.read(&mut self.staging, &mut batch, |_, _| Ok(()))?;
        let body = batch.bodies.first().ok_or(Refusal::Nonexistent)?;
        let mut octets = Vec::new();
        let result = self.staging.read(body, |piece| {
            octets.extend_from_slice(piece);
            Ok(())
        });
        result.map_err(|error| {
            tracing::error!(%error, "cannot read a staged message");
            Refusal::Internal
        })?;
        answers.message(&row, &octets);
        Ok(())
    }
}

/// Answers with a mailbox, unless it is not known whole.
fn mailbox(held: &Held, row: &MailboxRow, answers: &mut Answers) -> Result<(), Refusal> {
    if !read(held, |index| index.is_whole(row))? {
        return Ok(());
    }
    let extra = read(held, |index| index.extra_fields(row.id))?;
    answers.mailbox(row, extra.as_deref(), None);
    Ok(())
}

fn meta(held: &Held, answers: &mut Answers) -> Result<(), Refusal> {
    read(held, |index| index.seen_states())?.iter().for_each(|row| answers.seen(row));
    answers.subscriptions(&read(held, |index| index.subscriptions())?);
    read(held, |index| index.sieve_scripts())?.iter().for_each(|row| answers.sieve(row));
    read(held, |index| index.active_script())?.iter().for_each(|row| answers.active_sieve(row));
    Ok(())
}
