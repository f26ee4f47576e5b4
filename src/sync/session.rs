//! One dialogue with a replication client, without sockets, clocks or threads.
//!
//! In: [`Session::handle_input`], [`Session::handle_done`]. Out:
//! [`Session::poll_action`]. One [`Work`] is in flight at a time, and while it is, no
//! input is consumed: replies come in the order of the commands.

use std::collections::VecDeque;
use std::sync::Arc;

use super::auth;
use super::spool::Spool;
use super::work::{AuthReply, Done, Work};
use crate::wire::frame::{Event, Framer, Limits};

/// Bounds before authentication: room for the longest base64 line, no messages.
const LIMITS_UNKNOWN: Limits = Limits { line: 32 * 1024, literal: 16 * 1024, body: 0, bodies: 16 };

/// What all sessions of a server have in common.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// `servername`, shown in the banner.
    pub server_name: String,
    /// Mechanisms to announce.
    pub mechanisms: Vec<&'static str>,
    /// Bounds on the lines of an authenticated client.
    pub limits: Limits,
    /// Octets of message bodies held in memory for one line.
    pub spool_memory: usize,
}

/// What the owner of a session must do, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this.
    Send(Vec<u8>),
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
    is_awaiting: bool,
    is_closing: bool,
    /// Staging a body of the current line failed: the line is refused at its end.
    staging_failed: bool,
    actions: VecDeque<Action>,
}

impl Session {
    /// A session that is about to greet its client.
    pub fn new(settings: Arc<SessionSettings>) -> Session {
        let mut session = Session {
            framer: Framer::new(LIMITS_UNKNOWN),
            spool: Spool::new(settings.spool_memory),
            settings,
            phase: Phase::Unknown,
            is_awaiting: false,
            is_closing: false,
            staging_failed: false,
            actions: VecDeque::new(),
        };
        session.banner();
        session
    }

    /// Whether input is consumed at present.
    pub fn wants_input(&self) -> bool {
        !self.is_awaiting && !self.is_closing && self.actions.is_empty()
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
                Event::Body(octets) if self.staging_failed => {
                    let _ = octets;
                    None
                }
                Event::Body(octets) => self.spool.add(octets),
                Event::BodyEnd => self.spool.end(),
                Event::Line => {
                    self.line();
                    None
                }
                Event::Lost => {
                    self.fatal("num too big");
                    None
                }
            };
            if let Some(piece) = staged {
                self.submit(Work::Stage(piece));
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
        if !settings.mechanisms.is_empty() {
            self.send(&format!("* SASL {}", settings.mechanisms.join(" ")));
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
            Ok(mech) if !mech.is_empty() && mech.bytes().all(|c| is_mech_char(&c)) => mech,
            _ => return self.send("BAD Invalid mechanism"),
        };
        if words.next().is_some() {
            return self.send("BAD Unexpected extra arguments to Authenticate");
        }
        match initial.map(auth::decode_initial_response).transpose() {
            Ok(initial) => self.submit(Work::Authenticate { mech: mech.to_owned(), initial }),
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
            AuthReply::Success { is_admin } => {
                self.phase = if is_admin { Phase::Ready } else { Phase::Denied };
                self.framer.set_limits(if is_admin {
                    self.settings.limits
                } else {
                    LIMITS_UNKNOWN
                });
                self.send("OK Success (no protection)");
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
