//! The words that look into one backup: requests of `cyr_backup`.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use super::ConfigArg;
use crate::cmd::Mode;
use crate::cmd::cyr_backup::{
    Command, Dump, JsonWhat, List, MailboxForm, Options, Show, SummaryForm,
};

/// Which backup.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// BACKUP is a data file
    #[arg(long, group = "mode")]
    file: bool,
    /// BACKUP is a mailbox
    #[arg(long, group = "mode")]
    mailbox: bool,
    /// As it was then: "2026-11-20 12:00", which is local, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = crate::cmd::time::moment)]
    at: Option<i64>,
    /// A userid, unless an option says otherwise
    #[arg(value_name = "BACKUP")]
    backup: OsString,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk show alice chunks
  cyrbk show alice mailboxes
  cyrbk show alice messages in user/alice/Work
  cyrbk show --json alice messages 84976990f3bc08fb48037b36fcc15832f019d92d

In lists of messages an x stands for one that was expunged.")]
pub(super) struct ShowArgs {
    #[command(flatten)]
    backup: BackupArgs,
    /// JSON instead of text
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    what: ShowWhat,
}

#[derive(Debug, Subcommand)]
enum ShowWhat {
    /// Its chunks
    Chunks,
    /// Its mailboxes
    Mailboxes,
    /// Date, sender, subject and GUID of messages
    Messages {
        /// GUIDs; or `in` and names or uniqueids of mailboxes; all messages without any
        words: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk export alice user/alice/Work > work.mbox
  cyrbk export alice user/alice/Work --eml /tmp/work
  cyrbk export alice user/alice --expunged > everything.mbox")]
pub(super) struct ExportArgs {
    #[command(flatten)]
    backup: BackupArgs,
    /// Name or uniqueid
    #[arg(value_name = "MAILBOX")]
    name: OsString,
    /// A file for each message in this directory, instead of an mbox
    #[arg(long, value_name = "DIRECTORY")]
    eml: Option<OsString>,
    /// Expunged messages too
    #[arg(long)]
    expunged: bool,
}

impl BackupArgs {
    pub(super) fn options(self, command: Command) -> Options {
        let mode = match (self.file, self.mailbox) {
            (true, _) => Mode::Files,
            (_, true) => Mode::Mailboxes,
            _ => Mode::Userids,
        };
        let config = Some(self.config.config);
        Options { config, mode, at: self.at, ..Options::new(self.backup, command) }
    }
}

impl From<ShowArgs> for Options {
    fn from(args: ShowArgs) -> Options {
        let command = match (args.what, args.json) {
            (ShowWhat::Chunks, false) => Command::List(List::Chunks),
            (ShowWhat::Chunks, true) => Command::Json(JsonWhat::Chunks),
            (ShowWhat::Mailboxes, false) => Command::List(List::Mailboxes),
            (ShowWhat::Mailboxes, true) => Command::Json(JsonWhat::Mailboxes),
            (ShowWhat::Messages { words }, json) => {
                let form = if json { SummaryForm::Json } else { SummaryForm::Text };
                let what = match &words[..] {
                    [word, names @ ..] if word == "in" => Show::Mailboxes(names.to_vec()),
                    _ => Show::Messages(words),
                };
                Command::Summary(what, form)
            }
        };
        args.backup.options(command)
    }
}

impl From<ExportArgs> for Options {
    fn from(args: ExportArgs) -> Options {
        let form = args.eml.map_or(MailboxForm::Mbox, MailboxForm::Eml);
        let dump = Dump::Mailbox { name: args.name, form, expunged: args.expunged };
        args.backup.options(Command::Dump(dump))
    }
}
