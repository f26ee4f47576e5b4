//! The event loop: one thread that owns all sockets and sessions.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use super::adopter::Adopter;
use super::conn::{Conn, Next};
use super::lease::Lease;
use super::listen::Listener;
use super::manager::{Manager, Retirement};
use super::origins::Origins;
use super::ready::Ready;
use super::workers::{Finished, Job, Workers};
use super::{
    KeepAlive, LoadedTls, NOTICE, Peer, Program, ServerLimits, ServerSettings, SharedSite, Stream,
    TelemetryFolder, TlsError, TlsFiles,
};
use crate::sync::{Door, Session, SessionSettings, Work};

const WAKER: Token = Token(0);
const SIGNALS: Token = Token(1);
const FIRST_LISTENER: usize = 2;
/// Octets decoded at a time.
const SCRATCH: usize = 256 * 1024;
/// Threads that check passwords.
const DOORMEN_MAX: usize = 16;
/// How long accepting rests when the process has no more descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As its [`Retirement`] says.
    Retired,
    /// By SIGTERM, SIGINT or SIGQUIT.
    Signal,
}

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system refused.
    #[error("cannot start the event loop: {0}")]
    Io(#[from] io::Error),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A server that is listening.
pub struct Server {
    poll: Poll,
    signals: Signals,
    listeners: Vec<Listener>,
    session: Arc<SessionSettings>,
    site: SharedSite,
    limits: ServerLimits,
    keep_alive: Option<KeepAlive>,
    tls_files: Option<TlsFiles>,
    telemetry: TelemetryFolder,
    tls: Option<LoadedTls>,
    manager: Manager,
    retirement: Retirement,
    workers: Workers,
    /// For log-ins alone: however many guess passwords, and however slow saslauthd is,
    /// backups are not kept waiting.
    doormen: Workers,
    finished: [Receiver<Finished>; 2],
    conns: HashMap<usize, Conn>,
    origins: Origins,
    next_token: usize,
    /// Connections accepted so far.
    accepted: u64,
    /// Since when there is no connection.
    idle_since: Option<Instant>,
    /// Connections that can go on without an event.
    ready: Ready,
    /// When to look at which connection; entries may be out of date.
    timers: BTreeSet<(Instant, usize)>,
    accept_again: Option<Instant>,
    alive_at: Option<Instant>,
    /// No more connections are taken.
    is_closed: bool,
    ended: Option<Ended>,
    scratch: Vec<u8>,
}

impl Server {
    /// Takes over listening sockets. Nothing is served before [`Server::run`].
    pub fn new(
        settings: ServerSettings,
        mut listeners: Vec<Listener>,
        manager: Manager,
        retirement: Retirement,
    ) -> Result<Server, StartError> {
        let tls = settings.tls.as_ref().map(TlsFiles::load).transpose()?;
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP])?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        for (i, listener) in listeners.iter_mut().enumerate() {
            let token = Token(FIRST_LISTENER + i);
            poll.registry().register(&mut listener.socket, token, Interest::READABLE)?;
        }
        let workers_max = settings.limits.workers_max;
        let (workers, finished) = Workers::new(workers_max, Arc::clone(&waker));
        let (doormen, admitted) = Workers::new((workers_max / 4).clamp(1, DOORMEN_MAX), waker);
        Ok(Server {
            next_token: FIRST_LISTENER + listeners.len(),
            poll,
            signals,
            listeners,
            session: Arc::new(settings.session),
            site: Arc::new(settings.site),
            origins: Origins::new(&settings.limits),
            limits: settings.limits,
            keep_alive: settings.keep_alive,
            tls_files: settings.tls,
            telemetry: settings.telemetry,
            tls,
            manager,
            retirement,
            workers,
            doormen,
            finished: [finished, admitted],
            conns: HashMap::new(),
            accepted: 0,
            idle_since: None,
            ready: Ready::default(),
            timers: BTreeSet::new(),
            accept_again: None,
            alive_at: None,
            is_closed: false,
            ended: None,
            scratch: vec![0; SCRATCH],
        })
    }

    /// Where it listens: addresses, and paths of Unix sockets.
    pub fn places(&self) -> Vec<String> {
        self.listeners.iter().map(Listener::place).collect()
    }

    /// The addresses of a network that it listens on.
    pub fn addresses(&self) -> Vec<std::net::SocketAddr> {
        self.listeners.iter().filter_map(Listener::address).collect()
    }

    /// Takes a connection that somebody else has accepted.
    pub fn adopt(&mut self, stream: Stream, peer: Peer, door: Door) -> io::Result<()> {
        self.welcome(stream, peer, door)
    }

    /// Takes in what dead processes have left, then serves until a signal comes, or as its
    /// [`Retirement`] says. Before it returns, every session's backups were finished.
    pub fn run(mut self) -> io::Result<Ended> {
        let mut events = Events::with_capacity(1024);
        let _adopter = Adopter::start(&self.site);
        self.manager.ready(self.listeners.len());
        self.alive_at = self.manager.alive_interval().map(|interval| Instant::now() + interval);
        loop {
            self.consider_leaving();
            if let Some(ended) = self.ended.filter(|_| self.conns.is_empty()) {
                return Ok(ended);
            }
            match self.poll.poll(&mut events, self.poll_timeout()) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    SIGNALS => self.take_signals(),
                    Token(token) if token < FIRST_LISTENER + self.listeners.len() => {
                        self.accept(token - FIRST_LISTENER);
                    }
                    Token(token) => {
                        if let Some(conn) = self.conns.get_mut(&token) {
                            conn.set_readable();
                            self.ready.push(token);
                        }
                    }
                }
            }
            self.take_finished();
            self.take_timers();
            for _ in 0..self.ready.len() {
                if let Some(token) = self.ready.pop() {
                    self.pump(token);
                }
            }
        }
    }

    /// Ends the server when it has served its time.
    fn consider_leaving(&mut self) {
        if self.ended.is_some() || !self.conns.is_empty() {
            self.idle_since = None;
            return;
        }
        let now = Instant::now();
        let idle_since = *self.idle_since.get_or_insert(now);
        let retirement = &self.retirement;
        let has_served = self.accepted > 0;
        let is_tired = retirement.connections.is_some_and(|max| self.accepted >= max);
        let is_bored = retirement.idle_time.is_some_and(|time| idle_since + time <= now);
        if self.is_closed || retirement.when_empty || is_tired || (has_served && is_bored) {
            self.close_listeners();
            self.ended = Some(Ended::Retired);
        }
    }

    /// Takes no more connections.
    fn close_listeners(&mut self) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        self.accept_again = None;
        for listener in &mut self.listeners {
            let _ = self.poll.registry().deregister(&mut listener.socket);
        }
        // For a successor to bind. Connections have greater tokens.
        self.listeners.clear();
        self.manager.stopping();
    }

    fn poll_timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let timer = self.timers.first().map(|(at, _)| *at);
        let retire = match (self.idle_since, self.retirement.idle_time) {
            (Some(since), Some(time)) if self.accepted > 0 => Some(since + time),
            _ => None,
        };
        let next = [timer, self.accept_again, self.alive_at, retire].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn take_signals(&mut self) {
        let signals: Vec<i32> = self.signals.pending().collect();
        for signal in signals {
            match signal {
                SIGHUP if self.retirement.on_hangup => self.close_listeners(),
                SIGHUP => self.reload(),
                _ => self.stop(),
            }
        }
    }

    /// Reads the certificates again; those of before stay if they cannot be used.
    fn reload(&mut self) {
        match self.tls_files.as_ref().map(TlsFiles::load).transpose() {
            Ok(tls) => {
                self.tls = tls;
                tracing::info!("certificates read again");
            }
            Err(error) => tracing::error!("certificates stay as they were: {error}"),
        }
    }

    fn stop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        tracing::info!("shutting down: {} connections", self.conns.len());
        self.ended = Some(Ended::Signal);
        self.close_listeners();
        let now = Instant::now();
        for (token, conn) in &mut self.conns {
            conn.shut_down(now + self.limits.drain_time);
            self.ready.push(*token);
        }
    }

    fn accept(&mut self, listener: usize) {
        if self.retirement.on_change.as_ref().is_some_and(Program::has_changed) {
            tracing::info!("the program was replaced: leaving");
            return self.close_listeners();
        }
        while let Some(door) = self.listeners.get(listener) {
            let accepted = door.socket.accept();
            let door = door.door(self.tls.is_some());
            match accepted {
                Ok((socket, peer)) => {
                    self.manager.connection();
                    if let Err(limit) = self.origins.admits(&peer) {
                        tracing::warn!(target: NOTICE, "refused connection from {peer}: {limit}");
                    } else if let Err(error) = self.welcome(socket, peer.clone(), door) {
                        tracing::warn!(%peer, %error, "connection lost at once");
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // Out of descriptors: no new event will come for those waiting.
                    tracing::error!(%error, "cannot accept a connection");
                    self.accept_again = Some(Instant::now() + ACCEPT_REST);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, mut socket: Stream, peer: Peer, door: Door) -> io::Result<()> {
        let token = self.next_token;
        self.next_token += 1;
        self.accepted += 1;
        if let Some(error) = self.keep_alive.and_then(|how| socket.keep_alive(&how).err()) {
            tracing::warn!(%peer, %error, "tcp_keepalive has no effect");
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(token), interest)?;
        let now = Instant::now();
        let session = Session::new(Arc::clone(&self.session), door);
        let lease = Lease::new(Arc::clone(&self.site), peer.clone());
        self.origins.add(&peer);
        let mut conn = Conn::new(socket, peer, session, lease, self.tls.clone(), now);
        if door.tls_first && conn.start_tls().is_err() {
            conn.shut_down(now);
        }
        self.conns.insert(token, conn);
        self.ready.push(token);
        Ok(())
    }

    fn take_finished(&mut self) {
        let finished = self.finished.iter().flat_map(Receiver::try_iter);
        for Finished { conn: token, lease, done } in finished {
            // A connection is kept until its job is done.
            if let Some(conn) = self.conns.get_mut(&token) {
                conn.done(Instant::now(), lease, done);
                self.ready.push(token);
            }
        }
    }

    fn take_timers(&mut self) {
        let now = Instant::now();
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            (0..self.listeners.len()).for_each(|listener| self.accept(listener));
        }
        if self.alive_at.is_some_and(|at| at <= now) {
            self.manager.alive(self.conns.len());
            self.alive_at = self.manager.alive_interval().map(|interval| now + interval);
        }
        while let Some((at, token)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, token));
            let Some(conn) = self.conns.get_mut(&token) else { continue };
            if conn.timer != Some(at) {
                continue;
            }
            conn.timer = None;
            if let Some(work) = conn.timeout(now, &self.limits) {
                self.submit(token, work);
            } else {
                self.ready.push(token);
            }
            self.set_timer(token, now);
        }
    }

    /// Sees to it that the connection is looked at when its deadline comes: never in
    /// a tight loop, should that lie in the past. A deadline that has moved away is
    /// found out when the old timer fires.
    fn set_timer(&mut self, token: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(&token) else { return };
        let Some(at) = conn.deadline(&self.limits) else { return };
        let at = at.max(now + Duration::from_millis(10));
        if conn.timer.is_none_or(|timer| at < timer) {
            conn.timer = Some(at);
            self.timers.insert((at, token));
        }
    }

    fn pump(&mut self, token: usize) {
        let now = Instant::now();
        let Some(conn) = self.conns.get_mut(&token) else { return };
        match conn.pump(now, &self.limits, &mut self.scratch) {
            Next::Wait => {}
            Next::Again => self.ready.push(token),
            Next::Job(work) => self.submit(token, work),
            Next::LoggedIn(user) => {
                conn.watch(self.telemetry.open(&user, token));
                self.ready.push(token);
            }
            Next::Close => return self.close(token),
        }
        self.set_timer(token, now);
    }

    fn submit(&mut self, token: usize, work: Work) {
        if let Some(lease) = self.conns.get_mut(&token).and_then(Conn::start_job) {
            let pool = match work {
                Work::Authenticate { .. } | Work::Respond(_) => &self.doormen,
                _ => &self.workers,
            };
            pool.submit(Job { conn: token, lease, work });
        }
    }

    /// Closes a connection. Finishing its backups may take time, which is a
    /// worker's; the connection goes when that is done.
    fn close(&mut self, token: usize) {
        let Some(conn) = self.conns.get_mut(&token) else { return };
        conn.shut_down(Instant::now());
        if conn.is_busy() {
            return;
        }
        if !conn.is_done() {
            return self.submit(token, Work::Close);
        }
        tracing::debug!(peer = %conn.peer, "connection closed");
        let _ = self.poll.registry().deregister(&mut conn.socket);
        self.origins.remove(&conn.peer);
        self.conns.remove(&token);
    }
}
