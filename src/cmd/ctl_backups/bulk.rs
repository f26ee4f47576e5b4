//! One command over many backups: several at a time, told in their order.
//!
//! Each backup's output is gathered while it is worked on and printed when its turn
//! comes. Nobody runs further ahead of what is printed than a few times the number
//! of workers, so that memory is bounded. The first Ctrl-C lets what is running
//! end; a second one ends the process.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use signal_hook::consts::SIGINT;

use super::Outcome;
use super::progress::Progress;
use crate::cmd::{Stop, Streams};

/// How many backups each worker may be ahead of what was printed. Their output is kept until
/// then: a line each, as a rule.
const AHEAD: usize = 16;
/// Status of a process that Ctrl-C ended, as shells have it.
const INTERRUPTED: i32 = 130;

/// How long it may take until people are told that their Ctrl-C was noticed.
const GLANCE: Duration = Duration::from_millis(100);
/// What they are told.
const FINISHING: &str = "interrupted: what is being done is finished first; Ctrl-C again ends it";

/// What is done with one item.
pub(in crate::cmd) type Visit<'v, T> =
    dyn Fn(&T, &mut Streams<'_>) -> Result<Outcome, Stop> + Sync + 'v;

/// What was written while one item was worked on.
struct Told {
    out: Vec<u8>,
    err: Vec<u8>,
    result: Result<Outcome, Stop>,
}

/// Set by Ctrl-C. The second one ends the process.
pub(in crate::cmd) fn interruption() -> io::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register_conditional_shutdown(SIGINT, INTERRUPTED, flag.clone())?;
    signal_hook::flag::register(SIGINT, flag.clone())?;
    Ok(flag)
}

/// One item after the other, told as it happens. `done` says whether to go on.
pub(in crate::cmd) fn in_turn<T>(
    items: &[T],
    visit: &Visit<'_, T>,
    interrupted: &AtomicBool,
    streams: &mut Streams<'_>,
    done: &mut dyn FnMut(usize, Outcome) -> bool,
) -> Result<(), Stop> {
    for (i, item) in items.iter().enumerate() {
        if interrupted.load(Ordering::Relaxed) {
            break;
        }
        let outcome = visit(item, streams)?;
        // Who looks on sees each backup when it is done.
        streams.out.flush()?;
        if !done(i, outcome) {
            break;
        }
    }
    Ok(())
}

/// `jobs` items at a time, told in their order.
pub(in crate::cmd) fn in_parallel<T: Sync>(
    items: &[T],
    jobs: usize,
    visit: &Visit<'_, T>,
    interrupted: &AtomicBool,
    progress: &Progress,
    streams: &mut Streams<'_>,
    done: &mut dyn FnMut(usize, Outcome) -> bool,
) -> Result<(), Stop> {
    let gate = Gate::new(items.len(), jobs * AHEAD);
    let (sender, receiver) = crossbeam_channel::unbounded();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, gate) = (sender.clone(), &gate);
            scope.spawn(move || work(items, visit, interrupted, gate, &sender));
        }
        drop(sender);
        let arrivals = Arrivals { receiver, interrupted, is_told: !streams.err_is_terminal };
        let result = tell(arrivals, &gate, progress, streams, done);
        gate.close();
        result
    })
}

fn work<T>(
    items: &[T],
    visit: &Visit<'_, T>,
    interrupted: &AtomicBool,
    gate: &Gate,
    sender: &Sender<(usize, Told)>,
) {
    let _guard = CloseOnPanic(gate);
    while let Some(i) = gate.next().filter(|_| !interrupted.load(Ordering::Relaxed)) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let result = visit(&items[i], &mut Streams::new(&mut out, &mut err));
        if sender.send((i, Told { out, err, result })).is_err() {
            return;
        }
    }
}

/// What arrives from the workers, and Ctrl-C.
struct Arrivals<'a> {
    receiver: Receiver<(usize, Told)>,
    interrupted: &'a AtomicBool,
    /// Whether it has been told that there was a Ctrl-C, or nobody needs to be.
    is_told: bool,
}

impl Arrivals<'_> {
    /// The next one; none when all workers are gone.
    fn next(
        &mut self,
        progress: &Progress,
        streams: &mut Streams<'_>,
    ) -> io::Result<Option<(usize, Told)>> {
        loop {
            let arrived = self.receiver.recv_timeout(GLANCE);
            if !self.is_told && self.interrupted.load(Ordering::Relaxed) {
                self.is_told = true;
                progress.aside(|| writeln!(streams.err, "{FINISHING}"))?;
            }
            match arrived {
                Ok(arrived) => return Ok(Some(arrived)),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// Prints what arrives, in the order of the items.
fn tell(
    mut arrivals: Arrivals<'_>,
    gate: &Gate,
    progress: &Progress,
    streams: &mut Streams<'_>,
    done: &mut dyn FnMut(usize, Outcome) -> bool,
) -> Result<(), Stop> {
    let mut waiting = BTreeMap::new();
    let mut turn = 0;
    while let Some((i, told)) = arrivals.next(progress, streams)? {
        progress.advance();
        waiting.insert(i, told);
        while let Some(told) = waiting.remove(&turn) {
            progress.aside(|| {
                streams.out.write_all(&told.out)?;
                streams.out.flush()?;
                streams.err.write_all(&told.err)
            })?;
            if !done(turn, told.result?) {
                return Ok(());
            }
            turn += 1;
            gate.printed(turn);
        }
    }
    Ok(())
}

/// Hands out the items, and holds back whoever is too far ahead.
struct Gate {
    state: Mutex<GateState>,
    moved: Condvar,
    len: usize,
    ahead: usize,
}

struct GateState {
    next: usize,
    printed: usize,
    waiting: usize,
    closed: bool,
}

impl Gate {
    fn new(len: usize, ahead: usize) -> Gate {
        let state = GateState { next: 0, printed: 0, waiting: 0, closed: false };
        Gate { state: Mutex::new(state), moved: Condvar::new(), len, ahead }
    }

    fn next(&self) -> Option<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        let too_far = |state: &mut GateState| {
            !state.closed && state.next < self.len && state.next >= state.printed + self.ahead
        };
        let mut state =
            self.moved.wait_while(state, too_far).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        if state.closed || state.next >= self.len {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }

    fn printed(&self, count: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.printed = count;
        // A worker that waits goes on when half of what it may be ahead has been printed: to be
        // woken for each would cost more than many an item.
        let is_due = state.waiting > 0 && state.next < count + self.ahead.div_ceil(2);
        drop(state);
        if is_due {
            self.moved.notify_all();
        }
    }

    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.moved.notify_all();
    }
}

/// The turn of an item whose worker has panicked never comes: nobody may wait for it.
struct CloseOnPanic<'g>(&'g Gate);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn run(
        items: &[usize],
        visit: &Visit<'_, usize>,
        done: &mut dyn FnMut(usize, Outcome) -> bool,
    ) -> (Result<(), Stop>, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut streams = Streams::new(&mut out, &mut err);
        let never = AtomicBool::new(false);
        let progress = Progress::hidden();
        let result = in_parallel(items, 4, visit, &never, &progress, &mut streams, done);
        (result, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn output_comes_in_order_whoever_is_first() {
        let items: Vec<usize> = (0..100).collect();
        let visit = |i: &usize, streams: &mut Streams<'_>| {
            std::thread::sleep(Duration::from_micros(((i * 7919) % 13) as u64 * 200));
            writeln!(streams.out, "{i}")?;
            writeln!(streams.err, "e{i}")?;
            Ok(if i % 10 == 3 { Outcome::Failed } else { Outcome::Done })
        };
        let mut failed = 0;
        let (result, out, err) = run(&items, &visit, &mut |_, outcome| {
            failed += usize::from(outcome == Outcome::Failed);
            true
        });
        result.unwrap();
        let expected: String = items.iter().map(|i| format!("{i}\n")).collect();
        assert_eq!((out.as_str(), failed), (expected.as_str(), 10));
        assert!(err.starts_with("e0\ne1\n"));
    }

    #[test]
    fn nobody_runs_far_ahead_of_a_slow_one() {
        let items: Vec<usize> = (0..200).collect();
        let started = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let visit = |i: &usize, _: &mut Streams<'_>| {
            started.fetch_add(1, Ordering::SeqCst);
            if *i == 0 {
                std::thread::sleep(Duration::from_millis(100));
                most.store(started.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            Ok(Outcome::Done)
        };
        run(&items, &visit, &mut |_, _| true).0.unwrap();
        assert!(most.load(Ordering::SeqCst) <= 4 * AHEAD, "{most:?}");
        assert_eq!(started.load(Ordering::SeqCst), 200);
    }

    #[test]
    fn who_interrupts_is_told_what_is_waited_for() {
        for is_terminal in [true, false] {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut streams = Streams::new(&mut out, &mut err);
            streams.err_is_terminal = is_terminal;
            let interrupted = AtomicBool::new(false);
            let visit = |_: &usize, _: &mut Streams<'_>| {
                interrupted.store(true, Ordering::Relaxed);
                std::thread::sleep(GLANCE * 4);
                Ok(Outcome::Done)
            };
            let (mut visited, progress) = (0, Progress::hidden());
            let mut done = |_: usize, _: Outcome| {
                visited += 1;
                true
            };
            let items: Vec<usize> = (0..100).collect();
            in_parallel(&items, 2, &visit, &interrupted, &progress, &mut streams, &mut done)
                .unwrap();
            assert!((1..=2).contains(&visited), "{visited}");
            let told = String::from_utf8(err).unwrap();
            assert_eq!(told, if is_terminal { format!("{FINISHING}\n") } else { String::new() });
        }
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_of_one_ends_the_run_of_all() {
        let items: Vec<usize> = (0..1000).collect();
        let visit = |i: &usize, _: &mut Streams<'_>| {
            assert_ne!(*i, 5);
            Ok(Outcome::Done)
        };
        let _ = run(&items, &visit, &mut |_, _| true);
    }

    #[test]
    fn output_that_fails_ends_the_run() {
        let items: Vec<usize> = (0..1000).collect();
        let started = AtomicUsize::new(0);
        let visit = |i: &usize, _: &mut Streams<'_>| {
            started.fetch_add(1, Ordering::SeqCst);
            if *i == 5 {
                Err(Stop::Output(io::ErrorKind::BrokenPipe.into()))
            } else {
                Ok(Outcome::Done)
            }
        };
        assert!(run(&items, &visit, &mut |_, _| true).0.is_err());
        assert!(started.load(Ordering::SeqCst) < 100);
    }
}
