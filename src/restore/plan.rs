//! What a restore is going to do, as far as the backup tells: which mailboxes, what comes into
//! them from where, what they keep. Making a plan changes nothing and asks nobody.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

use super::request::{Expunged, Object, Part, Request};
use super::select::{Entry, Pick, select};
use super::there::There;
use super::view::View;
use crate::store::StoreError;
use crate::store::error::Result;
use crate::store::export::folder::gone_since;
use crate::store::index::{IndexError, MailboxRow, RecordRow};
use crate::wire::Guid;
use crate::wire::dlist::{Literals, Printer, Value, parse_value};
use crate::wire::mboxname::NameRules;

/// What is going to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Mailboxes, parents before their children.
    pub targets: Vec<Target>,
    /// How they came to be what they are, in the order of asking.
    pub notes: Vec<Note>,
    /// What the backup does not have.
    pub unknown: Vec<Object>,
}

/// A mailbox to be created or added to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Internal name at the destination.
    pub name: Vec<u8>,
    /// Where its messages come from. The first one tells what it is like if it is created.
    pub sources: Vec<Source>,
    /// Whether it keeps the ids of the first source.
    pub keep_ids: bool,
    /// Its partition, if it is created; `None`: the server's default.
    pub partition: Option<Vec<u8>>,
    /// Its access control list, if it is created; `None`: that of its parent.
    pub acl: Option<Vec<u8>>,
    /// Messages that will be seen.
    pub messages: u64,
    /// Messages that are restored as expunged.
    pub expunged: u64,
    /// Octets of all of them.
    pub octets: u64,
    /// Its sources are one mailbox at different times: what several of them have is one message.
    is_one_mailbox: bool,
}

/// Some messages of a mailbox in the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The mailbox.
    pub mailbox: MailboxRow,
    /// Which of its messages; overlaps count once.
    picks: Vec<Pick>,
}

/// How an entry of the selection became part of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Name of the mailbox at that point; `None` for a message that stands for itself.
    pub name: Option<Vec<u8>>,
    /// What was decided.
    pub what: Decision,
}

/// What was decided about an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Decision {
    /// Everything goes into one mailbox.
    Into(Vec<u8>),
    Partition {
        to: Vec<u8>,
        was: Option<Vec<u8>>,
    },
    Acl {
        to: Vec<u8>,
        was: Option<Vec<u8>>,
    },
    NewIds,
    KeepIds {
        uidvalidity: u32,
        uniqueid: Vec<u8>,
        highestmodseq: u64,
    },
    /// The name under which it was kept after its deletion.
    Undeleted(Vec<u8>),
    WithoutExpunged(Guid),
    WithoutLiving(Guid),
}

impl Plan {
    /// Makes a plan. `with_notes`: [`Plan::notes`] are wanted, which costs memory.
    pub fn make(
        view: &View<'_>,
        rules: &NameRules,
        request: &Request,
        with_notes: bool,
    ) -> Result<Plan> {
        let selection = select(view, rules, request)?;
        let mut plan = Plan { unknown: selection.unknown, ..Plan::default() };
        // Deleted mailboxes last: their users may have to come first.
        let mut targets: BTreeMap<(bool, Vec<Vec<u8>>), Target> = BTreeMap::new();
        for entry in selection.entries {
            if with_notes {
                plan.note(view, rules, request, &entry)?;
            }
            let name = target_name(rules, request, &entry.mailbox);
            targets
                .entry((rules.undeleted(&name).is_some(), path(&name)))
                .or_insert_with(|| Target::new(name, request))
                .add(entry);
        }
        plan.targets = targets.into_values().collect();
        for target in &mut plan.targets {
            target.settle(view, rules, request)?;
        }
        if !request.parts.has(Part::Mail) {
            plan.targets.clear();
        }
        Ok(plan)
    }

    fn note(
        &mut self,
        view: &View<'_>,
        rules: &NameRules,
        request: &Request,
        entry: &Entry,
    ) -> Result<()> {
        let row = &entry.mailbox;
        let alone = matches!(entry.pick, Pick::Message { alone: true, .. });
        let mut name = (!alone).then(|| row.mboxname.clone());
        let mut add = |name: &Option<Vec<u8>>, what| {
            self.notes.push(Note { name: name.clone(), what });
        };
        if let Some(into) = &request.into {
            add(&name, Decision::Into(into.clone()));
            name = Some(into.clone());
        }
        let was = |value: &Option<Vec<u8>>| value.clone().filter(|_| !alone);
        if let Some(to) = &request.partition {
            add(&name, Decision::Partition { to: to.clone(), was: was(&row.partition) });
        }
        if let Some(to) = &request.acl {
            add(&name, Decision::Acl { to: to.clone(), was: was(&row.acl) });
        }
        add(&name, if request.keep_ids { kept(row) } else { Decision::NewIds });
        let target = target_name(rules, request, row);
        if name.as_ref() != Some(&target) {
            add(&Some(target.clone()), Decision::Undeleted(row.mboxname.clone()));
        }
        if request.expunged != Expunged::AsTheyAre && entry.pick == Pick::All {
            let records = view.index().all_records(row.id).map_err(fault(view))?;
            for record in records.iter().filter(|record| !is_wanted(record, request.expunged)) {
                let Some(guid) = record.guid else { continue };
                let what = match record.expunged {
                    Some(_) => Decision::WithoutExpunged(guid),
                    None => Decision::WithoutLiving(guid),
                };
                add(&Some(target.clone()), what);
            }
        }
        Ok(())
    }
}

fn kept(row: &MailboxRow) -> Decision {
    Decision::KeepIds {
        uidvalidity: row.uidvalidity,
        uniqueid: row.uniqueid.clone(),
        highestmodseq: row.highestmodseq,
    }
}

impl Target {
    fn new(name: Vec<u8>, request: &Request) -> Target {
        Target {
            name,
            sources: Vec::new(),
            keep_ids: request.keep_ids,
            partition: request.partition.clone(),
            acl: request.acl.clone(),
            messages: 0,
            expunged: 0,
            octets: 0,
            is_one_mailbox: request.into.is_none(),
        }
    }

    fn add(&mut self, entry: Entry) {
        let same = self.sources.iter_mut().find(|source| source.mailbox.id == entry.mailbox.id);
        match same {
            Some(source) => source.picks.push(entry.pick),
            None => {
                self.sources.push(Source { mailbox: entry.mailbox, picks: vec![entry.pick] });
            }
        }
    }

    /// Fills in what follows from the sources.
    fn settle(&mut self, view: &View<'_>, rules: &NameRules, request: &Request) -> Result<()> {
        if request.into.is_none() {
            // What lived last tells what the mailbox is like; if nothing did, what was deleted
            // last.
            self.sources.sort_by_key(|source| {
                let gone = gone_since(&source.mailbox, rules);
                (Reverse(gone.unwrap_or(i64::MAX)), gone.map(|_| Reverse(source.mailbox.id)))
            });
        }
        for record in self.records(view, request.expunged)?.all() {
            match record.expunged {
                None => self.messages += 1,
                Some(_) => self.expunged += 1,
            }
            self.octets += record.size;
        }
        let Some(first) = self.sources.first() else { return Ok(()) };
        if request.partition.is_none() {
            self.partition.clone_from(&first.mailbox.partition);
        }
        if request.acl.is_none() && self.has_owner_of(rules, &first.mailbox) {
            self.acl.clone_from(&first.mailbox.acl);
        }
        self.acl = self.acl.take().filter(|acl| !acl.is_empty() || request.acl.is_none());
        Ok(())
    }

    /// Whether it belongs to whom a source belongs: else the source's access rights would let
    /// the wrong people in.
    fn has_owner_of(&self, rules: &NameRules, source: &MailboxRow) -> bool {
        rules.inbox_of(&self.name) == rules.inbox_of(&source.mboxname)
    }

    /// Whether it holds sieve scripts, which servers take only when asked to.
    pub(super) fn is_sieve(&self) -> bool {
        let first = self.sources.first().and_then(|source| source.mailbox.mboxtype.as_ref());
        first.is_some_and(|letters| letters.contains(&b'f'))
    }

    /// Whether whole mailboxes are restored, and not single messages.
    pub fn is_whole(&self) -> bool {
        self.sources.iter().all(|source| source.picks.contains(&Pick::All))
    }

    /// What its messages are: those that keep their UIDs if the mailbox keeps its ids, and
    /// the rest, both in the order of restoring.
    pub fn records(&self, view: &View<'_>, expunged: Expunged) -> Result<Records> {
        let mut records = Records::default();
        let may_overlap = self.is_one_mailbox && self.sources.len() > 1;
        let mut counted = There::default();
        for (i, source) in self.sources.iter().enumerate() {
            let (mut from, mut gone) = source.records(view, expunged)?;
            if self.keep_ids {
                // What nobody sees is restored for the sake of its UID, and these have none.
                gone.retain(|record| record.expunged.is_none());
            }
            if may_overlap {
                for records in [&mut from, &mut gone] {
                    counted.clone().take_from(records);
                    counted.add_records(records);
                }
            }
            let to = if i == 0 && self.keep_ids { &mut records.exact } else { &mut records.more };
            to.extend(from);
            records.more.extend(gone);
        }
        Ok(records)
    }
}

/// Messages of a target, expunged ones as they are to be restored: what comes back to sight is
/// not expunged any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// With their UIDs, in ascending order.
    pub exact: Vec<RecordRow>,
    /// With new ones.
    pub more: Vec<RecordRow>,
}

impl Records {
    fn all(&self) -> impl Iterator<Item = &RecordRow> {
        self.exact.iter().chain(&self.more)
    }
}

impl Source {
    /// Those that the master has, and those that were displaced, whose UIDs may be others' now.
    fn records(
        &self,
        view: &View<'_>,
        expunged: Expunged,
    ) -> Result<(Vec<RecordRow>, Vec<RecordRow>)> {
        let mut there = view.index().true_records(self.mailbox.id).map_err(fault(view))?;
        let mut gone = view.index().gone_records(self.mailbox.id).map_err(fault(view))?;
        self.pick(&mut there, expunged);
        self.pick(&mut gone, expunged);
        Ok((there, gone))
    }

    fn pick(&self, records: &mut Vec<RecordRow>, expunged: Expunged) {
        let mut revived = HashSet::new();
        let mut living = HashSet::new();
        let mut all = false;
        for pick in &self.picks {
            match pick {
                Pick::All => all = true,
                Pick::Message { guid, revive: true, .. } => drop(revived.insert(*guid)),
                Pick::Message { guid, .. } => drop(living.insert(*guid)),
            }
        }
        records.retain_mut(|record| {
            let Some(guid) = record.guid else { return false };
            let is_named = |guids: &HashSet<Guid>| guids.contains(&guid);
            if record.expunged.is_some() && (is_named(&revived) || expunged == Expunged::Only) {
                revive(record);
                return all || is_named(&revived);
            }
            if record.expunged.is_some() {
                return all && is_wanted(record, expunged);
            }
            (all || is_named(&living)) && is_wanted(record, expunged)
        });
    }
}

fn fault(view: &View<'_>) -> impl FnOnce(IndexError) -> StoreError {
    StoreError::index(view.backup().path())
}

/// Whether a message is among those that are to be restored.
pub(super) fn is_wanted(record: &RecordRow, expunged: Expunged) -> bool {
    match expunged {
        Expunged::AsTheyAre => true,
        Expunged::Without => record.expunged.is_none(),
        Expunged::Only => record.expunged.is_some(),
    }
}

/// Brings a message back to sight. `\Deleted` goes: the next client would expunge it again.
fn revive(record: &mut RecordRow) {
    record.expunged = None;
    let flags = parse_value(&record.flags).unwrap_or(Value::Nil).as_list();
    let mut printer = Printer::new(Literals::NonSync, b"(".to_vec());
    let is_deleted = |flag: &Value<'_>| {
        flag.as_text().is_some_and(|text| text.eq_ignore_ascii_case(b"\\Deleted"))
    };
    for (i, flag) in flags.items().filter(|flag| !is_deleted(flag)).enumerate() {
        printer.separator(i).value(&flag);
    }
    printer.raw(b")");
    record.flags = printer.into_text();
}

/// What the mailbox is called at the destination.
fn target_name(rules: &NameRules, request: &Request, mailbox: &MailboxRow) -> Vec<u8> {
    let undeleted = || rules.undeleted(&mailbox.mboxname).filter(|_| !request.keep_deleted_names);
    request.into.clone().or_else(undeleted).unwrap_or_else(|| mailbox.mboxname.clone())
}

/// The components of a name: sorted by them, parents come before their children.
fn path(name: &[u8]) -> Vec<Vec<u8>> {
    name.split(|&c| c == b'.').map(<[u8]>::to_vec).collect()
}
