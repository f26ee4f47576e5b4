//! One connection: a socket, its session, and what waits in between.

use std::io::{self, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;

use super::lease::Lease;
use super::{Peer, ServerLimits};
use crate::sync::{Action, Done, Session, Work};

/// Octets read from one client before others get their turn.
const TURN: usize = 1 << 20;

/// What a connection needs next.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing before an event or a deadline.
    Wait,
    /// More input is there, but it is others' turn.
    Again,
    /// A job for a worker; the lease goes along.
    Job(Work),
    /// It is over: close the socket. The lease is still to be finished.
    Close,
}

/// See the module.
pub(super) struct Conn {
    pub(super) socket: TcpStream,
    pub(super) peer: Peer,
    session: Session,
    /// `None` while a worker has it, and after a worker has lost it.
    lease: Option<Lease>,
    /// A worker is at it.
    is_busy: bool,
    output: Vec<u8>,
    sent: usize,
    /// Input that was read while the session could not take it.
    input: Vec<u8>,
    is_readable: bool,
    at_end: bool,
    is_closing: bool,
    pause_until: Option<Instant>,
    /// When the event loop will look at its deadline.
    pub(super) timer: Option<Instant>,
    accepted: Instant,
    last_command: Instant,
}

impl Conn {
    pub(super) fn new(
        socket: TcpStream,
        peer: Peer,
        session: Session,
        lease: Lease,
        now: Instant,
    ) -> Conn {
        Conn {
            socket,
            peer,
            session,
            lease: Some(lease),
            is_busy: false,
            output: Vec::new(),
            sent: 0,
            input: Vec::new(),
            is_readable: true,
            at_end: false,
            is_closing: false,
            pause_until: None,
            timer: None,
            accepted: now,
            last_command: now,
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

    /// Whether it has backups open that are to be finished.
    pub(super) fn holds_backups(&self) -> bool {
        self.lease.as_ref().is_some_and(|lease| !lease.is_empty())
    }

    /// Ends the session at the next opportunity.
    pub(super) fn shut_down(&mut self) {
        self.is_closing = true;
    }

    /// When something is due although nothing happens.
    pub(super) fn deadline(&self, limits: &ServerLimits) -> Instant {
        if let Some(until) = self.pause_until {
            return until;
        }
        if self.session.is_unknown() {
            return self.accepted + limits.login_time;
        }
        let idle = self.last_command + limits.idle_time;
        match self.holds_backups() {
            true => idle.min(self.last_command + limits.lease_time),
            false => idle,
        }
    }

    /// A deadline may have passed.
    pub(super) fn timeout(&mut self, now: Instant, limits: &ServerLimits) -> Option<Work> {
        if self.pause_until.is_some_and(|until| until <= now) {
            self.pause_until = None;
            return None;
        }
        if self.is_busy || self.pause_until.is_some() {
            return None;
        }
        let is_late = match self.session.is_unknown() {
            true => self.accepted + limits.login_time <= now,
            false => self.last_command + limits.idle_time <= now,
        };
        if is_late {
            self.is_closing = true;
            return None;
        }
        let is_unused = self.last_command + limits.lease_time <= now;
        (self.holds_backups() && is_unused).then_some(Work::Release)
    }

    /// Goes on as far as possible without blocking.
    pub(super) fn pump(&mut self, now: Instant, limits: &ServerLimits, scratch: &mut [u8]) -> Next {
        let mut turn = TURN;
        loop {
            if self.flush().is_err() {
                return Next::Close;
            }
            if self.pause_until.is_some() {
                return Next::Wait;
            }
            match self.session.poll_action() {
                Some(Action::Send(octets)) => {
                    self.output.extend_from_slice(&octets);
                    continue;
                }
                Some(Action::Pause) => {
                    self.pause_until = Some(now + limits.login_pause);
                    continue;
                }
                Some(Action::Submit(work)) => {
                    self.last_command = now;
                    return Next::Job(work);
                }
                Some(Action::Close) => self.is_closing = true,
                None => {}
            }
            if self.is_closing {
                let is_flushed = self.sent == self.output.len();
                return if is_flushed && !self.is_busy { Next::Close } else { Next::Wait };
            }
            let is_choked = self.output.len() - self.sent > limits.output_high_water;
            if self.is_busy || is_choked || !self.session.wants_input() {
                return Next::Wait;
            }
            match self.take_input(now, &mut turn, scratch) {
                Input::Fed => {}
                Input::None => return Next::Wait,
                Input::Turn => return Next::Again,
                Input::End => return Next::Close,
            }
        }
    }

    fn take_input(&mut self, now: Instant, turn: &mut usize, scratch: &mut [u8]) -> Input {
        if !self.input.is_empty() {
            let input = std::mem::take(&mut self.input);
            self.feed(&input);
            return Input::Fed;
        }
        if self.at_end {
            return Input::End;
        }
        if !self.is_readable {
            return Input::None;
        }
        if *turn == 0 {
            return Input::Turn;
        }
        let want = scratch.len().min(*turn);
        match self.socket.read(&mut scratch[..want]) {
            Ok(0) => self.at_end = true,
            Ok(got) => {
                *turn -= got;
                self.last_command = now;
                self.feed(&scratch[..got]);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.at_end = true,
        }
        Input::Fed
    }

    /// Gives input to the session, and keeps what it cannot take now.
    fn feed(&mut self, octets: &[u8]) {
        let mut rest = octets;
        self.session.handle_input(&mut rest);
        self.input = rest.to_vec();
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.output.len() {
            match self.socket.write(&self.output[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.sent += len,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.output.clear();
        self.sent = 0;
        if self.output.capacity() > 64 * 1024 {
            self.output = Vec::new();
        }
        Ok(())
    }
}

enum Input {
    Fed,
    None,
    Turn,
    End,
}
