//! The words for what is done now and then: requests of `ctl_backups`.

use std::ffi::OsString;

use clap::Args;

use super::select::{ConfigArg, JobsArg, OneArgs, SelectArgs};
use crate::cmd::ctl_backups::{Command, LockAction, Options};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk stat --all
  cyrbk stat --json alice bob

Columns: userid, octets of the file, of its text, of the messages that count;
compression, share that counts; start and end of the last chunk.")]
#[command(group = clap::ArgGroup::new("which").args(["operands", "all"]).required(true))]
pub(super) struct StatArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    select: SelectArgs,
    /// Do not check the last chunk first
    #[arg(long)]
    no_verify: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk reindex alice
  cyrbk reindex --all --jobs 4

The old index stays in its place until the new one is complete.")]
#[command(group = clap::ArgGroup::new("which").args(["operands", "all"]).required(true))]
pub(super) struct ReindexArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    select: SelectArgs,
    /// Tell where each chunk begins
    #[arg(short, long, conflicts_with = "json")]
    verbose: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk lock alice                        until the end of standard input
  cyrbk lock alice --sqlite3
  cyrbk lock alice --execute 'cp \"$ctl_backups_lock_data_fname\" /mnt'

A command finds the files' names in ctl_backups_lock_data_fname and
ctl_backups_lock_index_fname.")]
pub(super) struct LockArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    one: OneArgs,
    /// Hold it while this command runs, by the shell
    #[arg(long, value_name = "COMMAND", group = "action")]
    execute: Option<OsString>,
    /// Hold it while sqlite3 runs on the index
    #[arg(long, group = "action")]
    sqlite3: bool,
    /// Make the data file, which must not exist
    #[arg(long)]
    create: bool,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk move alice two
  cyrbk move alice /mnt/backup --dry-run

The server may run. A move that was cut short is completed by doing it again. At the
old place links to the new one remain.")]
pub(super) struct MoveArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    one: OneArgs,
    /// A partition of the configuration, or a directory (with a `/` in it)
    #[arg(value_name = "PARTITION")]
    partition: OsString,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk delete alice
  cyrbk delete alice --keep-files --force")]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    one: OneArgs,
    /// Do not ask
    #[arg(short = 'F', long)]
    force: bool,
    /// Only forget the backup, and leave its files
    #[arg(long)]
    keep_files: bool,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk reconstruct --dry-run
  cyrbk reconstruct

Whose a file is, its lines say. An entry that leads to a file stays; what is not
clear is listed (75) and yours to decide: look into the files with
`cyrbk show --file FILE mailboxes`, move what is not wanted out of the partition together
with its .index, and run this again.")]
pub(super) struct ReconstructArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    jobs: JobsArg,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Name the entries too that are right
    #[arg(short, long, conflicts_with = "json")]
    verbose: bool,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
}

impl From<StatArgs> for Options {
    fn from(args: StatArgs) -> Options {
        let mut options = args.select.options(Command::Stat, args.config);
        options.no_verify = args.no_verify;
        options
    }
}

impl From<ReindexArgs> for Options {
    fn from(args: ReindexArgs) -> Options {
        let mut options = args.select.options(Command::Reindex, args.config);
        options.verbosity = args.verbose.into();
        options
    }
}

impl From<LockArgs> for Options {
    fn from(args: LockArgs) -> Options {
        let mut options = args.one.options(Command::Lock, args.config);
        options.create = args.create;
        options.lock_json = args.json;
        options.lock_action = match args.execute {
            Some(command) => Some(LockAction::Execute(command)),
            None => args.sqlite3.then_some(LockAction::Sqlite3),
        };
        options
    }
}

impl From<MoveArgs> for Options {
    fn from(args: MoveArgs) -> Options {
        let mut options = args.one.options(Command::Move, args.config);
        options.operands.push(args.partition);
        options.dry_run = args.dry_run;
        options.json = args.json;
        options
    }
}

impl From<DeleteArgs> for Options {
    fn from(args: DeleteArgs) -> Options {
        let mut options = args.one.options(Command::Delete, args.config);
        options.force = args.force;
        options.keep_files = args.keep_files;
        options.json = args.json;
        options
    }
}

impl From<ReconstructArgs> for Options {
    fn from(args: ReconstructArgs) -> Options {
        Options {
            config: Some(args.config.config),
            jobs: args.jobs.jobs,
            dry_run: args.dry_run,
            verbosity: args.verbose.into(),
            json: args.json,
            ..Options::new(Command::Reconstruct)
        }
    }
}
