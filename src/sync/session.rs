//! One dialogue with a replication client, without sockets, clocks or threads.
//!
//! In: [`Session::handle_input`], [`Session::handle_done`]. Out:
//! [`Session::poll_action`]. One [`Work`] is in flight at a time, and while it is, no
//! input is consumed: replies come in the order of the commands.

use std::collections::VecDeque;
use std::sync::Arc;

use super::auth;
use super::spool::Spool;
use super::work::{AuthReply, Channel, Done, Work};
use crate::wire::frame::{Event, Framer, Limits};

/// Bounds before authentication: room for the longest base64 line, no messages.
const LIMITS_UNKNOWN: Limits = Limits { line: 32 * 1024, literal: 16 * 1024, body: 0, bodies: 16 };

/// Longest name of a SASL mechanism (RFC 4422, 3.1).
const MECH_MAX: usize = 20;

/// What all sessions of a server have in common.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// `servername`, shown in the banner.
    pub server_name: String,
    /// Mechanisms on a channel that others can read.
    pub mechanisms: Vec<&'static str>,
    /// Mechanisms on a private channel.
    pub mechanisms_private: Vec<&'static str>,
    /// Whether clients with a certificate may authenticate by EXTERNAL.
    pub offers_external: bool,
    /// Bounds on the lines of an authenticated client.
    pub limits: Limits,
    /// Octets of message bodies held in memory for one line.
    pub spool_memory: usize,
}

/// How a client came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Door {
    /// Whoever can come in here may do everything, and need not authenticate: a Unix
    /// socket, standard input.
    pub is_trusted: bool,
    /// STARTTLS is offered.
    pub offers_tls: bool,
    /// TLS comes first: the banner waits for [`Session::handle_tls`].
    pub tls_first: bool,
    /// Something outside protects the channel (`-p`).
    pub is_protected: bool,
}

/// What the owner of a session must do, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(Vec<u8>),
    /// Encrypt both directions from here on. The client must not have sent anything
    /// behind its command. Then [`Session::handle_tls`].
    StartTls,
    /// Compress both directions from here on, what the client sent behind its command
    /// included.
    StartDeflate,
    /// The client is this user: whatever is sent and received from here on is theirs.
    LoggedIn(String),
    /// Wait for the login pause before the next action.
    Pause,
    /// Do this, and give the result to [`Session::handle_done`].
    Submit(Work),
    /// Send what is left, then close.
    Close,
}

/// What the next line may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A client that has not authenticated.
    Unknown,
    /// The answer to a SASL challenge.
    Challenged,
    /// A client that is not an administrator.
    Denied,
    /// A client that may replicate.
    Ready,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    settings: Arc<SessionSettings>,
    framer: Framer,
    spool: Spool,
    phase: Phase,
    door: Door,
    is_tls: bool,
    /// Who the client is by its certificate.
    identity: Option<String>,
    is_compressed: bool,
    /// A `Work` is in flight.
    is_awaiting: bool,
    is_awaiting_tls: bool,
    is_closing: bool,
    /// Staging a body of the current line failed: the line is refused at its end.
    staging_failed: bool,
    actions: VecDeque<Action>,
}

impl Session {
    /// A session that is about to greet its client, unless TLS comes first.
    pub fn new(settings: Arc<SessionSettings>, door: Door) -> Session {
        let limits = if door.is_trusted { settings.limits } else { LIMITS_UNKNOWN };
        let mut session = Session {
            framer: Framer::new(limits),
            spool: Spool::new(settings.spool_memory),
            settings,
            phase: if door.is_trusted { Phase::Ready } else { Phase::Unknown },
            door,
            is_tls: false,
            identity: None,
            is_compressed: false,
            is_awaiting: false,
            is_awaiting_tls: door.tls_first,
            is_closing: false,
            staging_failed: false,
            actions: VecDeque::new(),
        };
        if !door.tls_first {
            session.banner();
        }
        session
    }

    /// Whether input is consumed at present.
    pub fn wants_input(&self) -> bool {
        let is_awaiting = self.is_awaiting || self.is_awaiting_tls;
        !is_awaiting && !self.is_closing && self.actions.is_empty()
    }

    /// Whether the client may replicate.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Whether a client that never authenticated is to be closed after a while.
    pub fn is_unknown(&self) -> bool {
        matches!(self.phase, Phase::Unknown | Phase::Challenged)
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Consumes input until something is to be done, or there is no more.
    pub fn handle_input(&mut self, input: &mut &[u8]) {
        while self.wants_input() {
            let staged = match self.framer.next(input) {
                Event::More => return,
                Event::Continue => {
                    self.send("+ go ahead");
                    None
                }
                Event::BodyStart(_) => {
                    self.spool.start();
                    None
                }
                Event::Body(_) if self.staging_failed => None,
                Event::Body(octets) => self.spool.add(octets),
                Event::BodyEnd => self.spool.end(),
                Event::Line => {
                    self.line();
                    None
                }
                Event::Lost => {
                    self.fatal("announced length cannot be true");
                    None
                }
            };
            if let Some(piece) = staged {
                let is_first = self.spool.staged() == piece.len() as u64;
                self.submit(Work::Stage { octets: piece, is_first });
            }
        }
    }

    /// Takes the result of the work in flight.
    pub fn handle_done(&mut self, done: Done) {
        self.is_awaiting = false;
        match done {
            Done::Auth(reply) => self.auth_reply(reply),
            Done::Staged(worked) => self.staging_failed |= !worked,
            Done::Reply(reply) => {
                self.actions.push_back(Action::Send(reply));
                if self.is_closing {
                    self.actions.push_back(Action::Close);
                }
            }
            Done::Released => {}
        }
    }

    /// The TLS handshake is complete: greets the client, again if it was greeted before.
    /// `identity` is who the client is by its certificate.
    pub fn handle_tls(&mut self, identity: Option<String>) {
        self.identity = identity;
        self.is_awaiting_tls = false;
        self.is_tls = true;
        self.banner();
    }

    /// Whether the TLS handshake is under way.
    pub fn is_awaiting_tls(&self) -> bool {
        self.is_awaiting_tls
    }

    /// What surrounds the dialogue.
    fn channel(&self) -> Channel {
        Channel {
            is_tls: self.is_tls,
            is_private: self.is_tls || self.door.is_protected,
            identity: self.identity.clone(),
        }
    }

    /// A fault that ends the session.
    pub fn fatal(&mut self, text: &str) {
        self.send(&format!("* Fatal error: {text}"));
        self.close();
    }

    fn close(&mut self) {
        self.is_closing = true;
        self.actions.push_back(Action::Close);
    }

    fn banner(&mut self) {
        let settings = Arc::clone(&self.settings);
        if self.phase == Phase::Unknown {
            let mechanisms = match self.channel().is_private {
                true => &settings.mechanisms_private,
                false => &settings.mechanisms,
            };
            let has_external = settings.offers_external && self.identity.is_some();
            let external = has_external.then_some(&"EXTERNAL");
            let mechanisms: Vec<&str> = mechanisms.iter().chain(external).copied().collect();
            if !mechanisms.is_empty() {
                self.send(&format!("* SASL {}", mechanisms.join(" ")));
            }
            if self.door.offers_tls && !self.is_tls {
                self.send("* STARTTLS");
            }
            if !self.is_compressed {
                self.send("* COMPRESS DEFLATE");
            }
        }
        let (name, version) = (&settings.server_name, env!("CARGO_PKG_VERSION"));
        self.send(&format!("* OK {name} Cyrus backup server cyrbk {version}"));
    }

    fn send(&mut self, line: &str) {
        self.actions.push_back(Action::Send(format!("{line}\r\n").into_bytes()));
    }

    fn submit(&mut self, work: Work) {
        self.is_awaiting = true;
        self.actions.push_back(Action::Submit(work));
    }

    fn line(&mut self) {
        let line = self.framer.take_line();
        let bodies = self.spool.take();
        let staging_failed = std::mem::take(&mut self.staging_failed);
        let line = match line {
            Ok(line) => line,
            Err(poison) if self.phase == Phase::Ready => {
                return self.send(&format!("NO IMAP_PROTOCOL_ERROR {poison}"));
            }
            Err(poison) => return self.send(&format!("BAD {poison}")),
        };
        if self.phase == Phase::Challenged {
            return self.sasl_response(&line);
        }
        if matches!(line.first(), None | Some(b' ' | b'\t' | b'"' | b'(')) {
            return self.send("BAD Null command");
        }
        if self.phase == Phase::Denied {
            return self.send("NO Permission denied");
        }
        if staging_failed {
            return self.send("NO Unknown error");
        }
        let (word, argument) = match line.iter().position(|&c| c == b' ') {
            Some(at) => (&line[..at], Some(&line[at + 1..])),
            None => (&line[..], None),
        };
        match (word.to_ascii_uppercase().as_slice(), argument) {
            (b"NOOP", None) => self.send("OK Noop completed"),
            (b"NOOP", _) => self.send("BAD Unexpected extra arguments to Noop"),
            (b"RESTART", None) => self.submit(Work::Restart),
            (b"RESTART", _) => self.send("BAD Unexpected extra arguments to Restart"),
            (b"EXIT", None) => {
                self.is_closing = true;
                self.submit(Work::Exit);
            }
            (b"EXIT", _) => self.send("BAD Unexpected extra arguments to Exit"),
            (b"AUTHENTICATE", argument) => self.authenticate(argument),
            (b"STARTTLS", argument) if self.door.offers_tls => self.start_tls(argument),
            (b"COMPRESS", argument) => self.compress(argument),
            (b"GET" | b"APPLY", _) if self.phase != Phase::Ready => {
                self.send("NO Please authenticate first");
            }
            (b"GET", None | Some(b"")) => self.send("BAD Missing required argument to Get"),
            (b"GET", Some(argument)) => self.submit(Work::Get(argument.to_vec())),
            (b"APPLY", None | Some(b"")) => self.send("BAD Missing required argument to Apply"),
            (b"APPLY", Some(argument)) => self.submit(Work::Apply(argument.to_vec(), bodies)),
            (_, argument) => self.unknown_command(word, argument),
        }
    }

    /// A client that does not know yet that this is not IMAP asks `C01 CAPABILITY`,
    /// and would wait ten seconds for a line that begins with its tag.
    fn unknown_command(&mut self, word: &[u8], argument: Option<&[u8]>) {
        let tag = String::from_utf8_lossy(word);
        let is_tag = word.len() <= 32 && word.iter().all(u8::is_ascii_alphanumeric);
        match argument.map(<[u8]>::to_ascii_uppercase).as_deref() {
            Some(b"CAPABILITY") if is_tag => self.send(&format!("{tag} BAD Unrecognized command")),
            Some(b"LOGOUT") if is_tag => {
                self.send(&format!("{tag} OK Finished"));
                self.close();
            }
            _ => self.send("BAD IMAP_PROTOCOL_ERROR Unrecognized command"),
        }
    }

    fn start_tls(&mut self, argument: Option<&[u8]>) {
        if argument.is_some() {
            return self.send("BAD Unexpected extra arguments to Starttls");
        }
        if self.phase != Phase::Unknown {
            return self.send("BAD Can't Starttls after authentication");
        }
        if self.is_tls {
            return self.send("BAD Already did a successful Starttls");
        }
        if self.is_compressed {
            return self.send("BAD Can't Starttls after compression");
        }
        self.send("OK Begin TLS negotiation now");
        self.actions.push_back(Action::StartTls);
        self.is_awaiting_tls = true;
    }

    fn compress(&mut self, argument: Option<&[u8]>) {
        let Some(argument) = argument.filter(|argument| !argument.is_empty()) else {
            return self.send("BAD Missing required argument to Compress");
        };
        if argument.contains(&b' ') {
            return self.send("BAD Unexpected extra arguments to Compress");
        }
        let algorithm = auth::printable(&String::from_utf8_lossy(argument));
        if self.is_compressed {
            return self.send(&format!("NO Compression already active: {algorithm}"));
        }
        if !argument.eq_ignore_ascii_case(b"DEFLATE") {
            return self.send(&format!("NO Unknown compression algorithm: {algorithm}"));
        }
        self.send(&format!("OK {algorithm} active"));
        self.actions.push_back(Action::StartDeflate);
        self.is_compressed = true;
    }

    fn authenticate(&mut self, argument: Option<&[u8]>) {
        let Some(argument) = argument else {
            return self.send("BAD Missing required argument to Authenticate");
        };
        if self.phase != Phase::Unknown {
            return self.send("BAD Already authenticated");
        }
        let mut words = argument.split(|&c| c == b' ');
        let mech = words.next().unwrap_or_default();
        let initial = words.next();
        let is_mech_char = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        let mech = match std::str::from_utf8(mech) {
            Ok(mech)
                if (1..=MECH_MAX).contains(&mech.len())
                    && mech.bytes().all(|c| is_mech_char(&c)) =>
            {
                mech
            }
            _ => return self.send("BAD Invalid mechanism"),
        };
        if words.next().is_some() {
            return self.send("BAD Unexpected extra arguments to Authenticate");
        }
        match initial.map(auth::decode_initial_response).transpose() {
            Ok(initial) => self.submit(Work::Authenticate {
                mech: mech.to_owned(),
                initial,
                channel: self.channel(),
            }),
            Err(failure) => self.auth_reply(refusal(&failure)),
        }
    }

    fn sasl_response(&mut self, line: &[u8]) {
        self.phase = Phase::Unknown;
        match auth::decode_base64(line) {
            Ok(response) => self.submit(Work::Respond(response)),
            Err(failure) => self.auth_reply(refusal(&failure)),
        }
    }

    fn auth_reply(&mut self, reply: AuthReply) {
        match reply {
            AuthReply::Challenge(text) => {
                self.phase = Phase::Challenged;
                self.send(&format!("+ {text}"));
            }
            AuthReply::Success { user, is_admin } => {
                self.phase = if is_admin { Phase::Ready } else { Phase::Denied };
                self.framer.set_limits(if is_admin {
                    self.settings.limits
                } else {
                    LIMITS_UNKNOWN
                });
                self.send(match self.is_tls {
                    true => "OK Success (tls protection)",
                    false => "OK Success (no protection)",
                });
                self.actions.push_back(Action::LoggedIn(user));
            }
            AuthReply::Failure { status, is_delayed } => {
                if is_delayed {
                    self.actions.push_back(Action::Pause);
                }
                self.send(&status);
            }
        }
    }
}

fn refusal(failure: &auth::AuthFailure) -> AuthReply {
    AuthReply::Failure {
        status: failure.status_text().to_owned(),
        is_delayed: failure.is_delayed(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn session(door: Door) -> Session {
        let settings = SessionSettings {
            server_name: "host".into(),
            mechanisms: vec!["SCRAM-SHA-1"],
            mechanisms_private: vec!["SCRAM-SHA-1", "PLAIN"],
            offers_external: true,
            limits: Limits { line: 1000, literal: 1000, body: 1000, bodies: 10 },
            spool_memory: 1000,
        };
        Session::new(Arc::new(settings), door)
    }

    /// What is sent until something else is to be done, and that.
    fn sent(session: &mut Session) -> (String, Option<Action>) {
        let mut text = String::new();
        loop {
            match session.poll_action() {
                Some(Action::Send(octets)) => text += std::str::from_utf8(&octets).unwrap(),
                other => {
                    let banner = env!("CARGO_PKG_VERSION");
                    return (text.replace(banner, "X").replace("\r\n", "|"), other);
                }
            }
        }
    }

    fn say(session: &mut Session, mut line: &[u8]) -> (String, Option<Action>) {
        session.handle_input(&mut line);
        sent(session)
    }

    const OK: &str = "* OK host Cyrus backup server cyrbk X|";

    #[test]
    fn each_door_has_its_banner() {
        for (door, banner) in [
            (Door::default(), "* SASL SCRAM-SHA-1|* COMPRESS DEFLATE|"),
            (
                Door { offers_tls: true, ..Door::default() },
                "* SASL SCRAM-SHA-1|* STARTTLS|* COMPRESS DEFLATE|",
            ),
            (
                Door { is_protected: true, ..Door::default() },
                "* SASL SCRAM-SHA-1 PLAIN|* COMPRESS DEFLATE|",
            ),
            (Door { is_trusted: true, ..Door::default() }, ""),
        ] {
            let mut session = session(door);
            assert_eq!(sent(&mut session), (format!("{banner}{OK}"), None), "{door:?}");
            assert_eq!(session.is_ready(), door.is_trusted);
        }
    }

    #[test]
    fn nothing_is_said_or_heard_before_tls() {
        let mut session = session(Door { tls_first: true, ..Door::default() });
        assert!(session.is_awaiting_tls() && !session.wants_input());
        assert_eq!(say(&mut session, b"NOOP\r\n"), (String::new(), None));
        session.handle_tls(None);
        let banner = format!("* SASL SCRAM-SHA-1 PLAIN|* COMPRESS DEFLATE|{OK}");
        assert_eq!(sent(&mut session), (banner, None));
    }

    #[test]
    fn starttls_leads_to_another_banner() {
        let mut session = session(Door { offers_tls: true, ..Door::default() });
        sent(&mut session);
        let mut input = &b"STARTTLS\r\nNOOP\r\n"[..];
        session.handle_input(&mut input);
        // Whoever owns the session can see what came too early.
        assert_eq!(input, b"NOOP\r\n");
        let begin = "OK Begin TLS negotiation now|".to_owned();
        assert_eq!(sent(&mut session), (begin, Some(Action::StartTls)));
        assert!(!session.wants_input());
        session.handle_tls(Some("admin".into()));
        let banner = format!("* SASL SCRAM-SHA-1 PLAIN EXTERNAL|* COMPRESS DEFLATE|{OK}");
        assert_eq!(sent(&mut session), (banner, None));
        let twice = "BAD Already did a successful Starttls|".to_owned();
        assert_eq!(say(&mut session, b"STARTTLS\r\n"), (twice, None));
        let (_, login) = say(&mut session, b"AUTHENTICATE EXTERNAL =\r\n");
        let channel =
            Channel { is_tls: true, is_private: true, identity: Some("admin".to_owned()) };
        let (mech, initial) = ("EXTERNAL".to_owned(), Some(Vec::new()));
        assert_eq!(login, Some(Action::Submit(Work::Authenticate { mech, initial, channel })));
    }

    #[test]
    fn compression_begins_behind_its_answer() {
        let mut session = session(Door { offers_tls: true, ..Door::default() });
        sent(&mut session);
        let reply = say(&mut session, b"COMPRESS deflate\r\n");
        assert_eq!(reply, ("OK deflate active|".to_owned(), Some(Action::StartDeflate)));
        let twice = "NO Compression already active: DEFLATE|".to_owned();
        assert_eq!(say(&mut session, b"COMPRESS DEFLATE\r\n"), (twice, None));
        let late = "BAD Can't Starttls after compression|".to_owned();
        assert_eq!(say(&mut session, b"STARTTLS\r\n"), (late, None));
    }

    #[test]
    fn who_is_no_administrator_is_denied_everything() {
        let mut session = session(Door::default());
        sent(&mut session);
        session.handle_done(Done::Auth(AuthReply::Success {
            user: "tom".to_owned(),
            is_admin: false,
        }));
        let ok = "OK Success (no protection)|".to_owned();
        assert_eq!(sent(&mut session), (ok, Some(Action::LoggedIn("tom".to_owned()))));
        for line in ["NOOP", "EXIT", "COMPRESS DEFLATE", "STARTTLS", "GET USER tom"] {
            let denied = "NO Permission denied|".to_owned();
            assert_eq!(say(&mut session, format!("{line}\r\n").as_bytes()), (denied, None));
        }
    }
}
