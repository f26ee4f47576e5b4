//! A backup as it was at an earlier moment.
//!
//! ```text
//! let view = moment::open(Backup::open(path, Wait::Yes)?, unix_time, &name_rules)?;
//! exact::all_records(view.backup(), uniqueid)      // and every other reader
//! ```
//!
//! The data file is a log with a time stamp on each line: the state at a moment is what
//! its lines say up to the first one that is younger. [`open`] enters those into an index of
//! its own, through the code that a rebuild of the index goes through. That index is in an
//! unlinked temporary file, and in memory no more than SQLite's cache; the backup's own index
//! is read, never written. What comes back is a [`Backup`] again, with that index in place of
//! its own, so that every reader works on it unchanged: mailboxes, records, messages, seen
//! states, subscriptions, scripts (and which one was active), quota, annotations, as they were.
//! Numbers of chunks are those of the backup; the last chunk may be cut short.
//!
//! Only chunks up to the moment are inflated. If it is after the last line, nothing is: the
//! backup's own index is the answer.
//!
//! - The clock had gone back, so that lines of the time asked for stand behind younger ones:
//!   the log's order counts, not the stamp; they are not taken, see
//!   [`Report::clock_went_back`].
//! - A damaged chunk: as in a rebuild, the complete lines in front of the damage count; see
//!   [`Report::damages`].
//! - A moment before the first line: nothing is there; see [`Report::first`].
//! - A compaction since has dropped lines: [`history`] says from when on all are there; what
//!   must have been there before is added, see [`Report::added`].

pub mod history;
mod replay;

#[cfg(test)]
mod tests;

use super::backup::Backup;
use super::error::{Result, StoreError};
use super::exact::{Damage, Truth};
use super::file_hash::FileHash;
use super::index::{ChunkRow, Index, State};
use crate::wire::mboxname::NameRules;
pub use history::{By, History};

/// How the state at a moment was found, and what may be wrong with it. Times are Unix times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The moment asked for.
    pub moment: i64,
    /// When the first line was written, if there is one.
    pub first: Option<i64>,
    /// When the last line that counts was written.
    pub last: Option<i64>,
    /// How far back the log tells everything.
    pub history: History,
    /// Mailboxes, records and subscriptions that no line left says, but that must have been
    /// there.
    pub added: u64,
    /// Chunks of which only the beginning counts.
    pub damages: Vec<Damage>,
    /// Lines of the time asked for, or of before, were left out: they stand behind a
    /// younger one.
    pub clock_went_back: bool,
}

impl Report {
    /// Whether the state is known to be exactly what it was.
    pub fn is_exact(&self) -> bool {
        self.history.is_complete_at(self.moment) && self.damages.is_empty() && !self.clock_went_back
    }
}

/// A backup as it was.
pub struct View {
    backup: Backup,
    report: Report,
}

impl View {
    /// For any reader of backups. What is to change a backup cannot be done with it.
    pub fn backup(&self) -> &Backup {
        &self.backup
    }

    /// What there is to say about it.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Both.
    pub fn into_parts(self) -> (Backup, Report) {
        (self.backup, self.report)
    }
}

/// Looks at `backup` as of `moment` (Unix time): all lines of that second count. The lock
/// stays held. `rules` tell which names are those of deleted mailboxes.
///
/// Errors: those of reading the index or the data file; damage is no error, see
/// [`Report::damages`].
pub fn open(backup: Backup, moment: i64, rules: &NameRules) -> Result<View> {
    let mut chunks = backup.index().chunks().map_err(StoreError::index(backup.path()))?;
    chunks.sort_by_key(|chunk| chunk.offset);
    let truth = Truth::of(&backup)?;
    let mut report = Report {
        moment,
        first: chunks.iter().map(|chunk| chunk.ts_start).min(),
        last: chunks.iter().map(|chunk| chunk.ts_end).max(),
        history: history::of(&backup, &truth, &chunks)?,
        added: 0,
        damages: Vec::new(),
        clock_went_back: false,
    };
    let is_over = |chunk: &ChunkRow| chunk.ts_start <= moment && is_ended(chunk, moment);
    if chunks.iter().all(is_over) {
        drop(truth);
        return Ok(View { backup, report });
    }
    let found = replay::until(&backup, &chunks, moment)?;
    report.last = found.last_ts;
    report.damages = found.damages;
    report.clock_went_back = found.clock_went_back;
    if !report.history.is_complete_at(moment) {
        let index = &found.index;
        report.added = index
            .add_what_outlived(truth.index(), moment, rules)
            .map_err(StoreError::index(backup.path()))?;
    }
    drop(truth);
    conclude(&found.index, found.end).map_err(StoreError::index(backup.path()))?;
    Ok(View { backup: backup.looked_at_until(found.index, found.end), report })
}

fn is_ended(chunk: &ChunkRow, moment: i64) -> bool {
    (1..=moment).contains(&chunk.ts_end)
}

/// Makes readers trust what cyrbk's own tables say.
fn conclude(index: &Index, end: u64) -> super::index::Result<()> {
    let checkpoint = FileHash::default().checkpoint();
    index.set_state(&State { len_file: end, inode: 0, checkpoint, modified: None })?;
    index.commit()
}
