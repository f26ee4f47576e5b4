//! The words of `restore`.

use std::ffi::OsString;
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::cmd::Mode;
use crate::cmd::getopt::{self, Long, OptionError, Spec};
use crate::restore::{Expunged, Part, Parts};

/// A request, of either face.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `-C`
    pub config: Option<PathBuf>,
    /// The mail server, as typed.
    pub server: OsString,
    /// How backups are named; [`Mode::All`]: every backup there is.
    pub mode: Mode,
    /// Which backups: one, unless the mode says otherwise.
    pub backups: Vec<OsString>,
    /// Which mailboxes and messages.
    pub what: Words,
    /// `-r`
    pub recursive: bool,
    /// `-X`, `-x`
    pub expunged: Expunged,
    /// `-U`
    pub keep_ids: bool,
    /// `-D`
    pub keep_deleted_names: bool,
    /// `-M`: an internal name.
    pub into: Option<OsString>,
    /// `-P`
    pub partition: Option<OsString>,
    /// `-A`
    pub acl: Option<OsString>,
    /// `-L`
    pub local_only: bool,
    /// `-n`
    pub dry_run: bool,
    /// How often `-v`.
    pub verbosity: u32,
    /// `-z`
    pub compression: bool,
    /// `-w`: seconds before anything happens.
    pub delay: u64,
    /// What is there is restored once more.
    pub duplicates: bool,
    /// Scripts, limits and annotations that are there are replaced.
    pub replace: bool,
    /// What is restored; `None`: everything with whole backups, else mailboxes.
    pub parts: Option<Parts>,
    /// The prefix in front of `sync_authname` and the like.
    pub channel: Option<String>,
    /// Wait for a locked backup.
    pub wait: bool,
    /// So many backups at a time.
    pub jobs: Option<NonZero<usize>>,
    /// `--at`: the state at that moment, Unix time.
    pub at: Option<i64>,
    /// Tell what was done, and not only what was not.
    pub tell: bool,
    /// What was done in JSON instead, an object for each backup.
    pub json: bool,
    /// `cyrbk restore`: where Cyrus lets things pass, they are errors.
    pub own_words: bool,
}

/// Which mailboxes and messages, as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Words {
    /// `-a`: all, deleted mailboxes too.
    All,
    /// Those that the mail server had last.
    Living,
    /// Operands.
    Objects(Vec<OsString>),
    /// `-F`: a file with one on each line; `-`: standard input.
    File(OsString),
}

impl Options {
    /// A request without any option.
    pub fn new(server: OsString, backup: OsString, what: Words) -> Options {
        Options {
            config: None,
            server,
            mode: Mode::Userids,
            backups: vec![backup],
            what,
            recursive: false,
            expunged: Expunged::AsTheyAre,
            keep_ids: false,
            keep_deleted_names: false,
            into: None,
            partition: None,
            acl: None,
            local_only: false,
            dry_run: false,
            verbosity: 0,
            compression: false,
            delay: 0,
            duplicates: false,
            replace: false,
            parts: None,
            channel: None,
            wait: false,
            jobs: None,
            at: None,
            tell: false,
            json: false,
            own_words: false,
        }
    }
}

/// The answer to words that make no sense.
pub(super) const USAGE: &str = "\
Usage:
    restore [options] server [mode] backup [mboxname | uniqueid | guid]...

Options:
    -A [acl]            # apply specified acl to restored mailboxes
    -C alt_config       # alternate config file
    -D                  # don't trim deletedprefix before restoring
    -F input-file       # read mailboxes/messages from file rather than argv
    -L                  # local mailbox operations only (no mupdate)
    -M mboxname         # restore messages to specified mailbox
    -P partition        # restore mailboxes to specified partition
    -U                  # try to preserve uniqueid, uid, modseq, etc
    -X                  # don't restore expunged messages
    -a                  # try to restore all mailboxes in backup
    -n                  # calculate work required but don't perform restoration
    -r                  # recurse into submailboxes
    -v                  # verbose (repeat for more verbosity)
    -w seconds          # wait before starting (useful for attaching a debugger)
    -x                  # only restore expunged messages
    -z                  # require compression (abort if compression unavailable)

Modes:
    -f                  # specified backup interpreted as filename
    -m                  # specified backup interpreted as mboxname
    -u                  # specified backup interpreted as userid (default)

More than Cyrus has:
    --at=time           # restore what was there at that moment: 'YYYY-MM-DD HH:MM'
    --duplicates        # restore once more what is there already
    --only=words        # restore nothing but these
    --replace           # replace scripts, limits and annotations that are there
    --without=words     # do not restore these
                        # words, with commas between: mail annotations
                        # subscriptions seen sieve quota server
";

/// Options that have no letter.
const DUPLICATES: u8 = 1;
const ONLY: u8 = 2;
const REPLACE: u8 = 3;
const WITHOUT: u8 = 4;
const AT: u8 = 5;

const SPEC: Spec = Spec {
    short: "A:C:DF:LM:P:UXaf:m:nru:vw:xz",
    long: &[
        Long::with_optional_value("override-acl", b'A'),
        Long::flag("keep-deletedprefix", b'D'),
        Long::with_value("input-file", b'F'),
        Long::flag("local-only", b'L'),
        Long::with_value("dest-mailbox", b'M'),
        Long::with_value("dest-partition", b'P'),
        Long::flag("keep-uidvalidity", b'U'),
        Long::flag("skip-expunged", b'X'),
        Long::flag("all-mailboxes", b'a'),
        Long::with_value("file", b'f'),
        Long::with_value("mailbox", b'm'),
        Long::flag("dry-run", b'n'),
        Long::flag("recursive", b'r'),
        Long::with_value("userid", b'u'),
        Long::flag("verbose", b'v'),
        Long::with_value("delayed-startup", b'w'),
        Long::flag("only-expunged", b'x'),
        Long::flag("require-compression", b'z'),
        Long::with_value("at", AT),
        Long::flag("duplicates", DUPLICATES),
        Long::with_value("only", ONLY),
        Long::flag("replace", REPLACE),
        Long::with_value("without", WITHOUT),
    ],
};

/// Why the words make no sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misuse {
    /// [`USAGE`] says which would.
    Words,
    /// The value of an option that Cyrus does not have, which is all that is said.
    Value(String),
}

/// Reads the words behind the program's name.
pub(super) fn parse(args: &[OsString]) -> Result<Options, Misuse> {
    let posixly_correct = std::env::var_os("POSIXLY_CORRECT").is_some();
    let words = getopt::sort(args, &SPEC, posixly_correct);
    let mut options = Options::new(OsString::new(), OsString::new(), Words::All);
    let mut found = Found::default();
    for option in words.options {
        match option {
            Ok(option) => found.take(option.letter, option.value, &mut options)?,
            // As the very last word it stands for the empty list.
            Err(OptionError::NoArgument(b'A')) => options.acl = Some(OsString::new()),
            Err(_) => return Err(Misuse::Words),
        }
    }
    let mut operands = words.operands.into_iter();
    options.server = operands.next().ok_or(Misuse::Words)?;
    let (mode, backup) = match found.backup {
        Some(named) => named,
        None => (Mode::Userids, operands.next().ok_or(Misuse::Words)?),
    };
    options.mode = mode;
    options.backups = vec![backup];
    let objects: Vec<OsString> = operands.collect();
    options.what = match (found.all, found.file, objects.is_empty()) {
        (true, None, true) => Words::All,
        (false, Some(file), true) => Words::File(file),
        (false, None, false) => Words::Objects(objects),
        _ => return Err(Misuse::Words),
    };
    let has_other_ids =
        options.acl.is_some() || options.into.is_some() || options.partition.is_some();
    if options.keep_ids && has_other_ids {
        return Err(Misuse::Words);
    }
    options.parts = parts(found.only.as_deref(), found.without.as_deref(), &options.what)?;
    Ok(options)
}

/// What `--only` and `--without` come to.
pub(super) fn parts(
    only: Option<&str>,
    without: Option<&str>,
    what: &Words,
) -> Result<Option<Parts>, Misuse> {
    if only.is_none() && without.is_none() {
        return Ok(None);
    }
    let parse = |option: &str, words: &str| {
        Parts::parse(words).map_err(|word| {
            let known: Vec<_> = Part::WORDS.iter().map(|(word, _)| *word).collect();
            Misuse::Value(format!("{option}: `{word}` is none of {}", known.join(" ")))
        })
    };
    let wanted = only.map_or_else(|| Ok(usual_parts(what)), |words| parse("--only", words))?;
    Ok(Some(match without {
        Some(words) => wanted.without(&parse("--without", words)?),
        None => wanted,
    }))
}

/// Whole backups are restored with everything, single mailboxes as such.
pub(super) fn usual_parts(what: &Words) -> Parts {
    match what {
        Words::All | Words::Living => Parts::all(),
        Words::Objects(_) | Words::File(_) => Parts::mailboxes(),
    }
}

/// What has been found so far.
#[derive(Default)]
struct Found {
    backup: Option<(Mode, OsString)>,
    all: bool,
    file: Option<OsString>,
    only: Option<String>,
    without: Option<String>,
}

impl Found {
    fn take(
        &mut self,
        letter: u8,
        value: Option<OsString>,
        options: &mut Options,
    ) -> Result<(), Misuse> {
        let text = || value.clone().and_then(|value| value.into_string().ok()).ok_or(Misuse::Words);
        match letter {
            b'A' => options.acl = Some(value.unwrap_or_default()),
            b'C' => options.config = value.map(PathBuf::from),
            b'D' => options.keep_deleted_names = true,
            b'F' => self.file = value,
            b'L' => options.local_only = true,
            b'M' => options.into = value,
            b'P' => options.partition = value,
            b'U' => options.keep_ids = true,
            b'X' | b'x' => {
                if options.expunged != Expunged::AsTheyAre {
                    return Err(Misuse::Words);
                }
                let only = letter == b'x';
                options.expunged = if only { Expunged::Only } else { Expunged::Without };
            }
            b'a' => self.all = true,
            b'f' => self.name(Mode::Files, value)?,
            b'm' => self.name(Mode::Mailboxes, value)?,
            b'u' => self.name(Mode::Userids, value)?,
            b'n' => options.dry_run = true,
            b'r' => options.recursive = true,
            b'w' => {
                let seconds = crate::cmd::atoi(value.unwrap_or_default().as_bytes());
                options.delay = u64::try_from(seconds).map_err(|_| Misuse::Words)?;
            }
            b'z' => options.compression = true,
            AT => {
                let moment = crate::cmd::time::moment(&text()?);
                options.at = Some(moment.map_err(|error| Misuse::Value(format!("--at: {error}")))?);
            }
            DUPLICATES => options.duplicates = true,
            ONLY => self.only = Some(text()?),
            REPLACE => options.replace = true,
            WITHOUT => self.without = Some(text()?),
            _ => options.verbosity += 1,
        }
        Ok(())
    }

    fn name(&mut self, mode: Mode, value: Option<OsString>) -> Result<(), Misuse> {
        match self.backup.replace((mode, value.unwrap_or_default())) {
            None => Ok(()),
            Some(_) => Err(Misuse::Words),
        }
    }
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
    fn operands_and_modes() {
        let options = parse_line("-n host alice user.alice -v user.alice.Work").unwrap();
        assert_eq!((options.server, options.mode), ("host".into(), Mode::Userids));
        assert_eq!(options.backups, ["alice"]);
        let objects = vec!["user.alice".into(), "user.alice.Work".into()];
        assert_eq!(options.what, Words::Objects(objects));
        let options = parse_line("host -f /some/file x").unwrap();
        assert_eq!((options.mode, options.what), (Mode::Files, Words::Objects(vec!["x".into()])));
        assert_eq!(parse_line("-m user.a host -a").unwrap().what, Words::All);
        assert_eq!(parse_line("host alice -F -").unwrap().what, Words::File("-".into()));
        assert_eq!(parse_line("host alice -a -w 12x").unwrap().delay, 12);
        assert_eq!(parse_line("host alice -a -w abc").unwrap().delay, 0);
    }

    #[test]
    fn an_acl_that_is_the_last_word_is_empty() {
        assert_eq!(parse_line("host alice -a -A").unwrap().acl, Some("".into()));
        assert_eq!(parse_line("host alice -a --override-acl").unwrap().acl, Some("".into()));
        assert_eq!(parse_line("host alice -a --override-acl=x").unwrap().acl, Some("x".into()));
        assert_eq!(parse_line("-A host alice x -a").unwrap().server, "alice");
    }

    #[test]
    fn parts_in_words() {
        assert_eq!(parse_line("host alice -a").unwrap().parts, None);
        let parts = parse_line("host alice -a --without=sieve,quota").unwrap().parts.unwrap();
        assert!(parts.has(Part::Mail) && parts.has(Part::Seen) && !parts.has(Part::Sieve));
        let parts = parse_line("host alice -a --only sieve").unwrap().parts.unwrap();
        assert!(parts.has(Part::Sieve) && !parts.has(Part::Mail));
        for (line, said) in [
            ("host alice -a --only rubbish", "--only: `rubbish` is none of mail annotations "),
            ("host alice -a --without mail,x", "--without: `x` is none of mail annotations "),
            ("host alice -a --at rubbish", "--at: `rubbish` is no time; try "),
        ] {
            let Err(Misuse::Value(text)) = parse_line(line) else { panic!("{line}") };
            assert!(text.starts_with(said), "{text}");
        }
    }

    #[test]
    fn misuse() {
        for line in [
            "host",
            "host alice",
            "host -a",
            "host alice -a x",
            "host alice -a -F x",
            "host alice -F x y",
            "host alice -x -X -a",
            "host alice -x -x -a",
            "-u alice -m user.alice host -a",
            "host alice -a -U -M x",
            "host alice -a -P x -U",
            "host alice -a -U -A",
            "host alice -a -w -1",
            "host alice -a -C",
            "host alice -a -Z",
            "host alice -a --nosuch",
        ] {
            assert_eq!(parse_line(line), Err(Misuse::Words), "{line}");
        }
    }
}
