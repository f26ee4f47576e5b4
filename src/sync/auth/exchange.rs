//! One SASL exchange: the client's messages in, challenges and the verdict out.
//!
//! PLAIN (RFC 4616) and LOGIN are done here rather than by rsasl: its PLAIN
//! changes the password (SASLprep) before saslauthd would see it, its LOGIN
//! ignores an initial response.

use std::mem;
use std::sync::Arc;

use super::bindings::ChannelBindings;
use super::policy::{authorise, printable};
use super::scram::{Binding, FinalError, ScramServer, is_client_final, parse_client_first};
use super::stores::IsKnown;
use super::verifier::ScramHash;
use super::{AuthFailure, Identity, MAX_MESSAGE_LEN, Mech, Shared, Step};

/// An exchange that waits for the client. After a success or a failure it
/// takes nothing more.
pub struct Exchange {
    shared: Arc<Shared>,
    mech: Mech,
    bindings: ChannelBindings,
    state: State,
}

/// Named for what is expected from the client.
enum State {
    PlainMessage,
    /// Whom the client wants to act for.
    ExternalMessage {
        identity: String,
    },
    LoginUser,
    LoginPassword {
        user: String,
    },
    ScramFirst(ScramHash),
    ScramFinal(Box<Proof>),
    /// The client's empty answer to the server-final-message.
    ScramAck(Identity),
    Over,
}

/// What a SCRAM exchange knows when it waits for the proof.
struct Proof {
    server: ScramServer,
    /// Canonical, or why it is not.
    user: Result<String, AuthFailure>,
    is_known: IsKnown,
    authzid: Option<String>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("mech", &self.mech).finish_non_exhaustive()
    }
}

impl Exchange {
    /// The exchange, and the challenge for a client that did not send anything yet.
    pub(super) fn new(
        shared: Arc<Shared>,
        mech: Mech,
        bindings: ChannelBindings,
    ) -> (Self, Vec<u8>) {
        let (state, greeting): (_, &[u8]) = match mech {
            // Has a constructor of its own.
            Mech::External => (State::Over, b""),
            Mech::Plain => (State::PlainMessage, b""),
            Mech::Login => (State::LoginUser, b"Username:"),
            Mech::Scram(hash) | Mech::ScramPlus(hash) => (State::ScramFirst(hash), b""),
        };
        let exchange = Exchange { shared, mech, bindings, state };
        (exchange, greeting.to_vec())
    }

    /// An exchange of EXTERNAL with a client that is `identity`.
    pub(super) fn external(shared: Arc<Shared>, identity: &str) -> Self {
        let state = State::ExternalMessage { identity: identity.to_owned() };
        Exchange { shared, mech: Mech::External, bindings: ChannelBindings::default(), state }
    }

    /// Takes the client's answer to the last challenge, decoded. Blocks while
    /// the password is checked.
    pub fn step(&mut self, response: &[u8]) -> Step {
        let state = mem::replace(&mut self.state, State::Over);
        self.take(state, response).unwrap_or_else(Step::Failure)
    }

    fn take(&mut self, state: State, response: &[u8]) -> Result<Step, AuthFailure> {
        if response.len() > MAX_MESSAGE_LEN {
            return Err(AuthFailure::BadProtocol);
        }
        match state {
            State::PlainMessage => {
                let mut parts = response.split(|&b| b == 0);
                let (Some(authzid), Some(user), Some(password), None) =
                    (parts.next(), parts.next(), parts.next(), parts.next())
                else {
                    return Err(AuthFailure::BadProtocol);
                };
                let user = self.canonical(&String::from_utf8_lossy(user))?;
                let authzid = String::from_utf8_lossy(authzid);
                self.check_password(&user, password, Some(&authzid))
            }
            State::ExternalMessage { identity } => {
                let user = self.canonical(&identity)?;
                let authzid = String::from_utf8_lossy(response);
                self.authorise(&user, Some(&authzid)).map(Step::Success)
            }
            State::LoginUser => {
                let user = String::from_utf8_lossy(response).into_owned();
                self.state = State::LoginPassword { user };
                Ok(Step::Challenge(b"Password:".to_vec()))
            }
            State::LoginPassword { user } => {
                let user = self.canonical(&user)?;
                self.check_password(&user, response, None)
            }
            State::ScramFirst(hash) => self.start_scram(hash, response),
            State::ScramFinal(proof) => self.check_proof(*proof, response),
            State::ScramAck(identity) if response.is_empty() => Ok(Step::Success(identity)),
            State::ScramAck(_) | State::Over => Err(AuthFailure::BadProtocol),
        }
    }

    fn check_password(
        &self,
        user: &str,
        password: &[u8],
        authzid: Option<&str>,
    ) -> Result<Step, AuthFailure> {
        if password.is_empty() || !self.shared.backend.is_password(user, password)? {
            return Err(AuthFailure::WrongPassword { user: user.to_owned() });
        }
        self.authorise(user, authzid).map(Step::Success)
    }

    /// A name that cannot be a user goes on like an unknown one.
    fn start_scram(&mut self, hash: ScramHash, message: &[u8]) -> Result<Step, AuthFailure> {
        let first = parse_client_first(message).ok_or(AuthFailure::BadProtocol)?;
        if !self.admits(first.binding) {
            return Err(AuthFailure::BadProtocol);
        }
        let user = self.canonical(&first.authcid);
        let looked_up = user.as_deref().unwrap_or(&first.authcid);
        let (verifier, is_known) = self.shared.backend.verifier(hash, looked_up)?;
        let mut server = ScramServer::new(verifier, self.mech, self.bindings.clone())
            .map_err(|e| AuthFailure::Backend(e.to_string()))?;
        let challenge = server.take_first(message).ok_or(AuthFailure::BadProtocol)?;
        self.state =
            State::ScramFinal(Box::new(Proof { server, user, is_known, authzid: first.authzid }));
        Ok(Step::Challenge(challenge))
    }

    fn check_proof(&mut self, proof: Proof, message: &[u8]) -> Result<Step, AuthFailure> {
        if !is_client_final(message) {
            return Err(AuthFailure::BadProtocol);
        }
        let verdict = proof.server.take_final(message);
        let user = proof.user?;
        let server_final = match verdict {
            Ok(server_final) if proof.is_known == IsKnown(true) => server_final,
            Ok(_) | Err(FinalError::WrongProof) => {
                return Err(AuthFailure::WrongPassword { user });
            }
            Err(FinalError::Malformed) => return Err(AuthFailure::BadProtocol),
        };
        let identity = self.authorise(&user, proof.authzid.as_deref())?;
        self.state = State::ScramAck(identity);
        Ok(Step::Challenge(server_final))
    }

    /// Whether a client may say this about channel binding. One that could bind, and believes
    /// that this server cannot, was told so by somebody in the middle (RFC 5802, 6).
    fn admits(&self, binding: Binding<'_>) -> bool {
        match (self.mech.is_bound(), binding) {
            (true, Binding::Used(name)) => self.bindings.named(name).is_some(),
            (true, _) | (false, Binding::Used(_)) => false,
            (false, Binding::NotOffered) => {
                self.bindings.is_empty() || !self.shared.mechs.iter().any(|mech| mech.is_bound())
            }
            (false, Binding::NotSupported) => true,
        }
    }

    fn canonical(&self, name: &str) -> Result<String, AuthFailure> {
        let canonical = self.shared.names.canonical(name);
        canonical.map_err(|error| AuthFailure::BadUserName { user: printable(name), error })
    }

    fn authorise(&self, user: &str, authzid: Option<&str>) -> Result<Identity, AuthFailure> {
        let Shared { names, admins, .. } = &*self.shared;
        authorise(names, admins, self.mech, user, authzid)
    }
}
