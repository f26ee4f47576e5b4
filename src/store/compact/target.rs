//! The new pair as it is written: lines become chunks, packed on several processors, and rows.
//!
//! Nobody reads a chunk before it is whole, so lines need no flush of their own: they are
//! gathered in stretches, in front of each of which reading can begin.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use super::output::Output;
use crate::store::chunk::{
    CHUNK_HEADER, MemberTotals, MemberWriter, Packer, Piece, RESTART_EVERY, Segment,
};
use crate::store::disk::Disk;
use crate::store::error::{Result, StoreError};
use crate::store::helpers;
use crate::store::index::{Index, IndexError, Position, RestartPoint, State};
use crate::store::printed;
use crate::store::staging::Staging;
use crate::wire::Body;

/// Larger lines are compressed on their way from the staging file, in little memory.
const STRETCH_MAX: u64 = 4 << 20;

/// What is on its way to the new data file, in order.
pub(super) enum Task {
    Start { ts: i64 },
    Piece(Piece),
    End { ts: i64 },
}

/// The same, packed.
pub(super) enum Done {
    Start { ts: i64 },
    Segment(io::Result<Segment>),
    End { ts: i64 },
}

/// Packs.
pub(super) type Pipe<'p> = helpers::Pipe<'p, Task, Done>;

/// Makes a pipe for `write`.
pub(super) fn packing<R>(write: impl FnOnce(&mut Pipe<'_>) -> R) -> R {
    let pack = |packer: &mut Packer, task| match task {
        Task::Start { ts } => Done::Start { ts },
        Task::Piece(piece) => Done::Segment(packer.pack(piece)),
        Task::End { ts } => Done::End { ts },
    };
    helpers::pipeline(Packer::default, pack, write)
}

/// A line, or what stays of one.
pub(super) struct Line<'a> {
    pub(super) ts: i64,
    /// Canonical `NAME value`, without bodies.
    pub(super) text: &'a [u8],
    /// Where in it they belong.
    pub(super) body_at: &'a [usize],
    pub(super) bodies: &'a [&'a Body],
}

/// The new data file and its index.
pub(super) struct Target<'a> {
    output: Output,
    rows: Rows<'a>,
    open: Option<OpenChunk>,
    /// The chunk that arrives in the file.
    member: Option<(i64, MemberWriter)>,
}

/// The new index, and what its next row begins with.
pub(super) struct Rows<'a> {
    /// The old data file, for messages.
    path: &'a Path,
    pub(super) index: Index,
    /// Id of the last chunk begun.
    last_id: i64,
    /// Newest time stamp so far.
    last_ts: i64,
}

/// A chunk to which lines are being added.
struct OpenChunk {
    len_plain: u64,
    /// Its last lines.
    stretch: Vec<u8>,
}

impl<'a> Target<'a> {
    /// Begins an empty pair; a transaction of the index is open.
    pub(super) fn new(path: &'a Path, file: File, index: Index) -> Target<'a> {
        let rows = Rows { path, index, last_id: 0, last_ts: 0 };
        Target { output: Output::new(file), rows, open: None, member: None }
    }

    /// The new data file by itself, for whoever adds to both.
    pub(super) fn parts(&mut self) -> (&mut Output, &mut Rows<'a>) {
        (&mut self.output, &mut self.rows)
    }

    pub(super) fn rows(&self) -> &Rows<'a> {
        &self.rows
    }

    /// Inflated octets of the open chunk.
    pub(super) fn len_open(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.len_plain)
    }

    /// Adds a line, to a new chunk if none is open. Returns where it stands.
    pub(super) fn line(
        &mut self,
        line: &Line<'_>,
        staging: &Staging,
        pipe: &mut Pipe<'_>,
    ) -> Result<Position> {
        self.rows.pass(line.ts);
        if self.open.is_none() {
            self.rows.last_id += 1;
            self.push(Task::Start { ts: line.ts }, pipe)?;
            let (len_plain, stretch) = (CHUNK_HEADER.len() as u64, CHUNK_HEADER.to_vec());
            self.open = Some(OpenChunk { len_plain, stretch });
        }
        let offset = self.len_open().unwrap_or_default();
        let octets = line.octets();
        if octets > STRETCH_MAX {
            self.stream(line, staging, pipe)?;
        } else {
            self.gather(line, staging).map_err(self.io())?;
            let is_long = |open: &OpenChunk| open.stretch.len() as u64 >= RESTART_EVERY;
            if self.open.as_ref().is_some_and(is_long) {
                self.end_stretch(pipe)?;
            }
        }
        Ok(Position { chunk_id: self.rows.last_id, ts: line.ts, offset })
    }

    fn gather(&mut self, line: &Line<'_>, staging: &Staging) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let before = open.stretch.len();
        let stretch = &mut open.stretch;
        line.write(staging, |octets| {
            stretch.extend_from_slice(octets);
            Ok(())
        })?;
        open.len_plain += (open.stretch.len() - before) as u64;
        Ok(())
    }

    /// Adds a line that is too large for memory.
    fn stream(&mut self, line: &Line<'_>, staging: &Staging, pipe: &mut Pipe<'_>) -> Result<()> {
        self.end_stretch(pipe)?;
        self.drain(pipe)?;
        self.restart_point()?;
        let io = self.io();
        let (Some(open), Some((_, member))) = (&mut self.open, &mut self.member) else {
            return Ok(());
        };
        let output = &mut self.output;
        let written = line
            .write(staging, |octets| member.write(octets, output))
            .and_then(|()| member.end_line(output));
        open.len_plain = member.len_plain();
        match written.map_err(io)? {
            true => self.remember_point(),
            false => Ok(()),
        }
    }

    fn end_stretch(&mut self, pipe: &mut Pipe<'_>) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let stretch = std::mem::take(&mut open.stretch);
        if stretch.is_empty() {
            return Ok(());
        }
        Piece::all_of(stretch).try_for_each(|piece| self.push(Task::Piece(piece), pipe))
    }

    /// Ends the open chunk, if there is one.
    pub(super) fn end_chunk(&mut self, pipe: &mut Pipe<'_>) -> Result<()> {
        self.end_stretch(pipe)?;
        if self.open.take().is_none() {
            return Ok(());
        }
        self.push(Task::End { ts: self.rows.last_ts }, pipe)
    }

    fn push(&mut self, task: Task, pipe: &mut Pipe<'_>) -> Result<()> {
        match pipe.push(task) {
            Some(done) => self.take(done),
            None => Ok(()),
        }
    }

    /// Waits until everything is in the file; more may be added.
    pub(super) fn drain(&mut self, pipe: &mut Pipe<'_>) -> Result<()> {
        while let Some(done) = pipe.pull() {
            self.take(done)?;
        }
        Ok(())
    }

    fn take(&mut self, done: Done) -> Result<()> {
        match done {
            Done::Start { ts } => {
                let hash = &self.output.hash;
                let id = self.rows.start(ts, hash.len(), &hash.hex())?;
                let member = MemberWriter::start(&mut self.output).map_err(self.io())?;
                self.member = Some((id, member));
                Ok(())
            }
            Done::Segment(segment) => {
                let segment = segment.map_err(self.io())?;
                if segment.piece().is_first() {
                    self.restart_point()?;
                }
                let Some((_, member)) = &mut self.member else { return Ok(()) };
                member
                    .add_segment(&segment, &mut self.output)
                    .map_err(StoreError::io(self.rows.path))
            }
            Done::End { ts } => {
                let Some((id, member)) = self.member.take() else { return Ok(()) };
                // A member of Cyrus's compact ends without a flush, see `chunk::one_go`; this one
                // ends with that of its last piece.
                let totals = member.finish(&mut self.output).map_err(self.io())?;
                self.rows.end(id, ts, &totals)
            }
        }
    }

    /// Makes a place where reading can begin, if there is none here, and remembers it.
    fn restart_point(&mut self) -> Result<()> {
        let Some((_, member)) = &mut self.member else { return Ok(()) };
        let is_new = member.restart(&mut self.output).map_err(StoreError::io(self.rows.path))?;
        if is_new { self.remember_point() } else { Ok(()) }
    }

    /// Reading can begin here.
    fn remember_point(&self) -> Result<()> {
        let Some((id, member)) = &self.member else { return Ok(()) };
        let (offset_plain, offset_file) = (member.len_plain(), self.output.hash.len());
        let point = RestartPoint { offset_plain, offset_file };
        self.rows.index.add_restart_point(*id, point).map_err(self.rows.fault())
    }

    /// All is with the kernel, or in the transaction of the index: nothing is durable yet.
    pub(super) fn finish(mut self) -> Result<(Output, Index)> {
        self.output.flush().map_err(self.io())?;
        let hash = &self.output.hash;
        let inode = self.output.file.inode().map_err(self.io())?;
        let modified = self.output.file.modified().map_err(self.io())?;
        let state = State { len_file: hash.len(), inode, checkpoint: hash.checkpoint(), modified };
        self.rows.index.set_state(&state).map_err(self.rows.fault())?;
        Ok((self.output, self.rows.index))
    }

    fn io(&self) -> impl FnOnce(io::Error) -> StoreError + use<'a> {
        StoreError::io(self.rows.path)
    }
}

impl<'a> Rows<'a> {
    pub(super) fn last_ts(&self) -> i64 {
        self.last_ts
    }

    /// The row of the next chunk, which begins at `offset`, behind octets of this SHA-1.
    pub(super) fn next(&mut self, ts: i64, offset: u64, file_sha1: &str) -> Result<i64> {
        self.last_id = self.start(ts, offset, file_sha1)?;
        Ok(self.last_id)
    }

    fn start(&self, ts: i64, offset: u64, file_sha1: &str) -> Result<i64> {
        self.index.start_chunk(ts, offset, file_sha1).map_err(self.fault())
    }

    /// Completes the row of a chunk.
    pub(super) fn end(&self, id: i64, ts: i64, totals: &MemberTotals) -> Result<()> {
        let ended = self.index.end_chunk(id, ts, totals.len_plain, &totals.data_sha1);
        ended.map_err(self.fault())
    }

    /// The last line stays for what was deleted or expunged then.
    pub(super) fn hold(&self, time: Option<i64>) -> Result<()> {
        self.index.need_chunk(self.last_id, time.as_slice()).map_err(self.fault())
    }

    /// A line has this time stamp.
    pub(super) fn pass(&mut self, ts: i64) {
        self.last_ts = self.last_ts.max(ts);
    }

    fn fault(&self) -> impl FnOnce(IndexError) -> StoreError + use<'a> {
        StoreError::index(self.path)
    }
}

impl<'a> Line<'a> {
    /// A line without messages.
    pub(super) fn of_text(ts: i64, text: &'a [u8]) -> Line<'a> {
        Line { ts, text, body_at: &[], bodies: &[] }
    }

    /// Octets of the whole line.
    pub(super) fn len(&self) -> u64 {
        let octets = printed::stamp(self.ts).len() + self.text.len() + printed::END.len();
        self.octets().saturating_add(octets as u64)
    }

    /// Octets of the messages.
    fn octets(&self) -> u64 {
        printed::octets_of(self.bodies.iter().copied())
    }

    /// The whole line, piece by piece.
    fn write(
        &self,
        staging: &Staging,
        take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let text = (self.text, self.body_at);
        printed::write(self.ts, text, self.bodies.iter().copied(), staging, take)
    }
}
