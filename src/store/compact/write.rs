//! Writes the new pair, obeying the plan.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::line::{self, Stays};
use super::neighbours::{Neighbour, Neighbours};
use super::output::Output;
use super::plan::{self, Plan};
use super::reader::Reader;
use super::replace::{self, fail_point};
use super::sizes::Sizes;
use super::survey::Survey;
use super::target::{self, Copied, Line, Pipe, Target};
use super::window::{Content, Other, Window};
use super::{CACHE_KIB, CompactError, Event, Policy, Sink};
use crate::lock::{self, Kind, Wait};
use crate::store::backup::index_path;
use crate::store::chunk::{CHUNK_HEADER, MemberError, MemberTotals};
use crate::store::error::StoreError;
use crate::store::helpers;
use crate::store::index::{
    self, ChunkRow, Index, IndexError, Kept, Open, Position, RestartPoint, Wanted,
};
use crate::store::log::{LogError, LogLine, LogReader, NoBodies};
use crate::store::replay::{self, Line as ReadLine, Lines, Scanned};
use crate::wire::Body;
use crate::wire::apply::Apply;
use crate::wire::dlist::parse_item;
use crate::wire::own::{Compacted, Own};

/// Lines of which it is known at a time what stays of them.
const LINES_AT_A_TIME: usize = 64;

/// What the new pair is made of.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
    pub(super) survey: &'a Survey,
    pub(super) plan: &'a Plan,
}

/// The new pair, under its own lock.
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

    /// Whether its chunks say what those of `old` do. Their octets may differ: what becomes of a
    /// piece depends on what its compressor, one of several, has packed before.
    pub(super) fn says_the_same_as(&self, old: &Index) -> Result<bool, IndexError> {
        let (mut new, mut old) = (self.index.chunks_by_offset(), old.chunks_by_offset());
        let text = |chunk: ChunkRow| (chunk.length, chunk.data_sha1);
        loop {
            match (new.next().transpose()?.map(text), old.next().transpose()?.map(text)) {
                (None, None) => return Ok(true),
                (new, old) if new == old => {}
                _ => return Ok(false),
            }
        }
    }

    /// Makes both files survive a power cut, if `differs` finds no difference; returns what it
    /// finds. Nobody depends on either before the first rename, so that neither need wait for the
    /// other: the data file is synced while the index is looked at and committed.
    pub(super) fn settle(
        &self,
        path: &Path,
        differs: impl FnOnce(&Index) -> Result<Option<String>, IndexError>,
    ) -> Result<Option<String>, StoreError> {
        let file = &self.output.file;
        let (synced, difference) = helpers::beside(
            || file.sync_all(),
            || {
                let difference = differs(&self.index).map_err(StoreError::index(path))?;
                fail_point()?;
                if difference.is_none() {
                    let committed = self.index.commit().map_err(StoreError::index(path));
                    committed.map_err(|error| error.of_making(index_path(path)))?;
                }
                Ok(difference)
            },
        );
        synced.map_err(StoreError::io(path))?;
        fail_point()?;
        difference
    }

    /// Closes the index; the file goes on being locked.
    pub(super) fn into_locked(self) -> (File, replace::NewNames) {
        (self.output.file, self.names)
    }
}

/// Writes `<data>.new` and `<data>.index.new`.
pub(super) fn write(
    source: &Source<'_>,
    policy: &Policy,
    now: i64,
    sink: &mut Sink<'_>,
) -> Result<NewPair, CompactError> {
    let fault = || StoreError::index(source.path);
    let names = replace::NewNames::claim(source.path)?;
    let file = create(names.data())?;
    let index = Index::open(names.index(), Open::Build).map_err(fault())?;
    index.work_on_disk(CACHE_KIB).and_then(|()| index.begin()).map_err(fault())?;
    let mut act = Act {
        source: *source,
        sizes: policy.sizes,
        window: Window::new(policy.staging.clone()),
        target: Target::new(source.path, file, index),
    };
    act.chunks(sink)?;
    target::packing(|pipe| {
        act.say_what_is_doubtful(now, pipe)?;
        if source.plan.loses {
            act.say_what_is_gone(now, policy.since, pipe)?;
        }
        act.target.end_chunk(pipe)?;
        Ok::<_, CompactError>(act.target.drain(pipe)?)
    })?;
    fail_point()?;
    let (output, index) = act.target.finish()?;
    Ok(NewPair { output, index, names })
}

fn create(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    lock::open_locked(path, &options, Kind::Exclusive, Wait::No).map_err(StoreError::lock(path))
}

struct Act<'a> {
    source: Source<'a>,
    sizes: Sizes,
    window: Window,
    target: Target<'a>,
}

impl<'a> Act<'a> {
    fn chunks(&mut self, sink: &mut Sink<'_>) -> Result<(), CompactError> {
        let (path, file, sizes) = (self.source.path, self.source.file, self.sizes);
        let mut kept = Neighbours::new(plan::kept(&self.source.survey.scratch))
            .map(|chunk| chunk.map_err(StoreError::index(path)).map_err(CompactError::from))
            .peekable();
        let goes_on = |chunk: &Result<Neighbour, CompactError>| match chunk {
            Ok(chunk) => chunk.goes_on(sizes),
            Err(_) => true,
        };
        while kept.peek().is_some() {
            // Those that will go on as they are, as far as can be foreseen, are read ahead, unless
            // what the survey has read is still there.
            let held = |near: Neighbour| {
                let scanned = self.source.survey.held.take(near.chunk.source.id);
                (near, scanned)
            };
            helpers::in_order(
                std::iter::from_fn(|| Some(kept.next_if(goes_on)?.map(held))),
                || (),
                |(), (near, held)| {
                    let Kept { source, whole_until, .. } = &near.chunk;
                    let read = |end| match held {
                        Some(scanned) => Ok(scanned),
                        None => replay::scan_member(file, source.offset, end),
                    };
                    let scanned = whole_until.map(read);
                    (near, scanned)
                },
                |(near, scanned)| self.chunk(&near, scanned, sink),
            )?;
            target::packing(|pipe| {
                while let Some(near) = kept.next_if(|chunk| !goes_on(chunk)) {
                    self.rewrite(&near?, pipe, sink)?;
                }
                Ok::<_, CompactError>(self.target.drain(pipe)?)
            })?;
        }
        Ok(())
    }

    /// Takes a chunk over, unless it has to be joined to the one before after all.
    fn chunk(
        &mut self,
        near: &Neighbour,
        scanned: Option<Result<Scanned, MemberError>>,
        sink: &mut Sink<'_>,
    ) -> Result<(), CompactError> {
        match scanned {
            Some(scanned) if self.len_open().is_none() => {
                let scanned = scanned.map_err(LogError::from).map_err(self.log())?;
                self.copy(&near.chunk, scanned)?;
                Ok(fail_point()?)
            }
            _ => target::packing(|pipe| {
                self.rewrite(near, pipe, sink)?;
                Ok(self.target.drain(pipe)?)
            }),
        }
    }

    /// Nobody is to take these mailboxes for whole before they were sent again.
    fn say_what_is_doubtful(&mut self, now: i64, pipe: &mut Pipe<'_>) -> Result<(), CompactError> {
        let survey = self.source.survey;
        let ts = now.max(self.target.last_ts());
        for uniqueid in &survey.doubtful {
            let row = self.target.index.mailbox_with_uniqueid(uniqueid);
            if row.map_err(self.fault())?.is_some() {
                let text = Own::Incomplete(uniqueid.clone()).line();
                self.add(&Line::of_text(ts, &text), pipe)?;
            }
        }
        Ok(())
    }

    /// Who asks for the state at an earlier moment is to know what is missing in it.
    fn say_what_is_gone(
        &mut self,
        now: i64,
        since: Option<i64>,
        pipe: &mut Pipe<'_>,
    ) -> Result<(), CompactError> {
        let ts = now.max(self.target.last_ts());
        let since = since.map(|since| since.max(0));
        let own = Own::Compacted(Compacted { at: ts, since });
        // The userid of an anchor means nothing.
        for text in [own.line(), own.anchor(b"")] {
            self.add(&Line::of_text(ts, &text), pipe)?;
        }
        Ok(())
    }

    /// Takes a chunk over octet for octet.
    fn copy(&mut self, chunk: &Kept, scanned: Scanned) -> Result<(), CompactError> {
        let Scanned { totals, points, lines, packed_crc } = scanned;
        let source = &chunk.source;
        if (totals.len_plain, &totals.data_sha1) != (source.length, &source.data_sha1) {
            return Err(self.has_changed(source));
        }
        let mut copied = None;
        let range = (source.offset, totals.end);
        match lines {
            Lines::Held(lines, None) => {
                let mut enter = |line: &ReadLine| self.copied_line(&mut copied, range, &line.line);
                lines.iter().try_for_each(&mut enter)?;
            }
            Lines::Held(_, Some(fault)) => return Err(self.log()(fault).into()),
            Lines::TooLong => {
                let opened = LogReader::open(self.source.file, source.offset);
                let mut reader = opened.map_err(self.log())?;
                while let Some(line) = reader.next_line(&mut NoBodies).map_err(self.log())? {
                    self.copied_line(&mut copied, range, &line)?;
                }
            }
        }
        let Some(Copied { id, offset, crc }) = copied else { return Ok(()) };
        // What was copied is what was read.
        if crc != packed_crc {
            return Err(self.has_changed(source));
        }
        for point in points {
            let offset_file = point.offset_file - source.offset + offset;
            let point = RestartPoint { offset_file, ..point };
            self.target.index.add_restart_point(id, point).map_err(self.fault())?;
        }
        let held = self.source.survey.scratch.held_times(&source.lines).map_err(self.fault())?;
        self.target.index.need_chunk(id, &held).map_err(self.fault())?;
        let totals = MemberTotals { len_plain: source.length, data_sha1: source.data_sha1.clone() };
        Ok(self.target.end_row(id, self.target.last_ts(), &totals)?)
    }

    /// Enters a line of a chunk, which is copied with its first one: one without lines has no
    /// row.
    fn copied_line(
        &mut self,
        copied: &mut Option<Copied>,
        range: (u64, u64),
        line: &LogLine,
    ) -> Result<(), CompactError> {
        let Copied { id: chunk_id, .. } = match *copied {
            Some(copied) => copied,
            None => *copied.insert(self.target.copy(self.source.file, range, line.ts)?),
        };
        self.target.pass(line.ts);
        self.apply(Position { chunk_id, ts: line.ts, offset: line.offset }, line.text())
    }

    /// Writes what stays of a chunk, line by line.
    fn rewrite(
        &mut self,
        near: &Neighbour,
        pipe: &mut Pipe<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), CompactError> {
        let source = &near.chunk.source;
        let Source { file, survey, .. } = self.source;
        // Its messages are not in there.
        drop(survey.held.take(source.id));
        let mut reader = Reader::open(file, survey, &near.chunk).map_err(self.log())?;
        for first in source.lines.clone().step_by(LINES_AT_A_TIME) {
            let lines = first..source.lines.end.min(first + LINES_AT_A_TIME as i64);
            let wanted = survey.scratch.wanted(lines.start, lines.end);
            let wanted = wanted.map_err(self.fault())?;
            for number in lines {
                self.rewrite_line(number, &mut reader, &wanted, pipe)?;
                if let Some(len) = self.len_open()
                    && self.sizes.splits_here(source.length, len)
                {
                    sink(Event::Splitting(source.id));
                    self.end_chunk(pipe)?;
                }
            }
        }
        fail_point()?;
        let Some(len) = self.len_open() else { return Ok(()) };
        match near.next {
            Some((id, next)) if self.sizes.combines(len, Some(next)) => {
                sink(Event::Combining(source.id, id));
                Ok(())
            }
            _ => self.end_chunk(pipe),
        }
    }

    /// Reads a line, and holds what stays of it.
    fn rewrite_line(
        &mut self,
        number: i64,
        reader: &mut Reader<'_>,
        wanted: &Wanted,
        pipe: &mut Pipe<'_>,
    ) -> Result<(), CompactError> {
        let messages = wanted.messages.get(&number);
        if messages.is_some_and(|messages| self.window.ends_before(messages)) {
            self.write_window(pipe)?;
        }
        self.window.spool.start_line(messages).map_err(self.io())?;
        let line = reader.next_line(&mut self.window.spool).map_err(self.log())?;
        let Some(line) = line else {
            return Err(self.unfaithful(format!("line {number} has gone")));
        };
        if !wanted.lines.contains(&number) {
            return Ok(());
        }
        if !self.window.spool.has_all() {
            return Err(self.unfaithful(format!("messages of line {number} have gone")));
        }
        let none = HashSet::new();
        let (name, value) = line.item().map_err(self.log())?;
        let restated = self.source.plan.restated.get(&number);
        let stays = match name.strip_prefix(b"LOCAL_").unwrap_or(&name) {
            b"MESSAGE" => {
                self.window.add_messages(line.ts);
                return Ok(());
            }
            b"MAILBOX" => Stays::Records(wanted.uids.get(&number).unwrap_or(&none), restated),
            _ => Stays::All(restated),
        };
        let (text, records_of) = line::print(&name, &value, &stays);
        let held = wanted.held.get(&number).copied();
        self.window.add(Other { ts: line.ts, text, held }, records_of);
        if self.window.is_full() { self.write_window(pipe) } else { Ok(()) }
    }

    /// Writes the lines that are held.
    fn write_window(&mut self, pipe: &mut Pipe<'_>) -> Result<(), CompactError> {
        let Content { ts, messages, others } = self.window.take().map_err(self.io())?;
        for part in line::divided(&messages) {
            let (text, body_at) = line::print_messages(part);
            let bodies: Vec<&Body> = part.iter().map(|message| &message.body).collect();
            self.add(&Line { ts, text: &text, body_at: &body_at, bodies: &bodies }, pipe)?;
        }
        for Other { ts, text, held } in others {
            self.add(&Line::of_text(ts, &text), pipe)?;
            self.target.hold(held)?;
        }
        Ok(())
    }

    fn end_chunk(&mut self, pipe: &mut Pipe<'_>) -> Result<(), CompactError> {
        self.write_window(pipe)?;
        Ok(self.target.end_chunk(pipe)?)
    }

    /// Inflated octets of the chunk that is being written, with the lines that are held.
    fn len_open(&self) -> Option<u64> {
        match (self.target.len_open(), self.window.len()) {
            (None, 0) => None,
            (open, held) => Some(open.unwrap_or(CHUNK_HEADER.len() as u64) + held),
        }
    }

    fn add(&mut self, line: &Line<'_>, pipe: &mut Pipe<'_>) -> Result<(), CompactError> {
        let position = self.target.line(line, &self.window.spool.staging, pipe)?;
        self.apply(position, line.text)
    }

    fn apply(&self, at: Position, text: &[u8]) -> Result<(), CompactError> {
        let unfaithful = |what: String| self.unfaithful(what);
        let (name, value) = parse_item(text).map_err(|e| unfaithful(e.to_string()))?;
        let name = name.to_ascii_uppercase();
        let apply = Apply::read(&name, &value).map_err(|e| unfaithful(e.to_string()))?;
        Ok(self.target.index.apply(at, &apply).map_err(self.fault())?)
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

    fn has_changed(&self, chunk: &index::Source) -> CompactError {
        self.unfaithful(format!("chunk {} has changed", chunk.id))
    }

    fn unfaithful(&self, what: String) -> CompactError {
        CompactError::Unfaithful { path: self.source.path.to_owned(), what }
    }
}
