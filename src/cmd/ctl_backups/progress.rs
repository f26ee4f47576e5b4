//! The bar that shows people how far many backups are.

use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::Outcome;
use crate::cmd::Streams;

const TEMPLATE: &str = "{bar:30} {pos}/{len} backups, {rate}, {eta} left";
/// How often it is drawn, at most, per second.
const HERTZ: u8 = 5;
/// What is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_millis(500);

/// A bar on standard error, if that is a terminal.
pub(in crate::cmd) struct Progress {
    bar: ProgressBar,
    /// When the run began, if it may show a bar.
    started: Option<Instant>,
}

impl Progress {
    /// For a run over `len` backups.
    pub(in crate::cmd) fn start(len: usize, streams: &Streams<'_>) -> Progress {
        let progress = Progress::hidden();
        if !streams.err_is_terminal || len < 2 {
            return progress;
        }
        let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            // A bar that cannot be drawn is no loss.
            let _ = write!(out, "{:.1}/s", state.per_sec());
        };
        progress.bar.set_length(len as u64);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            progress.bar.set_style(style.with_key("rate", rate));
        }
        Progress { started: Some(Instant::now()), ..progress }
    }

    /// None.
    pub(in crate::cmd) fn hidden() -> Progress {
        Progress { bar: ProgressBar::hidden(), started: None }
    }

    /// One more is done.
    pub(in crate::cmd) fn advance(&self) {
        if self.bar.is_hidden() && self.started.is_some_and(|at| at.elapsed() >= PATIENCE) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(HERTZ));
        }
        self.bar.inc(1);
    }

    /// Takes the bar away while something else is written.
    pub(in crate::cmd) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the bar away for good.
    pub(in crate::cmd) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// How a run over many backups went.
pub(in crate::cmd) struct Tally {
    started: Instant,
    done: usize,
    skipped: usize,
    locked: usize,
    failed: usize,
    forgiven: usize,
    unknown: usize,
    of: usize,
}

impl Tally {
    pub(in crate::cmd) fn start(of: usize) -> Tally {
        Tally {
            started: Instant::now(),
            done: 0,
            skipped: 0,
            locked: 0,
            failed: 0,
            forgiven: 0,
            unknown: 0,
            of,
        }
    }

    /// Counts one.
    pub(in crate::cmd) fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done => self.done += 1,
            Outcome::Skipped => self.skipped += 1,
            Outcome::Locked => self.locked += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Forgiven => self.forgiven += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }

    /// Whether any counts as a failure of the run, whoever judges.
    pub(in crate::cmd) fn failed(&self) -> bool {
        self.locked + self.failed > 0
    }

    /// With how many there was nothing to do.
    pub(in crate::cmd) fn skipped(&self) -> usize {
        self.skipped
    }

    /// How many there are not.
    pub(in crate::cmd) fn unknown(&self) -> usize {
        self.unknown
    }

    /// Says so in one line: `1000 backups: 998 ok, 1 locked, 1 failed, in 12.3 s`.
    pub(in crate::cmd) fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        writeln!(out, "{}", self.text(self.started.elapsed()))
    }

    fn text(&self, elapsed: Duration) -> String {
        let failed = self.failed + self.forgiven;
        let visited = self.done + self.skipped + self.locked + failed + self.unknown;
        let mut text = format!("{visited} backups: {} ok", self.done);
        let rest = [
            (self.skipped, "skipped"),
            (self.locked, "locked"),
            (failed, "failed"),
            (self.unknown, "not found"),
            (self.of.saturating_sub(visited), "not visited"),
        ];
        for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0) {
            text += &format!(", {count} {what}");
        }
        text + &format!(", in {:.1} s", elapsed.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tally_names_only_what_happened() {
        let mut tally = Tally::start(6);
        let second = Duration::from_secs(1);
        assert_eq!(tally.text(second), "0 backups: 0 ok, 6 not visited, in 1.0 s");
        for outcome in [Outcome::Done, Outcome::Done, Outcome::Locked, Outcome::Unknown] {
            tally.add(outcome);
        }
        assert!(tally.failed());
        tally.add(Outcome::Forgiven);
        let text = "5 backups: 2 ok, 1 locked, 1 failed, 1 not found, 1 not visited, in 1.0 s";
        assert_eq!(tally.text(second), text);
        let mut tally = Tally::start(1);
        tally.add(Outcome::Skipped);
        assert!(!tally.failed() && tally.skipped() == 1);
        assert_eq!(tally.text(second), "1 backups: 0 ok, 1 skipped, in 1.0 s");
    }
}
