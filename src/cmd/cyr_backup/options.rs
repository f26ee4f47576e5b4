//! The words of `cyr_backup`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{Export, Search};
use crate::cmd::Mode;
use crate::cmd::getopt::{self, Long, OptionError, Spec};
use crate::cmd::time;

/// What to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `list`
    List(List),
    /// `show`
    Show(Show),
    /// `show --summary`: date, sender and subject. Of no chunks.
    Summary(Show, SummaryForm),
    /// `dump`
    Dump(Dump),
    /// `json`
    Json(JsonWhat),
    /// `cyrbk export`
    Export(Export),
    /// `cyrbk search`
    Search(Search),
}

/// What `list` lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum List {
    Chunks,
    Mailboxes,
    Messages,
    All,
}

/// What `dump` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dump {
    /// The text of a chunk, by its number as typed.
    Chunk(OsString),
    /// A message, by its GUID as typed.
    Message(OsString),
    /// All messages of a mailbox.
    Mailbox {
        /// Its uniqueid, or its external name.
        name: OsString,
        /// In which form.
        form: MailboxForm,
        /// Those too that were expunged.
        expunged: bool,
    },
}

/// How `dump mailbox` writes messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailboxForm {
    /// One mbox, to standard output.
    Mbox,
    /// Files in this directory, one for each message.
    Eml(OsString),
}

/// How a summary is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SummaryForm {
    /// A line for each message.
    Text,
    /// One array.
    Json,
}

/// What `show` shows, by the names typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// Chunks, by their numbers.
    Chunks(Vec<OsString>),
    /// Mailboxes, by uniqueid or external name.
    Mailboxes(Vec<OsString>),
    /// Messages, by their GUIDs.
    Messages(Vec<OsString>),
}

/// What `json` tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum JsonWhat {
    Chunks,
    Mailboxes,
    Messages,
    /// Of these messages, by their GUIDs.
    Headers(Vec<OsString>),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `-C`
    pub config: Option<PathBuf>,
    /// How `backup` is read.
    pub mode: Mode,
    /// How often `-v`.
    pub verbosity: u32,
    /// Which backup.
    pub backup: OsString,
    /// As it was then, Unix time.
    pub at: Option<i64>,
    /// What to show of it.
    pub command: Command,
    /// Called by the words of `cyrbk`: errors say what those of Cyrus leave out.
    pub own_words: bool,
}

impl Options {
    /// A request without any option.
    pub fn new(backup: OsString, command: Command) -> Options {
        let (config, mode) = (None, Mode::Userids);
        Options { config, mode, verbosity: 0, backup, at: None, command, own_words: false }
    }
}

/// Why the words make no sense; [`USAGE`] says which would.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misuse {
    /// An option is none, which is said first.
    Option(OptionError),
    /// `--at` is no time, which is all that is said.
    Moment(String),
    Words,
}

/// The answer to words that make no sense.
pub(super) const USAGE: &str = "\
Usage:
    cyr_backup [options] [mode] backup list chunks
    cyr_backup [options] [mode] backup list mailboxes
    cyr_backup [options] [mode] backup list messages
    cyr_backup [options] [mode] backup list all
    cyr_backup [options] [mode] backup show chunks id...
    cyr_backup [options] [mode] backup show mailboxes [mboxname | uniqueid]...
    cyr_backup [options] [mode] backup show messages guid...
    cyr_backup [options] [mode] backup dump chunk id
    cyr_backup [options] [mode] backup dump message guid
    cyr_backup [options] [mode] backup json chunks
    cyr_backup [options] [mode] backup json mailboxes
    cyr_backup [options] [mode] backup json messages
    cyr_backup [options] [mode] backup json headers guid...

More than Cyrus has:
    cyr_backup [options] [mode] backup dump mailbox mboxname | uniqueid

Commands:
    list                # one line for each item
    show                # everything about some items
    dump                # the octets of one item, as stored
    json                # everything about all items, as JSON

Options:
    -C file             # configuration file (default: /etc/imapd.conf)
    -v, --verbose       # tell how the last chunk is checked; twice: in detail
    --at=time           # as it was then: \"2026-11-20 12:00\", or RFC 3339

Options of dump mailbox:
    --eml=directory     # a file for each message, <uid>.eml, instead of an mbox
    --expunged          # expunged messages too

Options of show mailboxes and show messages:
    --summary           # date, sender and subject of each message, decoded

Modes, what the backup is named by:
    -f, --filename      # its data file
    -m, --mailbox       # a mailbox of its user
    -u, --userid        # its userid (default)

Exit status: 0 done, 64 usage, 75 something failed, 78 configuration
";

/// Options that have no letter.
const EML: u8 = 1;
const EXPUNGED: u8 = 2;
const SUMMARY: u8 = 3;
const AT: u8 = 4;

const SPEC: Spec = Spec {
    short: "C:fmuv",
    long: &[
        Long::flag("filename", b'f'),
        Long::flag("mailbox", b'm'),
        Long::flag("userid", b'u'),
        Long::flag("verbose", b'v'),
        Long::with_value("eml", EML),
        Long::flag("expunged", EXPUNGED),
        Long::flag("summary", SUMMARY),
        Long::with_value("at", AT),
    ],
};

/// Reads the words behind the program's name.
pub(super) fn parse(args: &[OsString]) -> Result<Options, Misuse> {
    let posixly_correct = std::env::var_os("POSIXLY_CORRECT").is_some();
    let words = getopt::sort(args, &SPEC, posixly_correct);
    let (mut config, mut mode, mut verbosity) = (None, None, 0);
    let (mut form, mut with_expunged) = (MailboxForm::Mbox, false);
    let (mut as_summary, mut at) = (false, None);
    for option in words.options {
        let option = option.map_err(Misuse::Option)?;
        let new_mode = match option.letter {
            b'f' => Mode::Files,
            b'm' => Mode::Mailboxes,
            b'u' => Mode::Userids,
            b'C' => {
                config = option.value.map(PathBuf::from);
                continue;
            }
            EML => {
                form = MailboxForm::Eml(option.value.unwrap_or_default());
                continue;
            }
            AT => {
                let text = option.value.unwrap_or_default();
                at = Some(time::moment(&text.to_string_lossy()).map_err(Misuse::Moment)?);
                continue;
            }
            EXPUNGED => {
                with_expunged = true;
                continue;
            }
            SUMMARY => {
                as_summary = true;
                continue;
            }
            _ => {
                verbosity += 1;
                continue;
            }
        };
        if mode.replace(new_mode).is_some() {
            return Err(Misuse::Words);
        }
    }
    let [backup, command, what, operands @ ..] = &words.operands[..] else {
        return Err(Misuse::Words);
    };
    let command = read_command(command, what, operands).ok_or(Misuse::Words)?;
    let is_plain = form == MailboxForm::Mbox && !with_expunged;
    let command = match command {
        Command::Dump(Dump::Mailbox { name, .. }) if !as_summary => {
            Command::Dump(Dump::Mailbox { name, form, expunged: with_expunged })
        }
        Command::Show(what @ (Show::Mailboxes(_) | Show::Messages(_)))
            if as_summary && is_plain =>
        {
            Command::Summary(what, SummaryForm::Text)
        }
        command if is_plain && !as_summary => command,
        _ => return Err(Misuse::Words),
    };
    let mode = mode.unwrap_or_default();
    let backup = backup.clone();
    Ok(Options { config, mode, verbosity, backup, at, command, own_words: false })
}

fn read_command(command: &OsStr, what: &OsStr, operands: &[OsString]) -> Option<Command> {
    Some(match (command.as_bytes(), what.as_bytes(), operands) {
        (b"list", b"chunks", []) => Command::List(List::Chunks),
        (b"list", b"mailboxes", []) => Command::List(List::Mailboxes),
        (b"list", b"messages", []) => Command::List(List::Messages),
        (b"list", b"all", []) => Command::List(List::All),
        (b"dump", b"chunk", [id]) => Command::Dump(Dump::Chunk(id.clone())),
        (b"dump", b"message", [guid]) => Command::Dump(Dump::Message(guid.clone())),
        (b"dump", b"mailbox", [name]) => {
            let (form, expunged) = (MailboxForm::Mbox, false);
            Command::Dump(Dump::Mailbox { name: name.clone(), form, expunged })
        }
        (b"show", b"chunks", ids @ [_, ..]) => Command::Show(Show::Chunks(ids.to_vec())),
        (b"show", b"mailboxes", names @ [_, ..]) => Command::Show(Show::Mailboxes(names.to_vec())),
        (b"show", b"messages", guids @ [_, ..]) => Command::Show(Show::Messages(guids.to_vec())),
        (b"json", b"chunks", []) => Command::Json(JsonWhat::Chunks),
        (b"json", b"mailboxes", []) => Command::Json(JsonWhat::Mailboxes),
        (b"json", b"messages", []) => Command::Json(JsonWhat::Messages),
        (b"json", b"headers", guids @ [_, ..]) => Command::Json(JsonWhat::Headers(guids.to_vec())),
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Options, Misuse> {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        parse(&args)
    }

    #[test]
    fn words_and_options_mix() {
        let options = parse_line("-v alice list -C conf chunks -vm").unwrap();
        assert_eq!(options.backup, "alice");
        assert_eq!((options.mode, options.verbosity), (Mode::Mailboxes, 3 - 1));
        assert_eq!(options.config, Some(PathBuf::from("conf")));
        assert_eq!(options.command, Command::List(List::Chunks));
        let options = parse_line("--file x dump chunk 3").unwrap();
        assert_eq!(options.command, Command::Dump(Dump::Chunk("3".into())));
    }

    #[test]
    fn misuse() {
        for line in [
            "",
            "alice",
            "alice list",
            "alice list nothing",
            "alice list all x",
            "alice nothing x",
            "alice show mailboxes",
            "alice show headers x",
            "alice dump chunk",
            "alice dump chunk 1 2",
            "alice dump message",
            "alice json chunks x",
            "alice json headers",
            "alice dump mailbox",
            "alice dump message x --expunged",
            "--eml=/tmp alice list all",
            "--summary alice list all",
            "--summary alice show chunks 1",
            "-u -m alice list all",
            "-ff alice list all",
        ] {
            assert_eq!(parse_line(line), Err(Misuse::Words), "{line}");
        }
        assert!(matches!(parse_line("--at=noon alice list all"), Err(Misuse::Moment(_))));
        assert_eq!(parse_line("--at=@7 alice list all").map(|options| options.at), Ok(Some(7)));
        assert_eq!(parse_line("-C"), Err(Misuse::Option(OptionError::NoArgument(b'C'))));
        assert_eq!(
            parse_line("x list all -Z").map_err(|e| match e {
                Misuse::Option(error) => error.to_string(),
                Misuse::Moment(_) | Misuse::Words => String::new(),
            }),
            Err("invalid option -- 'Z'".to_owned())
        );
    }
}
