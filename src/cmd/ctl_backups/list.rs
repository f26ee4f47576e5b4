//! `ctl_backups list`: when each backup was last written to, its size, whose it is
//! and where.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use super::{Options, Outcome, for_each};
use crate::cmd::json::Json;
use crate::cmd::people::{Colour, harmless, octets, paint};
use crate::cmd::report::{VerifyReport, store_error_in_full, write_labelled};
use crate::cmd::select::Target;
use crate::cmd::time::{LocalTime, now};
use crate::cmd::{Exit, Stop, Streams};
use crate::config::Settings;
use crate::store::{Glance, StoreError};
use crate::wire::dlist::lossy;

/// What one line says.
struct Row {
    /// Octets of the data file.
    len_file: u64,
    /// Unix time of the last chunk's end; `None` without any chunk.
    ts_end: Option<i64>,
}

enum Failure {
    Store(StoreError),
    Unsound(String),
}

pub(super) fn run(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<Exit, Stop> {
    let time = LocalTime::new();
    let stale = options.stale_hours.map(|hours| now().saturating_sub(hours.saturating_mul(3600)));
    for_each(options, settings, streams, |target, streams| {
        let row = match read(options, target) {
            Ok(row) => row,
            Err(failure) => return fail(options, target, failure, streams),
        };
        if row.ts_end.zip(stale).is_none_or(|(ts_end, stale)| ts_end <= stale) {
            let when = row.ts_end.map_or("[unknown]".into(), |ts| time.format(ts));
            write_row(options, target, &row, &when, streams.out)?;
        }
        Ok(Outcome::Done)
    })
}

fn read(options: &Options, target: &Target) -> Result<Row, Failure> {
    let read = || {
        let backup = Glance::open(&target.path, options.wait())?;
        let mut silence = io::sink();
        let mut report = VerifyReport::new(&mut silence, 0);
        if !options.no_verify {
            backup.check(&mut |event| report.event(event))?;
        }
        let row = Row { len_file: backup.len_file()?, ts_end: backup.ts_end()? };
        Ok((row, report.finish().ok().flatten()))
    };
    match read() {
        Ok((row, None)) => Ok(row),
        Ok((_, Some(verdict))) => Err(Failure::Unsound(verdict)),
        Err(error) => Err(Failure::Store(error)),
    }
}

fn fail(
    options: &Options,
    target: &Target,
    failure: Failure,
    streams: &mut Streams<'_>,
) -> Result<Outcome, Stop> {
    let words = |error| store_error_in_full(error, options.own_words);
    let (text, outcome) = match failure {
        Failure::Store(error @ StoreError::Locked(_)) => (words(&error), Outcome::Locked),
        Failure::Store(error) => (words(&error), Outcome::Failed),
        Failure::Unsound(verdict) => (verdict, Outcome::Failed),
    };
    write_labelled(streams.err, target.label(), &text)?;
    Ok(outcome)
}

fn write_row(
    options: &Options,
    target: &Target,
    row: &Row,
    when: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    let path = target.path.as_os_str().as_bytes();
    if options.json {
        let object = Json::object([
            ("timestamp", Some(Json::Text(when.into()))),
            ("compressed", Some(Json::Integer(row.len_file as i64))),
            ("userid", target.userid.as_deref().and_then(Json::octets)),
            ("fname", Json::octets(path)),
        ]);
        return object.write(out);
    }
    if options.for_people {
        let userid = lossy(target.userid.as_deref().unwrap_or(b"[unknown]"));
        let (size, userid) = (octets(row.len_file), harmless(&userid));
        let path = paint(Colour::Faint, &harmless(&lossy(path)));
        return writeln!(out, "{when:<19}  {size:>8}  {userid:<32}  {path}");
    }
    write!(out, "{when}\t{}\t", row.len_file)?;
    out.write_all(target.userid.as_deref().unwrap_or(b"[unknown]"))?;
    out.write_all(b"\t")?;
    out.write_all(path)?;
    out.write_all(b"\n")
}
