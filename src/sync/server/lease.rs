//! The backups that one session has open, and what its commands do to them.
//!
//! A lease moves into each job of its session and back: it is never shared. Every
//! backup in it is locked against other sessions and Cyrus's tools until EXIT, the
//! end of the connection, or a time without use. RESTART makes all of them durable; they then
//! linger for a moment ([`LINGER`]), in case that the same ones are asked for again: a client
//! that follows its mail server sends one RESTART after another, and opening a backup and
//! committing its index cost more than a message does.

mod apply;
mod closing;
mod get;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod golden;
mod group;
mod messages;
mod moving;
mod pending;
mod read_back;
mod reserved;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests;

use std::time::{Duration, Instant};

use self::closing::Closing;
use self::pending::Pending;
use self::reserved::Reserved;
use super::answers::Answers;
use super::login::Login;
use super::request::Refusal;
use super::{Peer, SharedSite};
use crate::store::clock::now;
use crate::store::index::Index;
use crate::store::staging::Staging;
use crate::store::{Line, StoreError, Writer};
use crate::sync::{Done, Work};
use crate::wire::dlist::lossy;

/// How long a command waits for a lock if a client makes no good use of the answer that there
/// is one.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a refusal of such a command is held back.
const SLOW_DOWN: Duration = Duration::from_secs(2);
/// How often the lock is tried meanwhile.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// How long a backup stays open after RESTART if nothing else is asked for.
pub(super) const LINGER: Duration = Duration::from_millis(200);
/// How long without a command if the session has only asked: behind its last RESTART a client
/// often has a few words more, and whoever wants to restore or verify would wait for so long.
pub(super) const ASKED: Duration = Duration::from_secs(60);
/// How long it may stay open over any number of them: others want to see it too.
const HOLD_MAX: Duration = Duration::from_secs(5);
/// How long a command waits for a lock that another session is about to give back.
const LINGERING: Duration = Duration::from_secs(1);

/// How often a backup is looked for that is being moved.
const OPEN_TRIES: usize = 5;

/// See the module.
pub(super) struct Lease {
    site: SharedSite,
    peer: Peer,
    /// The least recently used first.
    open: Vec<Held>,
    /// Backups that the latest GET spoke of: messages that nobody reserved are theirs.
    current: Vec<Vec<u8>>,
    reserved: Reserved,
    pending: Pending,
    /// A backup with acknowledged lines was let go of without being finished: the next
    /// RESTART or EXIT cannot promise that they survive a power cut.
    is_in_doubt: bool,
    staging: Staging,
    login: Login,
    /// `APPLY FORCE` was sent: the client will not ask for FULLMAILBOX.
    is_forced: bool,
    /// What was asked last, and how often in a row, see [`Lease::told_max`].
    asked: (Vec<u8>, usize),
    /// Those that were open at the latest RESTART; nothing knows them until they are opened.
    lingering: Vec<Held>,
    closing: Closing,
}

struct Held {
    key: Vec<u8>,
    writer: Writer,
    since: Instant,
}

impl Held {
    fn new(key: &[u8], writer: Writer) -> Held {
        Held { key: key.to_vec(), writer, since: Instant::now() }
    }
}

/// Where the bodies of a line are.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// They came with it.
    Line,
    /// They waited for it.
    Pending,
    /// A dead process has left them.
    Left(&'a Staging),
}

type Reply = Result<Answers, Refusal>;

impl Lease {
    pub(super) fn new(site: SharedSite, peer: Peer) -> Lease {
        let staging = Staging::new(site.staging_path.clone());
        let pending = Pending::new(site.staging_path.clone());
        Lease {
            site,
            peer,
            open: Vec::new(),
            current: Vec::new(),
            reserved: Reserved::default(),
            pending,
            is_in_doubt: false,
            staging,
            login: Login::default(),
            is_forced: false,
            asked: (Vec::new(), 0),
            lingering: Vec::new(),
            closing: Closing::default(),
        }
    }

    /// Whether any backup is held open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.lingering.is_empty() && self.closing.is_done()
    }

    /// Whether there is nothing that [`Work::Close`] would do.
    pub(super) fn is_done(&self) -> bool {
        self.is_empty() && self.pending.is_empty()
    }

    /// Whether backups are held only because they may be wanted again.
    pub(super) fn is_lingering(&self) -> bool {
        self.open.is_empty() && !self.is_empty()
    }

    /// Whether nothing was stored since the last promise, but only asked.
    pub(super) fn has_only_asked(&self) -> bool {
        self.open.iter().all(|held| !held.writer.has_unsynced())
    }

    /// Does a job. May block.
    pub(super) fn run(&mut self, work: Work) -> Done {
        match work {
            Work::Authenticate { mech, initial, channel } => Done::Auth(self.login.authenticate(
                &self.site.authenticator,
                &self.peer,
                &mech,
                initial.as_deref(),
                channel,
            )),
            Work::Respond(response) => Done::Auth(self.login.respond(&self.peer, &response)),
            Work::Stage { octets, is_first } => Done::Staged(match self.stage(&octets, is_first) {
                Ok(()) => true,
                Err(error) => {
                    tracing::error!(path = %self.site.staging_path.display(), %error,
                        "cannot stage a message");
                    self.unstage();
                    false
                }
            }),
            Work::Unstage => {
                self.unstage();
                Done::Released
            }
            Work::Get(text) => {
                let result = self.get(&text);
                self.unstage();
                reply(result)
            }
            Work::Apply(text, bodies) => {
                let result = self.apply(&text, bodies);
                self.unstage();
                reply(result)
            }
            Work::Restart => {
                self.end_group();
                Done::Reply(promise(self.restart(), "OK Restarting"))
            }
            Work::Exit => {
                self.end_group();
                Done::Reply(promise(self.finish_all(), "OK Finished"))
            }
            Work::Release => {
                // The client hears of it when it asks for a promise, and goes on with what
                // it asked for.
                self.is_in_doubt = self.finish_all().is_err();
                Done::Released
            }
            Work::Close => {
                self.end_group();
                if self.finish_all().is_err() {
                    tracing::error!(
                        "a backup was not finished; it will be mended when next opened"
                    );
                }
                Done::Released
            }
        }
    }

    /// Anything that is still there goes first.
    fn stage(&mut self, octets: &[u8], is_first: bool) -> std::io::Result<()> {
        if is_first {
            self.staging.clear()?;
        }
        self.staging.add(octets)
    }

    /// Gives the room of the bodies of a line back.
    fn unstage(&mut self) {
        if let Err(error) = self.staging.clear() {
            tracing::warn!(%error, "cannot empty the staging file");
        }
    }

    /// A backup that could not be written to is let go of: what it holds is found
    /// out at its next open.
    fn append(&mut self, at: usize, line: &Line<'_>) -> Result<(), Refusal> {
        self.append_from(at, line, Source::Line)
    }

    fn append_from(
        &mut self,
        at: usize,
        line: &Line<'_>,
        source: Source<'_>,
    ) -> Result<(), Refusal> {
        let staging = match source {
            Source::Line => &self.staging,
            Source::Pending => self.pending.staging().ok_or(Refusal::Internal)?,
            Source::Left(staging) => staging,
        };
        match self.open[at].writer.append(now(), line, staging) {
            Ok(()) => Ok(()),
            Err(error @ StoreError::TooLong { .. }) => Err(error.into()),
            Err(error) => {
                self.is_in_doubt |= self.open.remove(at).writer.has_unsynced();
                Err(error.into())
            }
        }
    }

    /// Opens the backup of a userid, makes it the one that GET speaks of.
    fn open_current(&mut self, userid: &[u8]) -> Result<usize, Refusal> {
        let key = self.site.names.userid_key(userid);
        self.open(&key)?;
        self.end_group();
        // That may have opened others.
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
        let mut lingering = std::mem::take(&mut self.lingering);
        let again = lingering.iter().position(|held| held.key == key);
        let again = again.map(|at| lingering.remove(at));
        // While one is in use no time is counted for others: their locks would stay.
        self.closing.begin(lingering);
        if let Some(held) = again {
            self.open.push(held);
            return Ok(self.open.len() - 1);
        }
        self.closing.wait_for(key);
        self.make_room()?;
        let writer = patiently(LINGERING, || self.open_writer(key)).inspect_err(|refusal| {
            if !matches!(refusal, Refusal::Locked) {
                tracing::error!(backup = %lossy(key), "cannot open the backup");
            }
        })?;
        self.open.push(Held::new(key, writer));
        Ok(self.open.len() - 1)
    }

    /// Once the lock is held the catalog must still lead to this file: a tool may have
    /// moved or deleted the backup in between.
    fn open_writer(&self, key: &[u8]) -> Result<Writer, Refusal> {
        for _ in 0..OPEN_TRIES {
            let (path, _) = self.site.catalog.lookup_or_create(key, &self.site.placement)?;
            let writer = Writer::open(&path, now())?;
            if self.site.catalog.lookup(key)?.as_ref() == Some(&path) {
                return Ok(writer);
            }
        }
        Err(Refusal::Locked)
    }

    /// [`Lease::open`] for commands that had better not be answered LOCKED: a client repeats its
    /// whole round at once, for as long as the lock is held.
    fn open_patiently(&mut self, key: &[u8]) -> Result<usize, Refusal> {
        patiently(PATIENCE, || self.open(key))
    }

    /// Where an open backup is.
    fn place(&self, key: &[u8]) -> Result<usize, Refusal> {
        self.open.iter().position(|held| held.key == key).ok_or(Refusal::Internal)
    }

    /// Finishes the backup unused for the longest, if there are too many; one that is asked for
    /// again is opened again. A rename needs two.
    fn make_room(&mut self) -> Result<(), Refusal> {
        if self.open.len() < self.site.open_backups_max.max(2) {
            return Ok(());
        }
        let finished = finish(self.open.remove(0));
        self.is_in_doubt |= finished.is_err();
        finished
    }

    /// Makes everything durable that was acknowledged since the last time. The first error
    /// is returned, after all have been tried.
    fn restart(&mut self) -> Result<(), Refusal> {
        let mut result = self.begin_anew();
        let mut unwanted = std::mem::take(&mut self.lingering);
        for mut held in self.open.drain(..) {
            let settled = held.writer.sync(now());
            if settled.is_ok() {
                let lingers = held.since.elapsed() < HOLD_MAX;
                if lingers { &mut self.lingering } else { &mut unwanted }.push(held);
            }
            result = result.and(settled.map_err(Refusal::from));
        }
        self.closing.begin(unwanted);
        result
    }

    /// An error if something that was acknowledged cannot be promised any more; the next time
    /// it can.
    fn begin_anew(&mut self) -> Result<(), Refusal> {
        self.asked = (Vec::new(), 0);
        match std::mem::take(&mut self.is_in_doubt) {
            true => Err(Refusal::Internal),
            false => Ok(()),
        }
    }

    /// [`Lease::restart`], and lets go of every backup.
    fn finish_all(&mut self) -> Result<(), Refusal> {
        let result = self.begin_anew();
        self.closing.begin(std::mem::take(&mut self.lingering));
        let result = self.open.drain(..).map(finish).fold(result, Result::and);
        self.closing.wait();
        result
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Data and index may be out of step: the next open puts that right. What waits stays
            // in its file.
            return;
        }
        self.run(Work::Close);
    }
}

/// Tries again for so long while another has the lock.
fn patiently<T>(
    patience: Duration,
    mut open: impl FnMut() -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let until = Instant::now() + patience;
    loop {
        match open() {
            Err(Refusal::Locked) if Instant::now() < until => std::thread::sleep(LOCK_RETRY),
            other => return other,
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
    query(held.writer.index()).map_err(|error| {
        let error = StoreError::index(held.writer.path())(error);
        held.writer.put_aside_if_damaged(&error);
        error.into()
    })
}

/// The answer to a command that promises durability.
fn promise(result: Result<(), Refusal>, status: &str) -> Vec<u8> {
    match result {
        Ok(()) => format!("{status}\r\n").into_bytes(),
        Err(_) => format!("{}\r\n", Refusal::Internal.status()).into_bytes(),
    }
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
