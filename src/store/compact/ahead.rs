//! A chunk read for the survey, by whichever thread has time for it.

use std::fs::File;

use sha1::{Digest, Sha1};

use crate::store::log::{BodySink, LogError, LogLine, LogReader};
use crate::wire::Guid;
use crate::wire::dlist::FileHeader;

/// Octets of lines that are held; a larger chunk is read when its turn comes.
const LINES_MAX: usize = 4 << 20;

/// What a chunk holds.
pub(super) enum Chunk {
    /// Its lines, and how they end.
    Held(Vec<Line>, Result<End, LogError>),
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

/// Reads the chunk at `offset`.
pub(super) fn read(file: &File, offset: u64) -> Chunk {
    let (mut lines, mut held) = (Vec::new(), 0);
    let read = each(file, offset, |line| {
        held += line.line.text().len();
        let fits = held <= LINES_MAX;
        if fits {
            lines.push(line);
        }
        fits
    });
    match read.transpose() {
        Some(end) => Chunk::Held(lines, end),
        None => Chunk::TooLong,
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
struct Bodies {
    sha1: Sha1,
    found: Vec<Guid>,
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
