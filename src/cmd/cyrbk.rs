//! `cyrbk`: all commands under one name, and those that Cyrus has no tool for.

mod admin;
mod completions;
mod daily;
mod look;
mod passwd;
mod restore;
mod select;

use std::ffi::OsString;

use admin::{DeleteArgs, LockArgs, MoveArgs, ReconstructArgs, ReindexArgs, StatArgs};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use completions::CompletionsArgs;
use daily::{CompactArgs, ListArgs, VerifyArgs};
use look::{DumpArgs, ExportArgs, SearchArgs, ShowArgs};
use passwd::PasswdArgs;
use restore::RestoreArgs;

use super::exit::in_full;
use super::identity::NotCyrus;
use super::serve::{self, Misused, ServeArgs};
use super::service::Misconfigured;
use super::{Exit, Stop, Streams, ctl_backups, cyr_backup};
use crate::config::ConfigError;

const EXAMPLES: &str = "\
Examples:
  cyrbk serve -C /etc/imapd.conf --listen 0.0.0.0:2005
  cyrbk list
  cyrbk verify --all
  cyrbk show alice messages in user/alice
  cyrbk search alice --subject invoice --deleted-since 2026-11-01
  cyrbk export alice user/alice > alice.mbox
  cyrbk compact --all --dry-run
  cyrbk dump alice message 84976990f3bc08fb48037b36fcc15832f019d92d
  cyrbk ctl_backups -v verify alice    the words of Cyrus's ctl_backups
  cyrbk cyr_backup alice list all      the words of Cyrus's cyr_backup
  cyrbk restore mail.example.com alice --all --keep-ids

Called by the name backupd, ctl_backups, cyr_backup or restore (a symbolic link),
it takes the words of that tool alone.

Exit status:
   0  done
  64  the words make no sense
  75  something could not be done
  78  the configuration cannot be read or is wrong";

/// At the end of the help of each command.
const STATUSES: &str = "\
Exit status: 0 done, 64 the words make no sense, 75 something could not be done,
78 the configuration cannot be read or is wrong";

/// A backup server for Cyrus IMAP.
#[derive(Debug, Parser)]
#[command(name = "cyrbk", version, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = false)]
struct Words {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the backup server
    Serve(ServeArgs),
    /// List backups, all of them unless some are named
    List(ListArgs),
    /// Compare data and index, checksums included
    Verify(VerifyArgs),
    /// Tell how large backups are, and what compaction would gain
    Stat(StatArgs),
    /// Build indexes again from the data
    Reindex(ReindexArgs),
    /// Hold the lock of a backup while something else is done
    Lock(LockArgs),
    /// Put a backup on another partition
    Move(MoveArgs),
    /// Forget a backup and remove its files
    Delete(DeleteArgs),
    /// Build backups.db again from the data files
    Reconstruct(ReconstructArgs),
    /// Look into a backup: chunks, mailboxes, messages
    Show(ShowArgs),
    /// Find messages by sender, subject, date, flags, or by when they went
    Search(SearchArgs),
    /// Write messages as mbox, Maildir, files or tar, or to an IMAP server
    Export(ExportArgs),
    /// Drop what is past its retention, join small chunks and split large ones
    Compact(CompactArgs),
    /// Write the octets of a message or of a chunk to standard output
    Dump(DumpArgs),
    /// Bring mail back to a mail server, and what belongs to it
    Restore(Box<RestoreArgs>),
    /// Set the password of a user of the backup server
    Passwd(PasswdArgs),
    /// Write completions for a shell to standard output
    Completions(CompletionsArgs),
}

/// The parser: each command's help ends with the exit statuses.
fn parser() -> clap::Command {
    Words::command().mut_subcommands(|command| {
        let help = match command.get_after_help() {
            Some(help) => format!("{help}\n\n{STATUSES}"),
            None => STATUSES.to_owned(),
        };
        command.after_help(help)
    })
}

/// Runs `cyrbk` with these words, the first of which is its name.
pub(super) fn run(args: &[OsString], streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    let program = OsString::from("cyrbk");
    let args = std::iter::once(&program).chain(args.iter().skip(1));
    let words = parser().try_get_matches_from(args);
    let words = match words.and_then(|words| Words::from_arg_matches(&words)) {
        Ok(words) => words,
        // Also how help and version come out.
        Err(answer) if answer.use_stderr() => {
            write!(streams.err, "{answer}")?;
            return Ok(Exit::Usage);
        }
        Err(answer) => {
            write!(streams.out, "{answer}")?;
            return Ok(Exit::Ok);
        }
    };
    match words.command {
        Command::Serve(args) => conclude(serve::run(&args), streams),
        Command::List(args) => look_after(args.into(), streams),
        Command::Verify(args) => look_after(args.into(), streams),
        Command::Stat(args) => look_after(args.into(), streams),
        Command::Reindex(args) => look_after(args.into(), streams),
        Command::Lock(args) => look_after(args.into(), streams),
        Command::Move(args) => look_after(args.into(), streams),
        Command::Delete(args) => look_after(args.into(), streams),
        Command::Reconstruct(args) => look_after(args.into(), streams),
        Command::Show(args) => cyr_backup::run(&args.into(), streams),
        Command::Search(args) => cyr_backup::run(&args.into(), streams),
        Command::Export(args) => cyr_backup::run(&args.into(), streams),
        Command::Compact(args) => look_after(args.into(), streams),
        Command::Dump(args) => cyr_backup::run(&args.into(), streams),
        Command::Restore(args) => super::restore::run(&(*args).into(), streams),
        Command::Passwd(args) => passwd::run(&args, streams),
        Command::Completions(args) => completions::run(&args, parser(), streams),
    }
}

/// Commands over backups; people get columns and colour.
fn look_after(mut options: ctl_backups::Options, streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    options.own_words = true;
    options.for_people = streams.out_is_terminal && !options.json;
    ctl_backups::run(&options, streams)
}

fn conclude(result: anyhow::Result<()>, streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    let Err(error) = result else { return Ok(Exit::Ok) };
    // Of the configuration file the text says it all, in Cyrus's words.
    if error.is::<ConfigError>() {
        writeln!(streams.err, "fatal error: {error}")?;
        return Ok(Exit::Config);
    }
    writeln!(streams.err, "fatal error: {}", in_full(&error))?;
    Ok(if error.is::<Misconfigured>() {
        Exit::Config
    } else if error.is::<Misused>() || error.is::<NotCyrus>() {
        Exit::Usage
    } else {
        Exit::TempFail
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::cmd::Mode;

    fn parse(line: &str) -> Result<Command, String> {
        let words = Words::try_parse_from(line.split(' '));
        words.map(|words| words.command).map_err(|e| e.to_string())
    }

    #[test]
    fn the_parser_is_consistent() {
        parser().debug_assert();
    }

    #[test]
    fn every_help_has_an_example_and_the_statuses() {
        let mut parser = parser();
        parser.build();
        for command in parser.get_subcommands_mut().filter(|c| c.get_name() != "help") {
            let name = command.get_name().to_owned();
            let help = command.render_help().to_string();
            assert!(help.contains("Examples:") && help.contains("78 the config"), "{name}: {help}");
            assert!(help.contains(&format!("cyrbk {name} ")), "{name}");
        }
    }

    #[test]
    fn list_and_verify_become_requests_of_ctl_backups() {
        let Command::List(args) = parse("cyrbk list").unwrap() else { panic!() };
        let options = ctl_backups::Options::from(args);
        assert_eq!(options.mode, Some(Mode::All));
        let Command::Verify(args) = parse("cyrbk verify -vv --prefix a b -C x").unwrap() else {
            panic!()
        };
        let options = ctl_backups::Options::from(args);
        assert_eq!((options.mode, options.verbosity), (Some(Mode::Prefixes), 2));
        assert_eq!((options.operands.len(), options.config), (2, Some("x".into())));
    }

    #[test]
    fn compact_becomes_a_request_of_ctl_backups() {
        let Command::Compact(args) = parse("cyrbk compact --dry-run --force -v a").unwrap() else {
            panic!()
        };
        let options = ctl_backups::Options::from(args);
        assert_eq!(options.command, ctl_backups::Command::Compact);
        assert!(options.dry_run && options.force && options.verbosity == 1);
    }

    #[test]
    fn misuse() {
        for line in [
            "cyrbk verify",
            "cyrbk verify --all a",
            "cyrbk verify --file --prefix a",
            "cyrbk verify -v --json a",
            "cyrbk compact",
            "cyrbk compact -v --json a",
            "cyrbk dump alice",
            "cyrbk dump alice message",
            "cyrbk x",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert!(parse("cyrbk verify --all").is_ok());
    }
}
