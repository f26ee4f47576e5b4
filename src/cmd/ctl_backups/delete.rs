//! `ctl_backups delete`: forgets a backup, and removes its files unless told not to.

use std::io::{self, BufRead};

use super::{Options, Outcome, entry_of, for_each, write_outcome};
use crate::cmd::report::store_error_in_full;
use crate::cmd::select::Target;
use crate::cmd::{Exit, Stop, Streams, site};
use crate::config::Settings;
use crate::store::StoreError;
use crate::store::delete::{self, DeleteError};

pub(super) fn run(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<Exit, Stop> {
    let catalog = site::catalog(settings);
    for_each(options, settings, streams, |target, streams| {
        if !options.force && !is_confirmed(options, target, streams)? {
            write_outcome(options, target, "skipped", streams.out)?;
            return Ok(Outcome::Failed);
        }
        let (keep, wait) = (options.keep_files, options.wait());
        let result = match entry_of(settings, options, target) {
            Ok(userid) => delete::run(&catalog, &userid, &target.path, keep, wait),
            Err(error) => {
                let status = format!("failed ({error})");
                write_outcome(options, target, &status, streams.out)?;
                return Ok(Outcome::Failed);
            }
        };
        let (status, outcome) = match result {
            Ok(removed) => {
                if options.verbosity > 0 {
                    for file in removed {
                        writeln!(streams.out, "removed {}", file.display())?;
                    }
                }
                ("ok".into(), Outcome::Done)
            }
            Err(DeleteError::Store(StoreError::Locked(_))) => ("locked".into(), Outcome::Locked),
            Err(DeleteError::Store(error)) => {
                (format!("failed ({})", store_error_in_full(&error, true)), Outcome::Failed)
            }
            Err(error) => (format!("failed ({error})"), Outcome::Failed),
        };
        write_outcome(options, target, &status, streams.out)?;
        Ok(outcome)
    })
}

/// Only `y` or `yes` is a yes; the end of standard input is a no.
fn is_confirmed(
    options: &Options,
    target: &Target,
    streams: &mut Streams<'_>,
) -> Result<bool, Stop> {
    streams.out.flush()?;
    streams.err.write_all(b"Delete the backup of ")?;
    streams.err.write_all(target.label())?;
    let path = target.path.display();
    if options.keep_files {
        write!(streams.err, ", keeping {path}? [y/N] ")?;
    } else {
        let size = delete::size(&target.path);
        write!(streams.err, ", {size} octets in {path}, for good? [y/N] ")?;
    }
    streams.err.flush()?;
    let mut answer = String::new();
    // What is no text is no yes.
    let read = io::stdin().lock().read_line(&mut answer).unwrap_or_default();
    if read == 0 {
        writeln!(streams.err)?;
    }
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes"))
}
