//! `ctl_backups verify`: compares data and index, checksums included.

use super::{Options, Outcome, for_each, write_outcome};
use crate::cmd::report::{VerifyReport, store_error};
use crate::cmd::{Exit, Stop, Streams};
use crate::config::Settings;
use crate::store::{Backup, StoreError, verify};

pub(super) fn run(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<Exit, Stop> {
    for_each(options, settings, streams, |target, streams| {
        let mut report = VerifyReport::new(&mut *streams.out, options.verbosity);
        let result = Backup::open(&target.path, options.wait())
            .and_then(|backup| verify::full(&backup, &mut |event| report.event(event)));
        let verdict = report.finish()?;
        let (status, outcome) = match (result, verdict) {
            (Ok(_), None) => ("ok".into(), Outcome::Done),
            (Ok(_), Some(verdict)) => (format!("failed ({verdict})"), Outcome::Failed),
            (Err(StoreError::Locked(_)), _) => ("locked".into(), Outcome::Locked),
            (Err(error), _) => (format!("failed ({})", store_error(&error)), Outcome::Failed),
        };
        write_outcome(options, target, &status, streams.out)?;
        Ok(outcome)
    })
}
