//! `ctl_backups`: looks after many backups.
//!
//! Each command is a file in `ctl_backups/`. This one walks over the selected
//! backups, opens each under its lock, and says what their outcomes mean together.

mod compact;
mod list;
mod options;
mod verify;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

pub use options::{Command, LockAction, Options};

use super::json::Json;
use super::report::write_labelled;
use super::select::{Selected, Target, select};
use super::startup;
use super::{Exit, Stop, Streams, not_implemented};
use crate::config::Settings;
use crate::lock::Wait;

/// Name of the tool, and prefix of its options in the configuration.
const NAME: &str = "ctl_backups";

/// How a command fared with one backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Locked,
    Failed,
}

/// Runs `ctl_backups` with these words, the first of which is its name.
pub(super) fn main(args: &[OsString], streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    match options::parse(args.get(1..).unwrap_or_default()) {
        Ok(options) => run(&options, streams),
        Err(options::Misuse) => {
            streams.err.write_all(options::USAGE.as_bytes())?;
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
        Command::Verify => verify::run(options, &settings, streams),
        other => not_implemented(NAME, Some(other.word()), streams),
    }
}

/// Visits the selected backups in turn, and adds up.
///
/// Failure is: a backup locked or failed, or the last operand unknown. `-S` stops at
/// the first failed one, but neither at locked nor at unknown ones.
fn for_each(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
    mut visit: impl FnMut(&Target, &mut Streams<'_>) -> Result<Outcome, Stop>,
) -> Result<Exit, Stop> {
    let selected = match select(settings, options.mode.unwrap_or_default(), &options.operands) {
        Ok(selected) => selected,
        Err(why) => {
            writeln!(streams.err, "{why}")?;
            return Ok(Exit::TempFail);
        }
    };
    let (mut failed, mut last_unknown) = (false, false);
    for selected in selected {
        last_unknown = false;
        let outcome = match selected {
            Selected::Backup(target) => visit(&target, streams)?,
            Selected::Unknown { operand, why } => {
                write_labelled(streams.err, operand.as_bytes(), &why.to_string())?;
                last_unknown = true;
                continue;
            }
        };
        // Who looks on sees each backup when it is done.
        streams.out.flush()?;
        failed |= outcome != Outcome::Done;
        if outcome == Outcome::Failed && options.stop_on_error {
            break;
        }
    }
    Ok(if failed || last_unknown { Exit::TempFail } else { Exit::Ok })
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
        return write_labelled(out, target.label(), status);
    }
    let object = Json::object([
        ("command", Some(Json::Text(command.into()))),
        ("userid", target.userid.as_deref().and_then(Json::octets)),
        ("fname", Json::octets(target.path.as_os_str().as_bytes())),
        ("status", Some(Json::Text(status.into()))),
    ]);
    object.write(out)
}

impl Options {
    fn wait(&self) -> Wait {
        if self.wait { Wait::Yes } else { Wait::No }
    }
}
