//! Writes the new pair, obeying the plan.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::line::{self, Stays};
use super::output::Output;
use super::plan::{Kept, Plan};
use super::replace::{self, fail_point};
use super::sizes::Sizes;
use super::spool::Spool;
use super::survey::Survey;
use super::{CompactError, Event, Policy, Sink};
use crate::lock::{self, Kind, Wait};
use crate::store::chunk::{CHUNK_HEADER, MemberError, MemberWriter, RESTART_EVERY};
use crate::store::disk::Disk;
use crate::store::error::StoreError;
use crate::store::file_hash::FileHash;
use crate::store::helpers;
use crate::store::index::{Index, IndexError, Open, Position, RestartPoint, State, Wanted};
use crate::store::log::{BodySink, LogError, LogLine, LogReader, NoBodies};
use crate::store::replay::{self, Lines, Scanned};
use crate::store::salvage::SavedLines;
use crate::wire::apply::Apply;
use crate::wire::dlist::parse_item;
use crate::wire::own::{Compacted, Own};

/// What the new pair is made of.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
    pub(super) survey: &'a Survey,
    pub(super) plan: &'a Plan,
}

/// The new pair, synced, under its own lock.
pub(super) struct NewPair {
    output: Output,
    pub(super) index: Index,
    pub(super) names: replace::NewNames,
}

impl NewPair {
    /// Octets of the data file.
    pub(super) fn len_file(&self) -> u64 {
        self.output.hash.len()
    }

    /// Whether the data file has the octets of `other`.
    pub(super) fn is_same_as(&self, other: &File) -> io::Result<bool> {
        let len = other.metadata()?.len();
        if len != self.len_file() {
            return Ok(false);
        }
        let mut hash = FileHash::default();
        hash.update_from(other, len)?;
        Ok(hash.hex() == self.output.hash.hex())
    }

    /// Closes the index; the file goes on being locked.
    pub(super) fn into_locked(self) -> (File, replace::NewNames) {
        (self.output.file, self.names)
    }
}

/// Writes `<data>.new` and `<data>.index.new`. Both survive a power cut when this
/// returns; their names do not yet.
pub(super) fn write(
    source: &Source<'_>,
    policy: &Policy,
    now: i64,
    sink: &mut Sink<'_>,
) -> Result<NewPair, CompactError> {
    let names = replace::NewNames::claim(source.path)?;
    let file = create(names.data())?;
    let index = Index::open(names.index(), Open::Create).map_err(StoreError::index(source.path))?;
    let output = Output::new(file);
    let mut act = Act {
        source: *source,
        sizes: policy.sizes,
        spool: Spool::new(policy.staging.clone()),
        output,
        index,
        open: None,
        last_ts: 0,
    };
    act.index.begin().map_err(act.fault())?;
    act.chunks(sink)?;
    act.say_what_is_doubtful(now)?;
    if source.plan.loses {
        act.say_what_is_gone(now, policy.since)?;
    }
    act.end_chunk()?;
    fail_point()?;
    act.finish()?;
    fail_point()?;
    Ok(NewPair { output: act.output, index: act.index, names })
}

fn create(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    lock::open_locked(path, &options, Kind::Exclusive, Wait::No).map_err(StoreError::lock(path))
}

struct Act<'a> {
    source: Source<'a>,
    sizes: Sizes,
    spool: Spool,
    output: Output,
    index: Index,
    open: Option<OpenChunk>,
    last_ts: i64,
}

/// A chunk that was taken over.
struct Copied {
    /// Where it begins in the new file.
    offset: u64,
    /// SHA-1 of that in front of it, hex.
    sha1: String,
    /// Its row, once it has a line.
    id: Option<i64>,
}

/// Reads a chunk that is written anew.
enum Reader<'f> {
    Whole(Box<LogReader<'f>>),
    Saved(Box<SavedLines<'f>>),
}

impl Reader<'_> {
    fn next_line(&mut self, sink: &mut dyn BodySink) -> Result<Option<LogLine>, LogError> {
        match self {
            Reader::Whole(reader) => reader.next_line(sink),
            Reader::Saved(reader) => reader.next_line(sink),
        }
    }
}

/// A chunk that is being written.
struct OpenChunk {
    id: i64,
    member: MemberWriter,
    /// Inflated octets up to the last place where reading can begin.
    restart: u64,
}

impl<'a> Act<'a> {
    fn chunks(&mut self, sink: &mut Sink<'_>) -> Result<(), CompactError> {
        let (kept, file, sizes) = (&self.source.plan.kept, self.source.file, self.sizes);
        let joins = |one: Option<&Kept>, next: Option<&Kept>| {
            one.is_some_and(|one| sizes.combines(one.length, next.map(|next| next.length)))
        };
        // Those that will go on as they are, as far as can be foreseen, are read ahead.
        helpers::in_order(
            kept.iter().enumerate().map(Ok),
            || (),
            |(), (i, chunk)| {
                let before = i.checked_sub(1).and_then(|i| kept.get(i));
                let is_joined = joins(before, Some(chunk)) || joins(Some(chunk), kept.get(i + 1));
                let end = chunk.whole_until.filter(|_| !is_joined && !sizes.splits(chunk.length));
                let scanned = end.map(|end| replay::scan_member(file, chunk.offset, end));
                (i, chunk, scanned)
            },
            |(i, chunk, scanned)| self.chunk(chunk, kept.get(i + 1), scanned, sink),
        )
    }

    fn chunk(
        &mut self,
        chunk: &Kept,
        next: Option<&Kept>,
        scanned: Option<Result<Scanned, MemberError>>,
        sink: &mut Sink<'_>,
    ) -> Result<(), CompactError> {
        let sizes = self.sizes;
        let combines = |length| sizes.combines(length, next.map(|next| next.length));
        let stands_alone =
            self.open.is_none() && !sizes.splits(chunk.length) && !combines(chunk.length);
        match chunk.whole_until {
            Some(end) if stands_alone => {
                let scanned = scanned
                    .unwrap_or_else(|| replay::scan_member(self.source.file, chunk.offset, end))
                    .map_err(LogError::from)
                    .map_err(self.log())?;
                self.copy(chunk, scanned)?;
            }
            _ => self.rewrite(chunk, sink)?,
        }
        fail_point()?;
        let Some(open) = &self.open else { return Ok(()) };
        match next {
            Some(next) if combines(open.member.len_plain()) => {
                sink(Event::Combining(chunk.id, next.id));
                Ok(())
            }
            _ => self.end_chunk(),
        }
    }

    /// Who asks for the state at an earlier moment is to know what is missing in it.
    fn say_what_is_gone(&mut self, now: i64, since: Option<i64>) -> Result<(), CompactError> {
        let at = now.max(self.last_ts);
        let since = since.map(|since| since.max(0));
        let own = Own::Compacted(Compacted { at, since });
        // The userid of an anchor means nothing.
        self.add_line(at, &own.line())?;
        self.add_line(at, &own.anchor(b""))
    }

    fn add_line(&mut self, ts: i64, text: &[u8]) -> Result<(), CompactError> {
        self.last_ts = self.last_ts.max(ts);
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.start_chunk(ts)?,
        };
        let position = Position { chunk_id: open.id, ts, offset: open.member.len_plain() };
        open.write(format!("{ts} APPLY ").as_bytes(), &mut self.output).map_err(self.io())?;
        open.write(text, &mut self.output).map_err(self.io())?;
        if let Some(point) = open.end_line(&mut self.output).map_err(self.io())? {
            self.index.add_restart_point(open.id, point).map_err(self.fault())?;
        }
        self.open = Some(open);
        self.apply(position, text)
    }

    /// Takes a chunk over octet for octet.
    fn copy(&mut self, chunk: &Kept, scanned: Scanned) -> Result<(), CompactError> {
        let Scanned { totals, points, lines } = scanned;
        if (totals.len_plain, &totals.data_sha1) != (chunk.length, &chunk.data_sha1) {
            return Err(self.unfaithful(format!("chunk {} has changed", chunk.id)));
        }
        let offset = self.output.hash.len();
        let sha1 = self.output.hash.hex();
        self.output.copy(self.source.file, chunk.offset, totals.end).map_err(self.io())?;
        let mut copied = Copied { offset, sha1, id: None };
        match lines {
            Lines::Held(lines, None) => {
                lines.iter().try_for_each(|line| self.copied_line(&mut copied, line))?;
            }
            Lines::Held(_, Some(fault)) => return Err(self.log()(fault).into()),
            Lines::TooLong => {
                let mut reader = self.reader(chunk)?;
                while let Some(line) = reader.next_line(&mut NoBodies).map_err(self.log())? {
                    self.copied_line(&mut copied, &line)?;
                }
            }
        }
        let Some(id) = copied.id else { return Ok(()) };
        for point in points {
            let offset_file = point.offset_file - chunk.offset + offset;
            let point = RestartPoint { offset_file, ..point };
            self.index.add_restart_point(id, point).map_err(self.fault())?;
        }
        let ended = self.index.end_chunk(id, self.last_ts, chunk.length, &chunk.data_sha1);
        Ok(ended.map_err(self.fault())?)
    }

    fn copied_line(&mut self, copied: &mut Copied, line: &LogLine) -> Result<(), CompactError> {
        let chunk_id = match copied.id {
            Some(id) => id,
            None => {
                let new = self.index.start_chunk(line.ts, copied.offset, &copied.sha1);
                *copied.id.insert(new.map_err(self.fault())?)
            }
        };
        self.last_ts = self.last_ts.max(line.ts);
        self.apply(Position { chunk_id, ts: line.ts, offset: line.offset }, line.text())
    }

    /// Writes what stays of a chunk, line by line.
    fn rewrite(&mut self, chunk: &Kept, sink: &mut Sink<'_>) -> Result<(), CompactError> {
        let range = &chunk.lines;
        let wanted =
            self.source.survey.scratch.wanted(range.start, range.end).map_err(self.fault())?;
        let mut reader = self.lines(chunk)?;
        for number in range.clone() {
            self.spool.start_line(wanted.messages.get(&number)).map_err(self.io())?;
            let line = reader.next_line(&mut self.spool).map_err(self.log())?;
            let Some(line) = line else {
                return Err(self.unfaithful(format!("line {number} has gone")));
            };
            if wanted.lines.contains(&number) {
                self.line(number, &line, &wanted)?;
            }
            let Some(open) = &self.open else { continue };
            if self.sizes.splits_here(chunk.length, open.member.len_plain()) {
                sink(Event::Splitting(chunk.id));
                self.end_chunk()?;
            }
        }
        Ok(())
    }

    fn line(&mut self, number: i64, line: &LogLine, wanted: &Wanted) -> Result<(), CompactError> {
        let none = HashSet::new();
        let (name, value) = line.item().map_err(self.log())?;
        let (flags, bodies) = self.spool.take().map_err(self.io())?;
        let stays = match name.strip_prefix(b"LOCAL_").unwrap_or(&name) {
            b"MESSAGE" => Stays::Messages(&flags),
            b"MAILBOX" => Stays::Records(wanted.uids.get(&number).unwrap_or(&none)),
            _ => Stays::All,
        };
        let restated = self.source.plan.restated.get(&number);
        let (text, body_at) = line::print(&name, &value, &stays, restated);
        let due = wanted.messages.get(&number).map_or(0, HashSet::len);
        if body_at.len() != bodies.len() || bodies.len() != due {
            return Err(self.unfaithful(format!("messages of line {number} have gone")));
        }
        self.last_ts = self.last_ts.max(line.ts);
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.start_chunk(line.ts)?,
        };
        let offset = open.member.len_plain();
        let position = Position { chunk_id: open.id, ts: line.ts, offset };
        let head = format!("{} APPLY ", line.ts);
        open.write(head.as_bytes(), &mut self.output).map_err(self.io())?;
        let mut from = 0;
        for (&at, body) in body_at.iter().zip(&bodies) {
            open.write(&text[from..at], &mut self.output).map_err(self.io())?;
            let output = &mut self.output;
            let written = self.spool.staging.read(body, |piece| open.write(piece, output));
            written.map_err(self.io())?;
            from = at;
        }
        open.write(&text[from..], &mut self.output).map_err(self.io())?;
        if let Some(point) = open.end_line(&mut self.output).map_err(self.io())? {
            self.index.add_restart_point(open.id, point).map_err(self.fault())?;
        }
        self.open = Some(open);
        self.apply(position, &text)
    }

    fn apply(&self, at: Position, text: &[u8]) -> Result<(), CompactError> {
        let unfaithful = |what: String| self.unfaithful(what);
        let (name, value) = parse_item(text).map_err(|e| unfaithful(e.to_string()))?;
        let name = name.to_ascii_uppercase();
        let apply = Apply::read(&name, &value).map_err(|e| unfaithful(e.to_string()))?;
        Ok(self.index.apply(at, &apply).map_err(self.fault())?)
    }

    fn reader(&self, chunk: &Kept) -> Result<LogReader<'a>, CompactError> {
        Ok(LogReader::open(self.source.file, chunk.offset).map_err(self.log())?)
    }

    /// The lines that the survey has read, of a chunk that may be damaged.
    fn lines(&self, chunk: &Kept) -> Result<Reader<'a>, CompactError> {
        let (file, mut sources) = (self.source.file, self.source.survey.chunks.iter());
        let source = sources.find(|source| source.row.id == chunk.id);
        Ok(match source.and_then(|source| source.salvage.as_ref()) {
            Some(salvage) => Reader::Saved(Box::new(SavedLines::new(file, salvage))),
            None => Reader::Whole(Box::new(self.reader(chunk)?)),
        })
    }

    /// Nobody is to take these mailboxes for whole before they were sent again.
    fn say_what_is_doubtful(&mut self, now: i64) -> Result<(), CompactError> {
        let survey = self.source.survey;
        let at = now.max(self.last_ts);
        for uniqueid in &survey.doubtful {
            let row = self.index.mailbox_with_uniqueid(uniqueid).map_err(self.fault())?;
            if row.is_some() {
                self.add_line(at, &Own::Incomplete(uniqueid.clone()).line())?;
            }
        }
        Ok(())
    }

    fn start_chunk(&mut self, ts: i64) -> Result<OpenChunk, CompactError> {
        let (offset, sha1) = (self.output.hash.len(), self.output.hash.hex());
        let id = self.index.start_chunk(ts, offset, &sha1).map_err(self.fault())?;
        let started = MemberWriter::start(&mut self.output).and_then(|mut member| {
            member.write(CHUNK_HEADER, &mut self.output)?;
            Ok(member)
        });
        Ok(OpenChunk { id, member: started.map_err(self.io())?, restart: 0 })
    }

    fn end_chunk(&mut self) -> Result<(), CompactError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        // A member of Cyrus's compact ends without a flush: see `moment::history`.
        open.member.end_line(&mut self.output).map_err(self.io())?;
        let totals = open.member.finish(&mut self.output).map_err(self.io())?;
        let ended =
            self.index.end_chunk(open.id, self.last_ts, totals.len_plain, &totals.data_sha1);
        Ok(ended.map_err(self.fault())?)
    }

    /// Data first, then the index, as always.
    fn finish(&mut self) -> Result<(), CompactError> {
        let synced = self.output.flush().and_then(|()| self.output.file.sync_all());
        synced.map_err(self.io())?;
        fail_point()?;
        let hash = &self.output.hash;
        let inode = self.output.file.inode().map_err(self.io())?;
        let modified = self.output.file.modified().map_err(self.io())?;
        let state = State { len_file: hash.len(), inode, checkpoint: hash.checkpoint(), modified };
        let committed = self.index.set_state(&state).and_then(|()| self.index.commit());
        Ok(committed.map_err(self.fault())?)
    }

    fn fault(&self) -> impl FnOnce(IndexError) -> StoreError + use<'a> {
        StoreError::index(self.source.path)
    }

    fn io(&self) -> impl FnOnce(io::Error) -> StoreError + use<'a> {
        StoreError::io(self.source.path)
    }

    fn log(&self) -> impl FnOnce(LogError) -> StoreError + use<'a> {
        StoreError::log(self.source.path)
    }

    fn unfaithful(&self, what: String) -> CompactError {
        CompactError::Unfaithful { path: self.source.path.to_owned(), what }
    }
}

impl OpenChunk {
    fn write(&mut self, plain: &[u8], output: &mut Output) -> io::Result<()> {
        self.member.write(plain, output)
    }

    /// Nobody reads the chunk before it is whole: lines need no flush of their own.
    /// Returns the place behind it, if reading can begin there.
    fn end_line(&mut self, output: &mut Output) -> io::Result<Option<RestartPoint>> {
        self.member.write(b"\r\n", output)?;
        if self.member.len_plain() - self.restart < RESTART_EVERY {
            return Ok(None);
        }
        self.restart = self.member.len_plain();
        let is_point = self.member.end_line(output)?;
        let (offset_plain, offset_file) = (self.restart, output.hash.len());
        Ok(is_point.then_some(RestartPoint { offset_plain, offset_file }))
    }
}
