//! Backups that are let go of while the session goes on with another one.
//!
//! All that they hold is durable; what is left is the commit of their indexes, four syncs that
//! nobody has been promised. A client that brings mail for one user after another would wait
//! for them with each.

use std::thread::JoinHandle;

use super::{Held, finish};

/// At most so many commits of a session at a time.
const THREADS_MAX: usize = 4;

/// See the module.
#[derive(Default)]
pub(super) struct Closing(Vec<Commit>);

struct Commit {
    keys: Vec<Vec<u8>>,
    thread: JoinHandle<()>,
}

impl Closing {
    /// Lets go of these. Should an index not be committed, the next open does it.
    pub(super) fn begin(&mut self, held: Vec<Held>) {
        self.0.retain(|commit| !commit.thread.is_finished());
        if held.is_empty() {
            return;
        }
        while self.0.len() >= THREADS_MAX {
            wait(self.0.remove(0));
        }
        let keys = held.iter().map(|held| held.key.clone()).collect();
        let builder = std::thread::Builder::new().name("commit".into());
        // If there is no thread, dropping the backups leaves it to the next open.
        match builder.spawn(move || commit(held)) {
            Ok(thread) => self.0.push(Commit { keys, thread }),
            Err(error) => tracing::error!(%error, "cannot start a thread to commit an index"),
        }
    }

    /// Waits until this backup can be opened again.
    pub(super) fn wait_for(&mut self, key: &[u8]) {
        let is_it = |commit: &Commit| commit.keys.iter().any(|known| known == key);
        if let Some(at) = self.0.iter().position(is_it) {
            wait(self.0.remove(at));
        }
    }

    /// Waits for all.
    pub(super) fn wait(&mut self) {
        self.0.drain(..).for_each(wait);
    }

    /// Whether all are let go of.
    pub(super) fn is_done(&self) -> bool {
        self.0.iter().all(|commit| commit.thread.is_finished())
    }
}

fn commit(held: Vec<Held>) {
    for held in held {
        let path = held.writer.path().to_owned();
        if let Err(error) = finish(held) {
            tracing::error!(file = %path.display(), %error, "cannot commit the index");
        }
    }
}

fn wait(commit: Commit) {
    if commit.thread.join().is_err() {
        tracing::error!("a commit was not finished; it will be when the backup is next opened");
    }
}
