//! The server's side of SCRAM (RFC 5802), run by rsasl.
//!
//! rsasl 2.3.1 indexes into the client's messages without looking at their
//! length, and panics on `n,a,n=x,r=y`. So each message is held against the
//! grammar here before rsasl sees it; this also yields the names, unescaped,
//! which rsasl does not do.

use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::properties::ScramStoredPassword;
use rsasl::mechanisms::scram::{SCRAM_SHA1, SCRAM_SHA1_PLUS, SCRAM_SHA256, SCRAM_SHA256_PLUS};
use rsasl::mechname::Mechname;
use rsasl::prelude::{
    Mechanism, Registry, SASLConfig, SASLServer, Session, SessionError, State, Validation,
};
use rsasl::validate::{Validate, ValidationError};

use super::Mech;
use super::bindings::ChannelBindings;
use super::verifier::Verifier;

/// Without the -PLUS forms: if one of them were listed, rsasl would take a client's "you do not
/// offer it" for an attack even where it is not offered.
static MECHANISMS: &[Mechanism] = &[SCRAM_SHA256, SCRAM_SHA1];
static MECHANISMS_BOUND: &[Mechanism] = &[SCRAM_SHA256_PLUS, SCRAM_SHA1_PLUS];

/// What a client says about channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding<'m> {
    /// `n`: it cannot.
    NotSupported,
    /// `y`: it can, and thinks that the server cannot.
    NotOffered,
    /// `p=NAME`
    Used(&'m str),
}

/// The names in a client-first-message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst<'m> {
    pub(super) binding: Binding<'m>,
    pub(super) authcid: String,
    pub(super) authzid: Option<String>,
}

/// Checks a client-first-message: `n,[a=NAME],n=NAME,r=NONCE[,ext]...`, with `y`
/// or `p=BINDING`
/// in the place of `n` as well, but without mandatory extensions (`m=...`). `None`: not such a
/// message.
pub(super) fn parse_client_first(message: &[u8]) -> Option<ClientFirst<'_>> {
    let mut parts = std::str::from_utf8(message).ok()?.split(',');
    let binding = match parts.next()? {
        "n" => Binding::NotSupported,
        "y" => Binding::NotOffered,
        other => Binding::Used(other.strip_prefix("p=")?),
    };
    let authzid = match parts.next()? {
        "" => None,
        name => Some(unescape(name.strip_prefix("a=")?)?),
    };
    let authcid = unescape(parts.next()?.strip_prefix("n=")?)?;
    let nonce = parts.next()?.strip_prefix("r=")?;
    let is_nonce = !nonce.is_empty() && nonce.bytes().all(|b| b.is_ascii_graphic());
    (is_nonce && parts.all(is_attribute)).then_some(ClientFirst { binding, authcid, authzid })
}

/// Checks a client-final-message: `c=BASE64,r=NONCE[,ext]...,p=BASE64`.
pub(super) fn is_client_final(message: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(message) else {
        return false;
    };
    let parts: Vec<&str> = text.split(',').collect();
    let [binding, nonce, extensions @ .., proof] = parts.as_slice() else {
        return false;
    };
    binding.starts_with("c=")
        && nonce.starts_with("r=")
        && proof.starts_with("p=")
        && extensions.iter().all(|e| is_attribute(e) && !e.starts_with("p="))
}

/// `letter=value`.
fn is_attribute(part: &str) -> bool {
    matches!(part.as_bytes(), [letter, b'=', ..] if letter.is_ascii_alphabetic())
}

/// Undoes `=2C` and `=3D`; any other `=` is an error, and so is nothing.
fn unescape(name: &str) -> Option<String> {
    let mut pieces = name.split('=');
    let mut plain = pieces.next()?.to_owned();
    for piece in pieces {
        let (sign, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return None,
        };
        plain.push(sign);
        plain.push_str(rest);
    }
    (!plain.is_empty()).then_some(plain)
}

/// One exchange with the verifier of one user.
pub(super) struct ScramServer {
    session: Session<ProofAccepted, ChannelBindings>,
}

/// rsasl could not run; a fault of the program.
#[derive(Debug, thiserror::Error)]
#[error("SCRAM cannot be set up")]
pub(super) struct SetupError;

impl ScramServer {
    pub(super) fn new(
        verifier: Verifier,
        mech: Mech,
        bindings: ChannelBindings,
    ) -> Result<Self, SetupError> {
        let name = mech.name();
        let mechanisms = if mech.is_bound() { MECHANISMS_BOUND } else { MECHANISMS };
        let config = SASLConfig::builder()
            .with_registry(Registry::with_mechanisms(mechanisms))
            .with_callback(OneUser { verifier })
            .map_err(|_| SetupError)?;
        let name = Mechname::parse(name.as_bytes()).map_err(|_| SetupError)?;
        let session = SASLServer::<ProofAccepted, _>::with_cb(config, bindings)
            .start_suggested(name)
            .map_err(|_| SetupError)?;
        Ok(ScramServer { session })
    }

    /// Takes a message that was checked as a client-first-message; returns the
    /// server-first-message. `None`: refused.
    pub(super) fn take_first(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self.session.step(Some(message), &mut out) {
            Ok(State::Running) => Some(out),
            Ok(State::Finished(_)) | Err(_) => None,
        }
    }

    /// Takes a message that was checked as a client-final-message. With the
    /// right proof, returns the server-final-message.
    ///
    /// rsasl reports `Finished` for a wrong proof as well: that the validation
    /// was made is the only sign of success.
    pub(super) fn take_final(mut self, message: &[u8]) -> Result<Vec<u8>, FinalError> {
        let mut out = Vec::new();
        match self.session.step(Some(message), &mut out) {
            Ok(State::Finished(_)) => match self.session.validation() {
                Some(()) => Ok(out),
                None => Err(FinalError::WrongProof),
            },
            Ok(State::Running) | Err(_) => Err(FinalError::Malformed),
        }
    }
}

/// Why a client-final-message was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FinalError {
    WrongProof,
    Malformed,
}

struct ProofAccepted;

impl Validation for ProofAccepted {
    type Value = ();
}

/// Hands rsasl the keys of the one user that the exchange is about.
struct OneUser {
    verifier: Verifier,
}

impl SessionCallback for OneUser {
    fn callback(
        &self,
        _: &SessionData,
        _: &Context,
        request: &mut Request,
    ) -> Result<(), SessionError> {
        let v = &self.verifier;
        let keys = ScramStoredPassword::new(v.iterations, &v.salt, &v.stored_key, &v.server_key);
        request.satisfy::<ScramStoredPassword>(&keys)?;
        Ok(())
    }

    /// rsasl asks this only once the proof was right.
    fn validate(
        &self,
        _: &SessionData,
        _: &Context,
        validate: &mut Validate<'_>,
    ) -> Result<(), ValidationError> {
        validate.with::<ProofAccepted, _>(|| Ok(()))?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn first(message: &str) -> Option<(String, Option<String>)> {
        parse_client_first(message.as_bytes()).map(|f| (f.authcid, f.authzid))
    }

    #[test]
    fn client_first_messages() {
        assert_eq!(first("n,,n=tom,r=abc"), Some(("tom".into(), None)));
        assert_eq!(first("y,,n=tom,r=abc,x=1"), Some(("tom".into(), None)));
        let escaped = Some(("a,b=c".into(), Some("x=,".into())));
        assert_eq!(first("n,a=x=3D=2C,n=a=2Cb=3Dc,r=abc"), escaped);
        let bound = parse_client_first(b"p=tls-exporter,,n=tom,r=abc").unwrap();
        assert_eq!(bound.binding, Binding::Used("tls-exporter"));
        for bad in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n",
            "n,,n=",
            "n,,n=tom",
            "n,,n=tom,",
            "n,,n=tom,r=",
            "n,a,n=tom,r=abc",
            "n,a=,n=tom,r=abc",
            "x,,n=tom,r=abc",
            "p,,n=tom,r=abc",
            "n,,m=1,n=tom,r=abc",
            "n,,n=t=om,r=abc",
            "n,,n=t=2c,r=abc",
            "n,,n=t=2,r=abc",
            "n,,n=tom,r=a b",
            "n,,n=tom,r=a\u{e9}",
            "n,,n=tom,r=abc,",
            "n,,n=tom,r=abc,x",
        ] {
            assert_eq!(first(bad), None, "{bad}");
        }
        assert_eq!(parse_client_first(b"n,,n=t\xff,r=abc"), None);
    }

    #[test]
    fn client_final_messages() {
        assert!(is_client_final(b"c=biws,r=abc,p=AAAA"));
        assert!(is_client_final(b"c=biws,r=abc,x=1,p=AAAA"));
        for bad in [
            "",
            "c",
            "c=biws",
            "c=biws,r=abc",
            "c=biws,p=AAAA",
            "c=biws,r=abc,p",
            "r=abc,c=x,p=x",
            "c=biws,r=abc,p=AAAA,",
            "c=biws,r=abc,x,p=AAAA",
            "c=biws,r=abc,p=A,p=A",
            "c=biws,r=abc,,p=A",
            "c=biws,r=abc,\u{e9}=,p=A",
        ] {
            assert!(!is_client_final(bad.as_bytes()), "{bad}");
        }
        assert!(!is_client_final(b"c=biws,r=\xff,p=AAAA"));
    }
}
