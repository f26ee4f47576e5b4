//! Takes chunks over octet for octet.
//!
//! Their octets are copied on a thread of their own, while their lines are entered into the new
//! index: what the index says is read from the lines, as at any other time.

use std::io;

use super::CompactError;
use super::output::Copied;
use super::replace::fail_point;
use super::target::{Rows, Target};
use super::write::Source;
use crate::store::chunk::MemberTotals;
use crate::store::helpers;
use crate::store::index::{Kept, Position, RestartPoint};
use crate::store::log::{LogError, LogLine, LogReader, NoBodies};
use crate::store::replay::{self, Lines, Scanned};

/// Takes over these chunks, of which everything stays. None is open in `target`, and nothing on
/// its way.
pub(super) fn chunks<'a>(
    source: Source<'a>,
    target: &mut Target<'a>,
    chunks: impl Iterator<Item = Result<Kept, CompactError>>,
) -> Result<(), CompactError> {
    let (output, rows) = target.parts();
    let file = source.file;
    let mut entering = Entering { source, rows };
    let copy = |range| output.copy(file, range);
    helpers::aside(copy, |copies| {
        helpers::in_order(
            chunks.map(|chunk| {
                let chunk = chunk?;
                let end = chunk.whole_until.ok_or_else(|| source.has_changed(&chunk.source))?;
                copies.push((chunk.source.offset, end));
                let held = source.survey.held.take(chunk.source.id);
                Ok((chunk, end, held))
            }),
            || (),
            // Unless what the survey has read is still there, they are read again, several at a
            // time.
            |(), (chunk, end, held)| {
                let read = || replay::scan_member(file, chunk.source.offset, end);
                let scanned = held.map_or_else(read, Ok);
                (chunk, end, scanned)
            },
            |(chunk, end, scanned)| {
                let scanned = scanned.map_err(LogError::from).map_err(source.log())?;
                // Not copied: its thread has panicked, and so will this one.
                let copied = copies.pull().unwrap_or_else(|| Err(io::ErrorKind::Other.into()));
                let copied = copied.map_err(source.io())?;
                entering.chunk(&chunk, end, scanned, &copied)?;
                Ok(fail_point()?)
            },
        )
    })
}

struct Entering<'t, 'a> {
    source: Source<'a>,
    rows: &'t mut Rows<'a>,
}

impl Entering<'_, '_> {
    /// Enters a chunk that was read up to `end` and copied.
    fn chunk(
        &mut self,
        chunk: &Kept,
        end: u64,
        scanned: Scanned,
        copied: &Copied,
    ) -> Result<(), CompactError> {
        let Scanned { totals, points, lines, packed_crc } = scanned;
        let due = &chunk.source;
        let is_due =
            (totals.end, totals.len_plain, &totals.data_sha1) == (end, due.length, &due.data_sha1);
        // What was copied is what was read.
        if !is_due || copied.crc != packed_crc {
            return Err(self.source.has_changed(due));
        }
        let mut id = None;
        match lines {
            Lines::Held(lines, None) => {
                lines.iter().try_for_each(|line| self.line(&mut id, copied, &line.line))?;
            }
            Lines::Held(_, Some(fault)) => return Err(self.source.log()(fault).into()),
            Lines::TooLong => {
                let opened = LogReader::open(self.source.file, due.offset);
                let mut reader = opened.map_err(self.source.log())?;
                let source = self.source;
                let mut next = || reader.next_line(&mut NoBodies).map_err(source.log());
                while let Some(line) = next()? {
                    self.line(&mut id, copied, &line)?;
                }
            }
        }
        // Something stays of it: it has lines.
        let id = id.ok_or_else(|| self.source.has_changed(due))?;
        let fault = || self.source.fault();
        for point in points {
            let offset_file = point.offset_file - due.offset + copied.offset;
            let point = RestartPoint { offset_file, ..point };
            self.rows.index.add_restart_point(id, point).map_err(fault())?;
        }
        let held = self.source.survey.scratch.held_times(&due.lines).map_err(fault())?;
        self.rows.index.need_chunk(id, &held).map_err(fault())?;
        let totals = MemberTotals { len_plain: due.length, data_sha1: due.data_sha1.clone() };
        Ok(self.rows.end(id, self.rows.last_ts(), &totals)?)
    }

    /// Enters a line; the row of its chunk is made with the first one.
    fn line(
        &mut self,
        id: &mut Option<i64>,
        copied: &Copied,
        line: &LogLine,
    ) -> Result<(), CompactError> {
        let chunk_id = match *id {
            Some(id) => id,
            None => *id.insert(self.rows.next(line.ts, copied.offset, &copied.file_sha1)?),
        };
        self.rows.pass(line.ts);
        let at = Position { chunk_id, ts: line.ts, offset: line.offset };
        self.source.apply(&self.rows.index, at, line.text())
    }
}
