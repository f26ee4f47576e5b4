//! Which mailboxes and messages of a backup are meant.

use std::cmp::Reverse;

use super::plan::is_wanted;
use super::request::{Expunged, Object, Request, What};
use super::view::View;
use crate::store::StoreError;
use crate::store::error::Result;
use crate::store::export::folder::gone_since;
use crate::store::index::{Index, IndexError, MailboxRow, RecordRow};
use crate::wire::Guid;
use crate::wire::mboxname::NameRules;

/// Some of what is to be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The mailbox it is in.
    pub mailbox: MailboxRow,
    /// What of it.
    pub pick: Pick,
}

/// Some of the messages of a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// All of them.
    All,
    /// One, under all its UIDs.
    Message {
        /// Which.
        guid: Guid,
        /// It was expunged, and comes back to sight.
        revive: bool,
        /// It stands for itself: its mailbox is of no interest.
        alone: bool,
    },
}

/// What was meant, in the order of asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// What there is; an overlap is here more than once.
    pub entries: Vec<Entry>,
    /// What the backup does not have.
    pub unknown: Vec<Object>,
}

/// Looks up what a request means.
pub fn select(view: &View<'_>, rules: &NameRules, request: &Request) -> Result<Selection> {
    let select = || -> std::result::Result<Selection, IndexError> {
        match &request.what {
            What::All => Ok(whole(view.index().mailboxes()?)),
            What::Living => {
                let mut mailboxes = view.index().mailboxes()?;
                mailboxes.retain(|mailbox| lives(mailbox, rules));
                Ok(whole(mailboxes))
            }
            What::Objects(objects) => these(view, rules, request, objects),
        }
    };
    select().map_err(StoreError::index(view.backup().path()))
}

/// Whether the mail server had it last, and not as a deleted one.
pub(super) fn lives(mailbox: &MailboxRow, rules: &NameRules) -> bool {
    gone_since(mailbox, rules).is_none()
}

fn whole(mailboxes: Vec<MailboxRow>) -> Selection {
    let entries = mailboxes.into_iter().map(|mailbox| Entry { mailbox, pick: Pick::All });
    Selection { entries: entries.collect(), unknown: Vec::new() }
}

fn these(
    view: &View<'_>,
    rules: &NameRules,
    request: &Request,
    objects: &[Object],
) -> std::result::Result<Selection, IndexError> {
    let index = view.index();
    let all = if request.recursive { index.mailboxes()? } else { Vec::new() };
    let mut selection = Selection::default();
    for object in objects {
        let mailbox = match object {
            Object::Uniqueid(id) => index.mailbox_with_uniqueid(id)?,
            Object::Mailbox { name, typed } => match called(index, name)? {
                Some(mailbox) => Some(mailbox),
                // People copy internal names from lists.
                None => called(index, typed)?,
            },
            Object::Message(guid) => {
                match message(view, rules, request, guid)? {
                    Some(entries) => selection.entries.extend(entries),
                    None => selection.unknown.push(object.clone()),
                }
                continue;
            }
        };
        let Some(mailbox) = mailbox else {
            selection.unknown.push(object.clone());
            continue;
        };
        let mut prefix = mailbox.mboxname.clone();
        prefix.push(b'.');
        let below = all.iter().filter(|other| other.mboxname.starts_with(&prefix)).cloned();
        let chosen = std::iter::once(mailbox).chain(below);
        selection.entries.extend(chosen.map(|mailbox| Entry { mailbox, pick: Pick::All }));
    }
    Ok(selection)
}

/// The mailbox of that internal name: the one that lives, or the latest.
fn called(index: &Index, name: &[u8]) -> std::result::Result<Option<MailboxRow>, IndexError> {
    match index.mailbox_named(name)? {
        Some(mailbox) => Ok(Some(mailbox)),
        None => index.latest_mailbox_named(name),
    }
}

/// Where a message is to be restored from: every mailbox in which it lives; if there is none, the
/// one in which it lived last. `None`: it is not in the backup.
fn message(
    view: &View<'_>,
    rules: &NameRules,
    request: &Request,
    guid: &Guid,
) -> std::result::Result<Option<Vec<Entry>>, IndexError> {
    let mut found: Vec<(MailboxRow, RecordRow)> = Vec::new();
    let (there, gone) = (view.index().true_records_of(guid)?, view.index().gone_records_of(guid)?);
    for (mailbox_id, record) in there.into_iter().chain(gone) {
        if let Some(mailbox) = view.index().mailbox_with_id(mailbox_id)? {
            found.push((mailbox, record));
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    found.retain(|(_, record)| is_wanted(record, request.expunged));
    // What a deleted mailbox has kept is not there for anybody, no more than what is expunged.
    let is_there = |(mailbox, record): &(MailboxRow, RecordRow)| {
        let lives_there = record.expunged.is_none() || request.expunged == Expunged::Only;
        lives_there && lives(mailbox, rules)
    };
    let is_anywhere = found.iter().any(is_there);
    found.retain(|place| is_there(place) || !is_anywhere);
    let alone = request.into.is_some();
    if alone || !is_anywhere {
        // Latest first, and what was there last before what was not.
        found.sort_by_key(|(mailbox, record)| {
            let gone = record.expunged.or_else(|| gone_since(mailbox, rules));
            (Reverse(gone.unwrap_or(record.last_updated)), !lives(mailbox, rules))
        });
        found.truncate(1);
    }
    let mut entries: Vec<Entry> = found
        .into_iter()
        .map(|(mailbox, record)| {
            let (guid, revive) = (record.guid.unwrap_or(*guid), record.expunged.is_some());
            Entry { mailbox, pick: Pick::Message { guid, revive, alone } }
        })
        .collect();
    entries.dedup();
    Ok(Some(entries))
}
