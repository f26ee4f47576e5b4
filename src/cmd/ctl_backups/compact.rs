//! `ctl_backups compact`: drops what is past its retention, joins and splits chunks.

use std::io;
use std::path::Path;

use super::{Options, Outcome, for_each, outcome_json, write_outcome};
use crate::cmd::json::Json;
use crate::cmd::people::octets;
use crate::cmd::report::store_error_in_full;
use crate::cmd::select::Target;
use crate::cmd::time::now;
use crate::cmd::{Exit, Stop, Streams, tool_log};
use crate::config::Settings;
use crate::store::StoreError;
use crate::store::backup::index_path;
use crate::store::compact::{self, CompactError, Damage, Event, Figures, Policy, Sizes};

pub(super) fn run(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<Exit, Stop> {
    for_each(options, settings, streams, |target, streams| {
        let now = now();
        let mut report = Report { options, streams, written: Ok(()), damages: Vec::new() };
        let result = compact::run(
            &target.path,
            &policy(options, settings, now),
            now,
            options.wait(),
            &mut |event| report.event(event),
        );
        let Report { written, damages, .. } = report;
        written?;
        tell_syslog(&target.path, &result, &damages);
        let (mut status, outcome) = match (&result, damages.len()) {
            // To Cyrus that is a failure anyway.
            (Ok(compact::Outcome::Skipped), count @ 1..) if options.own_words => not_worth(count),
            _ => status(&result, options.own_words),
        };
        if let (true, Ok(compact::Outcome::Done { figures, .. })) = (options.for_people, &result) {
            gained(&mut status, figures);
        }
        match figures(options, &result) {
            Some((status, figures)) => json(options, target, status, figures).write(streams.out)?,
            None => write_outcome(options, target, &status, streams.out)?,
        }
        Ok(outcome)
    })
}

/// Cyrus makes the new index before it knows whether the work is worth while.
fn tell_syslog(path: &Path, result: &Result<compact::Outcome, CompactError>, damages: &[Damage]) {
    let (Ok(compact::Outcome::Done { .. }) | Ok(compact::Outcome::Skipped)) = result else {
        return;
    };
    let mut index = index_path(path).into_os_string();
    index.push(".new");
    tool_log::creating_index(Path::new(&index));
    damages.iter().for_each(|d| tool_log::unreadable(path, d.offset_file, d.offset_plain));
}

fn policy(options: &Options, settings: &Settings, now: i64) -> Policy {
    let compact = &settings.compact;
    let retention = settings.retention.map(|time| i64::try_from(time.as_secs()));
    Policy {
        since: retention.map(|seconds| now.saturating_sub(seconds.unwrap_or(i64::MAX))),
        sizes: Sizes {
            min: compact.minsize,
            max: compact.maxsize,
            work_threshold: compact.work_threshold.into(),
        },
        force: options.force,
        keep_previous: compact.keep_previous,
        dry_run: options.dry_run,
        staging: settings.backup_staging_path.clone(),
    }
}

/// The word for it, and what it counts as. Damage counts as a failure, for somebody has to
/// look at it.
fn status(result: &Result<compact::Outcome, CompactError>, own_words: bool) -> (String, Outcome) {
    match result {
        Ok(compact::Outcome::Skipped) => ("skipped".into(), Outcome::Skipped),
        Ok(compact::Outcome::Planned(figures)) => (planned(figures), Outcome::Done),
        Ok(compact::Outcome::Done { damages, .. }) if damages.is_empty() => {
            ("ok".into(), Outcome::Done)
        }
        Ok(compact::Outcome::Done { previous, damages, .. }) => {
            (damaged(damages, previous.as_deref()), Outcome::Failed)
        }
        Err(CompactError::Store(StoreError::Locked(_))) => ("locked".into(), Outcome::Locked),
        Err(CompactError::Store(error)) => {
            (format!("failed ({})", store_error_in_full(error, own_words)), Outcome::Failed)
        }
        Err(error) => (format!("failed ({error})"), Outcome::Failed),
    }
}

/// What JSON tells that Cyrus's does not have: by cyrbk's own words, and of a dry run.
fn figures<'r>(
    options: &Options,
    result: &'r Result<compact::Outcome, CompactError>,
) -> Option<(&'static str, &'r Figures)> {
    match result {
        Ok(compact::Outcome::Planned(figures)) if options.json => Some(("not done", figures)),
        Ok(compact::Outcome::Done { figures, damages, .. })
            if options.json && options.own_words && damages.is_empty() =>
        {
            Some(("ok", figures))
        }
        _ => None,
    }
}

fn json(options: &Options, target: &Target, status: &str, figures: &Figures) -> Json {
    let Figures { chunks, dropped, unchanged, octets_before, octets_after } = *figures;
    let number = |number: u64| Json::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let mut object = outcome_json(options, target, status);
    object.push("chunks", number(chunks as u64));
    object.push("chunks_dropped", number(dropped as u64));
    object.push("chunks_unchanged", number(unchanged as u64));
    object.push("octets_before", number(octets_before));
    object.push("octets_after", number(octets_after));
    object
}

/// `ok, 5.6 kB of 29.2 kB stay`
fn gained(status: &mut String, figures: &Figures) {
    if status == "ok" {
        let (before, after) = (octets(figures.octets_before), octets(figures.octets_after));
        *status = format!("ok, {after} of {before} stay");
    }
}

fn planned(figures: &Figures) -> String {
    let Figures { chunks, dropped, unchanged, octets_before, octets_after } = figures;
    format!(
        "would keep {} of {chunks} chunks, {unchanged} of them unchanged, and at most \
         {octets_after} of {octets_before} octets",
        chunks - dropped
    )
}

fn damaged(damages: &[Damage], previous: Option<&std::path::Path>) -> String {
    let place = previous.map_or("?".into(), |path| path.display().to_string());
    let places = places(damages.len());
    format!("failed (compacted, but {places} cannot be read: the original is {place})")
}

/// There is damage, and too little to gain.
fn not_worth(count: usize) -> (String, Outcome) {
    let places = places(count);
    (format!("failed (not compacted: {places} cannot be read)"), Outcome::Failed)
}

fn places(count: usize) -> String {
    if count == 1 { "1 place".into() } else { format!("{count} places") }
}

/// Prints what a compaction tells.
struct Report<'r, 's> {
    options: &'r Options,
    streams: &'r mut Streams<'s>,
    written: io::Result<()>,
    /// Those that were told.
    damages: Vec<Damage>,
}

impl Report<'_, '_> {
    /// Takes an event. Once writing has failed nothing more is written.
    fn event(&mut self, event: Event<'_>) {
        if let Event::Damage(damage) = &event {
            self.damages.push(Damage::clone(damage));
        }
        if self.written.is_ok() {
            self.written = self.write(event);
        }
    }

    fn write(&mut self, event: Event<'_>) -> io::Result<()> {
        let out = &mut *self.streams.out;
        match event {
            Event::Damage(damage) => {
                let Damage { offset_file, offset_plain, what } = damage;
                // Standard output holds nothing but JSON then.
                let out = if self.options.json { &mut *self.streams.err } else { out };
                writeln!(
                    out,
                    "error reading chunk at offset {offset_file}, byte {offset_plain}: {what}"
                )
            }
            _ if self.options.verbosity == 0 => Ok(()),
            Event::Keeping(ids) => {
                writeln!(out, "keeping {} chunks:", ids.len())?;
                ids.iter().try_for_each(|id| write!(out, " {id}"))?;
                writeln!(out)
            }
            Event::Combining(one, other) => writeln!(out, "combining chunks {one} and {other}"),
            Event::Splitting(id) => writeln!(out, "splitting chunk {id}"),
        }
    }
}
