//! Threads for work that may block.
//!
//! A thread is started when a job comes and none is idle, up to a limit; beyond it
//! jobs wait. There is at most one job per connection, so the queue is bounded by
//! the number of connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    jobs: Sender<Job>,
    shared: Shared,
    max: usize,
}

#[derive(Clone)]
struct Shared {
    jobs: Receiver<Job>,
    results: Sender<Finished>,
    waker: Arc<Waker>,
    threads: Arc<AtomicUsize>,
    idle: Arc<AtomicUsize>,
}

impl Workers {
    /// A pool of up to `max` threads; results come through the receiver, each
    /// after a wake-up.
    pub(super) fn new(max: usize, waker: Arc<Waker>) -> (Workers, Receiver<Finished>) {
        let (jobs, job_queue) = unbounded();
        let (results, result_queue) = unbounded();
        let shared = Shared {
            jobs: job_queue,
            results,
            waker,
            threads: Arc::default(),
            idle: Arc::default(),
        };
        (Workers { jobs, shared, max: max.max(1) }, result_queue)
    }

    /// Hands a job to a thread.
    pub(super) fn submit(&self, job: Job) {
        // The receiver lives in `shared`, so the queue is never closed.
        let _ = self.jobs.send(job);
        // A thread that leaves says so before it looks for a job once more: either it
        // finds this one, or it is not counted here.
        let threads = self.shared.threads.load(Ordering::SeqCst);
        let waiting = self.shared.jobs.len();
        if waiting > self.shared.idle.load(Ordering::SeqCst) && threads < self.max {
            self.start_thread();
        }
    }

    fn start_thread(&self) {
        let shared = self.shared.clone();
        shared.threads.fetch_add(1, Ordering::SeqCst);
        let spawned = std::thread::Builder::new().name("worker".into()).spawn(move || shared.run());
        if let Err(error) = spawned {
            tracing::error!(%error, "cannot start a worker thread");
            if self.shared.threads.fetch_sub(1, Ordering::SeqCst) == 1
                && let Ok(job) = self.shared.jobs.try_recv()
            {
                // Nobody else would: everybody waits for this one.
                self.shared.finish(job);
            }
        }
    }
}

impl Shared {
    fn run(&self) {
        loop {
            self.idle.fetch_add(1, Ordering::SeqCst);
            let job = self.jobs.recv_timeout(IDLE);
            self.idle.fetch_sub(1, Ordering::SeqCst);
            if let Ok(job) = job {
                self.finish(job);
                continue;
            }
            self.threads.fetch_sub(1, Ordering::SeqCst);
            match self.jobs.try_recv() {
                Ok(job) => {
                    self.threads.fetch_add(1, Ordering::SeqCst);
                    self.finish(job);
                }
                Err(_) => return,
            }
        }
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
