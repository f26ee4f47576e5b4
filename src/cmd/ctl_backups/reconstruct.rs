//! `ctl_backups reconstruct`: builds backups.db again from the data files.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Options;
use crate::cmd::json::Json;
use crate::cmd::time::now;
use crate::cmd::{Exit, Stop, Streams, site};
use crate::config::Settings;
use crate::store::Catalog;
use crate::store::reconstruct::{Verdict, plan};
use crate::store::survey::survey;
use crate::wire::dlist::lossy;

/// What comes out is 0 only if nothing is left to the administrator.
pub(super) fn run(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<Exit, Stop> {
    let partitions: Vec<PathBuf> = settings.backup_partitions.values().cloned().collect();
    if partitions.is_empty() {
        writeln!(streams.err, "no backuppartition-<name> in the configuration")?;
        return Ok(Exit::TempFail);
    }
    let catalog = site::catalog(settings);
    // None if there is no catalog.
    let (entries, is_unusable) = match catalog.list() {
        Ok(entries) => (entries, false),
        Err(why) if why.is_of_contents() => {
            writeln!(streams.err, "cannot read backups.db, starting over: {why}")?;
            (Vec::new(), true)
        }
        Err(why) => {
            writeln!(streams.err, "cannot read backups.db: {why}")?;
            return Ok(Exit::TempFail);
        }
    };
    let known: Vec<PathBuf> = entries.iter().map(|entry| entry.path.clone()).collect();
    let jobs = options.jobs.or_else(|| std::thread::available_parallelism().ok());
    let jobs = jobs.map_or(1, NonZero::get);
    let files = match survey(&partitions, &known, &site::name_rules(settings), jobs) {
        Ok(files) => files,
        Err(error) => {
            writeln!(streams.err, "cannot read the partitions: {error}")?;
            return Ok(Exit::TempFail);
        }
    };
    let verdicts = plan(&entries, &files);
    let refused = if options.dry_run {
        Vec::new()
    } else {
        match write(&catalog, is_unusable, &verdicts) {
            Ok(refused) => refused,
            Err(text) => {
                writeln!(streams.err, "{text}")?;
                return Ok(Exit::TempFail);
            }
        }
    };
    for verdict in &verdicts {
        tell(options, verdict, streams.out)?;
    }
    for userid in &refused {
        let userid = lossy(userid);
        writeln!(streams.err, "{userid}: changed by somebody else meanwhile, run this again")?;
    }
    let is_open = verdicts.iter().any(Verdict::is_open);
    Ok(if is_open || !refused.is_empty() { Exit::TempFail } else { Exit::Ok })
}

/// Makes the changes; an unusable catalog is put aside. Returns for whom nothing was changed
/// because somebody else did.
fn write(
    catalog: &Catalog,
    is_unusable: bool,
    verdicts: &[Verdict],
) -> Result<Vec<Vec<u8>>, String> {
    let changes: Vec<_> = verdicts.iter().filter_map(Verdict::change).collect();
    let written = if is_unusable {
        let mut aside = catalog.path().as_os_str().to_owned();
        aside.push(format!(".{}", now()));
        catalog.start_over(&changes, Path::new(&aside))
    } else {
        catalog.change_all(&changes)
    };
    written.map_err(|error| format!("cannot write backups.db: {error}"))
}

/// What is as it was is told only with `-v`.
fn tell(options: &Options, verdict: &Verdict, out: &mut dyn Write) -> io::Result<()> {
    if matches!(verdict, Verdict::Unchanged { .. }) && options.verbosity == 0 && !options.json {
        return Ok(());
    }
    let line = Line::of(verdict);
    if options.json {
        return line.json().write(out);
    }
    let text = &line.text;
    match line.userid {
        Some(userid) => {
            out.write_all(userid)?;
            writeln!(out, ": {text}")
        }
        None => writeln!(out, "{}: {text}", line.paths[0].display()),
    }
}

struct Line<'v> {
    userid: Option<&'v [u8]>,
    /// One word.
    status: &'static str,
    paths: Vec<&'v Path>,
    text: String,
}

impl<'v> Line<'v> {
    fn of(verdict: &'v Verdict) -> Line<'v> {
        let line = |userid: Option<&'v Vec<u8>>, status, paths: Vec<&'v PathBuf>, text| Line {
            userid: userid.map(Vec::as_slice),
            status,
            paths: paths.into_iter().map(PathBuf::as_path).collect(),
            text,
        };
        match verdict {
            Verdict::Unchanged { userid, path } => {
                line(Some(userid), "unchanged", vec![path], format!("unchanged {}", path.display()))
            }
            Verdict::Added { userid, path } => {
                line(Some(userid), "added", vec![path], format!("added {}", path.display()))
            }
            Verdict::Replaced { userid, old, path } => {
                let text = format!("replaced {} by {}", old.display(), path.display());
                line(Some(userid), "replaced", vec![path, old], text)
            }
            Verdict::Missing { userid, path } => {
                let text = format!("conflict: {} does not exist", path.display());
                line(Some(userid), "missing", vec![path], text)
            }
            Verdict::ManyFiles { userid, entry, others } => {
                let paths = entry.iter().chain(others).collect();
                let text = many_files(entry.as_deref(), others);
                line(Some(userid), "many files", paths, text)
            }
            Verdict::ManyOwners { path, owners } => {
                let text = format!("conflict: its lines name {}", list(owners));
                line(None, "many owners", vec![path], text)
            }
            Verdict::WrongOwner { userid, path, owners } => {
                let text =
                    format!("conflict: the lines of {} name {}", path.display(), list(owners));
                line(Some(userid), "wrong owner", vec![path], text)
            }
            Verdict::NoOwner { path, len_file } => {
                let text = format!("conflict: no line names its owner ({len_file} octets)");
                line(None, "no owner", vec![path], text)
            }
            Verdict::Foreign { path } => {
                line(None, "foreign", vec![path], "not a backup, left alone".into())
            }
            Verdict::Unreadable { path, why } => {
                line(None, "unreadable", vec![path], format!("conflict: cannot be read: {why}"))
            }
        }
    }

    fn json(&self) -> Json {
        let paths = self.paths.iter().filter_map(|path| Json::octets(path.as_os_str().as_bytes()));
        Json::object([
            ("command", Some(Json::Text("reconstruct".into()))),
            ("userid", self.userid.and_then(Json::octets)),
            ("fnames", Some(Json::Array(paths.collect()))),
            ("status", Some(Json::Text(self.status.into()))),
        ])
    }
}

fn many_files(entry: Option<&Path>, others: &[PathBuf]) -> String {
    let others: Vec<_> = others.iter().map(|path| path.display().to_string()).collect();
    match entry {
        Some(entry) => {
            format!("conflict: has {}, but also {}", entry.display(), others.join(" "))
        }
        None => format!("conflict: {} files: {}", others.len(), others.join(" ")),
    }
}

/// `alice (12 lines), bob (1 line)`
fn list(owners: &BTreeMap<Vec<u8>, u64>) -> String {
    let one = |(userid, lines): (&Vec<u8>, &u64)| {
        format!("{} ({lines} line{})", lossy(userid), if *lines == 1 { "" } else { "s" })
    };
    owners.iter().map(one).collect::<Vec<_>>().join(", ")
}
