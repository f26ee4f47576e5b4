//! What is to be exported, as rows of the index.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::super::backup::Backup;
use super::super::error::{Result, StoreError};
use super::super::exact::{Damage, Truth};
use super::super::index::{MailboxRow, RecordRow};
use super::folder::{Folder, gone_since};
use crate::wire::Guid;
use crate::wire::mboxname::NameRules;

/// Which messages.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only those in mailboxes with these unique ids; `None`: in all.
    pub mailboxes: Option<HashSet<Vec<u8>>>,
    /// Only these. Each comes from where it lives; one that lives nowhere, from where it
    /// lived last.
    pub guids: Option<HashSet<Guid>>,
    /// Expunged ones too.
    pub expunged: bool,
    /// Those in deleted mailboxes too.
    pub deleted: bool,
}

/// A message in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its mailbox.
    pub folder: Rc<Folder>,
    /// UID there.
    pub uid: u32,
    /// The message.
    pub guid: Guid,
    /// Canonical text of its flags.
    pub flags: Vec<u8>,
    /// Unix time, seconds.
    pub internaldate: i64,
    /// Unix time since which it does not live there, whatever went, it or its mailbox;
    /// `None`: it lives.
    pub expunged: Option<i64>,
    /// Its UID is, or was, another one's in the same mailbox: the mail server went back to an
    /// earlier state.
    pub displaced: bool,
}

impl Item {
    /// What a file of its own in a directory of its folder is called, without extension.
    pub fn stem(&self) -> String {
        match self.displaced {
            true => format!("{}-{}", self.uid, self.guid),
            false => self.uid.to_string(),
        }
    }

    /// Its flags one by one, as they are.
    pub fn flags(&self) -> impl Iterator<Item = &[u8]> {
        flags(&self.flags)
    }
}

/// The flags of a record one by one, as they are.
pub fn flags(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let inner = text.strip_prefix(b"(").and_then(|text| text.strip_suffix(b")"));
    inner.unwrap_or_default().split(|&c| c == b' ').filter(|flag| !flag.is_empty())
}

/// What a selection means.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Mailbox by mailbox, by UID.
    pub items: Vec<Item>,
    /// Asked for by their identity, and in no mailbox.
    pub missing: Vec<Guid>,
    /// What could not be read, and may have said that there is more.
    pub damages: Vec<Damage>,
}

/// Looks up what a selection means.
pub fn gather(backup: &Backup, selection: &Selection, rules: &NameRules) -> Result<Gathered> {
    let mailboxes = backup.index().mailboxes().map_err(StoreError::index(backup.path()))?;
    let taken = |row: &&MailboxRow| match &selection.mailboxes {
        Some(uniqueids) => uniqueids.contains(&row.uniqueid),
        // Which one of those asked for is told by the choice among all.
        None => gone_since(row, rules).is_none() || selection.deleted || selection.guids.is_some(),
    };
    let folders = Folder::of_all(&mailboxes, rules);
    let truth = Truth::of(backup)?;
    let mut items = Vec::new();
    for (row, folder) in mailboxes.iter().zip(&folders).filter(|(row, _)| taken(row)) {
        let folder = Rc::new(folder.clone());
        let there = truth.records(&row.uniqueid)?.into_iter().map(|record| (record, false));
        let gone = truth.gone_records(&row.uniqueid)?.into_iter().map(|record| (record, true));
        let is_wanted = |record: &RecordRow| match (&selection.guids, record.guid) {
            (Some(guids), Some(guid)) => guids.contains(&guid),
            _ => record.expunged.is_none() || selection.expunged,
        };
        let wanted = there.chain(gone).filter(|(record, _)| is_wanted(record));
        items.extend(wanted.filter_map(|(record, displaced)| {
            Some(Item {
                folder: Rc::clone(&folder),
                uid: record.uid,
                guid: record.guid?,
                flags: record.flags,
                internaldate: record.internaldate,
                // What a deleted mailbox has kept, it lost with itself.
                expunged: record.expunged.or(gone_since(row, rules)),
                displaced,
            })
        }));
    }
    let damages = truth.damages().to_vec();
    let Some(guids) = &selection.guids else {
        return Ok(Gathered { items, missing: Vec::new(), damages });
    };
    let items = best_places(items, selection.expunged || selection.deleted);
    let found: HashSet<Guid> = items.iter().map(|item| item.guid).collect();
    let missing = guids.iter().filter(|guid| !found.contains(guid)).copied().collect();
    Ok(Gathered { items, missing, damages })
}

/// Where each message lives, or else lived last; or with `all`, all places.
fn best_places(items: Vec<Item>, all: bool) -> Vec<Item> {
    if all {
        return items;
    }
    let life = |item: &Item| item.expunged.unwrap_or(i64::MAX);
    let mut best: HashMap<Guid, i64> = HashMap::new();
    for item in &items {
        let known = best.entry(item.guid).or_insert(i64::MIN);
        *known = life(item).max(*known);
    }
    let mut given = HashSet::new();
    let is_best = |item: &Item| -> bool {
        let is_best = best.get(&item.guid) == Some(&life(item));
        // Of several places that it left at the same time, one.
        is_best && (item.expunged.is_none() || given.insert(item.guid))
    };
    items
        .into_iter()
        .filter({
            let mut is_best = is_best;
            move |item| is_best(item)
        })
        .collect()
}
