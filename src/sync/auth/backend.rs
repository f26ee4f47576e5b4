//! Where passwords are checked: cyrbk's password file and libsasl's `sasldb2`, which hold
//! secrets, and saslauthd, which answers.

use std::path::PathBuf;

use super::saslauthd;
use super::stores::{IsKnown, Stores};
use super::verifier::{ScramHash, Verifier};
use super::{AuthFailure, PasswordSources};

/// The sources of passwords, shared by all exchanges.
#[derive(Debug)]
pub(super) struct Backend {
    stores: Stores,
    stores_check_plain: bool,
    saslauthd: Option<PathBuf>,
    service: String,
}

impl Backend {
    pub(super) fn new(sources: PasswordSources, service: String) -> Self {
        Backend {
            stores: Stores::new(sources.file, sources.sasldb),
            stores_check_plain: sources.stores_check_plain,
            saslauthd: sources.saslauthd,
            service,
        }
    }

    /// Whether there are secrets, which SCRAM needs.
    pub(super) fn has_secrets(&self) -> bool {
        self.stores.is_any()
    }

    /// Whether there is anybody to check a password that was sent.
    pub(super) fn checks_passwords(&self) -> bool {
        self.saslauthd.is_some() || (self.stores_check_plain && self.stores.is_any())
    }

    /// An early word to the log; the same is found again at each log-in.
    pub(super) fn warn_if_unusable(&self) {
        if self.stores.is_any() {
            self.stores.warn_if_unusable();
        }
    }

    /// Whether `password` is that of the canonical `user`: the first source that says yes
    /// counts, as in Cyrus.
    pub(super) fn is_password(&self, user: &str, password: &[u8]) -> Result<bool, AuthFailure> {
        let by_store = match self.stores_check_plain {
            true => self.stores.is_password(user, password),
            false => Ok(false),
        };
        match &self.saslauthd {
            Some(path) if !matches!(by_store, Ok(true)) => {
                let timeout = saslauthd::TIMEOUT;
                saslauthd::check(path, &self.service, user, password, timeout).map_err(failure)
            }
            _ => by_store,
        }
    }

    /// The verifier of `user`, or the made-up one to go on with.
    pub(super) fn verifier(
        &self,
        hash: ScramHash,
        user: &str,
    ) -> Result<(Verifier, IsKnown), AuthFailure> {
        self.stores.verifier(hash, user)
    }
}

/// For the log, in full; the client learns that there was one.
pub(super) fn failure(error: impl std::error::Error) -> AuthFailure {
    tracing::error!(%error, "cannot check passwords");
    AuthFailure::Backend(error.to_string())
}
