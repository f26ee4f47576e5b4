//! The stores of secrets: cyrbk's password file, then `sasldb2`. Either may be missing.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2_scram::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::backend::failure;
use super::cached_file::CachedFile;
use super::password_file::{Accounts, PasswordFileError};
use super::sasldb::{Sasldb, SasldbError};
use super::verifier::{
    DEFAULT_ITERATIONS, MIN_ITERATIONS, SALT_LEN, ScramHash, Verifier, prepare_password,
    secret_octets,
};
use super::{AuthFailure, SasldbSource};

/// See the module.
#[derive(Debug)]
pub(super) struct Stores {
    file: Option<CachedFile>,
    sasldb: Option<Sasldb>,
    /// From what the salts of `sasldb2` are made, which has none.
    secret: Result<[u8; 32], getrandom::Error>,
}

/// Whether a verifier belongs to a user who exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IsKnown(pub(super) bool);

impl Stores {
    pub(super) fn new(file: Option<PathBuf>, sasldb: Option<SasldbSource>) -> Self {
        let mut secret = [0; 32];
        Stores {
            file: file.map(CachedFile::new),
            sasldb: sasldb.map(|source| Sasldb::new(source.path, &source.server_name)),
            secret: getrandom::fill(&mut secret).map(|()| secret),
        }
    }

    pub(super) fn is_any(&self) -> bool {
        self.file.is_some() || self.sasldb.is_some()
    }

    pub(super) fn warn_if_unusable(&self) {
        let accounts = self.accounts();
        match (accounts, self.sasldb.as_ref().map(Sasldb::check)) {
            (Err(error), _) => tracing::warn!(%error, "nobody can log in"),
            (Ok(None), None) => {}
            (Ok(_), None | Some(Ok(()))) => {}
            (Ok(None), Some(Err(error))) => tracing::warn!(%error, "nobody can log in"),
            (Ok(Some(_)), Some(Err(error))) if error.is_missing() => {}
            (Ok(Some(_)), Some(Err(error))) => {
                tracing::warn!(%error, "only users of the password file can log in");
            }
        }
    }

    /// Whether `password` is that of the canonical `user`. For a user who does not exist it
    /// takes as long as for others.
    pub(super) fn is_password(&self, user: &str, password: &[u8]) -> Result<bool, AuthFailure> {
        let accounts = self.accounts().map_err(failure)?;
        if let Some(accounts) = &accounts {
            let hash = ScramHash::Sha256;
            let verifier = accounts.verifier(hash, user);
            let prepared = prepare_password(password).unwrap_or_default();
            let is_right = match verifier {
                Some(verifier) => verifier.matches(&prepared),
                None => accounts.decoy(hash, user).matches(&prepared),
            };
            if verifier.is_some() {
                return Ok(is_right && !prepared.is_empty());
            }
        }
        let secret = self.sasldb_password(user, accounts.is_some())?;
        let digest = |octets: &[u8]| Sha256::digest(octets);
        let expected = digest(secret.as_deref().unwrap_or_default());
        let is_same: bool = digest(password).ct_eq(&expected).into();
        Ok(is_same && secret.is_some())
    }

    /// The verifier of `user`, or the made-up one to go on with.
    pub(super) fn verifier(
        &self,
        hash: ScramHash,
        user: &str,
    ) -> Result<(Verifier, IsKnown), AuthFailure> {
        let accounts = self.accounts().map_err(failure)?;
        if let Some(verifier) = accounts.as_ref().and_then(|file| file.verifier(hash, user)) {
            return Ok((verifier.clone(), IsKnown(true)));
        }
        match (&accounts, &self.sasldb) {
            (Some(accounts), None) => Ok((accounts.decoy(hash, user), IsKnown(false))),
            _ => self.derive(hash, user, accounts.as_deref()),
        }
    }

    /// Keys from the plain text of `sasldb2`. For a user who does not exist they are derived
    /// as well, from nothing: it takes as long, and looks the same.
    fn derive(
        &self,
        hash: ScramHash,
        user: &str,
        accounts: Option<&Accounts>,
    ) -> Result<(Verifier, IsKnown), AuthFailure> {
        let password = self.sasldb_password(user, accounts.is_some())?;
        let secret = self.secret.as_ref().map_err(|e| failure(*e))?;
        let salt = secret_octets(secret, "salt", hash, user, SALT_LEN);
        let octets = match &password {
            Some(password) => password.clone(),
            None => STANDARD_NO_PAD.encode(secret_octets(secret, "none", hash, user, 16)).into(),
        };
        // As many rounds as users of the password file have, so that nobody sees who is where;
        // without one, as many as libsasl.
        let iterations = if accounts.is_some() { DEFAULT_ITERATIONS } else { MIN_ITERATIONS };
        let verifier = Verifier::derive(hash, &octets, iterations, &salt);
        Ok((verifier, IsKnown(password.is_some())))
    }

    /// The content of the password file; `None` if there is none, and `sasldb2` may do.
    fn accounts(&self) -> Result<Option<Arc<Accounts>>, PasswordFileError> {
        match self.file.as_ref().map(CachedFile::accounts).transpose() {
            Err(PasswordFileError::Missing { .. }) if self.has_sasldb() => Ok(None),
            other => other,
        }
    }

    fn has_sasldb(&self) -> bool {
        self.sasldb.as_ref().is_some_and(|db| db.path().exists())
    }

    /// Beside a password file it may be missing, or nobody's here to read: then unknown users
    /// are what they are without it.
    fn sasldb_password(
        &self,
        user: &str,
        has_accounts: bool,
    ) -> Result<Option<Vec<u8>>, AuthFailure> {
        match self.sasldb.as_ref().map(|db| db.password(user)) {
            None => Ok(None),
            Some(Err(error)) if has_accounts && error.is_out_of_reach() => Ok(None),
            Some(result) => result.map_err(|error: SasldbError| failure(error)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::password_file::PasswordFile;
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    fn sasldb(path: PathBuf) -> Option<SasldbSource> {
        Some(SasldbSource { path, server_name: "mail.example.com".into() })
    }

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sasldb").join(name)
    }

    #[test]
    fn changes_of_the_password_file_take_effect_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cyrbk.passwd");
        let file = PasswordFile::new(&path);
        let stores = Stores::new(Some(path.clone()), None);
        let missing = stores.is_password("tom", b"one").unwrap_err();
        assert!(missing.to_string().contains("cyrbk passwd USER"), "{missing}");
        file.set_with("tom", "one", 4096).unwrap();
        assert!(stores.is_password("tom", b"one").unwrap());
        file.set_with("tom", "two", 4096).unwrap();
        assert!(!stores.is_password("tom", b"one").unwrap());
        assert!(stores.is_password("tom", b"two").unwrap());
        assert!(!stores.is_password("tom", b"two\0").unwrap());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let refused = stores.is_password("tom", b"two").unwrap_err();
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        file.remove("tom").unwrap();
        assert!(!stores.is_password("tom", b"two").unwrap());
        std::fs::remove_file(&path).unwrap();
        stores.is_password("tom", b"two").unwrap_err();
    }

    #[test]
    fn changes_of_sasldb_take_effect_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sasldb2");
        let stores = Stores::new(None, sasldb(path.clone()));
        let missing = stores.is_password("user1", b"password-1").unwrap_err();
        assert!(missing.to_string().contains("sasldb2: No such file"), "{missing}");
        std::fs::copy(fixture("many"), &path).unwrap();
        assert!(stores.is_password("user1", b"password-1").unwrap());
        assert!(!stores.is_password("user1", b"password-2").unwrap());
        assert!(!stores.is_password("user1", b"").unwrap());
        assert!(!stores.is_password("nobody", b"").unwrap());
        let mut changed = std::fs::read(&path).unwrap();
        for at in 0..changed.len() - 11 {
            if changed[at..].starts_with(b"\x01password-1") {
                changed[at + 1] = b'P';
            }
        }
        std::fs::write(&path, &changed).unwrap();
        assert!(!stores.is_password("user1", b"password-1").unwrap());
        assert!(stores.is_password("user1", b"Password-1").unwrap());
        std::fs::write(&path, b"garbage").unwrap();
        stores.is_password("user1", b"Password-1").unwrap_err();
    }

    #[test]
    fn the_password_file_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cyrbk.passwd");
        let stores = Stores::new(Some(path.clone()), sasldb(fixture("many")));
        assert!(stores.is_password("user1", b"password-1").unwrap());
        PasswordFile::new(&path).set_with("user1", "mine", 4096).unwrap();
        assert!(!stores.is_password("user1", b"password-1").unwrap());
        assert!(stores.is_password("user1", b"mine").unwrap());
        assert!(stores.is_password("user2", b"password-2").unwrap());
        let only_file = Stores::new(Some(path), sasldb(dir.path().join("none")));
        assert!(only_file.is_password("user1", b"mine").unwrap());
        assert!(!only_file.is_password("user2", b"password-2").unwrap());
    }

    #[test]
    fn who_does_not_exist_cannot_be_told_from_who_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cyrbk.passwd");
        let stores = Stores::new(Some(path.clone()), sasldb(fixture("many")));
        let rounds = |user: &str, known: bool| {
            let (verifier, is_known) = stores.verifier(ScramHash::Sha1, user).unwrap();
            assert_eq!(is_known, IsKnown(known), "{user}");
            assert_eq!(verifier, stores.verifier(ScramHash::Sha1, user).unwrap().0, "{user}");
            (verifier.iterations, verifier.salt.len())
        };
        assert_eq!(rounds("user1", true), (4096, SALT_LEN));
        assert_eq!(rounds("nobody", false), (4096, SALT_LEN));
        PasswordFile::new(&path).set("tom", "mine").unwrap();
        for (user, known) in [("tom", true), ("user1", true), ("nobody", false)] {
            assert_eq!(rounds(user, known), (DEFAULT_ITERATIONS, SALT_LEN), "{user}");
        }
    }
}
