//! The backups that one session has open, and what its commands do to them.
//!
//! A lease moves into each job of its session and back: it is never shared. Every
//! backup in it is locked against other sessions and Cyrus's tools until RESTART,
//! EXIT, the end of the connection, or a time without use.

mod apply;
mod get;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod golden;
mod messages;
mod moving;
mod read_back;

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::answers::Answers;
use super::request::Refusal;
use super::{Peer, SharedSite};
use crate::store::index::Index;
use crate::store::staging::Staging;
use crate::store::{Line, StoreError, Writer};
use crate::sync::auth::{self, Exchange, Step};
use crate::sync::{AuthReply, Done, Work};
use crate::wire::Guid;
use crate::wire::dlist::lossy;

/// How long a command waits for a lock if a client makes no good use of the answer that there
/// is one.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a refusal of such a command is held back.
const SLOW_DOWN: Duration = Duration::from_secs(2);
/// How often the lock is tried meanwhile.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Lease {
    site: SharedSite,
    peer: Peer,
    /// The least recently used first.
    open: Vec<Held>,
    /// Backups that the latest GET spoke of: messages that nobody reserved are theirs.
    current: Vec<Vec<u8>>,
    staging: Staging,
    exchange: Option<Exchange>,
    /// `APPLY FORCE` was sent: the client will not ask for FULLMAILBOX.
    is_forced: bool,
    /// The user that the latest GET USER was about, and how often in a row.
    asked: (Vec<u8>, usize),
}

struct Held {
    key: Vec<u8>,
    writer: Writer,
    /// Messages that the client was told are missing here.
    reserved: HashSet<Guid>,
}

type Reply = Result<Answers, Refusal>;

impl Lease {
    pub(super) fn new(site: SharedSite, peer: Peer) -> Lease {
        let staging = Staging::new(site.staging_path.clone());
        Lease {
            site,
            peer,
            open: Vec::new(),
            current: Vec::new(),
            staging,
            exchange: None,
            is_forced: false,
            asked: (Vec::new(), 0),
        }
    }

    /// Whether any backup is held open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Does a job. May block.
    pub(super) fn run(&mut self, work: Work) -> Done {
        match work {
            Work::Authenticate { mech, initial } => Done::Auth(self.authenticate(&mech, initial)),
            Work::Respond(response) => Done::Auth(self.respond(&response)),
            Work::Stage(octets) => Done::Staged(match self.staging.add(&octets) {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!(path = %self.site.staging_path.display(), %error,
                        "cannot stage a message");
                    false
                }
            }),
            Work::Get(text) => reply(self.get(&text)),
            Work::Apply(text, bodies) => {
                let result = self.apply(&text, &bodies);
                if let Err(error) = self.staging.clear() {
                    tracing::warn!(%error, "cannot empty the staging file");
                }
                reply(result)
            }
            Work::Restart => Done::Reply(self.finish_with("OK Restarting")),
            Work::Exit => Done::Reply(self.finish_with("OK Finished")),
            Work::Release => {
                // Nobody is told; what failed is in the log, and is taken in at
                // the next open.
                let _ = self.finish_all();
                Done::Released
            }
        }
    }

    fn authenticate(&mut self, mech: &str, initial: Option<Vec<u8>>) -> AuthReply {
        let (exchange, step) = self.site.authenticator.start(mech, initial.as_deref(), false);
        self.exchange = exchange;
        self.auth_step(mech, step)
    }

    fn respond(&mut self, response: &[u8]) -> AuthReply {
        match self.exchange.take() {
            Some(mut exchange) => {
                let step = exchange.step(response);
                self.exchange = Some(exchange);
                self.auth_step("", step)
            }
            None => self.auth_step("", Step::Failure(auth::AuthFailure::BadProtocol)),
        }
    }

    fn auth_step(&mut self, mech: &str, step: Step) -> AuthReply {
        let peer = &self.peer;
        match step {
            Step::Challenge(text) => AuthReply::Challenge(auth::encode_base64(&text)),
            Step::Success(identity) => {
                self.exchange = None;
                tracing::info!(
                    "login: {peer} {} {} User logged in",
                    identity.authzid,
                    identity.mech
                );
                AuthReply::Success { is_admin: identity.is_admin }
            }
            Step::Failure(failure) => {
                self.exchange = None;
                tracing::warn!("badlogin: {peer} {mech} [{failure}]");
                AuthReply::Failure {
                    status: failure.status_text().to_owned(),
                    is_delayed: failure.is_delayed(),
                }
            }
        }
    }

    /// A backup that could not be written to is let go of: what it holds is found
    /// out at its next open.
    fn append(&mut self, at: usize, line: &Line<'_>) -> Result<(), Refusal> {
        match self.open[at].writer.append(now(), line, &self.staging) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.open.remove(at);
                Err(error.into())
            }
        }
    }

    /// Opens the backup of a userid, makes it the one that GET speaks of.
    fn open_current(&mut self, userid: &[u8]) -> Result<usize, Refusal> {
        let key = self.site.names.userid_key(userid);
        let at = self.open(&key)?;
        self.current = vec![key];
        Ok(at)
    }

    /// Opens a backup, making it if there is none; returns its place.
    fn open(&mut self, key: &[u8]) -> Result<usize, Refusal> {
        if let Some(at) = self.open.iter().position(|held| held.key == key) {
            let held = self.open.remove(at);
            self.open.push(held);
            return Ok(self.open.len() - 1);
        }
        self.make_room()?;
        let (path, _) = self.site.catalog.lookup_or_create(key, &self.site.placement)?;
        let writer = Writer::open(&path, now()).inspect_err(|error| {
            if !matches!(error, StoreError::Locked(_)) {
                tracing::error!(backup = %lossy(key), "cannot open the backup");
            }
        })?;
        self.open.push(Held { key: key.to_vec(), writer, reserved: HashSet::new() });
        Ok(self.open.len() - 1)
    }

    /// [`Lease::open`] for commands that had better not be answered LOCKED: a client repeats its
    /// whole round at once, for as long as the lock is held.
    fn open_patiently(&mut self, key: &[u8]) -> Result<usize, Refusal> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.open(key) {
                Err(Refusal::Locked) if Instant::now() < until => std::thread::sleep(LOCK_RETRY),
                other => return other,
            }
        }
    }

    /// Where an open backup is.
    fn place(&self, key: &[u8]) -> Result<usize, Refusal> {
        self.open.iter().position(|held| held.key == key).ok_or(Refusal::Internal)
    }

    /// Finishes the backup unused for the longest, if there are too many. Those that
    /// messages are on their way to stay open.
    fn make_room(&mut self) -> Result<(), Refusal> {
        if self.open.len() < self.site.open_backups_max {
            return Ok(());
        }
        let is_idle = |held: &Held| held.reserved.is_empty() && !self.current.contains(&held.key);
        match self.open.iter().position(is_idle) {
            Some(at) => finish(self.open.remove(at)),
            None => Ok(()),
        }
    }

    fn finish_with(&mut self, status: &str) -> Vec<u8> {
        match self.finish_all() {
            Ok(()) => format!("{status}\r\n").into_bytes(),
            Err(refusal) => format!("{}\r\n", refusal.status()).into_bytes(),
        }
    }

    /// Makes everything durable and lets go of every backup. The first error is
    /// returned, after all have been tried.
    fn finish_all(&mut self) -> Result<(), Refusal> {
        self.current.clear();
        self.asked = (Vec::new(), 0);
        let mut result = Ok(());
        for held in self.open.drain(..) {
            let finished = finish(held);
            if result.is_ok() {
                result = finished;
            }
        }
        result
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Data and index may be out of step: the next open puts that right.
            return;
        }
        if self.finish_all().is_err() {
            tracing::error!("a backup was not finished; it will be mended when next opened");
        }
    }
}

/// Holds back a refusal of what a client would ask again at once, for ever.
fn slowly<T>(result: Result<T, Refusal>) -> Result<T, Refusal> {
    if matches!(result, Err(Refusal::Locked | Refusal::Unavailable)) {
        std::thread::sleep(SLOW_DOWN);
    }
    result
}

fn finish(mut held: Held) -> Result<(), Refusal> {
    Ok(held.writer.finish(now())?)
}

fn read<T>(
    held: &Held,
    query: impl FnOnce(&Index) -> crate::store::index::Result<T>,
) -> Result<T, Refusal> {
    query(held.writer.index()).map_err(|error| StoreError::index(held.writer.path())(error).into())
}

fn reply(result: Reply) -> Done {
    Done::Reply(match result {
        Ok(answers) => answers.finish("OK Success"),
        Err(refusal) => {
            tracing::debug!(%refusal, "refused");
            format!("{}\r\n", refusal.status()).into_bytes()
        }
    })
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs() as i64)
}
