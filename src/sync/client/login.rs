//! The client's side of SASL: the best mechanism that both sides know, then the next.
//!
//! ```text
//! C: AUTHENTICATE mech base64                IMAP: with a tag, and base64 only with SASL-IR
//! S: + base64                                any number of times
//! C: base64
//! S: OK text / NO text
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::scram::{SCRAM_SHA1, SCRAM_SHA256};
use rsasl::mechname::Mechname;
use rsasl::prelude::{Mechanism, Registry, SASLClient, SASLConfig, Session, SessionError, State};
use rsasl::property::{AuthId, AuthzId, Password};

use super::offer::Offer;
use super::talk::{Line, Status, Talk, classify, ended, lost, malformed, shown, strange};
use super::{ClientError, Login};

/// Best first.
const ORDER: [&str; 3] = ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"];
static SCRAM: &[Mechanism] = &[SCRAM_SHA256, SCRAM_SHA1];
/// Each round costs both sides the same; a server that asks for more wants to keep us busy.
const ROUNDS_MAX: u32 = 1_000_000;
/// More than any mechanism needs.
const CHALLENGES_MAX: usize = 8;
const DURING: &str = "log-in";

/// Who let us in, and with which words (without the status).
pub(super) struct LoggedIn {
    pub(super) mechanism: &'static str,
    pub(super) text: String,
}

/// Logs in. A mechanism that the server refuses before it has asked for a proof may lack an entry
/// in its data base, so the next one is tried; after a proof the password is wrong.
pub(super) fn log_in(
    talk: &mut Talk,
    login: &Login,
    offer: &Offer,
    time: std::time::Duration,
) -> Result<LoggedIn, ClientError> {
    let is_allowed = |name: &str| match &login.mechanisms {
        Some(allowed) => allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)),
        None => true,
    };
    let offers = |name: &str| offer.mechanisms.iter().any(|offered| offered == name);
    let mut refused = None;
    for mechanism in ORDER.into_iter().filter(|name| is_allowed(name) && offers(name)) {
        talk.allow(time);
        match exchange(talk, login, mechanism, offer)? {
            End::Accepted(text) => return Ok(LoggedIn { mechanism, text }),
            End::Refused { text, had_proof } => {
                refused = Some((mechanism, text));
                if had_proof {
                    break;
                }
            }
        }
    }
    Err(match refused {
        Some((mechanism, text)) => {
            ClientError::LoginRefused { mechanism: mechanism.to_owned(), text }
        }
        None => ClientError::NoMechanism(offer.mechanisms.clone()),
    })
}

enum End {
    Accepted(String),
    Refused { text: String, had_proof: bool },
}

fn exchange(
    talk: &mut Talk,
    login: &Login,
    mechanism: &'static str,
    offer: &Offer,
) -> Result<End, ClientError> {
    let mut ours = Ours::new(login, mechanism)?;
    let io = |error| lost(DURING, error);
    let mut initial = Some(encoded(&ours.first()?));
    let mut command = format!("AUTHENTICATE {mechanism}");
    if !talk.is_imap || offer.sasl_ir {
        command = format!("{command} {}", initial.take().unwrap_or_default());
    }
    let tag = talk.next_tag();
    talk.send(tag.as_deref(), &command).map_err(io)?;
    for _ in 0..CHALLENGES_MAX {
        let line = talk.read_line().map_err(io)?;
        match classify(&line, tag.as_deref()) {
            Line::Continue(challenge) => {
                if let Some(initial) = initial.take() {
                    talk.send(None, &initial).map_err(io)?;
                    continue;
                }
                let challenge = BASE64.decode(challenge.trim_ascii()).unwrap_or_default();
                match ours.answer(&challenge) {
                    Some(answer) => talk.send(None, &BASE64.encode(answer)).map_err(io)?,
                    None if ours.had_proof() && challenge.starts_with(b"e=") => {
                        return Ok(End::Refused { text: shown(&challenge), had_proof: true });
                    }
                    None => return Err(not_the_server(mechanism)),
                }
            }
            Line::Final(Status::Ok, text) if ours.is_content() => {
                return Ok(End::Accepted(String::from_utf8_lossy(text).into_owned()));
            }
            Line::Final(Status::Ok, _) => return Err(not_the_server(mechanism)),
            Line::Final(Status::No | Status::Bad, text) => {
                return Ok(End::Refused { text: shown(text), had_proof: ours.had_proof() });
            }
            Line::Ended(text) => return Err(ended(DURING, text)),
            Line::Data(_) | Line::Remark => {}
            Line::Strange => return Err(strange(DURING, &line)),
        }
    }
    Err(malformed(DURING, "the server asks without end"))
}

fn not_the_server(mechanism: &str) -> ClientError {
    ClientError::NotTheServer { mechanism: mechanism.to_owned() }
}

/// An empty response is not the same as none.
fn encoded(response: &[u8]) -> String {
    if response.is_empty() { "=".to_owned() } else { BASE64.encode(response) }
}

/// Our side of one exchange.
enum Ours {
    /// RFC 4616: all in the first message.
    Plain(Vec<u8>),
    Scram(Box<ScramClient>),
}

impl Ours {
    fn new(login: &Login, mechanism: &str) -> Result<Ours, ClientError> {
        let (authzid, authname) = (login.authzid.as_deref(), login.authname.as_str());
        let password = login.password.expose();
        if authname.is_empty() {
            return Err(ClientError::NoCredentials);
        }
        if [authzid.unwrap_or_default(), authname, password].iter().any(|text| text.contains('\0'))
        {
            return Err(ClientError::Invalid("a name or password with a NUL in it".to_owned()));
        }
        if mechanism == "PLAIN" {
            let text = format!("{}\0{authname}\0{password}", authzid.unwrap_or_default());
            return Ok(Ours::Plain(text.into_bytes()));
        }
        let session = ScramClient::start(login, mechanism)
            .ok_or_else(|| ClientError::Invalid(format!("{mechanism} cannot be set up")))?;
        Ok(Ours::Scram(Box::new(session)))
    }

    fn first(&mut self) -> Result<Vec<u8>, ClientError> {
        match self {
            Ours::Plain(text) => Ok(std::mem::take(text)),
            Ours::Scram(scram) => scram
                .step(None)
                .ok_or_else(|| ClientError::Invalid("a name that SCRAM cannot carry".to_owned())),
        }
    }

    /// `None`: a challenge that cannot be.
    fn answer(&mut self, challenge: &[u8]) -> Option<Vec<u8>> {
        match self {
            Ours::Plain(_) => None,
            Ours::Scram(scram) => scram.answer(challenge),
        }
    }

    /// Whether the server has shown all that it must.
    fn is_content(&self) -> bool {
        match self {
            Ours::Plain(_) => true,
            Ours::Scram(scram) => scram.state == Expect::Nothing,
        }
    }

    /// Whether a refusal now means that the password is wrong.
    fn had_proof(&self) -> bool {
        match self {
            Ours::Plain(_) => true,
            Ours::Scram(scram) => scram.state != Expect::ServerFirst,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    ServerFirst,
    ServerFinal,
    Nothing,
}

/// SCRAM (RFC 5802), run by rsasl.
///
/// rsasl 2.3.1 indexes into messages without looking at their length, so each one is held against
/// the grammar before rsasl sees it.
struct ScramClient {
    session: Session,
    state: Expect,
}

impl ScramClient {
    fn start(login: &Login, mechanism: &str) -> Option<ScramClient> {
        let config = SASLConfig::builder()
            .with_registry(Registry::with_mechanisms(SCRAM))
            .with_callback(Credentials::new(login))
            .ok()?;
        let name = Mechname::parse(mechanism.as_bytes()).ok()?;
        let session = SASLClient::new(config).start_suggested([&name]).ok()?;
        Some(ScramClient { session, state: Expect::ServerFirst })
    }

    fn answer(&mut self, challenge: &[u8]) -> Option<Vec<u8>> {
        match self.state {
            Expect::ServerFirst if is_server_first(challenge) => {
                let answer = self.step(Some(challenge))?;
                self.state = Expect::ServerFinal;
                Some(answer)
            }
            Expect::ServerFinal if is_server_final(challenge) => {
                let answer = self.step(Some(challenge))?;
                self.state = Expect::Nothing;
                Some(answer)
            }
            _ => None,
        }
    }

    fn step(&mut self, input: Option<&[u8]>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self.session.step(input, &mut out) {
            Ok(State::Running | State::Finished(_)) => Some(out),
            Err(_) => None,
        }
    }
}

/// `r=NONCE,s=BASE64,i=NUMBER[,ext]...`
fn is_server_first(message: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(message) else { return false };
    let mut parts = text.split(',');
    let mut value = |name| parts.next().and_then(|part| part.strip_prefix(name));
    let nonce = value("r=").is_some_and(|nonce| nonce.bytes().all(|c| c.is_ascii_graphic()));
    let salt = value("s=").is_some_and(|salt| !salt.is_empty());
    let rounds = value("i=").and_then(|rounds| rounds.parse::<u32>().ok());
    nonce && salt && rounds.is_some_and(|rounds| (1..=ROUNDS_MAX).contains(&rounds))
}

/// `v=BASE64[,ext]...`: the server's proof.
fn is_server_final(message: &[u8]) -> bool {
    message.strip_prefix(b"v=").is_some_and(|proof| !proof.is_empty())
}

struct Credentials {
    authzid: Option<String>,
    authname: String,
    password: String,
}

impl Credentials {
    fn new(login: &Login) -> Credentials {
        let password = login.password.expose();
        // Servers keep keys of the prepared form; one that cannot be prepared is taken as it is.
        let password = stringprep::saslprep(password).unwrap_or(password.into()).into_owned();
        let (authzid, authname) = (login.authzid.clone(), login.authname.clone());
        Credentials { authzid, authname, password }
    }
}

impl SessionCallback for Credentials {
    fn callback(
        &self,
        _: &SessionData,
        _: &Context,
        request: &mut Request,
    ) -> Result<(), SessionError> {
        request.satisfy::<AuthId>(&self.authname)?;
        request.satisfy::<Password>(self.password.as_bytes())?;
        if let Some(authzid) = &self.authzid {
            request.satisfy::<AuthzId>(authzid)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_scram_servers() {
        assert!(is_server_first(b"r=abc,s=QUJD,i=4096"));
        assert!(is_server_first(b"r=abc,s=QUJD,i=65536,x=y"));
        for message in [
            &b""[..],
            b"r",
            b"r=",
            b"r=abc",
            b"r=abc,s",
            b"r=abc,s=,i=4096",
            b"r=abc,s=QUJD",
            b"r=abc,s=QUJD,i",
            b"r=abc,s=QUJD,i=0",
            b"r=abc,s=QUJD,i=1000001",
            b"r=abc,s=QUJD,i=99999999999",
            b"m=ext,r=abc,s=QUJD,i=4096",
            b"s=QUJD,r=abc,i=4096",
            b"\xff",
        ] {
            assert!(!is_server_first(message), "{}", String::from_utf8_lossy(message));
        }
        assert!(is_server_final(b"v=QUJD"));
        assert!(!is_server_final(b"v=") && !is_server_final(b"e=x") && !is_server_final(b""));
    }
}
