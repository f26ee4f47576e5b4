//! What `ctl_backups` is asked to do, by whatever words.

use std::ffi::OsString;
use std::num::NonZero;
use std::path::PathBuf;

use crate::cmd::Mode;

/// What to do with the backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Command {
    Compact,
    Delete,
    List,
    Lock,
    Move,
    Reconstruct,
    Reindex,
    Stat,
    Verify,
}

/// Each command with its word.
pub(super) const COMMANDS: [(&str, Command); 9] = [
    ("compact", Command::Compact),
    ("delete", Command::Delete),
    ("list", Command::List),
    ("lock", Command::Lock),
    ("move", Command::Move),
    ("reconstruct", Command::Reconstruct),
    ("reindex", Command::Reindex),
    ("stat", Command::Stat),
    ("verify", Command::Verify),
];

/// What to do while the lock is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockAction {
    /// `-p`: wait for the end of standard input.
    Pause,
    /// `-s`: run `sqlite3` on the index.
    Sqlite3,
    /// `-x`: run this through the shell.
    Execute(OsString),
}

/// How much `verify` checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// What Cyrus's verify does, with its output.
    #[default]
    Cyrus,
    /// `--quick`: what can be said without reading the data.
    Quick,
    /// `--deep`: everything, in both directions.
    Deep,
}

impl Level {
    /// The word for it in JSON.
    pub(super) fn word(self) -> &'static str {
        match self {
            Level::Cyrus => "cyrus",
            Level::Quick => "quick",
            Level::Deep => "deep",
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What to do.
    pub command: Command,
    /// `-C`
    pub config: Option<PathBuf>,
    /// How operands are read; `None` for the default.
    pub mode: Option<Mode>,
    /// What follows the command.
    pub operands: Vec<OsString>,
    /// `-F`: also if it is not needed.
    pub force: bool,
    /// `-S`: end at the first failure.
    pub stop_on_error: bool,
    /// `-V`: without the quick check.
    pub no_verify: bool,
    /// `-c`: `lock` makes the file.
    pub create: bool,
    /// `-j`
    pub json: bool,
    /// `-t`: only backups without an update for so many hours.
    pub stale_hours: Option<i64>,
    /// How often `-v`.
    pub verbosity: u32,
    /// `-w`: wait for locks.
    pub wait: bool,
    /// `-p`, `-s`, `-x`
    pub lock_action: Option<LockAction>,
    /// JSON from `lock`, for which Cyrus's `-j` means nothing.
    pub lock_json: bool,
    /// `--jobs`: how many backups at a time; `None`: as many as there are cores.
    pub jobs: Option<NonZero<usize>>,
    /// `--dry-run`: `compact`, `reconstruct` and `move` only say what they would do.
    pub dry_run: bool,
    /// `--keep-files`: `delete` only forgets the backup.
    pub keep_files: bool,
    /// `--quick`, `--deep`: how much `verify` checks.
    pub level: Level,
    /// Output is for people: columns that line up, colour.
    pub for_people: bool,
    /// Called by the words of `cyrbk`: Cyrus's exceptions from what is a failure do not hold.
    pub own_words: bool,
}

impl Command {
    /// The word for it.
    pub fn word(self) -> &'static str {
        COMMANDS.iter().find(|(_, command)| *command == self).map_or("", |(word, _)| word)
    }

    /// Whether it can say what it would do instead of doing it.
    pub(super) fn has_dry_run(self) -> bool {
        matches!(self, Command::Compact | Command::Move | Command::Reconstruct)
    }
}

impl Options {
    /// A request without any option.
    pub fn new(command: Command) -> Options {
        Options {
            command,
            config: None,
            mode: None,
            operands: Vec::new(),
            force: false,
            stop_on_error: false,
            no_verify: false,
            create: false,
            json: false,
            stale_hours: None,
            verbosity: 0,
            wait: false,
            lock_action: None,
            lock_json: false,
            jobs: None,
            dry_run: false,
            keep_files: false,
            level: Level::Cyrus,
            for_people: false,
            own_words: false,
        }
    }
}
