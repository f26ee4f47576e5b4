//! `sasldb2`: the secrets that `saslpasswd2` keeps, in plain text. Read only.
//!
//! An entry's key is `user NUL realm NUL userPassword`, its value the password. The file is a
//! Berkeley DB hash (see [`hash_file`]); it is opened for each look-up and no more than a few
//! pages are read, so that a change counts at once and no password stays in memory.

mod hash_file;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use self::hash_file::{HashFile, HashFileError};
use super::stamp::stamp;

/// Where libsasl keeps it unless it is told otherwise.
pub const DEFAULT_PATH: &str = "/etc/sasldb2";

const PROPERTY: &str = "userPassword";
/// How often a look-up begins anew because the file changed meanwhile.
const ATTEMPTS: usize = 5;

/// Why a secret cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub(super) enum SasldbError {
    /// The kernel refused.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// Not a file of that format, or a damaged one.
    #[error("{}: {what}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: HashFileError,
    },
}

impl SasldbError {
    /// Whether there is no such file at all.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, SasldbError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether it is missing, or not meant for this program.
    pub(super) fn is_out_of_reach(&self) -> bool {
        let is_denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
        self.is_missing() || matches!(self, SasldbError::Io { source, .. } if is_denied(source))
    }
}

/// The data base by its path; nothing is open between calls.
#[derive(Clone, Debug)]
pub(super) struct Sasldb {
    path: PathBuf,
    realm: String,
}

impl Sasldb {
    /// `server_name` is the realm of users that are not `user@realm`.
    pub(super) fn new(path: PathBuf, server_name: &str) -> Sasldb {
        // libsasl folds it as well.
        Sasldb { path, realm: server_name.to_ascii_lowercase() }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The password of the canonical `user`, if there is such a user. What follows the first
    /// `@` is the realm, as libsasl has it.
    pub(super) fn password(&self, user: &str) -> Result<Option<Vec<u8>>, SasldbError> {
        let (user, realm) = user.split_once('@').unwrap_or((user, &self.realm));
        let key = [user, realm, PROPERTY].join("\0");
        let content = |what| SasldbError::Content { path: self.path.clone(), what };
        for attempt in 1.. {
            let file = self.open()?;
            let before = self.stamp(&file)?;
            let found = HashFile::open(&file).and_then(|hash| hash.get(key.as_bytes()));
            // saslpasswd2 writes into the file, page by page.
            if attempt == ATTEMPTS || before == self.stamp(&file)? {
                return found.map_err(content);
            }
        }
        Ok(None)
    }

    /// Whether the file can be used at all.
    pub(super) fn check(&self) -> Result<(), SasldbError> {
        self.password("").map(drop)
    }

    /// A device or pipe in its place cannot block.
    fn open(&self) -> Result<File, SasldbError> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(nix::libc::O_NONBLOCK);
        options.open(&self.path).map_err(|source| self.io_error(source))
    }

    fn stamp(&self, file: &File) -> Result<super::stamp::Stamp, SasldbError> {
        file.metadata().map(|metadata| stamp(&metadata)).map_err(|source| self.io_error(source))
    }

    fn io_error(&self, source: io::Error) -> SasldbError {
        SasldbError::Io { path: self.path.clone(), source }
    }
}
