//! Reads chunks, each once: by several threads, told in the order of the file.
//!
//! A reader inflates, checks the member, and hashes the text and every message. What
//! it found goes in pieces of bounded size to the caller's thread, which works on one
//! chunk after the other. A reader that is far ahead waits.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use crate::store::backup::Backup;
use crate::store::chunk::{MemberError, MemberReader};
use crate::store::disk::Disk;
use crate::store::error::{self, StoreError};
use crate::store::index::{ChunkRow, RestartPoint};
use crate::store::log::{Hashed, LogError, LogLine, LogReader};
use crate::store::replay;
use crate::store::salvage::{self, Gap, Salvage, SavedLines};
use crate::wire::Guid;

/// Octets of lines, without message bodies, that make a piece.
const PIECE: usize = 128 * 1024;
/// Pieces of one chunk that may wait.
const WAITING: usize = 4;
/// Octets of lines that are held back until it is known that the chunk is whole. A larger one is
/// inflated once more to find out.
const HELD: usize = 32 * PIECE;

/// Chunks that a caller knows of at a time.
pub(super) const PAGE: usize = 256;

/// A line that was read.
pub(super) struct Taken {
    pub(super) line: LogLine,
    /// Its messages: what they claim to be, and what they are.
    pub(super) bodies: Vec<(Guid, Guid)>,
    /// It is one of a damaged chunk.
    pub(super) is_saved: bool,
    /// It is sure to be a line, see [`Salvage`].
    pub(super) is_sure: bool,
}

/// What one pass over a chunk brought.
pub(super) struct Content {
    pub(super) len_plain: u64,
    pub(super) data_sha1: String,
    /// The member ended as it should.
    pub(super) member: Result<(), MemberError>,
    /// All lines could be read.
    pub(super) lines: Result<(), LogError>,
    /// File offset behind the member, if it ended as it should.
    pub(super) end: u64,
    /// What cannot be read of it.
    pub(super) gaps: Vec<Gap>,
    /// How many lines can be read, if it is damaged.
    pub(super) saved: u64,
}

/// What is told of a chunk: any number of `Lines`, even none at a time, and `End`.
pub(super) enum Piece {
    Lines(Vec<Taken>),
    End(Content),
}

/// Takes the pieces of one chunk after the other, by its number; `false`: no more.
pub(super) type Take<'t, E> = dyn FnMut(usize, Piece) -> Result<bool, E> + 't;

/// Takes lines; whether to go on.
type Tell<'t> = dyn FnMut(Vec<Taken>) -> bool + 't;

/// What to read.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) file: &'a (dyn Disk + Sync),
    /// Restart points that the index has, in the order of the file.
    pub(super) known: &'a [RestartPoint],
}

/// The restart points that the index of `backup` has for these chunks, which are in the order of
/// the file.
pub(super) fn known(backup: &Backup, chunks: &[ChunkRow]) -> error::Result<Vec<RestartPoint>> {
    let mut known = Vec::new();
    for chunk in chunks {
        let points = backup.index().restart_points(chunk.id);
        known.extend(points.map_err(StoreError::index(backup.path()))?);
    }
    known.sort_by_key(|point| point.offset_file);
    Ok(known)
}

/// Reads the chunks that begin at `offsets`, with `jobs` threads; 1: that of the caller.
pub(super) fn chunks<E>(
    source: Source<'_>,
    offsets: &[u64],
    jobs: usize,
    take: &mut Take<'_, E>,
) -> Result<(), E> {
    if jobs > 1 {
        return in_parallel(source, offsets, jobs, take);
    }
    let mut reader = None;
    for (i, &offset) in offsets.iter().enumerate() {
        let mut result = Ok(true);
        let content = chunk(source, &mut reader, (offset, end_of(offsets, i)), &mut |lines| {
            result = take(i, Piece::Lines(lines));
            matches!(result, Ok(true))
        });
        result?;
        let Some(content) = content else { break };
        if !take(i, Piece::End(content))? {
            break;
        }
    }
    Ok(())
}

fn in_parallel<E>(
    source: Source<'_>,
    offsets: &[u64],
    jobs: usize,
    take: &mut Take<'_, E>,
) -> Result<(), E> {
    let (task, tasks) = unbounded::<((u64, u64), Sender<Piece>)>();
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(offsets.len()) {
            let tasks = tasks.clone();
            scope.spawn(move || {
                let mut reader = None;
                for (bounds, told) in tasks {
                    let tell = &mut |lines| told.send(Piece::Lines(lines)).is_ok();
                    if let Some(content) = chunk(source, &mut reader, bounds, tell) {
                        // Nobody may be listening any more.
                        let _ = told.send(Piece::End(content));
                    }
                }
            });
        }
        drop(tasks);
        let mut ahead: VecDeque<Receiver<Piece>> = VecDeque::new();
        let mut waiting = offsets.iter().enumerate();
        for i in 0..offsets.len() {
            while ahead.len() < jobs + 1
                && let Some((next, &offset)) = waiting.next()
            {
                let (sender, receiver) = bounded(WAITING);
                // The readers live as long as this end does.
                let _ = task.send(((offset, end_of(offsets, next)), sender));
                ahead.push_back(receiver);
            }
            let Some(pieces) = ahead.pop_front() else { break };
            // What there is to do in front of its lines is done while it is being read.
            let first = Piece::Lines(Vec::new());
            for piece in std::iter::once(first).chain(pieces) {
                if !take(i, piece)? {
                    // Whatever is dropped here lets the readers end.
                    return Ok(());
                }
            }
        }
        drop(task);
        Ok(())
    })
}

/// Inflates a chunk of a file of so many octets once, only to see whether its text is there.
pub(super) fn text(file: &dyn Disk, offset: u64, len_file: u64) -> Content {
    match MemberReader::open_until(file, offset, len_file) {
        Ok(member) => finish(&mut LogReader::over(member).hashing(), None),
        Err(error) => Content::unopened(error.into()),
    }
}

/// Where the chunk that is the `i`-th of `offsets` ends at the latest.
fn end_of(offsets: &[u64], i: usize) -> u64 {
    salvage::limit(offsets[i], offsets.get(i + 1).copied())
}

/// Inflates the chunk at `offset`, in front of `end`, once, by the reader of the one before.
/// `tell` says whether to go on; `None` if not.
fn chunk<'a>(
    source: Source<'a>,
    reader: &mut Option<LogReader<'a>>,
    (offset, end): (u64, u64),
    tell: &mut Tell<'_>,
) -> Option<Content> {
    let opened = match reader.take() {
        Some(mut reader) => reader.reopen(offset).map(|()| reader),
        None => LogReader::open_hashing(source.file, offset),
    };
    let reader = match opened {
        Ok(opened) => reader.insert(opened),
        Err(error) => return saved(source, (offset, end), Content::unopened(error), tell),
    };
    let mut held = Held::new(source, offset);
    let mut bodies = Hashed::default();
    let read = lines(&mut |bodies| reader.next_line(bodies), &mut bodies, &mut |lines| {
        held.tell(lines, tell)
    });
    let Some(failure) = read else {
        return match held.is_broken {
            // The rest of a chunk that is known to be damaged.
            true => saved(source, (offset, end), finish(reader, None), tell),
            false => None,
        };
    };
    let content = finish(reader, failure);
    if content.member.is_err() && !held.is_sound {
        return saved(source, (offset, end), content, tell);
    }
    held.all(tell).then_some(content)
}

/// Tells the lines of a damaged chunk.
fn saved(
    source: Source<'_>,
    (offset, end): (u64, u64),
    content: Content,
    tell: &mut Tell<'_>,
) -> Option<Content> {
    let salvage = source
        .file
        .len_file()
        .and_then(|len| Salvage::of_member(source.file, offset, len.min(end), source.known));
    let Ok(salvage) = salvage else { return Some(content) };
    let mut reader = SavedLines::new(source.file, &salvage);
    // Those that are not sure, by their offsets.
    let unsure = RefCell::new(HashSet::new());
    let mut next = |bodies: &mut Hashed| {
        let line = reader.next_line(bodies)?;
        if let (Some(line), false) = (&line, reader.is_sure()) {
            unsure.borrow_mut().insert(line.offset);
        }
        Ok(line)
    };
    lines(&mut next, &mut Hashed::default(), &mut |mut lines| {
        for taken in &mut lines {
            taken.is_saved = true;
            taken.is_sure = !unsure.borrow_mut().remove(&taken.line.offset);
        }
        tell(lines)
    })?;
    let saved = salvage.lines();
    // Why the lines ended is told by the gaps.
    Some(Content { gaps: salvage.gaps, saved, lines: Ok(()), ..content })
}

/// Lines that wait until the chunk is known to be whole.
struct Held<'s> {
    source: Source<'s>,
    offset: u64,
    pieces: Vec<Vec<Taken>>,
    /// In them.
    octets: usize,
    is_sound: bool,
    is_broken: bool,
}

impl<'s> Held<'s> {
    fn new(source: Source<'s>, offset: u64) -> Held<'s> {
        Held { source, offset, pieces: Vec::new(), octets: 0, is_sound: false, is_broken: false }
    }

    /// Whether to go on.
    fn tell(&mut self, lines: Vec<Taken>, tell: &mut Tell<'_>) -> bool {
        if self.is_sound {
            return tell(lines);
        }
        let octets = |taken: &Taken| taken.line.text().len() + size_of::<Taken>();
        self.octets += lines.iter().map(octets).sum::<usize>();
        self.pieces.push(lines);
        if self.octets < HELD {
            return true;
        }
        self.is_sound = replay::totals(self.source.file, self.offset, u64::MAX).is_ok();
        self.is_broken = !self.is_sound;
        self.is_sound && self.all(tell)
    }

    fn all(&mut self, tell: &mut Tell<'_>) -> bool {
        std::mem::take(&mut self.pieces).into_iter().all(tell)
    }
}

/// Tells lines, and returns why there were no more, if not because the chunk ends; `None` if no
/// more were wanted.
fn lines(
    next: &mut dyn FnMut(&mut Hashed) -> Result<Option<LogLine>, LogError>,
    bodies: &mut Hashed,
    tell: &mut Tell<'_>,
) -> Option<Option<LogError>> {
    let (mut lines, mut octets) = (Vec::new(), 0);
    let failure = loop {
        match next(bodies) {
            Ok(None) => break None,
            Err(error) => break Some(error),
            Ok(Some(line)) => {
                octets += line.text().len() + size_of::<Taken>();
                let bodies = std::mem::take(&mut bodies.found);
                lines.push(Taken { line, bodies, is_saved: false, is_sure: true });
            }
        }
        if octets >= PIECE {
            octets = 0;
            if !tell(std::mem::take(&mut lines)) {
                return None;
            }
        }
    };
    if !lines.is_empty() && !tell(lines) {
        return None;
    }
    Some(failure)
}

/// Whatever is wrong with a line, the rest of the text counts too.
fn finish(reader: &mut LogReader<'_>, failure: Option<LogError>) -> Content {
    let (mut member, mut lines) = (Ok(()), Ok(()));
    match failure {
        Some(LogError::Member(error)) => member = Err(error),
        Some(error) => lines = Err(error),
        None => {}
    }
    if member.is_ok() {
        member = reader.skip_rest();
    }
    let (len_plain, data_sha1) = (reader.len_plain(), reader.plain_sha1());
    let end = reader.offset_file();
    Content { len_plain, data_sha1, member, lines, end, gaps: Vec::new(), saved: 0 }
}

impl Content {
    fn unopened(error: LogError) -> Content {
        let (member, lines) = match error {
            LogError::Member(error) => (Err(error), Ok(())),
            error => (Ok(()), Err(error)),
        };
        let (gaps, data_sha1) = (Vec::new(), String::new());
        Content { len_plain: 0, data_sha1, member, lines, end: 0, gaps, saved: 0 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::chunk::{CHUNK_HEADER, MemberWriter};

    /// Chunks of many lengths; returns their offsets.
    fn file(dir: &std::path::Path) -> (std::fs::File, Vec<u64>) {
        let (mut out, mut offsets) = (Vec::new(), Vec::new());
        for lines in [1, 4000, 0, 3, 20_000, 2] {
            offsets.push(out.len() as u64);
            let mut writer = MemberWriter::start(&mut out).unwrap();
            writer.write(CHUNK_HEADER, &mut out).unwrap();
            for i in 0..lines {
                let line = format!("{i} APPLY UNMAILBOX user.tom.{i}\r\n");
                writer.write(line.as_bytes(), &mut out).unwrap();
            }
            writer.finish(&mut out).unwrap();
        }
        std::fs::write(dir.join("data"), out).unwrap();
        (std::fs::File::open(dir.join("data")).unwrap(), offsets)
    }

    fn run(file: &std::fs::File, offsets: &[u64], jobs: usize, most: usize) -> String {
        let (mut told, mut count) = (String::new(), 0);
        chunks::<()>(Source { file, known: &[] }, offsets, jobs, &mut |i, piece| {
            match piece {
                Piece::Lines(lines) => {
                    told +=
                        &lines.iter().map(|t| format!("{i}:{} ", t.line.ts)).collect::<String>();
                }
                Piece::End(content) => told += &format!("{i}:{}\n", content.data_sha1),
            }
            count += 1;
            Ok(count < most)
        })
        .unwrap();
        told
    }

    #[test]
    fn several_threads_tell_the_same_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let (file, offsets) = file(dir.path());
        let one = run(&file, &offsets, 1, usize::MAX);
        assert_eq!(one.matches('\n').count(), 6);
        for jobs in [2, 3, 8] {
            assert!(run(&file, &offsets, jobs, usize::MAX) == one, "{jobs}");
        }
    }

    #[test]
    fn a_text_is_the_same_however_small_the_buffers_are() {
        let dir = tempfile::tempdir().unwrap();
        let (file, offsets) = file(dir.path());
        let len = file.metadata().unwrap().len();
        for (i, &offset) in offsets.iter().enumerate() {
            let (whole, end) = (text(&file, offset, len), end_of(&offsets, i).min(len));
            let tight = text(&file, offset, end);
            assert!(whole.member.is_ok() && tight.member.is_ok(), "{i}");
            assert_eq!((tight.data_sha1, tight.end), (whole.data_sha1, end));
            for cut in (offset..end).rev().take(40) {
                let torn = text(&file, offset, cut);
                assert!(matches!(torn.member, Err(MemberError::Torn { at }) if at == cut), "{cut}");
            }
        }
    }

    #[test]
    fn whoever_has_heard_enough_is_told_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let (file, offsets) = file(dir.path());
        for jobs in [1, 2, 8] {
            for most in 1..8 {
                let told = run(&file, &offsets, jobs, most);
                assert!(told.matches('\n').count() <= most, "{jobs} {most}");
            }
        }
    }

    #[test]
    fn an_error_of_the_listener_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let (file, offsets) = file(dir.path());
        for jobs in [1, 4] {
            let source = Source { file: &file, known: &[] };
            let result =
                chunks(source, &offsets, jobs, &mut |i, _| if i < 2 { Ok(true) } else { Err(7) });
            assert_eq!(result, Err(7));
        }
    }
}
