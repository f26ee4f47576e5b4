//! One connection: a socket, its session, and what waits in between.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::certificate::common_name;
use super::lease::{ASKED, LINGER, Lease};
use super::telemetry::Telemetry;
use super::{LoadedTls, NOTICE, Peer, ServerLimits, Stream};
use crate::sync::auth::{ChannelBindings, printable};
use crate::sync::transport::{Buffer, TlsPeer, Transport, TransportError};
use crate::sync::{Action, Done, Session, Work};

/// Octets decoded from or written to one client before others get their turn.
const TURN: usize = 1 << 20;
/// The same for a client that has not logged in: what inflates to much is nobody's loss but its
/// own, and no command of such a client is longer.
const UNKNOWN_TURN: usize = 32 * 1024;
/// Octets read from a socket at a time.
const READ: usize = 256 * 1024;

/// Octets of unsent output above which a client that has not logged in is not read.
const UNKNOWN_HIGH_WATER: usize = 16 * 1024;

/// What a connection needs next.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing before an event or a deadline.
    Wait,
    /// More input is there, but it is others' turn.
    Again,
    /// A job for a worker; the lease goes along.
    Job(Work),
    /// The client is known now; go on at once.
    LoggedIn(String),
    /// It is over: close the socket. The lease is still to be finished.
    Close,
}

/// See the module.
pub(super) struct Conn {
    pub(super) socket: Stream,
    pub(super) peer: Peer,
    session: Session,
    transport: Transport,
    /// For STARTTLS: the certificates as they are when it comes.
    tls: Option<LoadedTls>,
    /// `None` while a worker has it, and after a worker has lost it.
    lease: Option<Lease>,
    /// A worker is at it.
    is_busy: bool,
    /// Decoded input that the session could not take.
    input: Buffer,
    is_readable: bool,
    at_end: bool,
    is_closing: bool,
    /// While closing: the output no longer matters after this.
    drain_until: Option<Instant>,
    has_said_bye: bool,
    pause_until: Option<Instant>,
    /// When the event loop will look at its deadline.
    pub(super) timer: Option<Instant>,
    accepted: Instant,
    last_command: Instant,
    /// When the socket last took output: a client may read one reply for long.
    last_output: Instant,
    telemetry: Option<Telemetry>,
}

impl Conn {
    /// `tls` is there if the session's door offers or begins with it.
    pub(super) fn new(
        socket: Stream,
        peer: Peer,
        session: Session,
        lease: Lease,
        tls: Option<LoadedTls>,
        now: Instant,
    ) -> Conn {
        Conn {
            socket,
            peer,
            session,
            transport: Transport::default(),
            tls,
            lease: Some(lease),
            is_busy: false,
            input: Buffer::default(),
            is_readable: true,
            at_end: false,
            is_closing: false,
            drain_until: None,
            has_said_bye: false,
            pause_until: None,
            timer: None,
            accepted: now,
            last_command: now,
            last_output: now,
            telemetry: None,
        }
    }

    /// Writes down what is said from now on.
    pub(super) fn watch(&mut self, telemetry: Option<Telemetry>) {
        self.telemetry = telemetry;
    }

    /// Begins the handshake.
    pub(super) fn start_tls(&mut self) -> Result<(), TransportError> {
        match &self.tls {
            Some(tls) => self.transport.start_tls(Arc::clone(&tls.config)),
            None => Err(rustls::Error::General("no certificate".into()).into()),
        }
    }

    /// The socket may have input.
    pub(super) fn set_readable(&mut self) {
        self.is_readable = true;
    }

    /// A worker has finished.
    pub(super) fn done(&mut self, now: Instant, lease: Option<Lease>, done: Option<Done>) {
        self.last_command = now;
        self.is_busy = false;
        match (lease, done) {
            (Some(lease), Some(done)) => {
                self.lease = Some(lease);
                self.session.handle_done(done);
            }
            // The job panicked and took the lease along.
            _ => {
                self.session.fatal("Internal error");
                self.is_closing = true;
            }
        }
    }

    /// Gives the lease away for a job; `None` if there is one already, or no
    /// lease any more.
    pub(super) fn start_job(&mut self) -> Option<Lease> {
        let lease = self.lease.take();
        self.is_busy |= lease.is_some();
        lease
    }

    /// Whether a worker is at it.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Whether it can be closed as it is: nothing is to be finished.
    pub(super) fn is_done(&self) -> bool {
        self.lease.as_ref().is_none_or(Lease::is_done)
    }

    /// Ends the session at the next opportunity. Its client has until then to read what
    /// is left.
    pub(super) fn shut_down(&mut self, drain_until: Instant) {
        self.is_closing = true;
        self.drain_until.get_or_insert(drain_until);
    }

    /// When something is due although nothing happens; never while a worker is at it.
    pub(super) fn deadline(&self, limits: &ServerLimits) -> Option<Instant> {
        if self.is_busy {
            return None;
        }
        if let Some(until) = self.drain_until.or(self.pause_until) {
            return Some(until);
        }
        let end = self.end(limits);
        Some(match self.unused_after(limits) {
            Some(time) if !self.session.is_unknown() => end.min(self.last_command + time),
            _ => end,
        })
    }

    /// When the client has to go, if nothing happens until then.
    fn end(&self, limits: &ServerLimits) -> Instant {
        match self.session.is_unknown() {
            true => self.accepted + limits.login_time,
            false => self.last_command.max(self.last_output) + limits.idle_time,
        }
    }

    /// How long after the last command the backups that it has open are taken from it.
    fn unused_after(&self, limits: &ServerLimits) -> Option<Duration> {
        let lease = self.lease.as_ref().filter(|lease| !lease.is_empty())?;
        let time = match lease.is_lingering() {
            true => LINGER,
            false if lease.has_only_asked() => ASKED,
            // Until a mailbox names them, a compaction would drop its messages.
            false => limits.lease_time,
        };
        Some(time.min(limits.lease_time))
    }

    /// A deadline may have passed.
    pub(super) fn timeout(&mut self, now: Instant, limits: &ServerLimits) -> Option<Work> {
        if self.pause_until.is_some_and(|until| until <= now) {
            self.pause_until = None;
        }
        if self.is_busy || self.is_closing {
            return None;
        }
        if self.end(limits) <= now {
            self.shut_down(now);
            return None;
        }
        if !self.session.wants_input() {
            // A command has been read and is about to be done: the lease goes with that.
            return None;
        }
        let is_unused = |time| self.last_command + time <= now;
        self.unused_after(limits).is_some_and(is_unused).then_some(Work::Release)
    }

    /// Goes on as far as possible without blocking.
    pub(super) fn pump(&mut self, now: Instant, limits: &ServerLimits, scratch: &mut [u8]) -> Next {
        let mut turn = if self.session.is_unknown() { UNKNOWN_TURN } else { TURN };
        match self.advance(now, limits, scratch, &mut turn) {
            Ok(next) => next,
            Err(error) => {
                tracing::info!(target: NOTICE, "connection lost: {} [{error}]", self.peer);
                // An alert may be waiting to go out.
                let _ = self.flush(now, &mut turn);
                Next::Close
            }
        }
    }

    fn advance(
        &mut self,
        now: Instant,
        limits: &ServerLimits,
        scratch: &mut [u8],
        turn: &mut usize,
    ) -> Result<Next, TransportError> {
        loop {
            match self.flush(now, turn)? {
                Flushed::Done | Flushed::Blocked => {}
                Flushed::Turn => return Ok(Next::Again),
                Flushed::Lost => return Ok(Next::Close),
            }
            if self.pause_until.is_some() && !self.is_closing {
                return Ok(Next::Wait);
            }
            match self.session.poll_action() {
                Some(Action::Submit(work)) if !self.is_closing => {
                    self.last_command = now;
                    return Ok(Next::Job(work));
                }
                Some(Action::LoggedIn(user)) => return Ok(Next::LoggedIn(user)),
                Some(action) => {
                    self.act(action, now, limits)?;
                    continue;
                }
                None => {}
            }
            if self.is_closing {
                return Ok(self.take_leave(now));
            }
            let high_water = match self.session.is_unknown() {
                true => limits.output_high_water.min(UNKNOWN_HIGH_WATER),
                false => limits.output_high_water,
            };
            let is_choked = self.transport.octets_to_send() > high_water;
            // A handshake is between the client and the transport.
            let is_wanted = self.session.wants_input() || self.session.is_awaiting_tls();
            if self.is_busy || is_choked || !is_wanted {
                return Ok(Next::Wait);
            }
            match self.take_input(now, turn, scratch)? {
                Input::Fed => {}
                Input::None => return Ok(Next::Wait),
                Input::Turn => return Ok(Next::Again),
                Input::End => self.shut_down(now + limits.drain_time),
            }
        }
    }

    fn act(
        &mut self,
        action: Action,
        now: Instant,
        limits: &ServerLimits,
    ) -> Result<(), TransportError> {
        match action {
            Action::Send(octets) => {
                if let Some(telemetry) = &mut self.telemetry {
                    telemetry.sent(&octets);
                }
                self.transport.send(&octets);
            }
            Action::Pause => self.pause_until = Some(now + limits.login_pause),
            Action::StartTls if !self.input.is_empty() => {
                // Whoever put it there wants it to be taken for what was encrypted.
                let peer = &self.peer;
                tracing::warn!(target: NOTICE, "STARTTLS: {peer} sent more before the handshake");
                self.session.fatal("octets behind STARTTLS");
            }
            Action::StartTls => self.start_tls()?,
            Action::StartDeflate => {
                let early = std::mem::take(&mut self.input);
                self.transport.start_deflate(early.rest())?;
            }
            Action::Close => self.shut_down(now + limits.drain_time),
            // Taken by the caller, or nobody waits for it any more.
            Action::Submit(_) | Action::LoggedIn(_) => {}
        }
        Ok(())
    }

    /// The end, once everything was sent or nobody reads it.
    fn take_leave(&mut self, now: Instant) -> Next {
        if !self.has_said_bye && !self.is_busy {
            self.has_said_bye = true;
            self.transport.close();
            return Next::Again;
        }
        let is_flushed = self.transport.octets_to_send() == 0;
        let is_over = is_flushed || self.drain_until.is_none_or(|until| until <= now);
        if is_over && !self.is_busy { Next::Close } else { Next::Wait }
    }

    fn take_input(
        &mut self,
        now: Instant,
        turn: &mut usize,
        scratch: &mut [u8],
    ) -> Result<Input, TransportError> {
        if !self.input.is_empty() {
            let mut rest = self.input.rest();
            self.session.handle_input(&mut rest);
            let taken = self.input.len() - rest.len();
            if let Some(telemetry) = &mut self.telemetry {
                telemetry.received(&self.input.rest()[..taken]);
            }
            self.input.skip(taken);
            return Ok(Input::Fed);
        }
        if *turn == 0 {
            return Ok(Input::Turn);
        }
        let want = scratch.len().min(*turn);
        let decoded = self.transport.decode(&mut scratch[..want])?;
        if let Some(tls) = self.transport.take_handshake() {
            self.greet(&tls);
        }
        if decoded > 0 {
            *turn -= decoded;
            self.feed(&scratch[..decoded]);
            return Ok(Input::Fed);
        }
        if self.at_end || self.transport.at_end() {
            return Ok(Input::End);
        }
        if !self.is_readable {
            return Ok(Input::None);
        }
        match self.socket.read(&mut scratch[..want.min(READ)]) {
            Ok(0) => self.at_end = true,
            Ok(got) => {
                *turn -= got;
                self.last_command = now;
                match self.transport.is_plain() {
                    true => self.feed(&scratch[..got]),
                    false => self.transport.receive(&scratch[..got]),
                }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.at_end = true,
        }
        Ok(Input::Fed)
    }

    /// The handshake is complete.
    fn greet(&mut self, tls: &TlsPeer) {
        let TlsPeer { version, cipher, certificate, exporter } = tls;
        let identity = certificate.as_deref().and_then(common_name);
        let peer = &self.peer;
        let client = match (&identity, certificate) {
            (Some(name), _) => format!("authenticated as {}", printable(name)),
            (None, Some(_)) => "client certificate without a name".to_owned(),
            (None, None) => "no authentication".to_owned(),
        };
        tracing::info!(target: NOTICE, "starttls: {peer} {version} with cipher {cipher} {client}");
        let end_point = self.tls.as_ref().and_then(|tls| tls.end_point.as_deref());
        let end_point = end_point.map(<[u8]>::to_vec);
        let bindings = ChannelBindings { exporter: exporter.clone(), end_point };
        self.session.handle_tls(identity, bindings);
    }

    /// Gives input to the session, and keeps what it cannot take now.
    fn feed(&mut self, octets: &[u8]) {
        let mut rest = octets;
        self.session.handle_input(&mut rest);
        if let Some(telemetry) = &mut self.telemetry {
            telemetry.received(&octets[..octets.len() - rest.len()]);
        }
        self.input.push(rest);
    }

    fn flush(&mut self, now: Instant, turn: &mut usize) -> Result<Flushed, TransportError> {
        loop {
            let octets = self.transport.output()?;
            if octets.is_empty() {
                return Ok(Flushed::Done);
            }
            if *turn == 0 {
                return Ok(Flushed::Turn);
            }
            let len = octets.len().min(*turn);
            match self.socket.write(&octets[..len]) {
                Ok(0) => return Ok(Flushed::Lost),
                Ok(len) => {
                    *turn -= len;
                    self.last_output = now;
                    self.transport.sent(len);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Flushed::Blocked),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ok(Flushed::Lost),
            }
        }
    }
}

enum Flushed {
    Done,
    Blocked,
    Turn,
    Lost,
}

enum Input {
    Fed,
    None,
    Turn,
    End,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
