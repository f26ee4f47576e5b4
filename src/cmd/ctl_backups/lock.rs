//! `ctl_backups lock`: holds the lock of a backup while something else is done.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::process::{Command, ExitStatus};

use super::{LockAction, Options, Outcome, for_each, outcome_json};
use crate::cmd::report::{quick_check, store_error_in_full};
use crate::cmd::select::Target;
use crate::cmd::{Exit, Stop, Streams};
use crate::config::Settings;
use crate::store::Backup;
use crate::store::backup::index_path;

/// What a command finds in its environment.
const DATA_VARIABLE: &str = "ctl_backups_lock_data_fname";
const INDEX_VARIABLE: &str = "ctl_backups_lock_index_fname";

pub(super) fn run(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<Exit, Stop> {
    for_each(options, settings, streams, |target, streams| match &options.lock_action {
        None | Some(LockAction::Pause) => pause(options, target, streams),
        Some(LockAction::Sqlite3) => sqlite3(options, target, streams),
        Some(LockAction::Execute(command)) => execute(options, target, command, streams),
    })
}

fn open(options: &Options, target: &Target) -> Result<Backup, String> {
    let opened = if options.create {
        Backup::create(&target.path)
    } else {
        Backup::open(&target.path, options.wait())
    };
    let backup = opened.map_err(|error| store_error_in_full(&error, options.own_words))?;
    quick_check(&backup, options.own_words)?;
    Ok(backup)
}

/// Each line is there at once: whoever waits for it reads a pipe.
fn pause(options: &Options, target: &Target, streams: &mut Streams<'_>) -> Result<Outcome, Stop> {
    if !options.lock_json {
        streams.out.write_all(b"* Trying to obtain lock on ")?;
        streams.out.write_all(target.label())?;
        streams.out.write_all(b"...\n")?;
        streams.out.flush()?;
    }
    let _held = match open(options, target) {
        Ok(backup) => backup,
        Err(text) => {
            let status = format!("failed ({text})");
            if options.lock_json {
                outcome_json(options, target, &status).write(streams.out)?;
            } else {
                writeln!(streams.out, "NO {status}")?;
            }
            return Ok(Outcome::Failed);
        }
    };
    if options.lock_json {
        outcome_json(options, target, "locked").write(streams.out)?;
    } else {
        streams.out.write_all(b"OK locked\n")?;
    }
    streams.out.flush()?;
    wait_for_end(&mut io::stdin().lock());
    Ok(Outcome::Done)
}

/// A stream that cannot be read has ended.
fn wait_for_end(input: &mut dyn Read) {
    let mut ignored = [0; 4096];
    loop {
        match input.read(&mut ignored) {
            Ok(0) => return,
            Err(e) if e.kind() != io::ErrorKind::Interrupted => return,
            _ => {}
        }
    }
}

fn sqlite3(options: &Options, target: &Target, streams: &mut Streams<'_>) -> Result<Outcome, Stop> {
    let Some(_held) = open_for_command(options, target, streams)? else {
        return Ok(Outcome::Failed);
    };
    let index = index_path(&target.path);
    writeln!(streams.err, "execlp: sqlite3 {}", index.display())?;
    let status = run_child(Command::new("sqlite3").arg(&index), streams)?;
    concluded(options, target, "sqlite3", status, streams)
}

fn execute(
    options: &Options,
    target: &Target,
    command: &OsStr,
    streams: &mut Streams<'_>,
) -> Result<Outcome, Stop> {
    let Some(_held) = open_for_command(options, target, streams)? else {
        return Ok(Outcome::Failed);
    };
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(command);
    shell.env(DATA_VARIABLE, &target.path).env(INDEX_VARIABLE, index_path(&target.path));
    let status = run_child(&mut shell, streams)?;
    concluded(options, target, "/bin/sh", status, streams)
}

/// The open backup; its descriptor does not go to the command, so that the lock
/// ends with this process.
fn open_for_command(
    options: &Options,
    target: &Target,
    streams: &mut Streams<'_>,
) -> Result<Option<Backup>, Stop> {
    streams.err.write_all(b"trying to obtain lock on ")?;
    streams.err.write_all(target.label())?;
    streams.err.write_all(b"...\n")?;
    match open(options, target) {
        Ok(backup) => Ok(Some(backup)),
        Err(text) => {
            streams.err.write_all(b"unable to lock ")?;
            streams.err.write_all(target.label())?;
            writeln!(streams.err, ": {text}")?;
            if options.lock_json {
                let status = format!("failed ({text})");
                outcome_json(options, target, &status).write(streams.out)?;
            }
            Ok(None)
        }
    }
}

/// The command has this process's streams: what was written comes first.
fn run_child(
    command: &mut Command,
    streams: &mut Streams<'_>,
) -> Result<io::Result<ExitStatus>, Stop> {
    streams.out.flush()?;
    streams.err.flush()?;
    Ok(command.status())
}

/// In JSON the command's output stands in front of the object: it is its own.
fn concluded(
    options: &Options,
    target: &Target,
    program: &str,
    status: io::Result<ExitStatus>,
    streams: &mut Streams<'_>,
) -> Result<Outcome, Stop> {
    let (text, outcome) = match status {
        Ok(status) if status.success() => ("ok".to_owned(), Outcome::Done),
        Ok(status) => (format!("failed ({status})"), Outcome::Failed),
        Err(error) => {
            writeln!(streams.err, "execlp {program}: {error}")?;
            (format!("failed ({error})"), Outcome::Failed)
        }
    };
    if options.lock_json {
        outcome_json(options, target, &text).write(streams.out)?;
    }
    Ok(outcome)
}
