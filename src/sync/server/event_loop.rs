//! The event loop: one thread that owns all sockets and sessions.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use super::conn::{Conn, Next};
use super::lease::Lease;
use super::workers::{Finished, Job, Workers};
use super::{Peer, ServerLimits, ServerSettings, SharedSite};
use crate::sync::{Session, SessionSettings, Work};

const WAKER: Token = Token(0);
const SIGNALS: Token = Token(1);
const FIRST_LISTENER: usize = 2;
/// Octets read from a socket at a time.
const SCRATCH: usize = 256 * 1024;
/// How long accepting rests when the process has no more descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(200);

/// A server that is listening.
pub struct Server {
    poll: Poll,
    signals: Signals,
    listeners: Vec<TcpListener>,
    session: Arc<SessionSettings>,
    site: SharedSite,
    limits: ServerLimits,
    workers: Workers,
    finished: Receiver<Finished>,
    conns: HashMap<usize, Conn>,
    next_token: usize,
    /// Connections that can go on without an event.
    ready: VecDeque<usize>,
    /// When to look at which connection; entries may be out of date.
    timers: BTreeSet<(Instant, usize)>,
    accept_again: Option<Instant>,
    is_stopping: bool,
    scratch: Vec<u8>,
}

impl Server {
    /// Takes over listening sockets. Nothing is served before [`Server::run`].
    pub fn new(settings: ServerSettings, mut listeners: Vec<TcpListener>) -> io::Result<Server> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT])?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        for (i, listener) in listeners.iter_mut().enumerate() {
            poll.registry().register(listener, Token(FIRST_LISTENER + i), Interest::READABLE)?;
        }
        let (workers, finished) = Workers::new(settings.limits.workers_max, waker);
        Ok(Server {
            next_token: FIRST_LISTENER + listeners.len(),
            poll,
            signals,
            listeners,
            session: Arc::new(settings.session),
            site: Arc::new(settings.site),
            limits: settings.limits,
            workers,
            finished,
            conns: HashMap::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            accept_again: None,
            is_stopping: false,
            scratch: vec![0; SCRATCH],
        })
    }

    /// The addresses listened on.
    pub fn addresses(&self) -> Vec<std::net::SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until SIGTERM, SIGINT or SIGQUIT. Before it returns, every session's
    /// backups were finished.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !self.is_stopping || !self.conns.is_empty() {
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
                            self.ready.push_back(token);
                        }
                    }
                }
            }
            self.take_finished();
            self.take_timers();
            for _ in 0..self.ready.len() {
                if let Some(token) = self.ready.pop_front() {
                    self.pump(token);
                }
            }
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() {
            return Some(Duration::ZERO);
        }
        let timer = self.timers.first().map(|(at, _)| *at);
        let next = [timer, self.accept_again].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn take_signals(&mut self) {
        if self.signals.pending().next().is_none() || self.is_stopping {
            return;
        }
        tracing::info!("shutting down: {} connections", self.conns.len());
        self.is_stopping = true;
        for listener in &mut self.listeners {
            let _ = self.poll.registry().deregister(listener);
        }
        for (token, conn) in &mut self.conns {
            conn.shut_down();
            self.ready.push_back(*token);
        }
    }

    fn accept(&mut self, listener: usize) {
        loop {
            if self.is_stopping {
                return;
            }
            match self.listeners[listener].accept() {
                Ok((socket, address)) => {
                    if self.conns.len() >= self.limits.connections_max {
                        tracing::warn!(%address, "too many connections");
                        continue;
                    }
                    if let Err(error) = self.welcome(socket, Peer(address)) {
                        tracing::warn!(%address, %error, "connection lost at once");
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

    fn welcome(&mut self, mut socket: mio::net::TcpStream, peer: Peer) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let token = self.next_token;
        self.next_token += 1;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut socket, Token(token), interest)?;
        let now = Instant::now();
        let session = Session::new(Arc::clone(&self.session));
        let lease = Lease::new(Arc::clone(&self.site), peer.clone());
        self.conns.insert(token, Conn::new(socket, peer, session, lease, now));
        self.ready.push_back(token);
        Ok(())
    }

    fn take_finished(&mut self) {
        while let Ok(Finished { conn: token, lease, done }) = self.finished.try_recv() {
            // A connection is kept until its job is done.
            if let Some(conn) = self.conns.get_mut(&token) {
                conn.done(Instant::now(), lease, done);
                self.ready.push_back(token);
            }
        }
    }

    fn take_timers(&mut self) {
        let now = Instant::now();
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            (0..self.listeners.len()).for_each(|listener| self.accept(listener));
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
                self.ready.push_back(token);
            }
            self.set_timer(token, now);
        }
    }

    /// Sees to it that the connection is looked at when its deadline comes: never in
    /// a tight loop, should that lie in the past. A deadline that has moved away is
    /// found out when the old timer fires.
    fn set_timer(&mut self, token: usize, now: Instant) {
        let Some(conn) = self.conns.get_mut(&token) else { return };
        let at = conn.deadline(&self.limits).max(now + Duration::from_millis(10));
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
            Next::Again => self.ready.push_back(token),
            Next::Job(work) => self.submit(token, work),
            Next::Close => return self.close(token),
        }
        self.set_timer(token, now);
    }

    fn submit(&mut self, token: usize, work: Work) {
        if let Some(lease) = self.conns.get_mut(&token).and_then(Conn::start_job) {
            self.workers.submit(Job { conn: token, lease, work });
        }
    }

    /// Closes a connection. Finishing its backups may take time, which is a
    /// worker's; the connection goes when that is done.
    fn close(&mut self, token: usize) {
        let Some(conn) = self.conns.get_mut(&token) else { return };
        conn.shut_down();
        if conn.is_busy() {
            return;
        }
        if conn.holds_backups() {
            return self.submit(token, Work::Release);
        }
        tracing::debug!(peer = %conn.peer, "connection closed");
        let _ = self.poll.registry().deregister(&mut conn.socket);
        self.conns.remove(&token);
    }
}
