//! What can be wrong with a configuration, in the words of Cyrus.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The exit status of every configuration error (sysexits `EX_CONFIG`), as in
/// Cyrus 3.2 and later.
pub const EXIT_CONFIG: i32 = 78;

/// Where an option was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file, by the name under which it was opened.
    pub file: Arc<Path>,
    /// Number of the (last) physical line, from 1.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}", self.file.display(), self.line)
    }
}

/// Why no [`Settings`](super::Settings) could be made.
///
/// The text of an error that Cyrus has too starts with exactly Cyrus's text.
/// What that lacks to find and mend the line follows in parentheses: the file,
/// and what to write there. A tool prints `fatal error: ` (`restore`: `Fatal
/// error: `) in front and exits with [`EXIT_CONFIG`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file could not be opened or read; `origin` is that of the `@include`.
    #[error(
        "can't open configuration file {}: {}{}",
        path.display(),
        strerror(source),
        included(origin.as_ref())
    )]
    Open {
        /// The name asked for, without any prefix.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// The `@include` line, if it was one.
        origin: Option<Origin>,
    },
    /// A file above [`FILE_LEN_MAX`](super::FILE_LEN_MAX).
    #[error(
        "configuration file {} is larger than {} bytes{}",
        path.display(),
        super::FILE_LEN_MAX,
        included(origin.as_ref())
    )]
    TooLarge {
        /// The name asked for.
        path: PathBuf,
        /// The `@include` line, if it was one.
        origin: Option<Origin>,
    },
    /// The same name twice; this is also how a loop ends.
    #[error("configuration file {} included twice{}", path.display(), included(Some(origin)))]
    IncludedTwice {
        /// The name, as it was spelled both times.
        path: PathBuf,
        /// The second `@include`.
        origin: Origin,
    },
    /// No `name:` at the start of the line.
    #[error("invalid option name on line {} of configuration file {}", origin.line, name.display())]
    OptionName {
        /// The line.
        origin: Origin,
        /// The file, by the name asked for.
        name: Arc<Path>,
    },
    /// An `@` line other than `@include: path`.
    #[error("invalid directive on line {} of configuration file {}", origin.line, name.display())]
    Directive {
        /// The line.
        origin: Origin,
        /// The file, by the name asked for.
        name: Arc<Path>,
    },
    /// Nothing after the colon.
    #[error(
        "empty option value on line {} of configuration file (file {}: \
         give a value after the colon, or remove the line to get the default)",
        origin.line,
        origin.file.display()
    )]
    EmptyValue {
        /// The line.
        origin: Origin,
    },
    /// A NUL byte outside a comment. Cyrus ignores the rest of such a line.
    #[error(
        "NUL byte on line {} of configuration file {} (is this a text file?)",
        origin.line,
        origin.file.display()
    )]
    NulByte {
        /// The line.
        origin: Origin,
    },
    /// An option set twice in the same form.
    #[error(
        "option '{name}' was specified twice in config file \
         (second occurrence on line {}) (file {}: remove one; the first is in {first})",
        origin.line,
        origin.file.display()
    )]
    Twice {
        /// The option, in lower case, with its service prefix if it has one.
        name: String,
        /// The second occurrence.
        origin: Origin,
        /// The first occurrence.
        first: Origin,
    },
    /// A value that its type does not admit.
    #[error("{what} (file {}: {hint})", origin.file.display())]
    Value {
        /// Cyrus's text, which names option and line.
        what: String,
        /// What to write instead.
        hint: String,
        /// The line.
        origin: Origin,
    },
    /// No `configdirectory`, the one option without a default.
    #[error(
        "configdirectory option not specified in configuration file \
         (file {}: add a line `configdirectory: /absolute/path`)",
        file.display()
    )]
    NoConfigDirectory {
        /// The main file.
        file: PathBuf,
    },
    /// `defaultpartition` is not a word. Backups do not use it, Cyrus checks it.
    #[error(
        "defaultpartition option contains non-alnum character \
         (file {}: line {}, use letters and digits only)",
        origin.file.display(),
        origin.line
    )]
    DefaultPartition {
        /// The line.
        origin: Origin,
    },
    /// A backup has to be created and there is no partition for it.
    #[error(
        "no backup partition to create a backup in (file {}: \
         add a line `backuppartition-<name>: /absolute/path`, \
         not listed in partition_select_exclude)",
        file.display()
    )]
    NoPartition {
        /// The main file.
        file: PathBuf,
    },
}

impl ConfigError {
    /// The exit status for this error: [`EXIT_CONFIG`], always.
    pub fn exit_code(&self) -> i32 {
        EXIT_CONFIG
    }
}

/// Something odd that does not keep anybody from starting, to be logged at
/// WARNING by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigWarning {
    /// An option that has a newer name, in Cyrus's exact words.
    Deprecated {
        /// The option that is set.
        option: &'static str,
        /// The option to set.
        preferred: &'static str,
        /// The version of Cyrus that brought it.
        since: &'static str,
    },
    /// An option of the backup system's families that does not exist.
    Unknown {
        /// The option, in lower case.
        option: String,
        /// Its line.
        origin: Origin,
    },
    /// A value that was taken, but not as it stands.
    Adjusted {
        /// The option.
        option: String,
        /// Its line.
        origin: Origin,
        /// What is wrong, and what was taken for it.
        what: String,
    },
    /// A name that syslog does not have, in Cyrus's exact words.
    SyslogFacility {
        /// The value.
        value: String,
    },
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigWarning::Deprecated { option, preferred, since } => write!(
                f,
                "Option '{option}' is deprecated in favor of '{preferred}' since version {since}."
            ),
            ConfigWarning::Unknown { option, origin } => {
                write!(f, "config: {origin}: unknown option '{option}' ignored")
            }
            ConfigWarning::Adjusted { option, origin, what } => {
                write!(f, "config: {origin}: {option}: {what}")
            }
            ConfigWarning::SyslogFacility { value } => {
                write!(f, "config error: syslog name {value} not recognised")
            }
        }
    }
}

/// The system's text alone, without Rust's ` (os error 2)`.
fn strerror(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}

fn included(origin: Option<&Origin>) -> String {
    origin.map_or_else(String::new, |o| {
        format!(" (file {}: included on line {})", o.file.display(), o.line)
    })
}
