//! `cyr_backup`: looks into one backup.
//!
//! Each command is a file in `cyr_backup/`. This one opens the backup, waiting for
//! its lock, and checks its last chunk.

mod dump;
mod dump_mailbox;
mod export;
mod export_imap;
mod find;
mod headers;
mod json;
mod list;
mod options;
mod search;
mod show;
mod summary;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

pub use export::{Export, Form};
pub use export_imap::Imap;
pub use options::{Command, Dump, JsonWhat, List, MailboxForm, Options, Show, SummaryForm};
pub use search::{Search, SearchForm};

use super::report::{DAMAGED, VerifyReport, store_error_in_full, write_labelled};
use super::select::{Selected, one};
use super::{Exit, Stop, Streams, moment, site, startup, tool_log};
use crate::config::Settings;
use crate::lock::Wait;
use crate::store::{Backup, StoreError, verify};

/// Name of the tool, and prefix of its options in the configuration.
const NAME: &str = "cyr_backup";

/// What a command looks at.
struct Look<'l> {
    backup: &'l Backup,
    settings: &'l Settings,
    /// The backup's name as typed.
    label: &'l [u8],
    /// Whether an error says what Cyrus's leaves out.
    own_words: bool,
}

/// Why nothing, or not all, was shown. The label is put in front.
enum Failure {
    /// Of what was wanted from the backup.
    Text(String),
    /// Of the backup.
    Store(StoreError),
    /// Output could not be written.
    Stop(Stop),
}

impl<E: Into<Stop>> From<E> for Failure {
    fn from(stop: E) -> Failure {
        Failure::Stop(stop.into())
    }
}

impl Failure {
    /// What to say, if there is anybody to say it to.
    fn text(self, own_words: bool) -> Result<String, Stop> {
        match self {
            Failure::Text(text) => Ok(text),
            Failure::Store(error) => Ok(store_error_in_full(&error, own_words)),
            Failure::Stop(stop) => Err(stop),
        }
    }
}

/// Runs `cyr_backup` with these words, the first of which is its name as given.
pub(super) fn main(args: &[OsString], streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    let misuse = match options::parse(args.get(1..).unwrap_or_default()) {
        Ok(options) => return run(&options, streams),
        Err(misuse) => misuse,
    };
    match (misuse, args.first()) {
        (options::Misuse::Option(error), Some(name)) => {
            write_labelled(streams.err, name.as_bytes(), &error.to_string())?;
        }
        (options::Misuse::Moment(error), _) => {
            write_labelled(streams.err, NAME.as_bytes(), &format!("--at: {error}"))?;
            return Ok(Exit::Usage);
        }
        _ => {}
    }
    streams.err.write_all(options::USAGE.as_bytes())?;
    Ok(Exit::Usage)
}

/// Runs a command.
pub(super) fn run(options: &Options, streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    if let Command::Export(Export { form: Form::Imap(imap), .. }) = &options.command
        && let Err(text) = imap.check()
    {
        writeln!(streams.err, "fatal error: {text}")?;
        return Ok(Exit::Usage);
    }
    let settings = startup::start(NAME, options.config.as_deref(), streams)?;
    let Err(failure) = show(options, &settings, streams) else { return Ok(Exit::Ok) };
    let text = failure.text(options.own_words)?;
    tool_log::backup_error(options.backup.as_bytes(), &text);
    write_labelled(streams.err, options.backup.as_bytes(), &text)?;
    Ok(Exit::TempFail)
}

fn show(options: &Options, settings: &Settings, streams: &mut Streams<'_>) -> Result<(), Failure> {
    let (backup, is_damaged) = open(options, settings, streams)?;
    let (label, own_words) = (options.backup.as_bytes(), options.own_words);
    let look = Look { backup: &backup, settings, label, own_words };
    command(options, &look, streams)?;
    if is_damaged { Err(Failure::Text(DAMAGED.into())) } else { Ok(()) }
}

fn command(options: &Options, look: &Look<'_>, streams: &mut Streams<'_>) -> Result<(), Failure> {
    match &options.command {
        Command::List(what) => list::run(*what, look.backup, streams),
        Command::Show(what) => show::run(what, look, streams.out),
        Command::Summary(what, form) => summary::run(what, *form, look, streams),
        Command::Dump(what @ Dump::Message(_)) if is_checked_alone(options) => {
            dump::run(what, look, streams).or_else(|failure| {
                // What is wrong with the backup says more than what is wrong with the message.
                check(look.backup, options, streams.out)?;
                Err(failure)
            })
        }
        Command::Dump(what) => dump::run(what, look, streams),
        Command::Json(what) => json::run(what, look, streams.out),
        Command::Export(what) => export::run(what, look, streams),
        Command::Search(what) => search::run(what, look, streams),
    }
}

/// Whether what is asked for is one message: nothing of it is written unless it hashes to its
/// GUID, and to hash the whole backup besides would take longer the larger that is.
fn is_checked_alone(options: &Options) -> bool {
    let is_message = matches!(options.command, Command::Dump(Dump::Message(_)));
    is_message && options.at.is_none() && options.verbosity == 0
}

/// Checks the data file against its last chunk, as Cyrus does at each open.
fn check(backup: &Backup, options: &Options, out: &mut dyn Write) -> Result<(), Failure> {
    let mut report = VerifyReport::new(out, options.verbosity);
    let checked = verify::quick(backup, &mut |event| report.event(event));
    let verdict = report.finish()?;
    checked.map_err(Failure::Store)?;
    verdict.map_or(Ok(()), |verdict| Err(Failure::Text(verdict)))
}

/// The backup, and whether something may be missing of the earlier moment that is asked for.
fn open(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<(Backup, bool), Failure> {
    let target = match one(settings, options.mode, &options.backup) {
        Selected::Backup(target) => target,
        Selected::Unknown { why, .. } => return Err(Failure::Text(why.to_string())),
    };
    // Cyrus's commands keep others out, as Cyrus's do; what is ours need not.
    let is_ours = matches!(options.command, Command::Export(_) | Command::Search(_));
    let open = if is_ours || options.at.is_some() { Backup::open_shared } else { Backup::open };
    let backup = open(&target.path, Wait::Yes).map_err(Failure::Store)?;
    if is_ours {
        // Each message is checked by itself: damage is no reason to keep back the others.
        if let Err(failure) = check(&backup, options, &mut io::sink()) {
            let text = failure.text(options.own_words)?;
            tool_log::backup_error(options.backup.as_bytes(), &text);
            let text = format!("{text}; what can be read follows (cyrbk verify tells more)");
            write_labelled(streams.err, options.backup.as_bytes(), &text)?;
        }
    } else if !is_checked_alone(options) {
        check(&backup, options, streams.out)?;
    }
    let rules = site::name_rules(settings);
    moment::look_back(backup, options.at, &rules, options.backup.as_bytes(), streams.err)?
        .map_err(Failure::Store)
}
