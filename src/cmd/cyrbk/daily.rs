//! The words for what is done every day: requests of `ctl_backups`.

use clap::Args;

use super::select::{ConfigArg, SelectArgs};
use crate::cmd::Mode;
use crate::cmd::ctl_backups::{Command, Level, Options};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk list
  cyrbk list --stale 24
  cyrbk list --domain example.com --json

Columns: end of the last chunk, octets of the data file, userid, data file.")]
pub(super) struct ListArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    select: SelectArgs,
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
pub(super) struct VerifyArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    select: SelectArgs,
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

What is not worth while is skipped, which is no failure (with ctl_backups it is, as in Cyrus).")]
#[command(group = clap::ArgGroup::new("compacted").args(["operands", "all"]).required(true))]
pub(super) struct CompactArgs {
    #[command(flatten)]
    config: ConfigArg,
    #[command(flatten)]
    select: SelectArgs,
    /// Also where nothing is to be gained
    #[arg(short = 'F', long)]
    force: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Tell which chunks are kept, joined and split
    #[arg(short, long, conflicts_with = "json")]
    verbose: bool,
}

impl From<ListArgs> for Options {
    fn from(args: ListArgs) -> Options {
        let mut options = args.select.options(Command::List, args.config);
        if options.operands.is_empty() && options.mode.is_none() {
            options.mode = Some(Mode::All);
        }
        options.stale_hours = args.stale;
        options.no_verify = args.no_verify;
        options
    }
}

impl From<VerifyArgs> for Options {
    fn from(args: VerifyArgs) -> Options {
        let mut options = args.select.options(Command::Verify, args.config);
        options.verbosity = args.verbose.into();
        options.level = match (args.quick, args.cyrus) {
            (true, _) => Level::Quick,
            (_, true) => Level::Cyrus,
            _ => Level::Deep,
        };
        options
    }
}

impl From<CompactArgs> for Options {
    fn from(args: CompactArgs) -> Options {
        let mut options = args.select.options(Command::Compact, args.config);
        options.force = args.force;
        options.dry_run = args.dry_run;
        options.verbosity = args.verbose.into();
        options
    }
}
