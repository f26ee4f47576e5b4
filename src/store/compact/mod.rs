//! Compaction: what was deleted or expunged long enough ago goes, small chunks are
//! joined and large ones split.
//!
//! Plan, then act. [`survey`] reads the whole log once and finds out which line each
//! part of the present state comes from; [`plan`] says what stays; [`write`] writes
//! a new pair of data file and index from what stays, chunks of which everything
//! does octet for octet; [`compare`] makes sure that the new index says what the old
//! log did; only then [`replace`] puts the new pair in the place of the old one.
//! Until its first rename nothing has happened, and after that all of it will have:
//! see there.
//!
//! Whether the work is worth while, and where chunks are joined and split, is decided
//! as Cyrus does ([`sizes`]). What stays is not: a message stays while a true record
//! of it does, and a line stays as long as the state depends on it, whatever it is.
//!
//! What a compaction has dropped it says in the last lines of the log, with
//! [`crate::wire::own::Own::Compacted`]: the state at an earlier moment is then no
//! longer exactly known.
//!
//! Damage costs what cannot be read, and is told; the old pair is then kept.

mod ahead;
mod compare;
mod copy;
mod held;
mod line;
mod neighbours;
mod output;
mod plan;
mod reader;
mod replace;
mod sizes;
mod spool;
mod survey;
mod target;
mod window;
mod write;

#[cfg(test)]
pub(in crate::store) mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};

use super::append::Writer;
use super::backup::{Backup, index_path};
use super::data_file;
use super::error::StoreError;
use super::index::Index;
use super::recover;
use crate::lock::Wait;
use plan::{Plan, Terms};
pub(super) use replace::{adopt_index, complete_interrupted};
pub use sizes::Sizes;
use survey::Survey;

/// Memory for pages of the old index, which is read once, and of the new one.
const OLD_CACHE_KIB: u32 = 2 * 1024;
const CACHE_KIB: u32 = 8 * 1024;

/// What to do.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Unix time: what was deleted or expunged then or before goes. `None`: nothing
    /// of that kind does.
    pub since: Option<i64>,
    /// Sizes of chunks, and how much there must be to gain.
    pub sizes: Sizes,
    /// Also if there is nothing to gain.
    pub force: bool,
    /// Leaves the old pair beside the new one.
    pub keep_previous: bool,
    /// Only plans.
    pub dry_run: bool,
    /// Directory for large messages on the way (`backup_staging_path`).
    pub staging: PathBuf,
}

/// What a sink is told, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// These chunks stay, or something of them.
    Keeping(&'a [i64]),
    /// Something cannot be read, or will not be taken over.
    Damage(&'a Damage),
    /// A chunk and its successor become one.
    Combining(i64, i64),
    /// A chunk is divided here.
    Splitting(i64),
}

/// Takes events.
pub type Sink<'s> = dyn FnMut(Event<'_>) + 's;

/// Something that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where its chunk begins in the data file.
    pub offset_file: u64,
    /// Inflated octets of the chunk in front of it.
    pub offset_plain: u64,
    /// What is wrong.
    pub what: String,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was nothing to gain.
    Skipped,
    /// This is what would have been done.
    Planned(Figures),
    /// It is done.
    Done {
        /// What changed.
        figures: Figures,
        /// Where the old data file is, if it was kept.
        previous: Option<PathBuf>,
        /// What could not be taken over.
        damages: Vec<Damage>,
    },
}

/// Sizes before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Chunks that there are.
    pub chunks: usize,
    /// Of these, those of which nothing stays.
    pub dropped: usize,
    /// Of these, those that stay as they are.
    pub unchanged: usize,
    /// Octets of the data file.
    pub octets_before: u64,
    /// The same afterwards; planned: what stays at most.
    pub octets_after: u64,
}

/// Why a backup was not compacted. It is then as it was.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// It cannot be opened, read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new pair might not fit beside the old one.
    #[error("{path}: {needed} octets are needed beside it, {available} are free")]
    NoSpace {
        /// The data file.
        path: PathBuf,
        /// In octets.
        needed: u64,
        /// In octets.
        available: u64,
    },
    /// The new pair would not have said what the old one does.
    #[error("{path}: not compacted, for the result would differ: {what}")]
    Unfaithful {
        /// The data file.
        path: PathBuf,
        /// In what.
        what: String,
    },
}

/// Compacts the backup at `path`. `now` is Unix time.
///
/// The backup is locked all the while. When this returns [`Outcome::Done`], the new
/// pair survives a power cut.
pub fn run(
    path: &Path,
    policy: &Policy,
    now: i64,
    wait: Wait,
    sink: &mut Sink<'_>,
) -> Result<Outcome, CompactError> {
    let backup = match policy.dry_run {
        true => Locked::ToRead(open_to_read(path, wait)?),
        false => Locked::ToWrite(Box::new(open(path, now, wait)?)),
    };
    let index = backup.index();
    let fault = || StoreError::index(path);
    let io = |error| StoreError::io(path)(error);
    index.work_on_disk(OLD_CACHE_KIB).map_err(fault())?;
    if !policy.force && index.knows_needs().map_err(fault())? {
        let mut gain = policy.sizes.gain();
        let told = index.live_chunks(policy.since, |length, is_live| gain.add(length, is_live));
        told.map_err(fault())?;
        if !gain.is_worth_it() {
            return backup.skip();
        }
    }
    let file = File::open(path).map_err(io)?;
    let len_file = file.metadata().map_err(io)?.len();
    let mut survey = Survey::of(&file, path, index)?;
    survey.scratch.choose(policy.since).map_err(fault())?;
    let terms = Terms { since: policy.since, sizes: policy.sizes, len_file };
    let plan = Plan::restating(&survey, terms).map_err(fault())?;
    let is_worth_it = policy.force || plan.is_worth_it;
    if is_worth_it {
        sink(Event::Keeping(&plan.kept_ids));
    }
    survey.damages.iter().for_each(|damage| sink(Event::Damage(damage)));
    if !is_worth_it {
        if survey.damages.is_empty()
            && let Locked::ToWrite(_) = backup
            && let Err(error) = plan::remember(&survey.scratch, index)
        {
            // Only a hint: without it the log is read again next time.
            tracing::warn!(file = %path.display(), %error, "cannot note which chunks are needed");
        }
        return backup.skip();
    }
    let figures = figures(&plan, len_file);
    if policy.dry_run {
        return Ok(Outcome::Planned(figures));
    }
    replace::check_space(path, figures.octets_after)?;
    write::hold_what_is_copied(&mut survey, policy.sizes).map_err(fault())?;
    let source = write::Source { path, file: &file, survey: &survey, plan: &plan };
    let new = write_faithfully(source, terms, policy, now, sink)?;
    if !policy.force && survey.damages.is_empty() && new.says_the_same_as(index).map_err(fault())? {
        // Nothing but a chunk that ought to be split and holds one large message.
        return backup.skip();
    }
    let figures = Figures { octets_after: new.len_file(), ..figures };
    let keep = policy.keep_previous || !survey.damages.is_empty();
    let previous = replace::replace(path, new, keep.then_some(now))?;
    Ok(Outcome::Done { figures, previous, damages: survey.damages })
}

/// Writes the new pair, makes sure that it says what it should, and that it survives a power cut;
/// its names do not yet.
fn write_faithfully(
    source: write::Source<'_>,
    terms: Terms,
    policy: &Policy,
    now: i64,
    sink: &mut Sink<'_>,
) -> Result<write::NewPair, CompactError> {
    let survey = source.survey;
    let fault = || StoreError::index(source.path);
    let settle = |new: &write::NewPair| {
        let differs = |index: &_| compare::check(&survey.scratch, index).map(Result::err);
        new.settle(source.path, differs)
    };
    let mut write = |source: &write::Source<'_>| {
        write::write(source, policy, now, sink).map_err(|error| match error {
            CompactError::Store(error) => error.of_making(index_path(source.path)).into(),
            error => error,
        })
    };
    let mut new = write(&source)?;
    let mut difference = settle(&new)?;
    if difference.is_some() && !source.plan.restated.is_empty() {
        drop(new);
        let plan = &Plan::of(survey, terms).map_err(fault())?;
        new = write(&write::Source { plan, ..source })?;
        difference = settle(&new)?;
    }
    match difference {
        None => Ok(new),
        Some(what) => Err(CompactError::Unfaithful { path: source.path.to_owned(), what }),
    }
}

/// A backup under its lock.
enum Locked {
    ToWrite(Box<Writer>),
    ToRead(Backup),
}

impl Locked {
    fn index(&self) -> &Index {
        match self {
            Locked::ToWrite(writer) => writer.index(),
            Locked::ToRead(backup) => backup.index(),
        }
    }

    /// The pair stays as it is.
    fn skip(self) -> Result<Outcome, CompactError> {
        if let Locked::ToWrite(mut writer) = self {
            writer.note_moved()?;
        }
        Ok(Outcome::Skipped)
    }
}

/// Opens the backup for a dry run, which changes no more than other readers do: an index that is
/// to be built anew stays as it is.
fn open_to_read(path: &Path, wait: Wait) -> Result<Backup, StoreError> {
    let unusable = || StoreError::Inconsistent {
        path: path.to_owned(),
        what: "the index does not fit the data, reindex or compact builds it again".into(),
    };
    let backup = match Backup::open_shared(path, wait) {
        Err(StoreError::Index { source, .. }) if source.is_damage() => return Err(unusable()),
        opened => opened?,
    };
    match recover::is_behind(backup.file(), path, backup.index())? {
        true => Err(unusable()),
        false => Ok(backup),
    }
}

/// Opens and locks the backup, with the index brought up to the end of the data.
fn open(path: &Path, now: i64, wait: Wait) -> Result<Writer, StoreError> {
    let file = data_file::open(path, false, wait).map_err(StoreError::lock(path))?;
    let len = file.metadata().map_err(StoreError::io(path))?.len();
    // The index may be there, but not yet have its name.
    complete_interrupted(path, &file)?;
    let has_index = std::fs::metadata(index_path(path)).is_ok_and(|meta| meta.len() > 0);
    if len > 0 && !has_index {
        return Err(StoreError::NoIndex(path.to_owned()));
    }
    Writer::open_to_replace(Box::new(file), path, now)
}

fn figures(plan: &Plan, octets_before: u64) -> Figures {
    Figures {
        chunks: plan.kept_ids.len() + plan.dropped,
        dropped: plan.dropped,
        unchanged: plan.unchanged,
        octets_before,
        octets_after: plan.len_file.min(octets_before),
    }
}
