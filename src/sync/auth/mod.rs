//! Server-side authentication: SASL exchanges against cyrbk's password file, an existing
//! `sasldb2` or saslauthd, and what the user may do afterwards.
//!
//! An [`Authenticator`] is made once from plain configuration values; each
//! AUTHENTICATE starts an [`Exchange`]. Both block: a password check costs some
//! 10 ms of computation, or up to 30 s of waiting for saslauthd, so they belong
//! on a worker thread. Messages are raw octets here; [`decode_base64`] and
//! [`encode_base64`] make and read the protocol's lines.
//!
//! The client is told as little as possible: an unknown user, a wrong password
//! and a denied proxy get the same words, and SCRAM goes on with made-up keys.
//! What really happened is in the [`AuthFailure`], for the log.

mod backend;
mod bindings;
mod cached_file;
mod exchange;
mod password_file;
mod policy;
mod saslauthd;
mod sasldb;
mod scram;
mod stamp;
mod stores;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use self::bindings::ChannelBindings;
pub use self::exchange::Exchange;
pub use self::password_file::{Accounts, PasswordFile, PasswordFileError};
pub use self::policy::{MAX_NAME_LEN, NameError, NamePolicy, is_admin};
pub use self::saslauthd::DEFAULT_PATH as DEFAULT_SASLAUTHD_PATH;
pub use self::sasldb::DEFAULT_PATH as DEFAULT_SASLDB_PATH;
pub use self::verifier::{MAX_PASSWORD_LEN, PasswordError};

pub(crate) use self::policy::printable;

use self::backend::Backend;
use self::verifier::ScramHash;

/// The longest base64 line of a client, without its line end.
pub const MAX_BASE64_LINE: usize = 21_848;
/// The longest message of a client, in octets before base64.
pub const MAX_MESSAGE_LEN: usize = MAX_BASE64_LINE / 4 * 3;

/// Everything that authentication is told by the configuration.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// `sasl_mech_list`, in words; without it, or empty, all that are possible.
    pub mechs: Option<Vec<String>>,
    /// `sasl_pwcheck_method`, with the places that belong to it.
    pub sources: PasswordSources,
    /// `admins`, in words.
    pub admins: Vec<String>,
    /// `allowplaintext`: PLAIN and LOGIN also on a channel that is not private.
    pub allow_plaintext: bool,
    /// `sasl_minimum_layer`: above 0, nothing at all on a channel that is not private. No
    /// mechanism here brings a layer of its own.
    pub minimum_layer: u32,
    /// How user names are understood.
    pub names: NamePolicy,
    /// The SASL service name, `csync`; saslauthd is told it.
    pub service: String,
    /// `failedloginpause`: how long the caller lets a failure wait.
    pub failed_login_pause: Duration,
}

/// Who knows the passwords. All that are named are asked, in this order.
#[derive(Clone, Debug, Default)]
pub struct PasswordSources {
    /// cyrbk's own password file.
    pub file: Option<PathBuf>,
    /// The data base of `saslpasswd2`.
    pub sasldb: Option<SasldbSource>,
    /// Whether these two also check the passwords of PLAIN and LOGIN: the word `auxprop` in
    /// `sasl_pwcheck_method`. SCRAM takes its keys from them in any case.
    pub stores_check_plain: bool,
    /// saslauthd, by its socket or the directory of its socket.
    pub saslauthd: Option<PathBuf>,
}

/// Where `sasldb2` is, and whose users it holds.
#[derive(Clone, Debug)]
pub struct SasldbSource {
    /// `sasl_sasldb_path`
    pub path: PathBuf,
    /// `servername`: the realm of users who are not `user@realm`.
    pub server_name: String,
}

impl PasswordSources {
    /// The password file alone.
    pub fn file(path: impl Into<PathBuf>) -> PasswordSources {
        PasswordSources {
            file: Some(path.into()),
            stores_check_plain: true,
            ..PasswordSources::default()
        }
    }

    /// saslauthd alone.
    pub fn saslauthd(path: impl Into<PathBuf>) -> PasswordSources {
        PasswordSources { saslauthd: Some(path.into()), ..PasswordSources::default() }
    }
}

/// The SASL mechanisms of this server, the ones to prefer first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mech {
    Scram(ScramHash),
    /// Bound to the TLS connection.
    ScramPlus(ScramHash),
    Plain,
    Login,
    /// Something outside knows who the client is: not one of `ALL`, as it is not for all.
    External,
}

impl Mech {
    const ALL: [Mech; 6] = [
        Mech::ScramPlus(ScramHash::Sha256),
        Mech::ScramPlus(ScramHash::Sha1),
        Mech::Scram(ScramHash::Sha256),
        Mech::Scram(ScramHash::Sha1),
        Mech::Plain,
        Mech::Login,
    ];

    const fn name(self) -> &'static str {
        match self {
            Mech::Scram(hash) => hash.mech_name(),
            Mech::ScramPlus(ScramHash::Sha1) => "SCRAM-SHA-1-PLUS",
            Mech::ScramPlus(ScramHash::Sha256) => "SCRAM-SHA-256-PLUS",
            Mech::Plain => "PLAIN",
            Mech::Login => "LOGIN",
            Mech::External => "EXTERNAL",
        }
    }

    /// Whether it needs something to bind to.
    const fn is_bound(self) -> bool {
        matches!(self, Mech::ScramPlus(_))
    }

    /// Whether an eavesdropper learns the password.
    const fn is_plaintext(self) -> bool {
        matches!(self, Mech::Plain | Mech::Login)
    }
}

/// Starts exchanges. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Authenticator {
    shared: Arc<Shared>,
}

/// What all exchanges of an authenticator have in common.
#[derive(Debug)]
struct Shared {
    mechs: Vec<Mech>,
    offers_external: bool,
    admins: Vec<String>,
    allow_plaintext: bool,
    needs_private: bool,
    names: NamePolicy,
    backend: Backend,
    failed_login_pause: Duration,
}

impl Authenticator {
    /// Takes the configuration, and warns in the log of what cannot work: a
    /// password file that is missing or not private, mechanisms that this
    /// server does not have.
    pub fn new(config: AuthConfig) -> Self {
        let wanted = config.mechs.filter(|mechs| !mechs.is_empty());
        let is_wanted = |mech: &Mech| match &wanted {
            Some(list) => list.iter().any(|w| w.eq_ignore_ascii_case(mech.name())),
            // libsasl can bind to `tls-unique` alone, which is not to be had: a client that chose
            // one of these could not log in any more.
            None => !matches!(mech, Mech::ScramPlus(_)),
        };
        let backend = Backend::new(config.sources, config.service);
        let is_possible = |mech: &Mech| match mech.is_plaintext() {
            true => backend.checks_passwords(),
            false => backend.has_secrets(),
        };
        let mechs: Vec<Mech> =
            Mech::ALL.into_iter().filter(|mech| is_wanted(mech) && is_possible(mech)).collect();
        // Only by name: whoever a certificate authority of the system has ever certified
        // would be let in otherwise.
        let offers_external = wanted.is_some() && is_wanted(&Mech::External);
        let all = mechs.iter().chain(offers_external.then_some(&Mech::External));
        let has = |word: &str| all.clone().any(|m| m.name().eq_ignore_ascii_case(word));
        for mech in wanted.iter().flatten().filter(|word| !has(word)) {
            tracing::warn!(%mech, "sasl_mech_list: this mechanism is not available");
        }
        backend.warn_if_unusable();
        Authenticator {
            shared: Arc::new(Shared {
                mechs,
                offers_external,
                admins: config.admins,
                allow_plaintext: config.allow_plaintext,
                needs_private: config.minimum_layer > 0,
                names: config.names,
                backend,
                failed_login_pause: config.failed_login_pause,
            }),
        }
    }

    /// The mechanisms for the `* SASL` line; none means no such line.
    /// `is_private` says that the channel is encrypted (TLS, or `-p`).
    pub fn mechanisms(&self, is_private: bool) -> Vec<&'static str> {
        let admitted = |mech: &&Mech| self.admits(**mech, is_private) && !mech.is_bound();
        let names = self.shared.mechs.iter().filter(admitted);
        names.map(|mech| mech.name()).collect()
    }

    /// Those to be named in front of them where there is something to bind to.
    pub fn mechanisms_bound(&self) -> Vec<&'static str> {
        let bound = self.shared.mechs.iter().filter(|mech| mech.is_bound());
        bound.map(|mech| mech.name()).collect()
    }

    /// Whether a client with a certificate may authenticate by it.
    pub fn offers_external(&self) -> bool {
        self.shared.offers_external
    }

    /// Begins an exchange of EXTERNAL with a client that is known to be `identity`. The
    /// rest is as for [`Authenticator::start`].
    pub fn start_external(
        &self,
        identity: &str,
        initial: Option<&[u8]>,
    ) -> (Option<Exchange>, Step) {
        if !self.shared.offers_external {
            return (None, Step::Failure(AuthFailure::NoMechanism));
        }
        let mut exchange = Exchange::external(Arc::clone(&self.shared), identity);
        match initial {
            Some(response) => (None, exchange.step(response)),
            None => (Some(exchange), Step::Challenge(Vec::new())),
        }
    }

    /// How long to wait before a failure is told to the client.
    pub fn failed_login_pause(&self) -> Duration {
        self.shared.failed_login_pause
    }

    /// Begins the exchange that `AUTHENTICATE <mech>[ <initial>]` asks for;
    /// `initial` is decoded, see [`decode_initial_response`]. With a challenge
    /// comes the exchange that takes the client's answer.
    pub fn start(
        &self,
        mech: &str,
        initial: Option<&[u8]>,
        is_private: bool,
        bindings: &ChannelBindings,
    ) -> (Option<Exchange>, Step) {
        let mut mechs = self.shared.mechs.iter().filter(|m| !m.is_bound() || !bindings.is_empty());
        let Some(&mech) = mechs.find(|m| m.name().eq_ignore_ascii_case(mech)) else {
            return (None, Step::Failure(AuthFailure::NoMechanism));
        };
        if !self.admits(mech, is_private) {
            return (None, Step::Failure(AuthFailure::EncryptionNeeded));
        }
        let (mut exchange, greeting) =
            Exchange::new(Arc::clone(&self.shared), mech, bindings.clone());
        let step = match initial {
            // Only PLAIN means something with an empty message: an error.
            Some(response) if !response.is_empty() || mech == Mech::Plain => {
                exchange.step(response)
            }
            _ => Step::Challenge(greeting),
        };
        let is_open = matches!(step, Step::Challenge(_));
        (is_open.then_some(exchange), step)
    }

    fn admits(&self, mech: Mech, is_private: bool) -> bool {
        let is_enough = !mech.is_plaintext() || self.shared.allow_plaintext;
        is_private || (is_enough && !self.shared.needs_private)
    }
}

/// What comes next in an exchange.
#[derive(Debug)]
pub enum Step {
    /// Send `+ ` and these octets in base64, and give the answer to the exchange.
    Challenge(Vec<u8>),
    /// Answer `OK Success (...)`.
    Success(Identity),
    /// Answer [`AuthFailure::status_text`].
    Failure(AuthFailure),
}

/// Who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose password it was.
    pub authcid: String,
    /// Whom the session acts for.
    pub authzid: String,
    /// By which mechanism.
    pub mech: &'static str,
    /// Whether the session may do anything at all.
    pub is_admin: bool,
}

/// Why a client was not let in, for the log; the client is told
/// [`AuthFailure::status_text`] only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthFailure {
    /// A wrong password, or no such user.
    #[error("wrong password or unknown user {user:?}")]
    WrongPassword {
        /// In canonical form.
        user: String,
    },
    /// The name cannot be a user's.
    #[error("bad user name {user:?}: {error}")]
    BadUserName {
        /// As sent, control characters replaced.
        user: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// The user's domain is not in `loginrealms`.
    #[error("cross-realm log-in {user:?} denied")]
    CrossRealm {
        /// In canonical form.
        user: String,
    },
    /// Somebody who is not an administrator asked to be somebody else.
    #[error("{authcid:?} may not act for {authzid:?}")]
    ProxyDenied {
        /// Whose password it was.
        authcid: String,
        /// Whom the client asked for.
        authzid: String,
    },
    /// Passwords cannot be checked at the moment.
    #[error("cannot check passwords: {0}")]
    Backend(String),
    /// Not a mechanism of this server.
    #[error("no such mechanism")]
    NoMechanism,
    /// Bad base64, or a message that the mechanism does not know.
    #[error("the client broke the rules of the mechanism")]
    BadProtocol,
    /// A mechanism that shows the password, on a channel that is not private.
    #[error("the mechanism needs an encrypted channel")]
    EncryptionNeeded,
    /// The client sent `*`.
    #[error("the client gave up")]
    Cancelled,
}

impl AuthFailure {
    /// The final line of the AUTHENTICATE command.
    pub fn status_text(&self) -> &'static str {
        match self {
            AuthFailure::WrongPassword { .. }
            | AuthFailure::BadUserName { .. }
            | AuthFailure::CrossRealm { .. }
            | AuthFailure::ProxyDenied { .. } => "NO authentication failure",
            AuthFailure::Backend(_) => "NO generic failure",
            AuthFailure::NoMechanism => "NO no mechanism available",
            AuthFailure::BadProtocol => "NO bad protocol / cancel",
            AuthFailure::EncryptionNeeded => "NO encryption needed to use mechanism",
            AuthFailure::Cancelled => "BAD Client canceled authentication",
        }
    }

    /// Whether the answer waits for `failedloginpause`: all but a cancellation.
    pub fn is_delayed(&self) -> bool {
        !matches!(self, AuthFailure::Cancelled)
    }
}

/// Reads a line that a client sent in answer to a challenge, without its line
/// end: base64 in its one canonical form, or `*`.
pub fn decode_base64(line: &[u8]) -> Result<Vec<u8>, AuthFailure> {
    if line == b"*" {
        return Err(AuthFailure::Cancelled);
    }
    if line.len() > MAX_BASE64_LINE {
        return Err(AuthFailure::BadProtocol);
    }
    STANDARD.decode(line).map_err(|_| AuthFailure::BadProtocol)
}

/// Reads the initial response of an AUTHENTICATE command, where `=` is the
/// empty message.
pub fn decode_initial_response(word: &[u8]) -> Result<Vec<u8>, AuthFailure> {
    match word {
        b"=" => Ok(Vec::new()),
        _ => decode_base64(word),
    }
}

/// What follows `+ ` in the line of a challenge.
pub fn encode_base64(challenge: &[u8]) -> String {
    STANDARD.encode(challenge)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod real_tests;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod bound_tests;
