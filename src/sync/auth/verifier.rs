//! SCRAM verifiers: what a server keeps instead of a password (RFC 5802,
//! section 3), and their text form.
//!
//! ```text
//! SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>     binary parts in base64
//! ```
//!
//! This is the form PostgreSQL uses for its own SCRAM verifiers.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rsasl::mechanisms::scram::tools::{derive_keys, hash_password};
use sha1_scram::Sha1;
use sha2_scram::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Rounds for new passwords: the most that libsasl's client computes (it gives
/// up at 65537). A log-in costs either side some 10 ms, once per connection;
/// whoever stole the file pays it for every guess.
pub(super) const DEFAULT_ITERATIONS: u32 = 65_536;
/// The least that RFC 5802 admits.
pub(super) const MIN_ITERATIONS: u32 = 4096;
/// Length of the salts, in octets.
pub(super) const SALT_LEN: usize = 16;
/// The longest password, in octets of UTF-8.
pub const MAX_PASSWORD_LEN: usize = 1024;

/// The digest of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScramHash {
    /// SCRAM-SHA-1.
    Sha1,
    /// SCRAM-SHA-256.
    Sha256,
}

impl ScramHash {
    /// The mechanism's name.
    pub(crate) const fn mech_name(self) -> &'static str {
        match self {
            ScramHash::Sha1 => "SCRAM-SHA-1",
            ScramHash::Sha256 => "SCRAM-SHA-256",
        }
    }

    const fn len_key(self) -> usize {
        match self {
            ScramHash::Sha1 => 20,
            ScramHash::Sha256 => 32,
        }
    }
}

/// One verifier of one user.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Verifier {
    /// Which mechanism it serves.
    pub(super) hash: ScramHash,
    /// PBKDF2 rounds.
    pub(super) iterations: u32,
    /// Salt of the PBKDF2.
    pub(super) salt: Vec<u8>,
    /// `H(ClientKey)`: what a client's proof is checked against.
    pub(super) stored_key: Vec<u8>,
    /// What the server proves itself with.
    pub(super) server_key: Vec<u8>,
}

/// Keys do not belong into a log.
impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("hash", &self.hash)
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

/// Why a password cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing was left of it.
    #[error("the password is empty")]
    Empty,
    /// More than [`MAX_PASSWORD_LEN`] octets.
    #[error("the password is longer than {MAX_PASSWORD_LEN} octets")]
    TooLong,
    /// Not UTF-8.
    #[error("the password is not valid UTF-8")]
    NotUtf8,
    /// SASLprep (RFC 4013) forbids a character in it.
    #[error("the password contains a character that SASLprep forbids")]
    Prohibited,
}

/// The form in which passwords are hashed: SASLprep (RFC 4013).
pub(super) fn prepare_password(password: &[u8]) -> Result<Cow<'_, str>, PasswordError> {
    if password.len() > MAX_PASSWORD_LEN {
        return Err(PasswordError::TooLong);
    }
    let text = std::str::from_utf8(password).map_err(|_| PasswordError::NotUtf8)?;
    let prepared = stringprep::saslprep(text).map_err(|_| PasswordError::Prohibited)?;
    if prepared.is_empty() {
        return Err(PasswordError::Empty);
    }
    Ok(prepared)
}

impl Verifier {
    /// Derives the verifier of a password: in the form that [`prepare_password`] returned,
    /// or as it is, which is what libsasl does on either side.
    pub(super) fn derive(hash: ScramHash, password: &[u8], iterations: u32, salt: &[u8]) -> Self {
        let (stored_key, server_key) = match hash {
            ScramHash::Sha1 => keys_sha1(password, iterations, salt),
            ScramHash::Sha256 => keys_sha256(password, iterations, salt),
        };
        Verifier { hash, iterations, salt: salt.to_vec(), stored_key, server_key }
    }

    /// A verifier that no password matches, for the user `name` who does not
    /// exist. The same secret and name always give the same salt, so that
    /// asking twice does not tell an unknown user from a wrong password.
    pub(super) fn decoy(hash: ScramHash, secret: &[u8], name: &str) -> Self {
        Verifier {
            hash,
            iterations: DEFAULT_ITERATIONS,
            salt: secret_octets(secret, "salt", hash, name, SALT_LEN),
            stored_key: secret_octets(secret, "stored", hash, name, hash.len_key()),
            server_key: secret_octets(secret, "server", hash, name, hash.len_key()),
        }
    }

    /// Whether `prepared` is the password, in time that depends on neither.
    pub(super) fn matches(&self, prepared: &str) -> bool {
        let tried = Verifier::derive(self.hash, prepared.as_bytes(), self.iterations, &self.salt);
        tried.stored_key.ct_eq(&self.stored_key).into()
    }

    /// The text form.
    pub(super) fn to_text(&self) -> String {
        format!(
            "{}${}:{}${}:{}",
            self.hash.mech_name(),
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(&self.stored_key),
            STANDARD.encode(&self.server_key)
        )
    }

    /// Reads the text form of a verifier for `hash`; the error says what is wrong.
    pub(super) fn parse(hash: ScramHash, text: &str) -> Result<Self, &'static str> {
        let mut parts = text.split('$');
        if parts.next() != Some(hash.mech_name()) {
            return Err("a verifier of another mechanism was expected");
        }
        let (Some(cost), Some(keys), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err("a verifier has three parts separated by \"$\"");
        };
        let (iterations, salt) = cost.split_once(':').ok_or("no salt")?;
        let (stored_key, server_key) = keys.split_once(':').ok_or("no ServerKey")?;
        let iterations = iterations.parse().map_err(|_| "bad iteration count")?;
        if !(MIN_ITERATIONS..=DEFAULT_ITERATIONS).contains(&iterations) {
            return Err("the iteration count is not within 4096 and 65536");
        }
        let decode = |part| STANDARD.decode(part).map_err(|_| "bad base64");
        let verifier = Verifier {
            hash,
            iterations,
            salt: decode(salt)?,
            stored_key: decode(stored_key)?,
            server_key: decode(server_key)?,
        };
        let lens = (verifier.stored_key.len(), verifier.server_key.len());
        if lens != (hash.len_key(), hash.len_key()) || verifier.salt.is_empty() {
            return Err("a key has the wrong length");
        }
        Ok(verifier)
    }
}

fn keys_sha1(password: &[u8], iterations: u32, salt: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut salted = Default::default();
    hash_password::<Sha1>(password, iterations, salt, &mut salted);
    let (client_key, server_key) = derive_keys::<Sha1>(&salted);
    (Sha1::digest(client_key).to_vec(), server_key.to_vec())
}

fn keys_sha256(password: &[u8], iterations: u32, salt: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut salted = Default::default();
    hash_password::<Sha256>(password, iterations, salt, &mut salted);
    let (client_key, server_key) = derive_keys::<Sha256>(&salted);
    (Sha256::digest(client_key).to_vec(), server_key.to_vec())
}

/// One round of PBKDF2 is HMAC keyed with the secret: a pseudo-random function.
pub(super) fn secret_octets(
    secret: &[u8],
    what: &str,
    hash: ScramHash,
    name: &str,
    len: usize,
) -> Vec<u8> {
    let input = format!("{what}\0{}\0{name}", hash.mech_name());
    let mut out = Default::default();
    hash_password::<Sha256>(secret, 1, input.as_bytes(), &mut out);
    out.iter().copied().take(len).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The example exchanges of RFC 5802 (section 5) and RFC 7677 (section 3):
    /// with these keys their server signatures come out.
    #[test]
    fn keys_of_the_rfc_examples() {
        let salt = STANDARD.decode("QSXCR+Q6sek8bf92").unwrap();
        let sha1 = Verifier::derive(ScramHash::Sha1, b"pencil", 4096, &salt);
        assert_eq!(STANDARD.encode(&sha1.stored_key), "6dlGYMOdZcOPutkcNY8U2g7vK9Y=");
        assert_eq!(STANDARD.encode(&sha1.server_key), "D+CSWLOshSulAsxiupA+qs2/fTE=");
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let sha256 = Verifier::derive(ScramHash::Sha256, b"pencil", 4096, &salt);
        assert_eq!(
            STANDARD.encode(&sha256.stored_key),
            "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY="
        );
        assert_eq!(
            STANDARD.encode(&sha256.server_key),
            "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }

    #[test]
    fn text_form_round_trips_and_refuses_damage() {
        for hash in [ScramHash::Sha1, ScramHash::Sha256] {
            let verifier = Verifier::derive(hash, b"secret", 4096, &[7; SALT_LEN]);
            let text = verifier.to_text();
            assert!(Verifier::parse(hash, &text).unwrap() == verifier);
            assert!(verifier.matches("secret"));
            assert!(!verifier.matches("Secret"));
            for damaged in [
                text.replace("$4096:", "$4095:"),
                text.replace("$4096:", "$65537:"),
                text.replace("$4096:", "$x:"),
                text.replace('$', ""),
                format!("{text}$"),
                text[..text.len() - 1].to_owned(),
                text.replace("SHA", "SHB"),
                String::new(),
            ] {
                assert!(Verifier::parse(hash, &damaged).is_err(), "{damaged}");
            }
        }
    }

    #[test]
    fn decoys_are_stable_and_differ_by_name_and_secret() {
        let decoy = |secret: &[u8], name| Verifier::decoy(ScramHash::Sha1, secret, name);
        assert!(decoy(b"s", "tom") == decoy(b"s", "tom"));
        assert!(decoy(b"s", "tom").salt != decoy(b"s", "tim").salt);
        assert!(decoy(b"s", "tom").salt != decoy(b"t", "tom").salt);
        assert_eq!(decoy(b"s", "tom").stored_key.len(), 20);
        assert_eq!(decoy(b"s", "tom").salt.len(), SALT_LEN);
    }

    #[test]
    fn passwords_are_prepared() {
        assert_eq!(prepare_password("I\u{ad}X\u{a0}\u{2168}".as_bytes()).unwrap(), "IX IX");
        assert_eq!(prepare_password(b""), Err(PasswordError::Empty));
        assert_eq!(prepare_password("\u{ad}".as_bytes()), Err(PasswordError::Empty));
        assert_eq!(prepare_password(b"a\0"), Err(PasswordError::Prohibited));
        assert_eq!(prepare_password(b"\xff"), Err(PasswordError::NotUtf8));
        prepare_password(&[b'a'; MAX_PASSWORD_LEN]).unwrap();
        let long = [b'a'; MAX_PASSWORD_LEN + 1];
        assert_eq!(prepare_password(&long), Err(PasswordError::TooLong));
    }
}
