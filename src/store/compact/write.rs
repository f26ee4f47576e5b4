//! Writes the new pair, obeying the plan.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::copy;
use super::line::{self, Records, Stays};
use super::neighbours::{Neighbour, Neighbours};
use super::output::Output;
use super::plan::{self, Plan};
use super::reader::Reader;
use super::replace::{self, fail_point};
use super::sizes::Sizes;
use super::survey::Survey;
use super::target::{self, Line, Pipe, Target};
use super::window::{Content, Other, Window};
use super::{CACHE_KIB, CompactError, Event, Policy, Sink};
use crate::lock::{self, Kind, Wait};
use crate::store::backup::index_path;
use crate::store::chunk::CHUNK_HEADER;
use crate::store::data_file::sync_directory_of;
use crate::store::error::StoreError;
use crate::store::helpers;
use crate::store::index::{self, ChunkRow, Index, IndexError, Open, Position, Wanted};
use crate::store::log::LogError;
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

impl<'a> Source<'a> {
    /// Enters the effect of a line of the new data file.
    pub(super) fn apply(
        &self,
        index: &Index,
        at: Position,
        text: &[u8],
    ) -> Result<(), CompactError> {
        let line = read(text).map_err(|what| self.unfaithful(what))?;
        Ok(index.apply(at, &line).map_err(self.fault())?)
    }

    pub(super) fn fault(&self) -> impl FnOnce(IndexError) -> StoreError + use<'a> {
        StoreError::index(self.path)
    }

    pub(super) fn io(&self) -> impl FnOnce(io::Error) -> StoreError + use<'a> {
        StoreError::io(self.path)
    }

    pub(super) fn log(&self) -> impl FnOnce(LogError) -> StoreError + use<'a> {
        StoreError::log(self.path)
    }

    pub(super) fn has_changed(&self, chunk: &index::Source) -> CompactError {
        self.unfaithful(format!("chunk {} has changed", chunk.id))
    }

    pub(super) fn unfaithful(&self, what: String) -> CompactError {
        CompactError::Unfaithful { path: self.path.to_owned(), what }
    }
}

/// What a line says that is in the new data file, or why nobody understands it.
pub(super) fn read(text: &[u8]) -> Result<Apply<'_>, String> {
    let (name, value) = parse_item(text).map_err(|error| error.to_string())?;
    Apply::read(&name.to_ascii_uppercase(), &value).map_err(|error| error.to_string())
}

/// The new pair, under its own lock.
pub(super) struct NewPair {
    output: Output,
    pub(super) index: Index,
    /// The file of the index. Not to be closed before that is: locks would go with it.
    index_file: File,
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

    /// Makes both files and their names survive a power cut, while `differs` looks for a
    /// difference; returns what it finds. Nobody depends on any of them before the first rename:
    /// they are synced in any order.
    pub(super) fn settle(
        &self,
        path: &Path,
        differs: impl FnOnce(&Index) -> Result<Option<String>, IndexError>,
    ) -> Result<Option<String>, StoreError> {
        let committed = self.index.commit().map_err(StoreError::index(path));
        committed.map_err(|error| error.of_making(index_path(path)))?;
        self.names.take_modes_of(path)?;
        fail_point()?;
        let (file, index_file) = (&self.output.file, &self.index_file);
        let sync = || {
            file.sync_all()?;
            index_file.sync_all()?;
            sync_directory_of(path)
        };
        let differs = || self.index.at_once(differs)?;
        let (synced, difference) = helpers::beside(sync, differs);
        synced.map_err(StoreError::io(path))?;
        fail_point()?;
        difference.map_err(StoreError::index(path))
    }

    /// Closes the index; the file goes on being locked.
    pub(super) fn into_locked(self) -> (File, replace::NewNames) {
        (self.output.file, self.names)
    }
}

/// Lets go of what the survey has read of chunks that will be written anew: their messages are not
/// in there.
pub(super) fn hold_what_is_copied(survey: &mut Survey, sizes: Sizes) -> Result<(), IndexError> {
    let mut copied = HashSet::new();
    for near in Neighbours::new(plan::kept(&survey.scratch)) {
        let near = near?;
        let id = near.chunk.source.id;
        if near.goes_on(sizes) && survey.held.get(id).is_some() {
            copied.insert(id);
        }
    }
    survey.held.keep_only(&copied);
    Ok(())
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
    let index_file = File::open(names.index()).map_err(StoreError::io(source.path))?;
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
    Ok(NewPair { output, index, index_file, names })
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
        let (path, sizes) = (self.source.path, self.sizes);
        let mut kept = Neighbours::new(plan::kept(&self.source.survey.scratch))
            .map(|chunk| chunk.map_err(StoreError::index(path)).map_err(CompactError::from))
            .peekable();
        let goes_on = |chunk: &Result<Neighbour, CompactError>| match chunk {
            Ok(chunk) => chunk.goes_on(sizes),
            Err(_) => true,
        };
        while kept.peek().is_some() {
            // Also one that would have gone on as it is, if those in front of it had not become
            // so small that they are joined to it.
            let is_next = |act: &Act<'_>, chunk: &_| !goes_on(chunk) || act.len_open().is_some();
            if kept.peek().is_some_and(|chunk| is_next(self, chunk)) {
                target::packing(|pipe| {
                    while let Some(near) = kept.next_if(|chunk| is_next(self, chunk)) {
                        self.rewrite(&near?, pipe, sink)?;
                    }
                    Ok::<_, CompactError>(self.target.drain(pipe)?)
                })?;
            }
            let whole = std::iter::from_fn(|| kept.next_if(goes_on));
            let whole = whole.map(|near| near.map(|near| near.chunk));
            copy::chunks(self.source, &mut self.target, whole)?;
        }
        Ok(())
    }

    /// Nobody is to take these mailboxes for whole before they were sent again.
    fn say_what_is_doubtful(&mut self, now: i64, pipe: &mut Pipe<'_>) -> Result<(), CompactError> {
        let survey = self.source.survey;
        let ts = now.max(self.target.rows().last_ts());
        for uniqueid in &survey.doubtful {
            let row = self.target.rows().index.mailbox_with_uniqueid(uniqueid);
            if row.map_err(self.source.fault())?.is_some() {
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
        let ts = now.max(self.target.rows().last_ts());
        let since = since.map(|since| since.max(0));
        let own = Own::Compacted(Compacted { at: ts, since });
        // The userid of an anchor means nothing.
        for text in [own.line(), own.anchor(b"")] {
            self.add(&Line::of_text(ts, &text), pipe)?;
        }
        Ok(())
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
        let mut reader = Reader::open(file, survey, &near.chunk).map_err(self.source.log())?;
        for first in source.lines.clone().step_by(LINES_AT_A_TIME) {
            let lines = first..source.lines.end.min(first + LINES_AT_A_TIME as i64);
            let wanted = survey.scratch.wanted(lines.start, lines.end);
            let wanted = wanted.map_err(self.source.fault())?;
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
        self.window.spool.start_line(messages).map_err(self.source.io())?;
        let line = reader.next_line(&mut self.window.spool).map_err(self.source.log())?;
        let Some(line) = line else {
            return Err(self.source.unfaithful(format!("line {number} has gone")));
        };
        if !wanted.lines.contains(&number) {
            return Ok(());
        }
        if !self.window.spool.has_all() {
            return Err(self.source.unfaithful(format!("messages of line {number} have gone")));
        }
        let (name, value) = line.item().map_err(self.source.log())?;
        let restated = self.source.plan.restated.get(&number);
        let stays = match name.strip_prefix(b"LOCAL_").unwrap_or(&name) {
            b"MESSAGE" => {
                self.window.add_messages(line.ts);
                return Ok(());
            }
            b"MAILBOX" => Stays::Records(
                Records {
                    of_line: wanted.uids.get(&number),
                    left_out: wanted.left_out.get(&number).map_or(&[], Vec::as_slice),
                    may_be_all: !wanted.not_whole.contains(&number),
                },
                restated,
            ),
            _ => Stays::All(restated),
        };
        let (text, records_of) = line::print(&name, &value, &stays);
        let held = wanted.held.get(&number).copied();
        self.window.add(Other { ts: line.ts, text, held }, records_of);
        if self.window.is_full() { self.write_window(pipe) } else { Ok(()) }
    }

    /// Writes the lines that are held.
    fn write_window(&mut self, pipe: &mut Pipe<'_>) -> Result<(), CompactError> {
        let Content { ts, messages, others } = self.window.take().map_err(self.source.io())?;
        for part in line::divided(&messages) {
            let (text, body_at) = line::print_messages(part);
            let bodies: Vec<&Body> = part.iter().map(|message| &message.body).collect();
            self.add(&Line { ts, text: &text, body_at: &body_at, bodies: &bodies }, pipe)?;
        }
        for Other { ts, text, held } in others {
            self.add(&Line::of_text(ts, &text), pipe)?;
            self.target.rows().hold(held)?;
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
        self.source.apply(&self.target.rows().index, position, line.text)
    }
}
