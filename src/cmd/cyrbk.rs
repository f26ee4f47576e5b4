//! `cyrbk`: all commands under one name, and those that Cyrus has no tool for.

mod admin;
mod look;
mod restore;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use admin::{DeleteArgs, JobsArg, LockArgs, MoveArgs, ReconstructArgs, ReindexArgs, StatArgs};
use clap::{Args, Parser, Subcommand};
use look::{BackupArgs, ExportArgs, SearchArgs, ShowArgs};
use restore::RestoreArgs;

use super::json::Json;
use super::serve::{self, ServeArgs};
use super::{Exit, Mode, Stop, Streams, ctl_backups, cyr_backup, passwd, site, startup};
use crate::config::{ConfigError, Settings};

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
    /// Write messages as mbox, Maildir, files or tar
    Export(ExportArgs),
    /// Drop what is past its retention, join small chunks and split large ones
    Compact(CompactArgs),
    /// Write the octets of a message or of a chunk to standard output
    Dump(DumpArgs),
    /// Bring mail back to a mail server, and what belongs to it
    Restore(Box<RestoreArgs>),
    /// Set the password of a user of the backup server
    Passwd(PasswdArgs),
}

#[derive(Debug, Args)]
struct ConfigArg {
    /// Configuration file
    #[arg(short = 'C', value_name = "FILE", default_value = super::startup::DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Which backups.
#[derive(Debug, Args)]
struct SelectArgs {
    /// Userids, unless an option says otherwise
    #[arg(value_name = "BACKUP")]
    operands: Vec<OsString>,
    /// Every backup
    #[arg(long, group = "mode", conflicts_with = "operands")]
    all: bool,
    /// BACKUPs are domains of users
    #[arg(long, group = "mode")]
    domain: bool,
    /// BACKUPs are beginnings of userids
    #[arg(long, group = "mode")]
    prefix: bool,
    /// BACKUPs are data files
    #[arg(long, group = "mode")]
    file: bool,
    /// BACKUPs are mailboxes
    #[arg(long, group = "mode")]
    mailbox: bool,
    /// Wait for locked backups instead of passing them over
    #[arg(long)]
    wait: bool,
    /// Stop at the first backup that fails
    #[arg(long)]
    stop_on_error: bool,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    jobs: JobsArg,
    /// Only backups without an update for so many hours
    #[arg(long, value_name = "HOURS")]
    stale: Option<i64>,
    /// Do not check the last chunk first
    #[arg(long)]
    no_verify: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk verify alice
  cyrbk verify --all --jobs 4
  cyrbk verify --all --quick
  cyrbk verify --all --json

Everything is read once: every checksum, every message, and the index against the log
in both directions; with --all also backups.db against the partitions. Each finding
says what it is about, and what mends it.")]
#[command(group = clap::ArgGroup::new("which").args(["operands", "all"]).required(true))]
struct VerifyArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    jobs: JobsArg,
    /// Only what can be said without reading the data
    #[arg(long, group = "level")]
    quick: bool,
    /// Only what Cyrus's verify checks, up to the first fault
    #[arg(long, group = "level")]
    cyrus: bool,
    /// Tell which check is running; twice: in detail
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "json")]
    verbose: u8,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk compact alice
  cyrbk compact --all --jobs 4
  cyrbk compact --all --dry-run --json

What is not worth while is skipped, which counts as a failure (75), as in Cyrus.")]
#[command(group = clap::ArgGroup::new("compacted").args(["operands", "all"]).required(true))]
struct CompactArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    jobs: JobsArg,
    /// Also where nothing is to be gained
    #[arg(long)]
    force: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Tell which chunks are kept, joined and split
    #[arg(short, long, conflicts_with = "json")]
    verbose: bool,
}

#[derive(Debug, Args)]
struct DumpArgs {
    #[command(flatten)]
    backup: BackupArgs,
    #[command(subcommand)]
    what: DumpWhat,
}

#[derive(Debug, Subcommand)]
enum DumpWhat {
    /// A message, as it was stored
    Message {
        /// Its SHA-1, 40 hex digits
        guid: OsString,
    },
    /// The text of a chunk
    Chunk {
        /// Its number, as `cyr_backup ... list chunks` has it
        id: OsString,
    },
}

#[derive(Debug, Args)]
struct PasswdArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Whose password
    user: String,
    /// Take the user out of the password file
    #[arg(long)]
    delete: bool,
    /// Say in JSON that it was done
    #[arg(long)]
    json: bool,
}

/// Runs `cyrbk` with these words, the first of which is its name.
pub(super) fn run(args: &[OsString], streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    let program = OsString::from("cyrbk");
    let args = std::iter::once(&program).chain(args.iter().skip(1));
    let words = match Words::try_parse_from(args) {
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
        Command::Passwd(args) => {
            // As the Cyrus user: the server has to read the file.
            let settings = startup::start("cyrbk", Some(&args.config.config), streams)?;
            let exit = conclude(set_password(&args, &settings), streams)?;
            if args.json && exit == Exit::Ok {
                passwd_json(&args).write(streams.out)?;
            }
            Ok(exit)
        }
    }
}

/// Commands over backups; people get columns and colour.
fn look_after(mut options: ctl_backups::Options, streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    options.for_people = streams.out_is_terminal && !options.json;
    ctl_backups::run(&options, streams)
}

fn passwd_json(args: &PasswdArgs) -> Json {
    let text = |text: &str| Some(Json::Text(text.to_owned()));
    Json::object([
        ("command", text("passwd")),
        ("userid", text(&args.user)),
        ("status", text(if args.delete { "removed" } else { "ok" })),
    ])
}

fn set_password(args: &PasswdArgs, settings: &Settings) -> anyhow::Result<()> {
    let stdin = std::io::stdin();
    let request = passwd::Request {
        user: &args.user,
        file: &settings.password_file,
        names: &site::name_policy(settings),
        remove: args.delete,
    };
    let is_tty = stdin.is_terminal();
    passwd::run(request, stdin.lock(), is_tty)
}

fn conclude(result: anyhow::Result<()>, streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    let Err(error) = result else { return Ok(Exit::Ok) };
    // Of the configuration the text says it all, in Cyrus's words.
    if error.is::<ConfigError>() {
        writeln!(streams.err, "fatal error: {error}")?;
        return Ok(Exit::Config);
    }
    writeln!(streams.err, "fatal error: {error:#}")?;
    Ok(Exit::TempFail)
}

impl SelectArgs {
    fn mode(&self) -> Option<Mode> {
        let modes = [
            (self.all, Mode::All),
            (self.domain, Mode::Domains),
            (self.prefix, Mode::Prefixes),
            (self.file, Mode::Files),
            (self.mailbox, Mode::Mailboxes),
        ];
        modes.into_iter().find(|(set, _)| *set).map(|(_, mode)| mode)
    }

    fn options(self, command: ctl_backups::Command, config: ConfigArg) -> ctl_backups::Options {
        ctl_backups::Options {
            config: Some(config.config),
            mode: self.mode(),
            operands: self.operands,
            wait: self.wait,
            stop_on_error: self.stop_on_error,
            json: self.json,
            ..ctl_backups::Options::new(command)
        }
    }
}

impl From<ListArgs> for ctl_backups::Options {
    fn from(args: ListArgs) -> ctl_backups::Options {
        let mut options = args.select.options(ctl_backups::Command::List, args.config);
        if options.operands.is_empty() && options.mode.is_none() {
            options.mode = Some(Mode::All);
        }
        options.jobs = args.jobs.jobs;
        options.stale_hours = args.stale;
        options.no_verify = args.no_verify;
        options
    }
}

impl From<VerifyArgs> for ctl_backups::Options {
    fn from(args: VerifyArgs) -> ctl_backups::Options {
        let mut options = args.select.options(ctl_backups::Command::Verify, args.config);
        options.jobs = args.jobs.jobs;
        options.verbosity = args.verbose.into();
        options.level = match (args.quick, args.cyrus) {
            (true, _) => ctl_backups::Level::Quick,
            (_, true) => ctl_backups::Level::Cyrus,
            _ => ctl_backups::Level::Deep,
        };
        options
    }
}

impl From<CompactArgs> for ctl_backups::Options {
    fn from(args: CompactArgs) -> ctl_backups::Options {
        let mut options = args.select.options(ctl_backups::Command::Compact, args.config);
        options.jobs = args.jobs.jobs;
        options.force = args.force;
        options.dry_run = args.dry_run;
        options.verbosity = args.verbose.into();
        options
    }
}

impl From<DumpArgs> for cyr_backup::Options {
    fn from(args: DumpArgs) -> cyr_backup::Options {
        let what = match args.what {
            DumpWhat::Message { guid } => cyr_backup::Dump::Message(guid),
            DumpWhat::Chunk { id } => cyr_backup::Dump::Chunk(id),
        };
        args.backup.options(cyr_backup::Command::Dump(what))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        let words = Words::try_parse_from(line.split(' '));
        words.map(|words| words.command).map_err(|e| e.to_string())
    }

    #[test]
    fn the_parser_is_consistent() {
        Words::command().debug_assert();
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
