//! One dialogue with a replication client, without sockets, clocks or threads.
//!
//! In: [`Session::handle_input`], [`Session::handle_done`]. Out:
//! [`Session::poll_action`]. One [`Work`] is in flight at a time, and while it is, no
//! input is consumed: replies come in the order of the commands.

mod command;
mod login;

use std::collections::VecDeque;
use std::sync::Arc;

use super::auth::ChannelBindings;
use super::spool::Spool;
use super::work::{Channel, Done, Work};
use crate::wire::frame::{Event, Framer, Limits};

/// Bounds before authentication: room for the longest base64 line, no messages.
const LIMITS_UNKNOWN: Limits = Limits { line: 32 * 1024, literal: 16 * 1024, body: 0, bodies: 16 };

/// What all sessions of a server have in common.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// `servername`, shown in the banner.
    pub server_name: String,
    /// Mechanisms on a channel that others can read.
    pub mechanisms: Vec<&'static str>,
    /// Mechanisms on a private channel.
    pub mechanisms_private: Vec<&'static str>,
    /// Mechanisms in front of them, where there is a channel to bind to.
    pub mechanisms_bound: Vec<&'static str>,
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
    bindings: ChannelBindings,
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
            bindings: ChannelBindings::default(),
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
                Event::BodyStart(header) => {
                    self.spool.start(header.size);
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
    /// `identity` is who the client is by its certificate, `bindings` what a log-in can be bound
    /// to.
    pub fn handle_tls(&mut self, identity: Option<String>, bindings: ChannelBindings) {
        self.identity = identity;
        self.bindings = bindings;
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
            bindings: self.bindings.clone(),
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
            let bound = match self.bindings.is_empty() {
                true => &[][..],
                false => &settings.mechanisms_bound,
            };
            let mechanisms: Vec<&str> =
                bound.iter().chain(mechanisms).chain(external).copied().collect();
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
}

#[cfg(test)]
mod tests;
