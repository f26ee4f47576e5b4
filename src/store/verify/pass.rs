//! Reads chunks, each once: by several threads, told in the order of the file.
//!
//! A reader inflates, checks the member, and hashes the text and every message. What
//! it found goes in pieces of bounded size to the caller's thread, which works on one
//! chunk after the other. A reader that is far ahead waits.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use sha1::{Digest, Sha1};

use crate::store::chunk::{MemberError, MemberReader};
use crate::store::disk::Disk;
use crate::store::log::{BodySink, LogError, LogLine, LogReader};
use crate::store::torn;
use crate::wire::Guid;
use crate::wire::dlist::FileHeader;

/// Octets of lines, without message bodies, that make a piece.
const PIECE: usize = 128 * 1024;
/// Pieces of one chunk that may wait.
const WAITING: usize = 4;

/// Chunks that a caller knows of at a time.
pub(super) const PAGE: usize = 256;

/// A line that was read.
pub(super) struct Taken {
    pub(super) line: LogLine,
    /// Its messages: what they claim to be, and what they are.
    pub(super) bodies: Vec<(Guid, Guid)>,
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
}

/// What is told of a chunk: any number of `Lines`, and `End`.
pub(super) enum Piece {
    Lines(Vec<Taken>),
    End(Content),
}

/// Takes the pieces of one chunk after the other, by its number; `false`: no more.
pub(super) type Take<'t, E> = dyn FnMut(usize, Piece) -> Result<bool, E> + 't;

/// Takes lines; whether to go on.
type Tell<'t> = dyn FnMut(Vec<Taken>) -> bool + 't;

/// Reads the chunks that begin at `offsets`, with `jobs` threads; 1: that of the caller.
pub(super) fn chunks<E>(
    file: &(dyn Disk + Sync),
    offsets: &[u64],
    jobs: usize,
    take: &mut Take<'_, E>,
) -> Result<(), E> {
    if jobs > 1 {
        return in_parallel(file, offsets, jobs, take);
    }
    for (i, &offset) in offsets.iter().enumerate() {
        let mut result = Ok(true);
        let content = chunk(file, offset, &mut |lines| {
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
    file: &(dyn Disk + Sync),
    offsets: &[u64],
    jobs: usize,
    take: &mut Take<'_, E>,
) -> Result<(), E> {
    let (task, tasks) = unbounded::<(u64, Sender<Piece>)>();
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(offsets.len()) {
            let tasks = tasks.clone();
            scope.spawn(move || {
                for (offset, told) in tasks {
                    let tell = &mut |lines| told.send(Piece::Lines(lines)).is_ok();
                    if let Some(content) = chunk(file, offset, tell) {
                        // Nobody may be listening any more.
                        let _ = told.send(Piece::End(content));
                    }
                }
            });
        }
        drop(tasks);
        let mut ahead: VecDeque<Receiver<Piece>> = VecDeque::new();
        let mut waiting = offsets.iter();
        for i in 0..offsets.len() {
            while ahead.len() < jobs + 1
                && let Some(&offset) = waiting.next()
            {
                let (sender, receiver) = bounded(WAITING);
                // The readers live as long as this end does.
                let _ = task.send((offset, sender));
                ahead.push_back(receiver);
            }
            let Some(pieces) = ahead.pop_front() else { break };
            for piece in pieces {
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

/// Inflates a chunk once, only to see whether its text is there.
pub(super) fn text(file: &dyn Disk, offset: u64) -> Content {
    match LogReader::open_hashing(file, offset) {
        Ok(reader) => finish(reader, None),
        Err(error) => Content::unopened(error),
    }
}

/// Inflates a chunk once. `tell` says whether to go on; `None` if not.
fn chunk(file: &dyn Disk, offset: u64, tell: &mut Tell<'_>) -> Option<Content> {
    let mut reader = match LogReader::open_hashing(file, offset) {
        Ok(reader) => reader,
        Err(error) => return Some(Content::unopened(error)),
    };
    let (next, failure) = lines(&mut reader, 0, tell)?;
    // What was inflated together with damage did not come out, whole lines among it.
    if let Some(LogError::Member(MemberError::Corrupt { .. })) = &failure
        && let Ok(Some(kept)) = torn::last_complete_line(file, offset, u64::MAX)
        && let Ok(member) = MemberReader::open_until(file, offset, kept.end)
    {
        lines(&mut LogReader::over(member), next, tell)?;
    }
    Some(finish(reader, failure))
}

/// Tells the lines from offset `from` on; returns the offset behind the last one, and why
/// there were no more, if not because the chunk ends.
fn lines(
    reader: &mut LogReader<'_>,
    from: u64,
    tell: &mut Tell<'_>,
) -> Option<(u64, Option<LogError>)> {
    let (mut bodies, mut lines, mut octets) = (Bodies::default(), Vec::new(), 0);
    let mut next = from;
    let failure = loop {
        match reader.next_line(&mut bodies) {
            Ok(None) => break None,
            Err(error) => break Some(error),
            Ok(Some(line)) => {
                next = reader.offset_plain();
                let bodies = std::mem::take(&mut bodies.found);
                if line.offset >= from {
                    octets += line.text().len() + size_of::<Taken>();
                    lines.push(Taken { line, bodies });
                }
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
    Some((next.max(from), failure))
}

/// Whatever is wrong with a line, the rest of the text counts too.
fn finish(mut reader: LogReader<'_>, failure: Option<LogError>) -> Content {
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
    Content { len_plain, data_sha1, member, lines, end: reader.offset_file() }
}

impl Content {
    fn unopened(error: LogError) -> Content {
        let (member, lines) = match error {
            LogError::Member(error) => (Err(error), Ok(())),
            error => (Ok(()), Err(error)),
        };
        Content { len_plain: 0, data_sha1: String::new(), member, lines, end: 0 }
    }
}

/// Hashes the messages of a line.
#[derive(Default)]
struct Bodies {
    hash: Sha1,
    found: Vec<(Guid, Guid)>,
}

impl BodySink for Bodies {
    fn start(&mut self, header: &FileHeader) {
        self.hash = Sha1::new();
        // Zeros until the body is complete.
        self.found.push((header.guid, Guid::from([0; 20])));
    }

    fn data(&mut self, octets: &[u8]) {
        self.hash.update(octets);
    }

    fn end(&mut self) {
        if let Some((_, content)) = self.found.last_mut() {
            *content = Guid::from(<[u8; 20]>::from(self.hash.finalize_reset()));
        }
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
        chunks::<()>(file, offsets, jobs, &mut |i, piece| {
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
            let result =
                chunks(&file, &offsets, jobs, &mut |i, _| if i < 2 { Ok(true) } else { Err(7) });
            assert_eq!(result, Err(7));
        }
    }
}
