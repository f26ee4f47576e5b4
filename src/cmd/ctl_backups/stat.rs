//! `ctl_backups stat`: sizes, and what compaction would gain.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use super::{Options, Outcome, for_each, retained_since};
use crate::cmd::json::Json;
use crate::cmd::people::{harmless, octets};
use crate::cmd::report::{percent, quick_check, store_error_in_full, write_labelled};
use crate::cmd::select::Target;
use crate::cmd::time::LocalTime;
use crate::cmd::{Exit, Stop, Streams};
use crate::config::Settings;
use crate::store::Backup;
use crate::store::stat::{Stat, stat};
use crate::wire::dlist::lossy;

/// Stands for a time that no chunk has.
const UNKNOWN: &str = "[unknown]";

pub(super) fn run(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<Exit, Stop> {
    let time = LocalTime::new();
    for_each(options, settings, streams, |target, streams| {
        match read(options, settings, target) {
            Ok(figures) => {
                write_figures(options, target, &figures, &time, streams.out)?;
                Ok(Outcome::Done)
            }
            Err(text) => {
                write_labelled(streams.err, target.label(), &text)?;
                // To Cyrus failures only count where they are to stop the run.
                let counts = options.stop_on_error || options.own_words;
                Ok(if counts { Outcome::Failed } else { Outcome::Forgiven })
            }
        }
    })
}

fn read(options: &Options, settings: &Settings, target: &Target) -> Result<Stat, String> {
    let text = |error| store_error_in_full(&error, options.own_words);
    let backup = Backup::open(&target.path, options.wait()).map_err(text)?;
    if !options.no_verify {
        quick_check(&backup, options.own_words)?;
    }
    stat(&backup, retained_since(settings)).map_err(text)
}

fn write_figures(
    options: &Options,
    target: &Target,
    stat: &Stat,
    time: &LocalTime,
    out: &mut dyn Write,
) -> io::Result<()> {
    let [packed, plain, live] = [stat.len_packed, stat.len_plain, stat.len_live];
    let ratio = |part: u64| 100.0 * part as f64 / plain as f64;
    let when = |ts: Option<i64>| ts.map_or(UNKNOWN.into(), |ts| time.format(ts));
    let start = when(stat.last_chunk.as_ref().map(|chunk| chunk.ts_start));
    let end = when(stat.last_chunk.as_ref().map(|chunk| chunk.ts_end));
    if options.json {
        let object = Json::object([
            ("userid", target.userid.as_deref().and_then(Json::octets)),
            ("fname", Json::octets(target.path.as_os_str().as_bytes())),
            ("compressed", Some(Json::Integer(packed as i64))),
            ("uncompressed", Some(Json::Integer(plain as i64))),
            ("compactable", Some(Json::Integer(live as i64))),
            ("compression_ratio", Json::real(ratio(packed))),
            ("utilisation_ratio", Json::real(ratio(live))),
            ("last_start_time", Some(Json::Text(start))),
            ("last_end_time", Some(Json::Text(end))),
        ]);
        return object.write(out);
    }
    if options.for_people {
        let label = lossy(target.label());
        let (label, live) = (harmless(&label), octets(live));
        let (compression, utilisation) = (percent(ratio(packed)), percent(ratio(stat.len_live)));
        let (packed, plain) = (octets(packed), octets(plain));
        write!(out, "{label:<32}  {packed:>8} packed ({compression:>5}%)  {plain:>8} text")?;
        return writeln!(out, "  {live:>8} live ({utilisation:>5}%)  {end}");
    }
    out.write_all(target.label())?;
    let (compression, utilisation) = (percent(ratio(packed)), percent(ratio(live)));
    write!(out, "\t{packed}\t{plain}\t{live}\t{compression:>6}%\t{utilisation:>6}%")?;
    writeln!(out, "\t{start:>21}\t{end}")
}
