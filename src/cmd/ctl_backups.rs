//! `ctl_backups`: looks after many backups.
//!
//! Each command is a file in `ctl_backups/`. This one walks over the selected
//! backups, opens each under its lock, and says what their outcomes mean together.

pub(super) mod bulk;
mod compact;
mod delete;
mod list;
mod lock;
mod options;
mod parse;
pub(super) mod progress;
mod reconstruct;
mod reindex;
mod relocate;
mod stat;
mod verify;

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use options::{Command, Level, LockAction, Options};
use progress::{Progress, Tally};

use super::json::Json;
use super::people::{Colour, harmless, paint};
use super::report::write_labelled;
use super::select::{Selected, Target, select};
use super::startup;
use super::time::now;
use super::{Exit, Mode, Stop, Streams, site};
use crate::config::Settings;
use crate::lock::Wait;
use crate::store::catalog::SHARED_USERID;
use crate::store::relocate::MoveError;
use crate::wire::dlist::lossy;

/// Name of the tool, and prefix of its options in the configuration.
const NAME: &str = "ctl_backups";

/// How a command fared with one backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// There was nothing to do. To Cyrus that is a failure.
    Skipped,
    Locked,
    Failed,
    /// Failed, which is no failure of the run.
    Forgiven,
    /// There is no such backup.
    Unknown,
}

/// Runs `ctl_backups` with these words, the first of which is its name.
pub(super) fn main(args: &[OsString], streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    match parse::parse(args.get(1..).unwrap_or_default()) {
        Ok(options) => run(&options, streams),
        Err(parse::Misuse) => {
            streams.err.write_all(parse::USAGE.as_bytes())?;
            Ok(Exit::Usage)
        }
    }
}

/// Runs a command.
pub(super) fn run(options: &Options, streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    let settings = startup::start(NAME, options.config.as_deref(), streams)?;
    match options.command {
        Command::Compact => compact::run(options, &settings, streams),
        Command::List => list::run(options, &settings, streams),
        Command::Delete => delete::run(options, &settings, streams),
        Command::Lock => lock::run(options, &settings, streams),
        Command::Move => relocate::run(options, &settings, streams),
        Command::Reconstruct => reconstruct::run(options, &settings, streams),
        Command::Reindex => reindex::run(options, &settings, streams),
        Command::Stat => stat::run(options, &settings, streams),
        Command::Verify => verify::run(options, &settings, streams),
    }
}

/// Visits the selected backups, and adds up.
///
/// Failure is: a backup skipped, locked or failed, or the last operand unknown. `-S` stops at
/// the first skipped or failed one, but neither at locked nor at unknown ones. By cyrbk's own
/// words any unknown operand is a failure, and a backup with nothing to do is none.
///
/// Several at a time, unless that could be noticed otherwise than by the time it takes:
/// with `-S`, and where a backup is visited twice.
fn for_each(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
    visit: impl Fn(&Target, &mut Streams<'_>) -> Result<Outcome, Stop> + Sync,
) -> Result<Exit, Stop> {
    let selected = match select(settings, options.mode.unwrap_or_default(), &options.operands) {
        Ok(selected) => selected,
        Err(why) => {
            writeln!(streams.err, "{why}")?;
            return Ok(Exit::TempFail);
        }
    };
    if selected.is_empty() && options.own_words && streams.err_is_terminal {
        writeln!(streams.err, "no such backup in {}", settings.backup_db_path.display())?;
    }
    let visit = |selected: &Selected, streams: &mut Streams<'_>| match selected {
        Selected::Backup(target) => visit(target, streams),
        Selected::Unknown { operand, why } => {
            write_labelled(streams.err, operand.as_bytes(), &why.to_string())?;
            Ok(Outcome::Unknown)
        }
    };
    let (mut tally, mut last) = (Tally::start(selected.len()), Outcome::Done);
    let mut done = |_: usize, outcome: Outcome| {
        tally.add(outcome);
        last = outcome;
        let is_failure = match outcome {
            Outcome::Failed => true,
            Outcome::Skipped => !options.own_words,
            _ => false,
        };
        !(is_failure && options.stop_on_error)
    };
    let jobs = options.jobs_for(&selected);
    let many = selected.len() > 1;
    // A single one is told of as it happens, and ends at once if asked to.
    let interrupted = if many { bulk::interruption()? } else { Arc::new(AtomicBool::new(false)) };
    if jobs > 1 {
        let progress = Progress::start(selected.len(), streams);
        let result =
            bulk::in_parallel(&selected, jobs, &visit, &interrupted, &progress, streams, &mut done);
        progress.end();
        result?;
    } else {
        bulk::in_turn(&selected, &visit, &interrupted, streams, &mut done)?;
    }
    let is_interrupted = interrupted.load(Ordering::Relaxed);
    if many && streams.err_is_terminal {
        tally.write(streams.err)?;
    }
    let failed = if options.own_words {
        tally.failed() || tally.unknown() > 0
    } else {
        tally.failed() || tally.skipped() > 0 || last == Outcome::Unknown
    };
    let failed = failed || is_interrupted;
    Ok(if failed { Exit::TempFail } else { Exit::Ok })
}

/// The key of a backup's entry in the catalog.
fn entry_of(settings: &Settings, options: &Options, target: &Target) -> Result<Vec<u8>, MoveError> {
    match (&target.userid, options.mode) {
        (Some(userid), _) => Ok(userid.clone()),
        (None, Some(Mode::Files)) => {
            let mut entries = site::catalog(settings).list()?.into_iter();
            let path = std::path::absolute(&target.path).unwrap_or_else(|_| target.path.clone());
            let entry = entries.find(|entry| entry.path == path);
            entry.map(|entry| entry.userid).ok_or(MoveError::Unknown)
        }
        // The shared backup has no name.
        (None, _) => Ok(SHARED_USERID.to_vec()),
    }
}

/// What was expunged at or before this Unix time need not be kept; -1: everything is.
fn retained_since(settings: &Settings) -> i64 {
    let since = |retention: std::time::Duration| now().saturating_sub_unsigned(retention.as_secs());
    settings.retention.map_or(-1, since)
}

/// The line, or the object, that ends each backup of compact, reindex and verify.
fn write_outcome(
    options: &Options,
    target: &Target,
    status: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    let command = options.command.word();
    if !options.json {
        write!(out, "{command} ")?;
        if options.for_people {
            let label = lossy(target.label());
            return writeln!(out, "{}: {}", harmless(&label), paint(colour_of(status), status));
        }
        return write_labelled(out, target.label(), status);
    }
    outcome_json(options, target, status).write(out)
}

fn outcome_json(options: &Options, target: &Target, status: &str) -> Json {
    Json::object([
        ("command", Some(Json::Text(options.command.word().into()))),
        ("userid", target.userid.as_deref().and_then(Json::octets)),
        ("fname", Json::octets(target.path.as_os_str().as_bytes())),
        ("status", Some(Json::Text(status.into()))),
    ])
}

fn colour_of(status: &str) -> Colour {
    match status {
        done if done == "ok" || done.starts_with("ok, ") => Colour::Good,
        "skipped" | "locked" | "not done" => Colour::Faint,
        _ => Colour::Bad,
    }
}

impl Options {
    fn wait(&self) -> Wait {
        if self.wait { Wait::Yes } else { Wait::No }
    }

    /// How many backups to work on at a time.
    fn jobs_for(&self, selected: &[Selected]) -> usize {
        let paths = selected.iter().filter_map(|selected| match selected {
            Selected::Backup(target) => Some(&target.path),
            Selected::Unknown { .. } => None,
        });
        let mut seen = HashSet::new();
        let twice = !paths.into_iter().all(|path| seen.insert(path));
        if self.stop_on_error || twice {
            return 1;
        }
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.jobs.map_or_else(cores, NonZero::get).min(selected.len())
    }
}
