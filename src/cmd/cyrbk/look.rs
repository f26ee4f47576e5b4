//! The words that look into one backup: requests of `cyr_backup`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::select::ConfigArg;
use crate::cmd::Mode;
use crate::cmd::cyr_backup::{
    Command, Dump, Export, Form, Imap, JsonWhat, List, Options, Search, SearchForm, Show,
    SummaryForm,
};
use crate::store::search::Query;

/// Which backup.
#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// BACKUP is a data file
    #[arg(long, global = true, conflicts_with = "mailbox")]
    file: bool,
    /// BACKUP is a mailbox
    #[arg(long, global = true)]
    mailbox: bool,
    /// As it was then: "2026-11-20 12:00", which is local, or RFC 3339
    #[arg(long, global = true, value_name = "TIME", value_parser = crate::cmd::time::moment)]
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
    #[arg(long, global = true)]
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
  cyrbk export alice --maildir /tmp/alice
  cyrbk export alice --imap imaps://mail.example.com --imap-user alice --password-file ~/pw
  cyrbk export alice --at '2026-11-20 12:00' --tar | tar tv
  cyrbk search alice --subject invoice --guids | cyrbk export alice --guids - --eml /tmp/found

What is there already is never overwritten. A message that is damaged or missing is named, and
the others are written (75).")]
pub(super) struct ExportArgs {
    #[command(flatten)]
    backup: BackupArgs,
    /// Names, as typed (user/alice/Work) or as listed (user.alice.Work), or uniqueids; the whole
    /// user without any
    #[arg(value_name = "MAILBOX")]
    mailboxes: Vec<OsString>,
    /// An mbox for each mailbox in this directory, instead of one to standard output
    #[arg(long, value_name = "DIRECTORY", group = "form")]
    mbox: Option<OsString>,
    /// A Maildir
    #[arg(long, value_name = "DIRECTORY", group = "form")]
    maildir: Option<OsString>,
    /// A file for each message in this directory
    #[arg(long, value_name = "DIRECTORY", group = "form")]
    eml: Option<OsString>,
    /// A tar stream to standard output
    #[arg(long, group = "form")]
    tar: bool,
    #[command(flatten)]
    imap: ImapArgs,
    /// Only messages whose GUIDs are in this file; - is standard input
    #[arg(long, value_name = "FILE")]
    guids: Option<OsString>,
    /// Expunged messages too
    #[arg(long)]
    expunged: bool,
    /// Deleted mailboxes too
    #[arg(long)]
    deleted: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk search alice --from bob --since 2026-11-01
  cyrbk search alice --deleted-since '2026-11-20 09:00'
  cyrbk search alice --header list-id=rust --flag flagged --json
  cyrbk search alice --subject invoice --guids | cyrbk export alice --guids - --maildir /tmp/found

All conditions must hold. Texts are found anywhere in what they are looked for in, decoded, in
any case. Expunged messages and deleted mailboxes are searched too: an x stands for what is
gone.")]
pub(super) struct SearchArgs {
    #[command(flatten)]
    backup: BackupArgs,
    /// Only in this mailbox, by name or uniqueid; may be repeated
    #[arg(long = "in", value_name = "MAILBOX")]
    mailboxes: Vec<OsString>,
    /// Who sent it
    #[arg(long, value_name = "TEXT")]
    from: Vec<String>,
    /// To whom
    #[arg(long, value_name = "TEXT")]
    to: Vec<String>,
    /// What it is about
    #[arg(long, value_name = "TEXT")]
    subject: Vec<String>,
    /// Any other header field
    #[arg(long, value_name = "NAME=TEXT", value_parser = header)]
    header: Vec<(String, String)>,
    /// In the header or the text
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Came then or later
    #[arg(long, value_name = "TIME", value_parser = crate::cmd::time::moment)]
    since: Option<i64>,
    /// Came before
    #[arg(long, value_name = "TIME", value_parser = crate::cmd::time::moment)]
    before: Option<i64>,
    /// Has this flag, such as seen, flagged or $Junk; may be repeated
    #[arg(long, value_name = "FLAG")]
    flag: Vec<String>,
    /// Was expunged, or deleted with its mailbox, then or later
    #[arg(long, value_name = "TIME", value_parser = crate::cmd::time::moment)]
    deleted_since: Option<i64>,
    /// JSON instead of text
    #[arg(long, group = "form")]
    json: bool,
    /// GUIDs only, one a line
    #[arg(long, group = "form")]
    guids: bool,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, text) = text.split_once('=').ok_or("write it NAME=TEXT")?;
    Ok((name.to_owned(), text.to_owned()))
}

impl From<SearchArgs> for Options {
    fn from(args: SearchArgs) -> Options {
        let named = |name: &'static str, texts: Vec<String>| {
            texts.into_iter().map(move |text| (name.to_owned(), text))
        };
        let headers = named("From", args.from)
            .chain(named("To", args.to))
            .chain(named("Subject", args.subject))
            .chain(args.header)
            .collect();
        let query = Query {
            mailboxes: None,
            headers,
            text: args.text,
            since: args.since,
            before: args.before,
            flags: args.flag,
            deleted_since: args.deleted_since,
        };
        let form = match (args.json, args.guids) {
            (true, _) => SearchForm::Json,
            (_, true) => SearchForm::Guids,
            _ => SearchForm::Text,
        };
        let search = Search { mailboxes: args.mailboxes, query, form };
        args.backup.options(Command::Search(search))
    }
}

impl BackupArgs {
    pub(super) fn options(self, command: Command) -> Options {
        let mode = match (self.file, self.mailbox) {
            (true, _) => Mode::Files,
            (_, true) => Mode::MailboxesOfEitherName,
            _ => Mode::Userids,
        };
        let config = Some(self.config.config);
        let own_words = true;
        Options { config, mode, at: self.at, own_words, ..Options::new(self.backup, command) }
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

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cyrbk dump alice message 84976990f3bc08fb48037b36fcc15832f019d92d > message.eml
  cyrbk dump alice chunk 3 | less

A message is written only if it hashes to its GUID.")]
pub(super) struct DumpArgs {
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

impl From<DumpArgs> for Options {
    fn from(args: DumpArgs) -> Options {
        let what = match args.what {
            DumpWhat::Message { guid } => Dump::Message(guid),
            DumpWhat::Chunk { id } => Dump::Chunk(id),
        };
        args.backup.options(Command::Dump(what))
    }
}

/// Any IMAP server.
#[derive(Debug, Args)]
struct ImapArgs {
    /// Mailboxes of this IMAP server: host[:port], by STARTTLS, or imaps://host[:port]
    #[arg(long, value_name = "SERVER", group = "form")]
    imap: Option<String>,
    /// Who logs in there; else in CYRBK_IMAP_USER
    #[arg(long, value_name = "USER", requires = "imap")]
    imap_user: Option<String>,
    /// Its first line is the password; else in CYRBK_IMAP_PASSWORD
    #[arg(long, value_name = "FILE", requires = "imap")]
    password_file: Option<PathBuf>,
    /// Root certificates, in PEM, instead of the system's
    #[arg(long, value_name = "FILE", requires = "imap")]
    ca_file: Option<PathBuf>,
    /// Password and mail in the clear
    #[arg(long, requires = "imap")]
    no_tls: bool,
    /// Everything into this folder there, such as Restored/2026
    #[arg(long, value_name = "FOLDER", requires = "imap")]
    under: Option<String>,
}

impl ImapArgs {
    fn form(&self) -> Option<Form> {
        let server = self.imap.clone()?;
        Some(Form::Imap(Imap {
            server,
            user: self.imap_user.clone(),
            password_file: self.password_file.clone(),
            ca_file: self.ca_file.clone(),
            no_tls: self.no_tls,
            under: self.under.clone(),
        }))
    }
}

impl ExportArgs {
    fn form(&self) -> Form {
        let place = |form: fn(OsString) -> Form, place: &Option<OsString>| place.clone().map(form);
        place(Form::MboxFiles, &self.mbox)
            .or(place(Form::Maildir, &self.maildir))
            .or(place(Form::Eml, &self.eml))
            .or_else(|| self.imap.form())
            .unwrap_or(if self.tar { Form::Tar } else { Form::Mbox })
    }
}

impl From<ExportArgs> for Options {
    fn from(args: ExportArgs) -> Options {
        let form = args.form();
        let ExportArgs { backup, mailboxes, guids, expunged, deleted, .. } = args;
        backup.options(Command::Export(Export { mailboxes, guids, form, expunged, deleted }))
    }
}
