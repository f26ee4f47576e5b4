//! The bar that shows people how far the restore of one backup is.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cmd::Streams;
use crate::cmd::people::{cut, harmless};
use crate::restore::{Event, Plan};
use crate::wire::dlist::lossy;

const TEMPLATE: &str = "{bar:30} {pos}/{len} messages, {per_sec}, {eta} left: {msg}";
/// How often it is drawn, at most, per second.
const HERTZ: u8 = 5;
/// What is done sooner needs no bar.
const PATIENCE: Duration = Duration::from_millis(500);
/// Columns for the name of a mailbox.
const NAME_WIDTH: usize = 40;

/// A bar on standard error, if that is a terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    started: Option<Instant>,
}

impl Progress {
    /// For what a plan says.
    pub(super) fn start(plan: &Plan, streams: &Streams<'_>) -> Progress {
        let bar = ProgressBar::hidden();
        bar.set_length(plan.targets.iter().map(|target| target.messages + target.expunged).sum());
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Progress { bar, started: streams.err_is_terminal.then(Instant::now) }
    }

    /// Takes an event.
    pub(super) fn event(&self, event: Event<'_>) {
        if self.bar.is_hidden() && self.started.is_some_and(|at| at.elapsed() >= PATIENCE) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(HERTZ));
        }
        match event {
            Event::Mailbox(name) => {
                let name = lossy(name);
                self.bar.set_message(cut(&harmless(&name), NAME_WIDTH).into_owned());
            }
            Event::Messages(count) => self.bar.inc(count),
        }
    }

    /// Takes the bar away for good.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
