//! What came of a restore.

use crate::wire::Guid;

/// What came of all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of the plan, as far as it was worked on.
    pub mailboxes: Vec<MailboxReport>,
    /// What was restored besides mail, or could not be.
    pub state: Vec<StateReport>,
    /// Why the run ended early, if it did: what is not in `mailboxes` was not reached.
    pub ended: Option<String>,
    /// Whether another connection may do better.
    pub is_worth_a_retry: bool,
}

/// What came of one mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailboxReport {
    /// Internal name at the destination.
    pub name: Vec<u8>,
    /// Whether it was created by this run.
    pub created: bool,
    /// Whether its messages have the UIDs that they had.
    pub kept_ids: bool,
    /// Its unique id could not be kept, because the mailbox of this name has it.
    pub uniqueid_taken_by: Option<Vec<u8>>,
    /// Messages that are there now and were not before.
    pub restored: u64,
    /// Messages that were there already.
    pub already: u64,
    /// Messages whose octets had to be sent.
    pub sent: u64,
    /// Octets that were sent.
    pub octets: u64,
    /// Messages that the backup cannot give, each with the reason.
    pub refused: Vec<(Guid, String)>,
    /// Why not all of it was restored.
    pub failed: Option<String>,
}

/// Something that was restored besides mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateReport {
    /// What it is: `subscription user.tom.Work`.
    pub what: Vec<u8>,
    /// What came of it.
    pub outcome: StateOutcome,
}

/// What came of something besides mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateOutcome {
    /// It is there now.
    Restored,
    /// The same was there before.
    Already,
    /// Something else was there before, and stays.
    Kept,
    /// The destination or the backup failed.
    Failed(String),
}

impl Report {
    /// Whether everything was restored that there is.
    pub fn is_whole(&self) -> bool {
        self.ended.is_none()
            && self.mailboxes.iter().all(MailboxReport::is_whole)
            && self.state.iter().all(|part| !matches!(part.outcome, StateOutcome::Failed(_)))
    }

    /// The sum of one figure of all mailboxes.
    pub fn sum(&self, figure: impl Fn(&MailboxReport) -> u64) -> u64 {
        self.mailboxes.iter().map(figure).sum()
    }

    /// Takes into account what an earlier attempt of the same run has done: what this one found
    /// there was brought by it.
    pub fn add_earlier(&mut self, earlier: &Report) {
        for before in &earlier.mailboxes {
            match self.mailboxes.iter_mut().find(|mailbox| mailbox.name == before.name) {
                None => self.mailboxes.push(before.clone()),
                Some(now) => {
                    now.created |= before.created;
                    now.restored += before.restored;
                    now.already = now.already.saturating_sub(before.restored);
                    now.sent += before.sent;
                    now.octets += before.octets;
                    if now.uniqueid_taken_by.is_none() {
                        now.uniqueid_taken_by.clone_from(&before.uniqueid_taken_by);
                    }
                }
            }
        }
    }

    /// How many pieces of state were restored.
    pub fn restored_state(&self) -> usize {
        self.state.iter().filter(|part| part.outcome == StateOutcome::Restored).count()
    }
}

impl MailboxReport {
    /// Whether all of it was restored.
    pub fn is_whole(&self) -> bool {
        self.failed.is_none() && self.refused.is_empty()
    }
}
