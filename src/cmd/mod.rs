//! The personalities: words in, text and exit status out.
//!
//! One executable answers to several names. The base name of `argv[0]` chooses;
//! under any other name it is `cyrbk`, whose first word may be one of them too.
//!
//! | Name | Parser | Commands |
//! |---|---|---|
//! | `ctl_backups` | `getopt`, as Cyrus's | one file each in `ctl_backups/` |
//! | `cyr_backup` | `getopt`, as Cyrus's | one file each in `cyr_backup/` |
//! | `backupd` | as Cyrus's services | started by Cyrus's master, or by hand with `-X` |
//! | `restore` | `getopt`, as Cyrus's | `restore/`; the work is in [`crate::restore`] |
//! | anything else: `cyrbk` | clap | those of the others, and its own |
//!
//! Parsers differ, commands do not: `cyrbk verify` fills in the same request as
//! `ctl_backups verify`.

pub mod backupd;
pub mod ctl_backups;
pub mod cyr_backup;
mod cyrbk;
mod directories;
mod exit;
mod findings;
mod getopt;
mod hosts_access;
mod identity;
mod inherited;
mod json;
mod log;
mod mailbox_name;
mod moment;
pub mod passwd;
mod people;
mod private_tmp;
mod report;
pub mod restore;
mod select;
pub mod serve;
mod service;
pub mod site;
mod startup;
mod time;
mod tool_log;

use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

pub use exit::{Exit, Stop};
pub use select::Mode;

/// Where a command writes: the process's streams, or a test's.
pub struct Streams<'a> {
    /// Standard output, buffered.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// Whether people read standard output as it comes.
    pub out_is_terminal: bool,
    /// The same of standard error.
    pub err_is_terminal: bool,
}

impl<'a> Streams<'a> {
    /// Streams that no person reads as they come.
    pub fn new(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Streams<'a> {
        Streams { out, err, out_is_terminal: false, err_is_terminal: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Personality {
    Backupd,
    CtlBackups,
    CyrBackup,
    Restore,
}

const PERSONALITIES: [(&str, Personality); 4] = [
    ("backupd", Personality::Backupd),
    ("ctl_backups", Personality::CtlBackups),
    ("cyr_backup", Personality::CyrBackup),
    ("restore", Personality::Restore),
];

/// The whole program: `argv` to exit status.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // Not locked for good: a server's threads may want to write too.
    let (mut out, mut err) = (BufWriter::new(io::stdout()), io::stderr());
    let mut streams = Streams::new(&mut out, &mut err);
    streams.out_is_terminal = io::stdout().is_terminal();
    streams.err_is_terminal = io::stderr().is_terminal();
    let result = run(&args, &mut streams).and_then(|exit| {
        streams.out.flush()?;
        Ok(exit)
    });
    exit::conclude(result, &mut err).into()
}

/// The program in other hands: words (the first is the name it is called by) and
/// streams to exit status.
pub fn run(args: &[OsString], streams: &mut Streams<'_>) -> Result<Exit, Stop> {
    let name = args.first().and_then(|arg| Path::new(arg).file_name());
    if let Some(personality) = name.and_then(personality) {
        return personality.run(args, streams);
    }
    match args.get(1).and_then(|word| personality(word)) {
        // cyrbk has a `restore` of its own.
        Some(personality) if personality != Personality::Restore => {
            personality.run(&args[1..], streams)
        }
        _ => cyrbk::run(args, streams),
    }
}

fn personality(name: &OsStr) -> Option<Personality> {
    PERSONALITIES.iter().find(|(known, _)| name == *known).map(|(_, personality)| *personality)
}

impl Personality {
    fn run(self, args: &[OsString], streams: &mut Streams<'_>) -> Result<Exit, Stop> {
        match self {
            Personality::CtlBackups => ctl_backups::main(args, streams),
            Personality::CyrBackup => cyr_backup::main(args, streams),
            Personality::Backupd => Ok(backupd::run(args)),
            Personality::Restore => restore::main(args, streams),
        }
    }
}

/// A number as C's `atoi` reads it: what stands in front of anything else; 0 without
/// any digit. What does not fit is the nearest that does.
fn atoi(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let digits = digits.iter().take_while(|c| c.is_ascii_digit());
    let number = digits.fold(0i64, |n, c| n.saturating_mul(10).saturating_add((c - b'0').into()));
    if negative { -number } else { number }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run_words(words: &[&str]) -> (Exit, String, String) {
        let args: Vec<OsString> = words.iter().map(OsString::from).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = run(&args, &mut Streams::new(&mut out, &mut err)).unwrap();
        (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn only_the_exact_base_name_chooses() {
        let (exit, out, err) = run_words(&["/usr/lib/cyrus/bin/ctl_backups"]);
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
        assert!(err.starts_with("Usage:\n    ctl_backups [options] compact "), "{err}");
        let (exit, _, err) = run_words(&["./cyr_backup"]);
        assert!(err.starts_with("Usage:\n    cyr_backup "), "{err}");
        assert_eq!(exit, Exit::Usage);
        for name in ["cyrbk", "ctl_backups2", "CTL_BACKUPS", ""] {
            let (exit, _, err) = run_words(&[name]);
            assert!(err.contains("cyrbk"), "{name}: {err}");
            assert_eq!(exit, Exit::Usage);
        }
    }

    #[test]
    fn the_first_word_of_cyrbk_chooses_too() {
        let (exit, _, err) = run_words(&["cyrbk", "ctl_backups", "nonsense"]);
        assert_eq!(exit, Exit::Usage);
        assert!(err.starts_with("Usage:\n    ctl_backups "), "{err}");
    }

    #[test]
    fn numbers_as_c_reads_them() {
        for (text, number) in [
            ("24", 24),
            (" 24x", 24),
            ("-7", -7),
            ("+3", 3),
            ("", 0),
            ("abc", 0),
            ("-", 0),
            ("99999999999999999999", i64::MAX),
        ] {
            assert_eq!(atoi(text.as_bytes()), number, "{text}");
        }
    }
}
