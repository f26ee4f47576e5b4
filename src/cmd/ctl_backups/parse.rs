//! The words of `ctl_backups`, to a request.

use std::ffi::OsString;
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::options::{COMMANDS, Command, Level, LockAction, Options};
use crate::cmd::Mode;
use crate::cmd::getopt::{self, Found, Long, OptionError, Spec};

/// The words make no sense; [`USAGE`] says which would.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misuse;

/// The answer to words that make no sense.
pub(super) const USAGE: &str = "\
Usage:
    ctl_backups [options] compact [mode] backup...
    ctl_backups [options] list [list_opts] [[mode] backup...]
    ctl_backups [options] lock [lock_opts] [mode] backup
    ctl_backups [options] reindex [mode] backup...
    ctl_backups [options] stat [mode] backup...
    ctl_backups [options] verify [mode] backup...

More than Cyrus has:
    ctl_backups [options] delete [mode] backup
    ctl_backups [options] move [mode] backup partition
    ctl_backups [options] reconstruct

Commands:
    compact             # drop what is past its retention, join and split chunks
    delete              # forget a backup and remove its files
    list                # one line for each backup; without any named, all of them
    lock                # hold the lock of one backup
    move                # put a backup on another partition, by name or directory
    reconstruct         # build backups.db again from the files on all partitions
    reindex             # build the index again from the data
    stat                # sizes, and what compaction would gain
    verify              # compare data and index, checksums included

Options:
    -C file             # configuration file (default: /etc/imapd.conf)
    -F, --force         # compact even where nothing is to be gained; delete unasked
    -S, --stop-on-error # stop at the first backup that fails
    -V, --no-verify     # list, stat: do not check the last chunk first
    -j, --json          # JSON instead of text; not together with -v
    -v, --verbose       # tell more; twice: still more
    -w, --wait-for-locks
                        # wait for locked backups instead of passing them over
    --jobs=n            # so many backups at a time (default: the cores)
    --dry-run           # compact, move, reconstruct: only say what would be done
    --keep-files        # delete: leave the files where they are

Options of verify:
    --quick             # only what can be said without reading the data
    --deep              # everything: the index against the data in both directions,
                        # with -A also backups.db against the partitions

Options of list:
    -t [hours], --stale[=hours]
                        # only backups not updated for so long (default: 24)

Options of lock:
    -c, --create        # make the data file, which must not exist
    -p, --pause         # hold the lock until the end of standard input (default)
    -s, --sqlite3       # hold the lock while sqlite3 runs on the index
    -x cmd, --execute=cmd
                        # hold the lock while a command runs

Modes, what the operands are:
    -A, --all           # none: every backup (not with lock)
    -D, --domains       # domains of users (not with lock)
    -P, --prefixes      # beginnings of userids (not with lock)
    -f, --filenames     # data files
    -m, --mailboxes     # mailboxes
    -u, --userids       # userids (default)

Exit status: 0 done, 64 usage, 75 something failed, 78 configuration
";

/// Options that have no letter.
const JOBS: u8 = 1;
const DRY_RUN: u8 = 2;
const KEEP_FILES: u8 = 3;
const QUICK: u8 = 4;
const DEEP: u8 = 5;

const SPEC: Spec = Spec {
    short: "AC:DFPSVcfjmpst:uvwx:",
    long: &[
        Long::flag("all", b'A'),
        Long::flag("domains", b'D'),
        Long::flag("force", b'F'),
        Long::flag("prefixes", b'P'),
        Long::flag("stop-on-error", b'S'),
        Long::flag("no-verify", b'V'),
        Long::flag("create", b'c'),
        Long::flag("filenames", b'f'),
        Long::flag("json", b'j'),
        Long::flag("mailboxes", b'm'),
        Long::flag("pause", b'p'),
        Long::flag("sqlite3", b's'),
        Long::with_optional_value("stale", b't'),
        Long::flag("userids", b'u'),
        Long::flag("verbose", b'v'),
        Long::flag("wait-for-locks", b'w'),
        Long::with_value("execute", b'x'),
        Long::with_value("jobs", JOBS),
        Long::flag("dry-run", DRY_RUN),
        Long::flag("keep-files", KEEP_FILES),
        Long::flag("quick", QUICK),
        Long::flag("deep", DEEP),
    ],
};

const DEFAULT_STALE_HOURS: i64 = 24;

impl Options {
    fn take(&mut self, option: Found) -> Result<(), Misuse> {
        let value = option.value;
        match option.letter {
            b'A' => self.set_mode(Mode::All)?,
            b'C' => self.config = value.map(PathBuf::from),
            b'D' => self.set_mode(Mode::Domains)?,
            b'F' => self.force = true,
            b'P' => self.set_mode(Mode::Prefixes)?,
            b'S' => self.stop_on_error = true,
            b'V' => self.no_verify = true,
            b'c' => self.create = true,
            b'f' => self.set_mode(Mode::Files)?,
            b'j' => self.json = true,
            b'm' => self.set_mode(Mode::Mailboxes)?,
            b'p' => self.set_lock_action(LockAction::Pause)?,
            b's' => self.set_lock_action(LockAction::Sqlite3)?,
            b't' => self.stale_hours = Some(hours(value)?),
            b'u' => self.set_mode(Mode::Userids)?,
            b'v' => self.verbosity += 1,
            b'w' => self.wait = true,
            b'x' => self.set_lock_action(LockAction::Execute(value.unwrap_or_default()))?,
            JOBS => self.jobs = Some(jobs(value)?),
            DRY_RUN => self.dry_run = true,
            KEEP_FILES => self.keep_files = true,
            QUICK => self.set_level(Level::Quick)?,
            DEEP => self.set_level(Level::Deep)?,
            _ => return Err(Misuse),
        }
        Ok(())
    }

    fn set_mode(&mut self, mode: Mode) -> Result<(), Misuse> {
        self.mode.replace(mode).map_or(Ok(()), |_| Err(Misuse))
    }

    fn set_level(&mut self, level: Level) -> Result<(), Misuse> {
        if self.level != Level::Cyrus && self.level != level {
            return Err(Misuse);
        }
        self.level = level;
        Ok(())
    }

    fn set_lock_action(&mut self, action: LockAction) -> Result<(), Misuse> {
        self.lock_action.replace(action).map_or(Ok(()), |_| Err(Misuse))
    }

    /// What only the whole line shows.
    fn check(&self) -> Result<(), Misuse> {
        let many = matches!(self.mode, Some(Mode::All | Mode::Domains | Mode::Prefixes));
        let misuse = self.json && self.verbosity > 0
            || self.lock_action.is_some() && self.command != Command::Lock
            || self.level != Level::Cyrus && self.command != Command::Verify
            || self.mode == Some(Mode::All) && !self.operands.is_empty()
            || self.dry_run && !self.command.has_dry_run()
            || self.keep_files && self.command != Command::Delete
            || match self.command {
                Command::Lock | Command::Delete => many || self.operands.len() > 1,
                Command::Move => many || self.operands.len() != 2,
                Command::Reconstruct => self.mode.is_some() || !self.operands.is_empty(),
                _ => false,
            };
        if misuse { Err(Misuse) } else { Ok(()) }
    }
}

/// Reads the words behind the program's name.
pub(super) fn parse(args: &[OsString]) -> Result<Options, Misuse> {
    let posixly_correct = std::env::var_os("POSIXLY_CORRECT").is_some();
    let words = getopt::sort(args, &SPEC, posixly_correct);
    let mut operands = words.operands.into_iter();
    // Any command: the options are to be looked at first, in their order.
    let mut options = Options::new(Command::List);
    for option in words.options {
        match option {
            Ok(option) => options.take(option)?,
            // `-t` as the very last word.
            Err(OptionError::NoArgument(b't')) => options.stale_hours = Some(DEFAULT_STALE_HOURS),
            Err(_) => return Err(Misuse),
        }
    }
    let word = operands.next().ok_or(Misuse)?;
    let known = COMMANDS.iter().find(|(known, _)| word == *known);
    options.command = known.map(|(_, command)| *command).ok_or(Misuse)?;
    options.operands = operands.collect();
    options.check()?;
    if options.command == Command::List && options.mode.is_none() && options.operands.is_empty() {
        options.mode = Some(Mode::All);
    }
    Ok(options)
}

/// A number of hours as C's `atoi` reads it; zero, and so no number at all, is
/// refused.
fn hours(value: Option<OsString>) -> Result<i64, Misuse> {
    let Some(value) = value else { return Ok(DEFAULT_STALE_HOURS) };
    match crate::cmd::atoi(value.as_bytes()) {
        0 => Err(Misuse),
        hours => Ok(hours),
    }
}

/// At least one.
fn jobs(value: Option<OsString>) -> Result<NonZero<usize>, Misuse> {
    value.and_then(|value| value.to_str()?.parse().ok()).ok_or(Misuse)
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
    fn options_anywhere_and_the_default_mode_of_list() {
        let options = parse_line("list -C a u -V -C b -vv").unwrap();
        assert_eq!(options.config, Some(PathBuf::from("b")));
        assert_eq!((options.verbosity, options.no_verify, options.mode), (2, true, None));
        assert_eq!(options.operands, ["u"]);
        assert_eq!(parse_line("list").unwrap().mode, Some(Mode::All));
        assert_eq!(parse_line("list -u").unwrap().mode, Some(Mode::Userids));
        assert_eq!(parse_line("verify").unwrap().mode, None);
        assert_eq!(parse_line("--verb --wait verify x").unwrap().verbosity, 1);
    }

    #[test]
    fn stale_takes_the_next_word() {
        assert_eq!(parse_line("list alice -t").unwrap().stale_hours, Some(24));
        assert_eq!(parse_line("list -At").unwrap().stale_hours, Some(24));
        assert_eq!(parse_line("-t 1 list").unwrap().stale_hours, Some(1));
        assert_eq!(parse_line("list -t24x").unwrap().stale_hours, Some(24));
        assert_eq!(parse_line("list -t -5").unwrap().stale_hours, Some(-5));
        assert_eq!(parse_line("list --stale=3").unwrap().stale_hours, Some(3));
        assert_eq!(parse_line("list --stale").unwrap().stale_hours, Some(24));
        for line in ["-t list", "list -t alice", "list -t -A", "list -tA", "list -t0"] {
            assert_eq!(parse_line(line), Err(Misuse), "{line}");
        }
    }

    #[test]
    fn misuse() {
        for line in [
            "",
            "nosuch",
            "-v",
            "lis",
            "list -Z",
            "list -C",
            "list --nosuch",
            "list --json=1",
            "list -A -A",
            "list -u -m x",
            "list -uu",
            "list -A x",
            "verify -jv x",
            "-v verify -j x",
            "lock -p -s x",
            "lock -pp x",
            "list -p",
            "verify -x cmd a",
            "lock a b",
            "lock -A",
            "lock -D x",
            "lock -P x",
            "delete a b",
            "move -A",
            "move a",
            "verify --jobs=0 a",
            "verify --jobs=many a",
            "reconstruct x",
            "reconstruct -u",
            "--dry-run delete -F alice",
            "reindex --dry-run alice",
            "verify --dry-run alice",
            "list --dry-run",
            "--keep-files move alice two",
            "compact --keep-files -A",
        ] {
            assert_eq!(parse_line(line), Err(Misuse), "{line}");
        }
        // As with 3.10, which has neither --jobs nor --deep and --dry-run.
        assert!(parse_line("list --j").unwrap().json);
        assert_eq!(parse_line("list --d x").unwrap().mode, Some(Mode::Domains));
        for line in [
            "compact -c -t1 -F -V -w -S x",
            "lock",
            "lock -s x",
            "reconstruct",
            "list -D",
            "--dry-run compact -A",
            "--dry-run move alice two",
            "--dry-run reconstruct",
            "delete --keep-files alice",
        ] {
            assert!(parse_line(line).is_ok(), "{line}");
        }
    }
}
