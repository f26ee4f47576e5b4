//! Takes chunks over octet for octet.
//!
//! Their octets are copied on a thread of their own, while their lines are entered into the new
//! index: what the index says is read from the lines, as at any other time.

use std::io;

use super::CompactError;
use super::output::Copied;
use super::replace::fail_point;
use super::target::{Rows, Target};
use super::write::{Source, read};
use crate::store::chunk::{MemberError, MemberTotals};
use crate::store::helpers;
use crate::store::index::{Kept, Position, RestartPoint};
use crate::store::log::{LogError, LogLine, LogReader, NoBodies};
use crate::store::replay::{self, Lines, Scanned};
use crate::wire::apply::Apply;

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
                let held = source.survey.held.get(chunk.source.id);
                Ok((chunk, end, held))
            }),
            || (),
            |(), (chunk, end, held)| {
                let content = match held {
                    Some(scanned) => Ok(Content::Held(scanned, said(scanned))),
                    None => replay::scan_member(file, chunk.source.offset, end).map(Content::Read),
                };
                (chunk, end, content)
            },
            |(chunk, end, content): (_, _, Result<_, MemberError>)| {
                let content = content.map_err(LogError::from).map_err(source.log())?;
                // Not copied: its thread has panicked, and so will this one.
                let copied = copies.pull().unwrap_or_else(|| Err(io::ErrorKind::Other.into()));
                let copied = copied.map_err(source.io())?;
                entering.chunk(&chunk, end, content, &copied)?;
                Ok(fail_point()?)
            },
        )
    })
}

/// What a chunk holds.
enum Content<'a> {
    /// The survey has read it; what its lines say.
    Held(&'a Scanned, Vec<Said<'a>>),
    /// It was read again.
    Read(Scanned),
}

/// What a line says, or why nobody understands it.
type Said<'a> = Result<Apply<'a>, String>;

fn said(scanned: &Scanned) -> Vec<Said<'_>> {
    match &scanned.lines {
        Lines::Held(lines, _) => lines.iter().map(|line| read(line.line.text())).collect(),
        Lines::TooLong => Vec::new(),
    }
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
        content: Content<'_>,
        copied: &Copied,
    ) -> Result<(), CompactError> {
        let said_now;
        let (scanned, said) = match &content {
            Content::Held(scanned, said) => (*scanned, said),
            Content::Read(scanned) => {
                said_now = said(scanned);
                (scanned, &said_now)
            }
        };
        let Scanned { totals, points, lines, packed_crc } = scanned;
        let due = &chunk.source;
        let is_due =
            (totals.end, totals.len_plain, &totals.data_sha1) == (end, due.length, &due.data_sha1);
        // What was copied is what was read.
        if !is_due || copied.crc != *packed_crc {
            return Err(self.source.has_changed(due));
        }
        let mut id = None;
        match lines {
            Lines::Held(lines, None) => {
                for (line, said) in lines.iter().zip(said) {
                    self.line(&mut id, copied, &line.line, said)?;
                }
            }
            Lines::Held(_, Some(fault)) => return Err(self.source.unfaithful(fault.to_string())),
            Lines::TooLong => {
                let opened = LogReader::open(self.source.file, due.offset);
                let mut reader = opened.map_err(self.source.log())?;
                let source = self.source;
                let mut next = || reader.next_line(&mut NoBodies).map_err(source.log());
                while let Some(line) = next()? {
                    self.line(&mut id, copied, &line, &read(line.text()))?;
                }
            }
        }
        // Something stays of it: it has lines.
        let id = id.ok_or_else(|| self.source.has_changed(due))?;
        let fault = || self.source.fault();
        for point in points {
            let offset_file = point.offset_file - due.offset + copied.offset;
            let point = RestartPoint { offset_file, ..*point };
            self.rows.index.add_restart_point(id, point).map_err(fault())?;
        }
        let held = self.source.survey.scratch.held_times(&due.lines).map_err(fault())?;
        self.rows.index.need_chunk(id, &held).map_err(fault())?;
        let totals = MemberTotals { len_plain: due.length, data_sha1: due.data_sha1.clone() };
        Ok(self.rows.end(id, self.rows.last_ts(), &totals)?)
    }

    /// Enters what a line says; the row of its chunk is made with the first one.
    fn line(
        &mut self,
        id: &mut Option<i64>,
        copied: &Copied,
        line: &LogLine,
        said: &Said<'_>,
    ) -> Result<(), CompactError> {
        let said = said.as_ref().map_err(|what| self.source.unfaithful(what.clone()))?;
        let chunk_id = match *id {
            Some(id) => id,
            None => *id.insert(self.rows.next(line.ts, copied.offset, &copied.file_sha1)?),
        };
        self.rows.pass(line.ts);
        let at = Position { chunk_id, ts: line.ts, offset: line.offset };
        Ok(self.rows.index.apply(at, said).map_err(self.source.fault())?)
    }
}
