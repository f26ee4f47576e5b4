//! The words for the configuration and for which backups are meant.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;

use clap::Args;

use crate::cmd::Mode;
use crate::cmd::ctl_backups::{Command, Options};
use crate::cmd::startup::DEFAULT_CONFIG;

#[derive(Debug, Args)]
pub(super) struct ConfigArg {
    /// Configuration file
    #[arg(short = 'C', value_name = "FILE", global = true, default_value = DEFAULT_CONFIG)]
    pub(super) config: PathBuf,
}

/// Which backups.
#[derive(Debug, Args)]
pub(super) struct SelectArgs {
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
    #[command(flatten)]
    jobs: JobsArg,
}

/// How many backups at a time.
#[derive(Debug, Args)]
pub(super) struct JobsArg {
    /// So many backups at a time [default: the cores]
    #[arg(long, value_name = "N")]
    pub(super) jobs: Option<NonZero<usize>>,
}

/// Which one backup.
#[derive(Debug, Args)]
pub(super) struct OneArgs {
    /// A userid, unless an option says otherwise
    #[arg(value_name = "BACKUP")]
    backup: OsString,
    /// BACKUP is a data file
    #[arg(long, group = "mode")]
    file: bool,
    /// BACKUP is a mailbox
    #[arg(long, group = "mode")]
    mailbox: bool,
    /// Wait for the lock
    #[arg(long)]
    wait: bool,
}

impl SelectArgs {
    fn mode(&self) -> Option<Mode> {
        let modes = [
            (self.all, Mode::All),
            (self.domain, Mode::Domains),
            (self.prefix, Mode::Prefixes),
            (self.file, Mode::Files),
            (self.mailbox, Mode::MailboxesOfEitherName),
        ];
        modes.into_iter().find(|(set, _)| *set).map(|(_, mode)| mode)
    }

    pub(super) fn options(self, command: Command, config: ConfigArg) -> Options {
        Options {
            config: Some(config.config),
            mode: self.mode(),
            operands: self.operands,
            wait: self.wait,
            stop_on_error: self.stop_on_error,
            json: self.json,
            jobs: self.jobs.jobs,
            ..Options::new(command)
        }
    }
}

impl OneArgs {
    pub(super) fn options(self, command: Command, config: ConfigArg) -> Options {
        let mode = match (self.file, self.mailbox) {
            (true, _) => Some(Mode::Files),
            (_, true) => Some(Mode::MailboxesOfEitherName),
            _ => None,
        };
        Options {
            config: Some(config.config),
            mode,
            operands: vec![self.backup],
            wait: self.wait,
            ..Options::new(command)
        }
    }
}
