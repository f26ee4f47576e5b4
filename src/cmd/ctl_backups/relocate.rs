//! `ctl_backups move`: puts a backup on another partition while the server runs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Options, Outcome, entry_of, for_each, write_outcome};
use crate::cmd::report::store_error_in_full;
use crate::cmd::{Exit, Stop, Streams, site};
use crate::config::Settings;
use crate::store::StoreError;
use crate::store::relocate::{self, Move, MoveError, Moved};

pub(super) fn run(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<Exit, Stop> {
    let mut options = options.clone();
    let operand = options.operands.pop().unwrap_or_default();
    let Some(partition) = directory(settings, &operand) else {
        writeln!(streams.err, "{}: no such partition", operand.display())?;
        return Ok(Exit::TempFail);
    };
    let partitions: Vec<PathBuf> = settings.backup_partitions.values().cloned().collect();
    let catalog = site::catalog(settings);
    for_each(&options, settings, streams, |target, streams| {
        let result = entry_of(settings, &options, target).and_then(|userid| {
            let wanted = Move {
                userid: &userid,
                partition: &partition,
                partitions: &partitions,
                fulldirhash: settings.fulldirhash,
                umask: settings.umask,
            };
            if options.dry_run {
                let (from, to) = relocate::destination(&catalog, &wanted)?;
                let is_there = from == to;
                return Ok(if is_there {
                    Moved::Already { path: to, removed: Vec::new() }
                } else {
                    Moved::Done { from, to }
                });
            }
            relocate::run(&catalog, &wanted, options.wait())
        });
        let (status, outcome) = match result {
            Ok(moved) => {
                tell(&options, &moved, streams)?;
                (if options.dry_run { "not done" } else { "ok" }.into(), Outcome::Done)
            }
            Err(MoveError::Store(StoreError::Locked(_))) => ("locked".into(), Outcome::Locked),
            Err(MoveError::Store(error)) => {
                (format!("failed ({})", store_error_in_full(&error, true)), Outcome::Failed)
            }
            Err(error) => (format!("failed ({error})"), Outcome::Failed),
        };
        write_outcome(&options, target, &status, streams.out)?;
        Ok(outcome)
    })
}

/// A partition by its name, or a directory by a path.
fn directory(settings: &Settings, operand: &OsStr) -> Option<PathBuf> {
    if operand.as_bytes().contains(&b'/') {
        return std::path::absolute(Path::new(operand)).ok();
    }
    let name = operand.to_str()?.to_ascii_lowercase();
    settings.backup_partitions.get(&name).cloned()
}

fn tell(options: &Options, moved: &Moved, streams: &mut Streams<'_>) -> std::io::Result<()> {
    if options.verbosity == 0 && !options.dry_run || options.json {
        return Ok(());
    }
    match moved {
        Moved::Done { from, to } => {
            writeln!(streams.out, "{} -> {}", from.display(), to.display())
        }
        Moved::Already { path, removed } => {
            writeln!(streams.out, "{}: already there", path.display())?;
            removed
                .iter()
                .try_for_each(|old| writeln!(streams.out, "{}: old copy removed", old.display()))
        }
    }
}
