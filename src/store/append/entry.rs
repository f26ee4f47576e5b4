//! Lines into an open chunk: their octets into the member, their rows into the index.
//!
//! What is large is divided. Messages that a client sends in one line become several lines, those
//! that are like each other together, so that one of them can be read without most of the others;
//! and pieces of a line are compressed apart from each other, on several processors.

use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;

use super::super::chunk::{MemberWriter, Packer, Piece, RESTART_EVERY, Segment};
use super::super::data_file::DataFile;
use super::super::error::{Result, StoreError};
use super::super::helpers;
use super::super::index::{Index, Position, RestartPoint};
use super::super::printed::{self, END, octets_of, stamp};
use super::super::similar;
use super::super::staging::Staging;
use super::Line;
use crate::wire::Body;
use crate::wire::apply::Apply;
use crate::wire::dlist::FileHeader;

/// Reading can begin in front of a line of so many octets, and of a message; it is compressed in
/// pieces.
const LARGE: u64 = RESTART_EVERY / 2;
/// Larger lines are compressed on their way from the staging file, in little memory.
const STRETCH_MAX: u64 = 4 << 20;

/// Where and when lines are entered.
pub(super) struct Entry<'a> {
    /// The data file, for messages.
    pub(super) path: &'a Path,
    pub(super) data: &'a mut DataFile,
    pub(super) index: &'a Index,
    pub(super) chunk_id: i64,
    pub(super) member: &'a mut MemberWriter,
    /// Time stamp, Unix time.
    pub(super) ts: i64,
}

/// A message, and what is said of it.
type Message<'a> = (&'a FileHeader, &'a Body);

/// Messages that become one line.
struct Part<'a>(&'a [Message<'a>]);

impl Entry<'_> {
    /// Enters a line, or several that mean the same.
    pub(super) fn enter(&mut self, line: &Line<'_>, staging: &Staging) -> Result<()> {
        if let Apply::Message(files) = line.apply
            && files.len() == line.bodies.len()
            && octets_of(line.bodies) >= LARGE
        {
            return self.messages(files, line.bodies, staging);
        }
        if line.bodies.is_empty() && line.text.len() as u64 >= LARGE {
            return self.long_line(line);
        }
        let offset = self.stream(line, staging)?;
        self.index_line(offset, line.apply)
    }

    /// Enters messages in lines of a length at which reading can begin.
    fn messages(&mut self, files: &[FileHeader], bodies: &[Body], staging: &Staging) -> Result<()> {
        let messages =
            sorted(files.iter().zip(bodies), staging).map_err(StoreError::io(self.path))?;
        let lengths = messages.iter().map(|(_, body)| body.len());
        let parts: Vec<_> = divided(lengths).into_iter().map(|at| Part(&messages[at])).collect();
        for run in parts.chunk_by(|one, other| one.fits_memory() && other.fits_memory()) {
            match run {
                [Part([(file, body)])] if body.len() > STRETCH_MAX => {
                    let (text, body_at) = printed::messages(run[0].files());
                    let apply = Apply::Message(vec![FileHeader::clone(file)]);
                    let (text, body_at) = (&text[..], &body_at[..]);
                    let line =
                        Line { text, body_at, bodies: std::slice::from_ref(body), apply: &apply };
                    let offset = self.stream(&line, staging)?;
                    self.index_line(offset, &apply)?;
                }
                _ => self.stretches(run, staging)?,
            }
        }
        Ok(())
    }

    /// Compresses lines in pieces; reading can begin in front of each line.
    fn stretches(&mut self, parts: &[Part<'_>], staging: &Staging) -> Result<()> {
        let (path, ts) = (self.path, self.ts);
        let pieces = parts.iter().flat_map(|part| match part.plain(ts, staging) {
            Ok(plain) => Piece::all_of(plain).map(|piece| Ok((part, piece))).collect(),
            Err(error) => vec![Err(StoreError::io(path)(error))],
        });
        let mut offset = 0;
        helpers::in_order(
            pieces,
            Packer::default,
            |packer, (part, piece)| (part, packer.pack(piece)),
            |(part, segment)| {
                let segment = segment.map_err(StoreError::io(path))?;
                if segment.piece().is_first() {
                    self.restart()?;
                    offset = self.member.len_plain();
                }
                self.add(&segment)?;
                if segment.piece().is_last() {
                    self.index_line(offset, &Apply::Message(part.files().cloned().collect()))?;
                }
                Ok(())
            },
        )
    }

    /// Compresses a line in pieces. A very long one is several stretches, for the sake of memory.
    fn long_line(&mut self, line: &Line<'_>) -> Result<()> {
        self.restart()?;
        let path = self.path;
        let offset = self.member.len_plain();
        let stamp = stamp(self.ts);
        let stretches = line.text.chunks(STRETCH_MAX as usize).enumerate();
        let pieces = stretches.flat_map(|(number, text)| {
            let is_last = (number + 1) * STRETCH_MAX as usize >= line.text.len();
            let stamp: &[u8] = if number == 0 { &stamp } else { b"" };
            let end: &[u8] = if is_last { END } else { b"" };
            Piece::all_of_part([stamp, text, end].concat(), !is_last).map(Ok)
        });
        helpers::in_order(pieces, Packer::default, Packer::pack, |segment| {
            let segment = segment.map_err(StoreError::io(path))?;
            if segment.piece().is_first() {
                // In the middle of a line: no place where reading can begin.
                self.member.restart(self.data).map_err(StoreError::io(path))?;
            }
            self.add(&segment)
        })?;
        self.index_line(offset, line.apply)
    }

    /// Compresses a line as it is read. Returns its offset in the chunk.
    fn stream(&mut self, line: &Line<'_>, staging: &Staging) -> Result<u64> {
        if line.text.len() as u64 + octets_of(line.bodies) >= LARGE {
            self.restart()?;
        }
        let offset = self.member.len_plain();
        let (member, data) = (&mut *self.member, &mut *self.data);
        let has_restart = (|| {
            let text = (line.text, line.body_at);
            printed::write(self.ts, text, line.bodies, staging, |piece| member.write(piece, data))?;
            member.end_line(data)
        })()
        .map_err(StoreError::io(self.path))?;
        if has_restart {
            self.restart_point()?;
        }
        Ok(offset)
    }

    fn add(&mut self, segment: &Segment) -> Result<()> {
        self.member.add_segment(segment, self.data).map_err(StoreError::io(self.path))
    }

    /// Makes a place where reading can begin, if there is none here.
    fn restart(&mut self) -> Result<()> {
        match self.member.restart(self.data).map_err(StoreError::io(self.path))? {
            true => self.restart_point(),
            false => Ok(()),
        }
    }

    /// Remembers that reading can begin here.
    fn restart_point(&self) -> Result<()> {
        let (offset_plain, offset_file) = (self.member.len_plain(), self.data.len());
        let point = RestartPoint { offset_plain, offset_file };
        self.index.add_restart_point(self.chunk_id, point).map_err(StoreError::index(self.path))
    }

    fn index_line(&self, offset: u64, apply: &Apply<'_>) -> Result<()> {
        let at = Position { chunk_id: self.chunk_id, ts: self.ts, offset };
        self.index.apply(at, apply).map_err(StoreError::index(self.path))
    }
}

impl Part<'_> {
    fn fits_memory(&self) -> bool {
        self.octets() <= STRETCH_MAX
    }

    fn files(&self) -> impl Iterator<Item = &FileHeader> {
        self.0.iter().map(|(file, _)| *file)
    }

    fn bodies(&self) -> impl Iterator<Item = &Body> {
        self.0.iter().map(|(_, body)| *body)
    }

    fn octets(&self) -> u64 {
        octets_of(self.bodies())
    }

    /// The whole line.
    fn plain(&self, ts: i64, staging: &Staging) -> io::Result<Vec<u8>> {
        let (text, body_at) = printed::messages(self.files());
        let len = text.len() + self.octets() as usize + 64;
        let mut plain = Vec::with_capacity(len);
        printed::write(ts, (&text, &body_at), self.bodies(), staging, |piece| {
            plain.write_all(piece)
        })?;
        Ok(plain)
    }
}

/// Messages that are like each other side by side, those that are large by themselves at the end.
fn sorted<'a>(
    messages: impl Iterator<Item = Message<'a>>,
    staging: &Staging,
) -> io::Result<Vec<Message<'a>>> {
    let mut keyed = Vec::new();
    for (file, body) in messages {
        let key = match body {
            Body::Memory(octets) => similar::key(&octets[..octets.len().min(similar::HEAD)]),
            Body::Staged { offset, len } => {
                let len = (*len).min(similar::HEAD as u64);
                let mut head = Vec::with_capacity(len as usize);
                let body = Body::Staged { offset: *offset, len };
                staging.read(&body, |piece| head.write_all(piece))?;
                similar::key(&head)
            }
        };
        keyed.push((body.len() >= LARGE, key, (file, body)));
    }
    keyed.sort_by(|(large, key, _), (other_large, other, _)| {
        (large, key).cmp(&(other_large, other))
    });
    Ok(keyed.into_iter().map(|(_, _, message)| message).collect())
}

/// Divides messages of these lengths: a part ends as soon as it is long enough, and on both sides
/// of a message that is large by itself.
fn divided(lengths: impl Iterator<Item = u64>) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut start, mut end, mut len) = (0, 0, 0u64);
    for length in lengths {
        if length >= LARGE && end > start {
            parts.push(start..end);
            (start, len) = (end, 0);
        }
        end += 1;
        len = len.saturating_add(length);
        if len >= RESTART_EVERY || length >= LARGE {
            parts.push(start..end);
            (start, len) = (end, 0);
        }
    }
    if end > start {
        parts.push(start..end);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Guid;

    #[test]
    fn messages_of_one_sender_lie_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let mut staging = Staging::new(dir.path().to_owned());
        let guid = Guid::from([0; 20]);
        let file = |size| FileHeader { partition: b"p".to_vec(), guid, size };
        let (mut files, mut bodies, mut offset) = (Vec::new(), Vec::new(), 0);
        for (number, (from, len)) in
            [("tom", 9), ("ann", LARGE), ("ann", 9), ("tom", 9), ("ann", 9)].into_iter().enumerate()
        {
            let text = format!("From: {from}\r\n\r\n{}", "x".repeat(len as usize)).into_bytes();
            files.push(file(number as u64));
            bodies.push(match number % 2 {
                0 => Body::Memory(text),
                _ => {
                    let len = text.len() as u64;
                    staging.add(&text).unwrap();
                    offset += len;
                    Body::Staged { offset: offset - len, len }
                }
            });
        }
        let messages = sorted(files.iter().zip(&bodies), &staging).unwrap();
        let order: Vec<u64> = messages.iter().map(|(file, _)| file.size).collect();
        assert_eq!(order, [2, 4, 0, 3, 1]);
        assert!(messages.iter().all(|(file, body)| **body == bodies[file.size as usize]));
    }

    #[test]
    fn parts_end_where_they_are_long_enough() {
        let (long, large) = (RESTART_EVERY, LARGE);
        let ends = |lens: &[u64]| -> Vec<usize> {
            divided(lens.iter().copied()).iter().map(|part| part.end).collect()
        };
        assert!(ends(&[]).is_empty());
        assert_eq!(ends(&[1, 2, 3]), [3]);
        assert_eq!(ends(&[large - 1, large - 1, 1, 1, 5]), [4, 5]);
        assert_eq!(ends(&[large - 1, large - 1, 0, 1]), [4]);
        assert_eq!(ends(&[long, long, 1]), [1, 2, 3]);
        assert_eq!(ends(&[9, large, 1, 1, large]), [1, 2, 4, 5]);
        assert_eq!(ends(&[1, u64::MAX, 1, u64::MAX]), [1, 2, 3, 4]);
    }
}
