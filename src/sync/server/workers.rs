//! Threads for work that may block.
//!
//! A thread is started when a job comes and none is idle, up to a limit; beyond it
//! jobs wait. There is at most one job per connection, so the queue is bounded by
//! the number of connections.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::Waker;

use super::lease::Lease;
use crate::sync::{Done, Work};

/// How long an idle thread waits for a job before it ends.
const IDLE: Duration = Duration::from_secs(30);

/// Work for one connection, with its lease.
pub(super) struct Job {
    pub(super) conn: usize,
    pub(super) lease: Lease,
    pub(super) work: Work,
}

/// A finished job. The lease is lost if the job panicked.
pub(super) struct Finished {
    pub(super) conn: usize,
    pub(super) lease: Option<Lease>,
    pub(super) done: Option<Done>,
}

/// The pool.
pub(super) struct Workers {
    shared: Arc<Shared>,
    max: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    /// A job was added while a thread was idle.
    added: Condvar,
    results: Sender<Finished>,
    waker: Arc<Waker>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Workers {
    /// A pool of up to `max` threads; results come through the receiver, each
    /// after a wake-up.
    pub(super) fn new(max: usize, waker: Arc<Waker>) -> (Workers, Receiver<Finished>) {
        let (results, result_queue) = unbounded();
        let (queue, added) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { queue, added, results, waker });
        (Workers { shared, max: max.max(1) }, result_queue)
    }

    /// Hands a job to a thread.
    pub(super) fn submit(&self, job: Job) {
        let mut queue = self.shared.queue();
        queue.jobs.push_back(job);
        if queue.jobs.len() > queue.idle && queue.threads < self.max {
            queue.threads += 1;
            drop(queue);
            self.start_thread();
        } else {
            drop(queue);
            self.shared.added.notify_one();
        }
    }

    fn start_thread(&self) {
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new().name("worker".into()).spawn(move || shared.run());
        if let Err(error) = spawned {
            tracing::error!(%error, "cannot start a worker thread");
            let mut queue = self.shared.queue();
            queue.threads -= 1;
            let job = if queue.threads == 0 { queue.jobs.pop_front() } else { None };
            drop(queue);
            if let Some(job) = job {
                // Nobody else would: everybody waits for this one.
                self.shared.finish(job);
            }
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(job) = self.next() {
            self.finish(job);
        }
    }

    /// The next job; `None` if none came for long, and the thread counts no more.
    ///
    /// Not a channel: its receivers spin before they sleep, on processors that others want.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        queue.idle += 1;
        let is_empty = |queue: &mut Queue| queue.jobs.is_empty();
        let (mut queue, _) = self
            .added
            .wait_timeout_while(queue, IDLE, is_empty)
            .unwrap_or_else(PoisonError::into_inner);
        queue.idle -= 1;
        let job = queue.jobs.pop_front();
        queue.threads -= usize::from(job.is_none());
        job
    }

    fn finish(&self, job: Job) {
        let Job { conn, mut lease, work } = job;
        // A panic is a fault of this program; it ends one session, not the server.
        let run = std::panic::AssertUnwindSafe(|| {
            let done = lease.run(work);
            (lease, done)
        });
        let (lease, done) = match std::panic::catch_unwind(run) {
            Ok((lease, done)) => (Some(lease), Some(done)),
            Err(_) => (None, None),
        };
        let _ = self.results.send(Finished { conn, lease, done });
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake the event loop");
        }
    }
}
