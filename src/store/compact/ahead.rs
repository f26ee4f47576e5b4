//! A chunk read for the survey, by whichever thread has time for it.

use std::fs::File;

use sha1::{Digest, Sha1};

use crate::store::chunk::MemberError;
use crate::store::disk::Disk;
use crate::store::index::RestartPoint;
use crate::store::log::{BodySink, LogError, LogLine, LogReader};
use crate::store::replay;
use crate::store::salvage::Salvage;
use crate::wire::Guid;
use crate::wire::dlist::FileHeader;

/// Octets of lines that are held; a larger chunk is read when its turn comes.
const LINES_MAX: usize = 4 << 20;

/// What a chunk holds.
pub(super) enum Chunk {
    /// Its lines, and how they end.
    Held(Vec<Line>, Result<End, LogError>),
    /// It is damaged: how, and what can be read of it.
    Damaged(MemberError, Salvage),
    /// They are too long to be held.
    TooLong,
}

/// A line of it.
pub(super) struct Line {
    pub(super) line: LogLine,
    /// SHA-1s of its bodies.
    pub(super) bodies: Vec<Guid>,
    /// Inflated octets of the chunk up to its end.
    pub(super) end_plain: u64,
}

/// A chunk that ended as it should.
pub(super) struct End {
    /// File offset behind it.
    pub(super) offset_file: u64,
    /// Inflated octets.
    pub(super) length: u64,
    /// SHA-1 of these, hex.
    pub(super) sha1: String,
}

/// Reads the chunk at `offset`, in front of `until`. `known` are the restart points that the index
/// has.
pub(super) fn read(file: &File, offset: u64, until: u64, known: &[RestartPoint]) -> Chunk {
    let (mut lines, mut held) = (Vec::new(), 0);
    let read = each(file, offset, |line| {
        held += line.line.text().len();
        let fits = held <= LINES_MAX;
        if fits {
            lines.push(line);
        }
        fits
    });
    let end = read.transpose();
    let is_settled = end.as_ref().is_some_and(|end| end.as_ref().err().is_none_or(is_of_disk));
    let salvaged = if is_settled { Ok(None) } else { salvage(file, offset, until, known) };
    match (salvaged, end) {
        (Ok(Some((damage, salvage))), _) => Chunk::Damaged(damage, salvage),
        (Ok(None), Some(end)) => Chunk::Held(lines, end),
        (Ok(None), None) => Chunk::TooLong,
        (Err(error), _) => Chunk::Held(lines, Err(error)),
    }
}

fn is_of_disk(error: &LogError) -> bool {
    matches!(error, LogError::Member(MemberError::Io { .. }))
}

/// What can be read of the chunk, if its member is damaged.
fn salvage(
    file: &File,
    offset: u64,
    until: u64,
    known: &[RestartPoint],
) -> Result<Option<(MemberError, Salvage)>, LogError> {
    let io = |source| LogError::Member(MemberError::Io { at: offset, source });
    match replay::totals(file, offset, u64::MAX) {
        Ok(_) => Ok(None),
        Err(error @ MemberError::Io { .. }) => Err(error.into()),
        Err(damage) => {
            let len = file.len_file().map_err(io)?.min(until);
            let salvage = Salvage::of_member(file, offset, len, known).map_err(io)?;
            Ok(Some((damage, salvage)))
        }
    }
}

/// Reads it line by line, as long as `take` wants more of it.
pub(super) fn each(
    file: &File,
    offset: u64,
    mut take: impl FnMut(Line) -> bool,
) -> Result<Option<End>, LogError> {
    let mut reader = LogReader::open_hashing(file, offset)?;
    let mut bodies = Bodies::default();
    while let Some(line) = reader.next_line(&mut bodies)? {
        let bodies = std::mem::take(&mut bodies.found);
        if !take(Line { line, bodies, end_plain: reader.offset_plain() }) {
            return Ok(None);
        }
    }
    Ok(Some(End {
        offset_file: reader.offset_file(),
        length: reader.len_plain(),
        sha1: reader.plain_sha1(),
    }))
}

/// Hashes bodies.
#[derive(Default)]
pub(super) struct Bodies {
    sha1: Sha1,
    pub(super) found: Vec<Guid>,
}

impl BodySink for Bodies {
    fn start(&mut self, _: &FileHeader) {
        self.sha1 = Sha1::new();
    }

    fn data(&mut self, octets: &[u8]) {
        self.sha1.update(octets);
    }

    fn end(&mut self) {
        self.found.push(Guid::from(<[u8; 20]>::from(self.sha1.finalize_reset())));
    }
}
