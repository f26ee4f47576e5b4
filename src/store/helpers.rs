//! Threads that help with work which can be divided.
//!
//! Compressing is what bounds everything that writes much, and a session has one thread. In the
//! whole process there are never more helpers than processors that would else be idle: a server
//! with as many busy sessions gains nothing from more threads, and gets none.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};

/// Threads at work: tasks and their helpers.
static AT_WORK: AtomicUsize = AtomicUsize::new(0);

/// Helpers that one task gets at most: what comes in order cannot keep more busy.
const HELPERS_MAX: usize = 7;

/// Items that are held in memory for each thread, waiting, at work or done.
const ITEMS_PER_THREAD: usize = 2;

/// Does `work` on every item, on this thread and on helpers, and hands the results to `take` on
/// this thread in the order of the items. An error of either side ends it. Each thread has a
/// `tool` of its own to work with.
///
/// Few items are held at a time: memory is bounded by the number of processors.
pub(super) fn in_order<T: Send, U: Send, S, E>(
    mut items: impl Iterator<Item = Result<T, E>>,
    tool: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) -> U + Sync,
    mut take: impl FnMut(U) -> Result<(), E>,
) -> Result<(), E> {
    let Some(first) = items.next() else { return Ok(()) };
    let Some(second) = items.next() else { return take(work(&mut tool(), first?)) };
    pipeline(tool, work, |pipe| {
        for item in [first, second].into_iter().chain(items) {
            if let Some(done) = pipe.push(item?) {
                take(done)?;
            }
        }
        while let Some(done) = pipe.pull() {
            take(done)?;
        }
        Ok(())
    })
}

/// The same for items that come one by one: `feed` pushes them.
pub(super) fn pipeline<T: Send, U: Send, S, R>(
    tool: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, T) -> U + Sync,
    feed: impl FnOnce(&mut Pipe<'_, T, U>) -> R,
) -> R {
    let helpers = Helpers::borrow();
    let window = (helpers.0 + 1) * ITEMS_PER_THREAD;
    let (jobs, queue) = unbounded::<Job<T, U>>();
    thread::scope(|scope| {
        // Dropped at the end of this closure, however it ends: then the helpers end.
        let jobs = jobs;
        for _ in 0..helpers.0 {
            let (queue, tool, work) = (queue.clone(), &tool, &work);
            let run = move || {
                let mut tool = tool();
                queue.iter().for_each(|job| job.run(&mut tool, work));
            };
            // Without helpers it takes longer.
            let _ = thread::Builder::new().name("helper".into()).spawn_scoped(scope, run);
        }
        let mut own_tool = tool();
        let run = &mut |job: Job<T, U>| job.run(&mut own_tool, &work);
        feed(&mut Pipe { jobs, queue, waiting: VecDeque::new(), window, run })
    })
}

/// Does two things at the same time, of which the first one waits for the disk.
pub(super) fn beside<T: Send, U>(waits: impl Fn() -> T + Sync, work: impl FnOnce() -> U) -> (T, U) {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("waiter".into()).spawn_scoped(scope, &waits);
        let done = work();
        let waited = match thread.map(ScopedJoinHandle::join) {
            Ok(waited) => waited.unwrap_or_else(|panic| resume_unwind(panic)),
            // There is no thread for it.
            Err(_) => waits(),
        };
        (waited, done)
    })
}

/// Does `work` on items one after the other, on a thread of its own: `feed` pushes them, and pulls
/// the results.
pub(super) fn aside<T: Send, U: Send, W: FnMut(T) -> U + Send, R>(
    work: W,
    feed: impl FnOnce(&Aside<T, U, W>) -> R,
) -> R {
    let work = Mutex::new(Some(work));
    let take = || work.lock().ok().and_then(|mut work| work.take());
    let (jobs, queue) = unbounded::<T>();
    let (done, results) = unbounded();
    thread::scope(|scope| {
        let run = move || {
            let Some(work) = take() else { return };
            // Nobody waits for more after an error.
            let _ = queue.iter().map(work).try_for_each(|result| done.send(result));
        };
        let thread = thread::Builder::new().name("aside".into()).spawn_scoped(scope, run);
        // There is no thread for it: it is done when it comes.
        let own = if thread.is_ok() { None } else { take() };
        let own = own.map(|work| RefCell::new((work, VecDeque::new())));
        // Dropped at the end of this closure, however it ends: then the thread ends.
        feed(&Aside { jobs, results, waiting: Cell::new(0), own })
    })
}

/// Items that are waiting, at work or done, one after the other.
pub(super) struct Aside<T, U, W> {
    jobs: Sender<T>,
    results: Receiver<U>,
    /// How many results there will be.
    waiting: Cell<usize>,
    own: Option<RefCell<(W, VecDeque<U>)>>,
}

impl<T, U, W: FnMut(T) -> U> Aside<T, U, W> {
    /// Adds an item.
    pub(super) fn push(&self, item: T) {
        self.waiting.update(|waiting| waiting + 1);
        match &self.own {
            Some(own) => {
                let (work, done) = &mut *own.borrow_mut();
                done.push_back(work(item));
            }
            // If the thread has panicked, so will the scope.
            None => drop(self.jobs.send(item)),
        }
    }

    /// The result of the first item, for which this waits; `None` if there are no more items.
    pub(super) fn pull(&self) -> Option<U> {
        self.waiting.set(self.waiting.get().checked_sub(1)?);
        match &self.own {
            Some(own) => own.borrow_mut().1.pop_front(),
            None => self.results.recv().ok(),
        }
    }
}

/// Items that are waiting, at work or done, in their order.
pub(super) struct Pipe<'p, T, U> {
    jobs: Sender<Job<T, U>>,
    queue: Receiver<Job<T, U>>,
    waiting: VecDeque<Receiver<U>>,
    window: usize,
    run: &'p mut dyn FnMut(Job<T, U>),
}

impl<T, U> Pipe<'_, T, U> {
    /// Adds an item. Returns the result of the first one, if no more may be held.
    pub(super) fn push(&mut self, item: T) -> Option<U> {
        let first = if self.waiting.len() >= self.window { self.pull() } else { None };
        let (job, result) = Job::new(item);
        // The queue is open: `queue` is alive.
        let _ = self.jobs.send(job);
        self.waiting.push_back(result);
        first
    }

    /// The result of the first item; `None` if there are no more.
    pub(super) fn pull(&mut self) -> Option<U> {
        let first = self.waiting.pop_front()?;
        loop {
            match first.try_recv() {
                Ok(done) => return Some(done),
                // A helper has panicked; so will the scope.
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
            // At work meanwhile.
            match self.queue.try_recv() {
                Ok(job) => (self.run)(job),
                // A helper is at it.
                Err(_) => return first.recv().ok(),
            }
        }
    }
}

struct Job<T, U> {
    item: T,
    result: Sender<U>,
}

impl<T, U> Job<T, U> {
    fn new(item: T) -> (Job<T, U>, Receiver<U>) {
        let (result, receiver) = bounded(1);
        (Job { item, result }, receiver)
    }

    fn run<S>(self, tool: &mut S, work: &impl Fn(&mut S, T) -> U) {
        // Nobody waits for it any more after an error.
        let _ = self.result.send(work(tool, self.item));
    }
}

/// So many helpers beside the thread that has them, until dropped.
struct Helpers(usize);

impl Helpers {
    fn borrow() -> Helpers {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let mut lent = 0;
        let _ = AT_WORK.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at_work| {
            lent = processors.saturating_sub(at_work + 1).min(HELPERS_MAX);
            Some(at_work + 1 + lent)
        });
        Helpers(lent)
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        AT_WORK.fetch_sub(self.0 + 1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn squares(items: impl Iterator<Item = Result<u64, String>>) -> (Vec<u64>, Result<(), String>) {
        let mut taken = Vec::new();
        let result = in_order(
            items,
            || (),
            |_, n| {
                thread::sleep(std::time::Duration::from_micros(n * 37 % 100));
                n * n
            },
            |square| {
                taken.push(square);
                if square == 49 { Err("enough".to_owned()) } else { Ok(()) }
            },
        );
        (taken, result)
    }

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for count in [0, 1, 2, 5] {
            let (taken, result) = squares((0..count).map(Ok));
            assert_eq!(taken, (0..count).map(|n| n * n).collect::<Vec<_>>());
            assert_eq!(result, Ok(()));
        }
        let mut taken = Vec::new();
        in_order(
            (0..1000u64).map(Ok::<_, ()>),
            || 1,
            |one, n| n + *one,
            |n| {
                taken.push(n);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(taken, (1..=1000).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_of_either_side_ends_it() {
        let (taken, result) = squares((0..100).map(Ok));
        assert_eq!((taken.len(), result), (8, Err("enough".into())));
        let items = (0..6).map(|n| if n == 5 { Err("no more".to_owned()) } else { Ok(n) });
        assert_eq!(squares(items).1, Err("no more".into()));
    }

    #[test]
    fn work_goes_on_beside_what_waits() {
        let (told, heard) = bounded(0);
        let (waited, done) = beside(|| heard.recv(), || told.send(7).is_ok());
        assert_eq!((waited, done), (Ok(7), true));
    }

    #[test]
    fn what_is_done_aside_is_done_in_order() {
        let mut sum = 0;
        let sums = |item: u64| {
            sum += item;
            (sum, thread::current().id())
        };
        aside(sums, |aside| {
            (0..3).for_each(|item| aside.push(item));
            for expected in [0, 1] {
                let (sum, thread) = aside.pull().unwrap();
                assert_eq!(sum, expected);
                assert_ne!(thread, thread::current().id());
            }
            aside.push(10);
            assert_eq!([aside.pull().unwrap().0, aside.pull().unwrap().0], [3, 13]);
            assert_eq!(aside.pull(), None);
            // Nobody waits for this one.
            aside.push(1);
        });
    }

    #[test]
    fn no_more_items_are_held_than_threads_need() {
        let drawn = AtomicUsize::new(0);
        let mut taken = 0;
        let items = (0..500).map(|n| {
            drawn.fetch_add(1, Ordering::Relaxed);
            Ok::<i32, ()>(n)
        });
        in_order(
            items,
            || (),
            |_, n| n,
            |_| {
                taken += 1;
                let held = drawn.load(Ordering::Relaxed) - taken;
                assert!(held <= (HELPERS_MAX + 1) * ITEMS_PER_THREAD, "{held}");
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(taken, 500);
    }
}
