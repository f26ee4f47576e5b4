//! What is at the destination, and what that means for each mailbox of a plan.

use std::collections::HashMap;

use sha1::{Digest, Sha1};

use super::plan::{Plan, Target};
use crate::store::index::MailboxRow;
use crate::sync::client::{Client, ClientError, MailboxState};
use crate::wire::Guid;
use crate::wire::mboxname::NameRules;

/// Names or unique ids that are asked for in one command.
const ASK_MAX: usize = 500;
/// Unique ids that are tried in place of one that is in use.
const SUBSTITUTES_MAX: u32 = 8;

/// How a mailbox is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// It is created with its ids, UIDs and modification sequences.
    Exact {
        /// Its own, or another one because its own is in use.
        uniqueid: Vec<u8>,
        /// Name of the mailbox that has its unique id, if another one has.
        holder: Option<Vec<u8>>,
    },
    /// An earlier restore of the same kind ended in the middle of it.
    Continue {
        /// As there.
        uniqueid: Vec<u8>,
        /// What has come so far has UIDs up to this one.
        above: u32,
    },
    /// It is created, with ids that the server chooses.
    Create,
    /// It is there: messages that it lacks are added, with new UIDs.
    Append,
    /// It cannot be restored.
    Refused(Obstacle),
}

/// Why a mailbox cannot be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The server would refuse a mailbox of a user that it does not have.
    #[error(
        "its owner's INBOX, {0}, is neither at the destination nor among what is restored: \
         restore that too"
    )]
    NoInbox(String),
    /// The server keeps another kind of things in it.
    #[error("there it is of type {there}, and here of type {here}")]
    OtherType {
        /// At the destination.
        there: String,
        /// In the backup.
        here: String,
    },
    /// Its unique id is in use, and so are all that were tried instead.
    #[error("its unique id is in use, by {0}")]
    UniqueidInUse(String),
    /// The server would pass it over without a word.
    #[error("the server does not take mailboxes of type {0}")]
    TypeNotSupported(String),
}

/// What the destination has of what a plan speaks of.
#[derive(Debug, Default)]
pub struct Destination {
    /// By name.
    mailboxes: HashMap<Vec<u8>, MailboxState>,
    /// Name by unique id.
    holders: HashMap<Vec<u8>, Vec<u8>>,
    /// Whether sieve mailboxes are taken.
    has_sieve_mailbox: bool,
}

impl Destination {
    /// Asks for all that the plan needs to know. Sieve mailboxes are enabled if it has any.
    pub fn ask(
        client: &mut Client,
        plan: &Plan,
        rules: &NameRules,
    ) -> Result<Destination, ClientError> {
        let mut destination = Destination::default();
        if plan.targets.iter().any(|target| target.is_sieve()) && client.peer().has_sieve_mailbox {
            destination.has_sieve_mailbox = client.enable_sieve_mailbox()?;
        }
        let mut names: Vec<Vec<u8>> = plan.targets.iter().map(|t| t.name.clone()).collect();
        names.extend(plan.targets.iter().filter_map(|target| rules.inbox_of(&target.name)));
        names.sort_unstable();
        names.dedup();
        for names in names.chunks(ASK_MAX) {
            let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
            destination.take(client.get_mailboxes(&names)?);
        }
        let ids = kept_ids(plan).map(|(_, id)| id.to_vec()).collect::<Vec<_>>();
        destination.ask_for_ids(client, &ids)?;
        let taken = kept_ids(plan).filter(|(name, id)| {
            destination.holders.get(*id).is_some_and(|holder| holder != *name)
        });
        let substitutes: Vec<Vec<u8>> =
            taken.flat_map(|(_, id)| (1..=SUBSTITUTES_MAX).map(|n| substitute(id, n))).collect();
        destination.ask_for_ids(client, &substitutes)?;
        Ok(destination)
    }

    fn ask_for_ids(&mut self, client: &mut Client, ids: &[Vec<u8>]) -> Result<(), ClientError> {
        for ids in ids.chunks(ASK_MAX) {
            let ids: Vec<&[u8]> = ids.iter().map(Vec::as_slice).collect();
            self.take(client.get_uniqueids(&ids)?);
        }
        Ok(())
    }

    /// Learns what a server has said.
    pub(super) fn take(&mut self, states: Vec<MailboxState>) {
        for state in states {
            self.holders.insert(state.uniqueid.clone(), state.mboxname.clone());
            self.mailboxes.insert(state.mboxname.clone(), state);
        }
    }

    /// What is there under this name.
    pub fn mailbox(&self, name: &[u8]) -> Option<&MailboxState> {
        self.mailboxes.get(name).filter(|state| !state.is_placeholder())
    }

    /// Mailboxes in which messages of the plan may be, besides its own: deleted copies.
    pub fn holders_of<'d>(&'d self, target: &'d Target) -> impl Iterator<Item = &'d [u8]> {
        let ids = target.sources.iter().map(|source| source.mailbox.uniqueid.as_slice());
        ids.filter_map(|id| self.holders.get(id)).map(Vec::as_slice)
    }

    /// How a mailbox is to be restored. `has_parent`: its owner's INBOX is there or has been
    /// restored.
    pub fn way(&self, target: &Target, rules: &NameRules, plan: &Plan) -> Way {
        let Some(source) = target.sources.first().map(|source| &source.mailbox) else {
            return Way::Append;
        };
        let here = source.mboxtype.as_deref().unwrap_or(b"e");
        if let Some(state) = self.mailbox(&target.name) {
            let there = state.mboxtype.as_deref().unwrap_or(b"e");
            if there != here {
                let (there, here) = (text(there), text(here));
                return Way::Refused(Obstacle::OtherType { there, here });
            }
            return if target.keep_ids { continued(source, state) } else { Way::Append };
        }
        if target.is_sieve() && !self.has_sieve_mailbox {
            return Way::Refused(Obstacle::TypeNotSupported(text(here)));
        }
        if let Some(inbox) = rules.inbox_of(&target.name)
            && rules.undeleted(&target.name).is_none()
            && self.mailbox(&inbox).is_none()
            && !plan.targets.iter().any(|other| other.name == inbox)
        {
            return Way::Refused(Obstacle::NoInbox(text(&inbox)));
        }
        if !target.keep_ids {
            return Way::Create;
        }
        let holder = self.holders.get(&source.uniqueid);
        let free = (0..=SUBSTITUTES_MAX)
            .map(|n| substitute(&source.uniqueid, n))
            .find(|id| !self.holders.contains_key(id));
        match (free, holder) {
            (Some(uniqueid), _) => Way::Exact { uniqueid, holder: holder.cloned() },
            (None, holder) => {
                Way::Refused(Obstacle::UniqueidInUse(text(holder.map_or(b"?", Vec::as_slice))))
            }
        }
    }
}

/// The unique ids that mailboxes have at the destination: where one could not be kept, because a
/// deleted copy has it, its substitute.
pub(super) fn present_ids(
    client: &mut Client,
    rules: &NameRules,
    ids: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, ClientError> {
    let all = |id: &Vec<u8>| (0..=SUBSTITUTES_MAX).map(|n| substitute(id, n)).collect::<Vec<_>>();
    let mut there = Destination::default();
    let wanted: Vec<Vec<u8>> = ids.iter().flat_map(all).collect();
    there.ask_for_ids(client, &wanted)?;
    let lives =
        |id: &Vec<u8>| there.holders.get(id).is_some_and(|name| rules.undeleted(name).is_none());
    Ok(ids.iter().map(|id| all(id).into_iter().find(lives).unwrap_or_else(|| id.clone())).collect())
}

/// Names of the mailboxes that are to keep their ids, with their unique ids.
fn kept_ids(plan: &Plan) -> impl Iterator<Item = (&Vec<u8>, &[u8])> {
    let exact = plan.targets.iter().filter(|target| target.keep_ids);
    exact.filter_map(|target| Some((&target.name, &target.sources.first()?.mailbox.uniqueid[..])))
}

/// Whether what is there is a beginning of what is to be restored. As soon as anything else has
/// happened to it, its modification sequence is higher.
fn continued(source: &MailboxRow, state: &MailboxState) -> Way {
    let is_same = (0..=SUBSTITUTES_MAX).any(|n| substitute(&source.uniqueid, n) == state.uniqueid)
        && state.uidvalidity == source.uidvalidity
        && state.highestmodseq == source.highestmodseq
        && state.last_uid <= source.last_uid;
    if is_same {
        Way::Continue { uniqueid: state.uniqueid.clone(), above: state.last_uid }
    } else {
        Way::Append
    }
}

/// The unique id in place of one that is in use: the same at each run, so that a run can go on
/// where another one ended. The 0th is the id itself.
fn substitute(uniqueid: &[u8], n: u32) -> Vec<u8> {
    if n == 0 {
        return uniqueid.to_vec();
    }
    let mut hash = Sha1::new();
    hash.update(b"cyrbk restore\0");
    hash.update(uniqueid);
    hash.update(n.to_be_bytes());
    let hash: [u8; 20] = hash.finalize().into();
    if uniqueid.len() == 36 {
        // A UUID of version 8: of one's own making.
        let hex = Guid::from(hash).to_string();
        let parts = [&hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32]];
        return format!("{}-{}-8{}-9{}-{}", parts[0], parts[1], parts[2], parts[3], parts[4])
            .into();
    }
    const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let letter = |octet: u8| LETTERS[usize::from(octet) % LETTERS.len()];
    hash.iter().chain(&hash[..4]).map(|&octet| letter(octet)).collect()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
