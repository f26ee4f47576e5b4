//! Taking in the messages that dead processes have left waiting: when a server starts, before it
//! takes a connection, and from time to time, for those that could not be taken in then.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::lease::Lease;
use super::{Peer, SharedSite};
use crate::store::waiting::{Leftover, leftovers};

/// Time between two looks into the staging directory.
const INTERVAL: Duration = Duration::from_secs(10 * 60);

/// A thread that looks after what is left. It ends when this is dropped, which waits for it.
pub(super) struct Adopter {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Adopter {
    /// Takes in what there is, and goes on doing so.
    pub(super) fn start(site: &SharedSite) -> Adopter {
        adopt_all(site);
        let (stop, stopped) = bounded(0);
        let site = Arc::clone(site);
        let look = move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                adopt_all(&site);
            }
        };
        let spawned = std::thread::Builder::new().name("adopter".into()).spawn(look);
        if let Err(error) = &spawned {
            tracing::error!(%error, "cannot start a thread: messages that processes leave waiting \
                are taken in at the next start");
        }
        Adopter { stop: Some(stop), thread: spawned.ok() }
    }
}

impl Drop for Adopter {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in it was logged and has cost nothing: the file is still there.
            let _ = thread.join();
        }
    }
}

/// Takes in what dead processes have left. What fails is left for the next time.
pub(super) fn adopt_all(site: &SharedSite) {
    let directory = &site.staging_path;
    match leftovers(directory) {
        Ok(paths) => paths.iter().for_each(|path| adopt(site, path)),
        Err(error) => tracing::error!(path = %directory.display(), %error,
            "cannot look for messages that a process has left waiting"),
    }
}

fn adopt(site: &SharedSite, path: &Path) {
    let file = path.display();
    let leftover = match Leftover::open(path) {
        Ok(Some(leftover)) => leftover,
        Ok(None) => return,
        Err(error) => {
            return tracing::error!(%file, %error, "cannot open messages that wait; left alone");
        }
    };
    let mut lease = Lease::new(Arc::clone(site), Peer::local());
    let adopted = match lease.adopt(&leftover) {
        Ok(adopted) => adopted,
        Err(refusal) => {
            return tracing::error!(%file, %refusal, "messages that a dead process has left \
                waiting cannot be taken in now; left for the next time");
        }
    };
    if adopted.messages > 0 {
        let messages = adopted.messages;
        tracing::warn!(%file, messages, "stored messages that a dead process has left waiting");
    }
    let gone = match &adopted.broken {
        None => leftover.remove(),
        Some(what) => leftover.put_aside().map(|kept| {
            tracing::error!(%file, %what, kept = %kept.display(),
                "messages that wait cannot all be read; put aside");
        }),
    };
    if let Err(error) = gone {
        tracing::error!(%file, %error, "cannot remove messages that have been stored");
    }
}
