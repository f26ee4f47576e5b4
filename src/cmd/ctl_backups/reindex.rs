//! `ctl_backups reindex`: builds the index again from the data.

use std::io::{self, Write};

use super::{Options, Outcome, for_each, write_outcome};
use crate::cmd::report::store_error_in_full;
use crate::cmd::time::now;
use crate::cmd::{Exit, Stop, Streams, tool_log};
use crate::config::Settings;
use crate::store::StoreError;
use crate::store::backup::index_path;
use crate::store::reindex::{self, Gap, Stretch};

pub(super) fn run(
    options: &Options,
    settings: &Settings,
    streams: &mut Streams<'_>,
) -> Result<Exit, Stop> {
    for_each(options, settings, streams, |target, streams| {
        let keep = settings.compact.keep_previous;
        let (mut written, out) = (Ok(()), &mut *streams.out);
        let mut damages = Vec::new();
        let result = reindex::run(&target.path, options.wait(), keep, now(), &mut |stretch| {
            if let Stretch::Damaged { offset, .. } = stretch {
                damages.push(offset);
            }
            if written.is_ok() {
                written = tell(options, &stretch, out);
            }
        });
        written?;
        if result.is_ok() {
            tool_log::creating_index(&index_path(&target.path));
        }
        damages.iter().for_each(|&offset| tool_log::unreadable(&target.path, offset, 0));
        let (status, outcome) = match result {
            Ok(done) if done.damaged == 0 => {
                if options.verbosity > 0 {
                    streams.out.write_all(b"\nreached end of file\n")?;
                }
                ("ok".into(), Outcome::Done)
            }
            Ok(done) => {
                let places = if done.damaged == 1 { "place" } else { "places" };
                let what = format!("damaged in {} {places}, the rest is indexed", done.damaged);
                (format!("failed ({what})"), Outcome::Failed)
            }
            Err(StoreError::Locked(_)) => ("locked".into(), Outcome::Locked),
            Err(error) => {
                let why = store_error_in_full(&error, options.own_words);
                (format!("failed ({why})"), Outcome::Failed)
            }
        };
        write_outcome(options, target, &status, streams.out)?;
        Ok(outcome)
    })
}

/// Damage is told in any case, except among JSON.
fn tell(options: &Options, stretch: &Stretch, out: &mut dyn Write) -> io::Result<()> {
    match stretch {
        Stretch::Member { offset } | Stretch::Torn { offset } if options.verbosity > 0 => {
            writeln!(out, "\nfound chunk at offset {offset}\n")
        }
        Stretch::Damaged { offset, end, source, gaps, lines } if !options.json => {
            writeln!(out, "error reading chunk at offset {offset}: {source}; going on at {end}")?;
            for Gap { from, to, .. } in gaps {
                writeln!(out, "octets {from} to {to} cannot be read")?;
            }
            match lines {
                0 => Ok(()),
                1 => writeln!(out, "1 line of the chunk could be read"),
                lines => writeln!(out, "{lines} lines of the chunk could be read"),
            }
        }
        _ => Ok(()),
    }
}
