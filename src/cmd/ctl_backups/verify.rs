//! `ctl_backups verify`: compares data and index, checksums included.
//!
//! Without more options it checks what Cyrus checks, and says it in the same words;
//! `--deep` and `--quick` have findings of their own, each with what mends it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::num::NonZero;

use super::{Level, Options, Outcome, for_each, outcome_json, write_outcome};
use crate::cmd::findings;
use crate::cmd::json::Json;
use crate::cmd::people::harmless;
use crate::cmd::report::{VerifyReport, store_error, store_error_in_full, write_progress};
use crate::cmd::select::Target;
use crate::cmd::{Exit, Mode, Stop, Streams, site, tool_log};
use crate::config::Settings;
use crate::store::verify::{self, Deep, Event};
use crate::store::{Backup, StoreError};
use crate::wire::dlist::lossy;

pub(super) fn run(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<Exit, Stop> {
    let exit = for_each(options, settings, streams, |target, streams| match options.level {
        Level::Cyrus => as_cyrus(options, target, streams),
        Level::Quick | Level::Deep => with_findings(options, settings, target, streams),
    })?;
    if options.mode != Some(Mode::All) || options.level == Level::Cyrus {
        return Ok(exit);
    }
    let is_sound = whole_site(options, settings, streams)?;
    Ok(if is_sound { exit } else { Exit::TempFail })
}

/// Threads for one backup: several only if it is the only one.
fn jobs(options: &Options) -> usize {
    let many = matches!(options.mode, Some(Mode::All | Mode::Domains | Mode::Prefixes));
    if many || options.operands.len() != 1 {
        return 1;
    }
    let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
    options.jobs.map_or_else(cores, NonZero::get)
}

fn as_cyrus(
    options: &Options,
    target: &Target,
    streams: &mut Streams<'_>,
) -> Result<Outcome, Stop> {
    let mut report = VerifyReport::new(&mut *streams.out, options.verbosity);
    let result = Backup::open(&target.path, options.wait()).and_then(|backup| {
        verify::full_with(&backup, jobs(options), &mut |event| report.event(event))
    });
    let verdict = report.finish()?;
    let (status, outcome) = match (result, verdict) {
        (Ok(_), None) => ("ok".into(), Outcome::Done),
        (Ok(_), Some(verdict)) => (format!("failed ({verdict})"), Outcome::Failed),
        (Err(StoreError::Locked(_)), _) => ("locked".into(), Outcome::Locked),
        (Err(error), _) => {
            let why = store_error_in_full(&error, options.own_words);
            (format!("failed ({why})"), Outcome::Failed)
        }
    };
    write_outcome(options, target, &status, streams.out)?;
    Ok(outcome)
}

fn with_findings(
    options: &Options,
    settings: &Settings,
    target: &Target,
    streams: &mut Streams<'_>,
) -> Result<Outcome, Stop> {
    let mut report = Report::new(options, target, &mut *streams.out);
    let result = Backup::open(&target.path, options.wait()).and_then(|backup| {
        let sink = &mut |event: Event<'_>| report.event(&event);
        match options.level {
            Level::Deep => {
                let rules = site::name_rules(settings);
                let owner = target.userid.as_deref().map(|userid| (userid, &rules));
                verify::deep(&backup, &Deep { jobs: jobs(options), owner }, sink)
            }
            _ => verify::structure(&backup, sink),
        }
    });
    let (errors, json) = report.finish(&result)?;
    let (status, outcome) = match result {
        Ok(_) if errors == 0 => ("ok".into(), Outcome::Done),
        Ok(_) => {
            let faults = if errors == 1 { "fault" } else { "faults" };
            let status = format!("failed ({errors} {faults})");
            tool_log::faults(target.label(), &status);
            (status, Outcome::Failed)
        }
        Err(StoreError::Locked(_)) => ("locked".into(), Outcome::Locked),
        // Of others a finding tells more.
        Err(error @ StoreError::Io { .. }) => {
            (format!("failed ({})", store_error_in_full(&error, true)), Outcome::Failed)
        }
        Err(error) => (format!("failed ({})", store_error(&error)), Outcome::Failed),
    };
    if options.json {
        let mut object = outcome_json(options, target, &status);
        object.push("level", Json::Text(options.level.word().into()));
        object.push("findings", Json::Array(json));
        object.write(streams.out)?;
    } else {
        write_outcome(options, target, &status, streams.out)?;
    }
    Ok(outcome)
}

/// Prints findings as they come, and what mends them in the end.
struct Report<'r> {
    options: &'r Options,
    target: &'r Target,
    out: &'r mut dyn Write,
    errors: u64,
    remedies: BTreeSet<String>,
    json: Vec<Json>,
    written: io::Result<()>,
}

impl<'r> Report<'r> {
    fn new(options: &'r Options, target: &'r Target, out: &'r mut dyn Write) -> Report<'r> {
        let (remedies, json) = (BTreeSet::new(), Vec::new());
        Report { options, target, out, errors: 0, remedies, json, written: Ok(()) }
    }

    /// Takes an event. Once writing has failed nothing more is written.
    fn event(&mut self, event: &Event<'_>) {
        if self.written.is_ok() {
            self.written = self.take(event);
        }
    }

    fn take(&mut self, event: &Event<'_>) -> io::Result<()> {
        let Event::Finding(finding) = event else {
            let verbosity = if self.options.json { 0 } else { self.options.verbosity };
            return write_progress(self.out, event, verbosity);
        };
        self.errors += u64::from(!finding.fault.is_note());
        if self.options.json {
            self.json.push(findings::json(finding, self.target));
            return Ok(());
        }
        self.remedies.extend(findings::remedy(&finding.fault, self.target));
        self.line(&findings::line(finding))
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        let label = lossy(self.target.label());
        let text = harmless(text);
        writeln!(self.out, "{}: {text}", harmless(&label))
    }

    /// How many faults there were; and the findings, if they are for a program.
    fn finish(mut self, result: &Result<bool, StoreError>) -> io::Result<(u64, Vec<Json>)> {
        std::mem::replace(&mut self.written, Ok(()))?;
        if let Err(error) = result
            && let Some(mend) = findings::remedy_of_error(error, self.target)
        {
            if self.options.json {
                self.json.push(findings::error_json(error, &mend));
            } else {
                self.line(&error.to_string())?;
                self.remedies.insert(mend);
            }
        }
        for mend in std::mem::take(&mut self.remedies) {
            self.line(&format!("to mend: {mend}"))?;
        }
        Ok((self.errors, self.json))
    }
}

/// Compares the catalog with the partitions. Returns whether nothing was wrong.
fn whole_site(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<bool, Stop> {
    let partitions: Vec<_> = settings.backup_partitions.values().cloned().collect();
    let catalog = site::catalog(settings);
    let faults = match verify::site(&catalog, &partitions, &settings.backup_staging_path) {
        Ok(faults) => faults,
        Err(error) => {
            writeln!(streams.err, "{error}")?;
            return Ok(false);
        }
    };
    let errors = faults.iter().filter(|fault| !fault.is_note()).count();
    if options.json {
        let status = if errors == 0 { "ok".into() } else { format!("failed ({errors} faults)") };
        let findings = faults.iter().map(findings::site_json).collect();
        let object = Json::object([
            ("command", Some(Json::Text("verify".into()))),
            ("status", Some(Json::Text(status))),
            ("findings", Some(Json::Array(findings))),
        ]);
        // Programs get it only if there is something to tell.
        if !faults.is_empty() {
            object.write(streams.out)?;
        }
        return Ok(errors == 0);
    }
    let mut remedies = BTreeSet::new();
    for fault in &faults {
        let note = if fault.is_note() { "note: " } else { "" };
        writeln!(streams.out, "backups.db: {note}{}", harmless(&findings::site_text(fault)))?;
        remedies.extend(findings::site_remedy(fault));
    }
    for mend in remedies {
        writeln!(streams.out, "backups.db: to mend: {}", harmless(&mend))?;
    }
    Ok(errors == 0)
}
