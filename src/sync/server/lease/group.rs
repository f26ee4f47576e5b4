//! The end of a group: of all that the latest GET spoke of, and what RESERVE, MESSAGE and MAILBOX
//! lines said behind it.
//!
//! A message that waits was acknowledged, and is not forgotten though no MAILBOX line names it:
//! it is stored in the first of the backups that lack it. So is, when the next process starts,
//! what one that died has left. In ordinary operation every message is named, and nobody's mail
//! gets into another one's backup.

use std::collections::HashSet;

use super::super::request::Refusal;
use super::{Lease, Reserved, Source, read};
use crate::store::waiting::{Group, Leftover, WaitingError};
use crate::wire::Guid;
use crate::wire::dlist::lossy;

impl Lease {
    /// What the latest GET spoke of is done with. When this returns, what waited survives the
    /// death of the process, and a power cut as soon as the backups are finished; if it cannot
    /// be stored it stays in its file, and the next RESTART is refused.
    pub(super) fn end_group(&mut self) {
        if let Err(refusal) = self.store_unclaimed() {
            self.is_in_doubt = true;
            let file = self.pending.leave().unwrap_or_default();
            tracing::error!(file = %file.display(), %refusal, "messages that no mailbox has named \
                cannot be stored, and stay in this file for the next time");
        } else if let Err(error) = self.pending.end() {
            tracing::warn!(%error, "cannot remove the file of messages that waited");
        }
        self.current.clear();
        self.reserved = Reserved::default();
    }

    fn store_unclaimed(&mut self) -> Result<(), Refusal> {
        for mut group in self.pending.unclaimed(&self.reserved) {
            let Some(key) = group.lacking.first().cloned() else { continue };
            let at = self.open(&key)?;
            self.keep_missing(at, &mut group)?;
            tracing::warn!(backup = %lossy(&key), messages = group.files.len(),
                "stored messages that no mailbox has named");
            self.append_waiting(at, &group.files, &group.bodies, Source::Pending)?;
        }
        Ok(())
    }

    /// Takes in what a dead process has left: each message goes to the first of the backups
    /// that lacked it and are still there, unless one of them has got it in the meantime. Returns
    /// how many did.
    ///
    /// When this returns `Ok`, also of what was in front of something broken, all of it survives
    /// a power cut. Done again, it does nothing.
    pub(in super::super) fn adopt(&mut self, leftover: &Leftover) -> Result<Adopted, Refusal> {
        let mut adopted = Adopted { messages: 0, broken: None };
        let mut groups = leftover.groups();
        loop {
            match groups.next_group() {
                Ok(None) => break,
                Ok(Some(group)) => match self.adopt_group(group, leftover)? {
                    Some(messages) => adopted.messages += messages,
                    None => {
                        let text = || "the backups that lacked some are gone".to_owned();
                        adopted.broken.get_or_insert_with(text);
                    }
                },
                Err(WaitingError::Io(error)) => {
                    tracing::error!(%error, "cannot read messages that wait");
                    return Err(Refusal::Internal);
                }
                Err(error @ WaitingError::Broken { .. }) => {
                    adopted.broken = Some(error.to_string());
                    break;
                }
            }
        }
        if groups.damaged() > 0 {
            let text = || format!("{} messages do not have their GUID", groups.damaged());
            adopted.broken.get_or_insert_with(text);
        }
        self.finish_all()?;
        Ok(adopted)
    }

    /// Returns how many were stored; `None` if there is no backup left that lacked them. One
    /// that was deleted since does not come back for a message that was on its way.
    fn adopt_group(
        &mut self,
        mut group: Group,
        leftover: &Leftover,
    ) -> Result<Option<usize>, Refusal> {
        let mut first = None;
        for key in std::mem::take(&mut group.lacking) {
            if self.site.catalog.lookup(&key)?.is_none() {
                continue;
            }
            let at = self.open(&key)?;
            self.keep_missing(at, &mut group)?;
            first.get_or_insert(key);
        }
        if group.files.is_empty() {
            return Ok(Some(0));
        }
        let Some(key) = &first else { return Ok(None) };
        let at = self.open(key)?;
        let source = Source::Left(leftover.staging());
        self.append_waiting(at, &group.files, &group.bodies, source)?;
        Ok(Some(group.files.len()))
    }

    /// Leaves out of a group what an open backup has, and what comes twice.
    fn keep_missing(&self, at: usize, group: &mut Group) -> Result<(), Refusal> {
        let mut known: HashSet<Guid> = HashSet::new();
        let messages = std::mem::take(&mut group.files).into_iter().zip(group.bodies.drain(..));
        let (mut files, mut bodies) = (Vec::new(), Vec::new());
        for (file, body) in messages {
            let is_here = read(&self.open[at], |index| index.message(&file.guid))?.is_some();
            if !is_here && known.insert(file.guid) {
                files.push(file);
                bodies.push(body);
            }
        }
        (group.files, group.bodies) = (files, bodies);
        Ok(())
    }
}

/// What has become of a file that a dead process has left.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Adopted {
    /// Messages that were stored.
    pub(in super::super) messages: usize,
    /// What is wrong with the file, if anything is.
    pub(in super::super) broken: Option<String>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
