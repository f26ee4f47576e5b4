//! Where passwords are checked: the password file, read again when it was
//! replaced, or saslauthd.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::password_file::{Accounts, PasswordFile, PasswordFileError};
use super::saslauthd;
use super::verifier::{ScramHash, Verifier, prepare_password};
use super::{AuthFailure, PasswordSource};

/// A source of passwords, shared by all exchanges.
#[derive(Debug)]
pub(super) enum Backend {
    File(CachedFile),
    Saslauthd { path: PathBuf, service: String },
}

impl Backend {
    pub(super) fn new(source: PasswordSource, service: String) -> Self {
        match source {
            PasswordSource::File(path) => Backend::File(CachedFile::new(path)),
            PasswordSource::Saslauthd(path) => Backend::Saslauthd { path, service },
        }
    }

    /// An early word to the log; the same is found again at each log-in.
    pub(super) fn warn_if_unusable(&self) {
        if let Backend::File(file) = self
            && let Err(error) = file.accounts()
        {
            tracing::warn!(%error, "nobody can log in");
        }
    }

    /// Whether `password` is that of the canonical `user`. For a user who does
    /// not exist it takes as long as for others.
    pub(super) fn is_password(&self, user: &str, password: &[u8]) -> Result<bool, AuthFailure> {
        match self {
            Backend::File(file) => {
                let accounts = file.accounts().map_err(failure)?;
                let Ok(prepared) = prepare_password(password) else {
                    return Ok(false);
                };
                Ok(match accounts.verifier(ScramHash::Sha256, user) {
                    Some(verifier) => verifier.matches(&prepared),
                    None => {
                        accounts.decoy(ScramHash::Sha256, user).matches(&prepared);
                        false
                    }
                })
            }
            Backend::Saslauthd { path, service } => {
                let timeout = saslauthd::TIMEOUT;
                saslauthd::check(path, service, user, password, timeout).map_err(failure)
            }
        }
    }

    /// The verifier of `user`, or `None` and the made-up one to go on with.
    pub(super) fn verifier(
        &self,
        hash: ScramHash,
        user: &str,
    ) -> Result<(Verifier, IsKnown), AuthFailure> {
        let Backend::File(file) = self else {
            return Err(AuthFailure::NoMechanism);
        };
        let accounts = file.accounts().map_err(failure)?;
        Ok(match accounts.verifier(hash, user) {
            Some(verifier) => (verifier.clone(), IsKnown(true)),
            None => (accounts.decoy(hash, user), IsKnown(false)),
        })
    }
}

/// Whether a verifier belongs to a user who exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IsKnown(pub(super) bool);

fn failure(error: impl std::error::Error) -> AuthFailure {
    tracing::error!(%error, "cannot check passwords");
    AuthFailure::Backend(error.to_string())
}

/// A password file and its content as last read.
#[derive(Debug)]
pub(super) struct CachedFile {
    file: PasswordFile,
    last: Mutex<Option<(Stamp, Arc<Accounts>)>>,
}

/// Differs when the file was replaced, written, or its mode changed.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        (metadata.mtime(), metadata.mtime_nsec()),
        (metadata.ctime(), metadata.ctime_nsec()),
    )
}

impl CachedFile {
    fn new(path: PathBuf) -> Self {
        CachedFile { file: PasswordFile::new(path), last: Mutex::new(None) }
    }

    /// The content of the file as it is now. A file that became unusable is an
    /// error, whatever it said before.
    fn accounts(&self) -> Result<Arc<Accounts>, PasswordFileError> {
        let io = |source: io::Error| self.file.io_error(source);
        let now = stamp(&std::fs::metadata(self.file.path()).map_err(io)?);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read_at, accounts)) = &*last
            && *read_at == now
        {
            return Ok(Arc::clone(accounts));
        }
        *last = None;
        let open = self.file.open()?;
        let read_at = stamp(&open.metadata().map_err(io)?);
        let accounts = Arc::new(self.file.load_open(&open)?);
        *last = Some((read_at, Arc::clone(&accounts)));
        Ok(accounts)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn changes_of_the_file_take_effect_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cyrbk.passwd");
        let file = PasswordFile::new(&path);
        let backend = Backend::new(PasswordSource::File(path.clone()), "csync".into());
        let missing = backend.is_password("tom", b"one").unwrap_err();
        assert!(missing.to_string().contains("cyrbk passwd USER"), "{missing}");
        file.set_with("tom", "one", 4096).unwrap();
        assert!(backend.is_password("tom", b"one").unwrap());
        file.set_with("tom", "two", 4096).unwrap();
        assert!(!backend.is_password("tom", b"one").unwrap());
        assert!(backend.is_password("tom", b"two").unwrap());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = backend.is_password("tom", b"two").unwrap_err();
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        file.remove("tom").unwrap();
        assert!(!backend.is_password("tom", b"two").unwrap());
        std::fs::remove_file(&path).unwrap();
        backend.is_password("tom", b"two").unwrap_err();
    }

    #[test]
    fn unchanged_files_are_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = CachedFile::new(dir.path().join("cyrbk.passwd"));
        file.file.set_with("tom", "one", 4096).unwrap();
        let first = file.accounts().unwrap();
        assert!(Arc::ptr_eq(&first, &file.accounts().unwrap()));
    }
}
