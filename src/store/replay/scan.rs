//! One pass over a member: what it holds, its lines, and where reading can begin.

use std::mem::take;

use flate2::{Decompress, FlushDecompress, Status};
use sha1::{Digest, Sha1};

use super::{Totals, hex};
use crate::store::chunk::{CHUNK_HEADER, MemberError, MemberReader};
use crate::store::disk::Disk;
use crate::store::index::RestartPoint;
use crate::store::log::{BodySink, Hashed, LogError, LogLine};
use crate::store::restart::Finder;
use crate::store::torn::Pieces;
use crate::wire::Guid;
use crate::wire::dlist::SyntaxError;
use crate::wire::frame::{Event, Framer, Limits};

/// Octets inflated at a time.
const BUFFER: usize = 64 * 1024;
/// Octets of lines that are held; those of a larger member are to be read again.
const LINES_MAX: usize = 4 << 20;
/// CRC-32 and length.
const TRAILER: usize = 8;

/// What there is to know of a whole member.
pub(in crate::store) struct Scanned {
    pub(in crate::store) totals: Totals,
    /// Places where reading can begin, about one in every [`RESTART_EVERY`] octets.
    ///
    /// [`RESTART_EVERY`]: crate::store::chunk::RESTART_EVERY
    pub(in crate::store) points: Vec<RestartPoint>,
    /// Its lines, as far as they can be read.
    pub(in crate::store) lines: Lines,
    /// CRC-32 of its octets in the file.
    pub(in crate::store) packed_crc: u32,
}

/// A line of a member.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct Line {
    pub(in crate::store) line: LogLine,
    /// What its bodies claim to be, and what they are: for who wanted to know.
    pub(in crate::store) bodies: Vec<(Guid, Guid)>,
    /// Inflated octets of the member up to its end.
    pub(in crate::store) end_plain: u64,
}

/// The lines of a member.
pub(in crate::store) enum Lines {
    /// And why those behind them cannot be read.
    Held(Vec<Line>, Option<LogError>),
    /// They are too long to be held.
    TooLong,
}

/// Reads the member at `offset`, as if the file ended at `len`.
pub(in crate::store) fn member(
    disk: &dyn Disk,
    offset: u64,
    len: u64,
) -> Result<Scanned, MemberError> {
    Scan::at(disk, offset, len)?
        .read(disk, len, |_| true)?
        .ok_or(MemberError::NotAMember { at: offset })
}

/// The same, for a caller who wants to know the SHA-1s of message bodies.
pub(in crate::store) fn member_hashing(
    disk: &dyn Disk,
    offset: u64,
    len: u64,
) -> Result<Scanned, MemberError> {
    let scan = Scan::at(disk, offset, len)?;
    Scan { bodies: Some(Hashed::default()), ..scan }
        .read(disk, len, |_| true)?
        .ok_or(MemberError::NotAMember { at: offset })
}

/// The same; `None` if it is neither a chunk nor empty.
pub(super) fn chunk(
    disk: &dyn Disk,
    offset: u64,
    len: u64,
) -> Result<Option<Scanned>, MemberError> {
    Scan::at(disk, offset, len)?.read(disk, len, |scan| CHUNK_HEADER.starts_with(&scan.head))
}

struct Scan {
    /// File offset of the deflate data.
    start: u64,
    packed_crc: crc32fast::Hasher,
    inflate: Decompress,
    buffer: Vec<u8>,
    crc: crc32fast::Hasher,
    sha1: Sha1,
    len_plain: u64,
    /// The first octets.
    head: Vec<u8>,
    framer: Framer,
    line_offset: u64,
    bodies: Option<Hashed>,
    lines: Vec<Line>,
    lines_len: usize,
    fault: Option<LogError>,
    finder: Finder,
}

impl Scan {
    /// Reads the header.
    fn at(disk: &dyn Disk, offset: u64, len: u64) -> Result<Scan, MemberError> {
        let start = MemberReader::open_until(disk, offset, len)?.offset_file();
        let mut packed_crc = crc32fast::Hasher::new();
        let mut header = vec![0; (start - offset) as usize];
        read_all(disk, &mut header, offset, len)?;
        packed_crc.update(&header);
        Ok(Scan {
            start,
            packed_crc,
            inflate: Decompress::new(false),
            buffer: vec![0; BUFFER],
            crc: crc32fast::Hasher::new(),
            sha1: Sha1::new(),
            len_plain: 0,
            head: Vec::new(),
            framer: Framer::new(Limits::LOG),
            line_offset: 0,
            bodies: None,
            lines: Vec::new(),
            lines_len: 0,
            fault: None,
            finder: Finder::default(),
        })
    }

    /// Reads all of it, as long as it `is_wanted`.
    fn read(
        mut self,
        disk: &dyn Disk,
        len: u64,
        is_wanted: impl Fn(&Scan) -> bool,
    ) -> Result<Option<Scanned>, MemberError> {
        let mut pieces = Pieces::new(disk, self.start, len);
        let io = |at| move |source| MemberError::Io { at, source };
        while let Some(piece) = pieces.next_piece().map_err(io(self.start))? {
            self.finder.before(piece.octets);
            let has_ended = self.inflate(piece.octets)?;
            if !is_wanted(&self) {
                return Ok(None);
            }
            if has_ended {
                let end = self.start + self.inflate.total_in();
                return self.finish(disk, end, len).map(Some);
            }
            if piece.ends_in_mark && self.is_between_lines() {
                let offset_plain = self.len_plain;
                self.finder.behind(RestartPoint { offset_plain, offset_file: piece.end });
            }
        }
        Err(MemberError::Torn { at: len })
    }

    /// Returns whether the last block has ended.
    fn inflate(&mut self, mut packed: &[u8]) -> Result<bool, MemberError> {
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let at = self.start + before_in;
            let status = self
                .inflate
                .decompress(packed, &mut self.buffer, FlushDecompress::None)
                .map_err(|_| MemberError::Corrupt { at, what: "bad deflate data" })?;
            let consumed = (self.inflate.total_in() - before_in) as usize;
            let produced = (self.inflate.total_out() - before_out) as usize;
            self.packed_crc.update(&packed[..consumed]);
            packed = &packed[consumed..];
            self.take(produced);
            if status == Status::StreamEnd {
                return Ok(true);
            }
            if packed.is_empty() && produced < self.buffer.len() {
                return Ok(false);
            }
            if consumed == 0 && produced == 0 {
                return Err(MemberError::Corrupt { at, what: "deflate data make no end" });
            }
        }
    }

    fn take(&mut self, produced: usize) {
        let plain = &self.buffer[..produced];
        self.crc.update(plain);
        self.sha1.update(plain);
        let missing = CHUNK_HEADER.len() - self.head.len();
        self.head.extend_from_slice(&plain[..missing.min(produced)]);
        if self.fault.is_none() {
            let buffer = std::mem::take(&mut self.buffer);
            self.fault = self.frame(&buffer[..produced]).err();
            self.buffer = buffer;
        }
        self.len_plain += produced as u64;
    }

    fn frame(&mut self, plain: &[u8]) -> Result<(), LogError> {
        let mut rest = plain;
        loop {
            match self.framer.next(&mut rest) {
                Event::More => return Ok(()),
                Event::Line => {
                    let offset = self.line_offset;
                    self.line_offset = self.len_plain + (plain.len() - rest.len()) as u64;
                    let line = self.framer.read_line(|line| LogLine::parse(offset, line));
                    let line = line.map_err(|source| LogError::TooLong { offset, source })?;
                    let bodies = self.bodies.as_mut().map(|bodies| take(&mut bodies.found));
                    if let Some(line) = line? {
                        self.keep(line, bodies.unwrap_or_default());
                    }
                }
                Event::Lost => {
                    let source = SyntaxError { what: "bad length", at: 0 };
                    return Err(LogError::Syntax { offset: self.line_offset, source });
                }
                Event::BodyStart(header) => {
                    self.bodies.iter_mut().for_each(|bodies| bodies.start(&header));
                }
                Event::Body(octets) => {
                    self.bodies.iter_mut().for_each(|bodies| bodies.data(octets));
                }
                Event::BodyEnd => self.bodies.iter_mut().for_each(Hashed::end),
                Event::Continue => {}
            }
        }
    }

    fn keep(&mut self, line: LogLine, bodies: Vec<(Guid, Guid)>) {
        self.lines_len += line.text().len();
        match self.lines_len <= LINES_MAX {
            true => self.lines.push(Line { line, bodies, end_plain: self.line_offset }),
            false => self.lines = Vec::new(),
        }
    }

    fn is_between_lines(&self) -> bool {
        self.fault.is_none() && self.framer.at_line_start()
    }

    /// Checks the trailer.
    fn finish(mut self, disk: &dyn Disk, end: u64, len: u64) -> Result<Scanned, MemberError> {
        let mut trailer = [0; TRAILER];
        read_all(disk, &mut trailer, end, len)?;
        self.packed_crc.update(&trailer);
        let (crc, length) = (self.crc.finalize(), self.len_plain as u32);
        if trailer[..4] != crc.to_le_bytes() {
            return Err(MemberError::Corrupt { at: end, what: "the CRC-32 does not match" });
        }
        if trailer[4..] != length.to_le_bytes() {
            return Err(MemberError::Corrupt { at: end, what: "the length does not match" });
        }
        let offset = self.line_offset;
        let fault = match self.framer.at_line_start() {
            false if self.fault.is_none() => Some(LogError::Incomplete { offset }),
            _ => self.fault,
        };
        let totals = Totals {
            end: end + TRAILER as u64,
            len_plain: self.len_plain,
            data_sha1: hex(self.sha1),
        };
        let lines = match self.lines_len <= LINES_MAX {
            true => Lines::Held(self.lines, fault),
            false => Lines::TooLong,
        };
        let packed_crc = self.packed_crc.finalize();
        Ok(Scanned { totals, points: self.finder.into_points(), lines, packed_crc })
    }
}

/// Fills `octets` from `from` on, as if the file ended at `len`.
fn read_all(disk: &dyn Disk, octets: &mut [u8], from: u64, len: u64) -> Result<(), MemberError> {
    let mut filled = 0;
    while filled < octets.len() {
        let at = from + filled as u64;
        let wanted = (octets.len() - filled).min(len.saturating_sub(at) as usize);
        let got = disk.read_at(&mut octets[filled..filled + wanted], at);
        match got.map_err(|source| MemberError::Io { at, source })? {
            0 => return Err(MemberError::Torn { at }),
            got => filled += got,
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::store::log::{LogReader, NoBodies};
    use crate::store::{replay, restart};

    fn data_files(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                data_files(&path, found);
            } else if path.with_extension("index").exists() && path.extension().is_none() {
                found.push(path);
            }
        }
    }

    /// Every member of the reference's backups, read in one pass and in many.
    #[test]
    fn one_pass_finds_what_many_do() {
        let mut members = 0;
        let mut paths = Vec::new();
        data_files(Path::new("tests/fixtures/backups"), &mut paths);
        for path in paths {
            let file = File::open(&path).unwrap();
            let len = file.metadata().unwrap().len();
            let mut at = 0;
            while at < len {
                let scanned = member(&file, at, len);
                let totals = match replay::totals(&file, at, len) {
                    Ok(totals) => totals,
                    Err(expected) => {
                        let found = scanned.err().unwrap();
                        let kind = std::mem::discriminant(&expected);
                        assert_eq!(std::mem::discriminant(&found), kind, "{path:?} {at}");
                        break;
                    }
                };
                let scanned = scanned.unwrap();
                assert_eq!(scanned.totals, totals);
                assert_eq!(scanned.points, restart::find(&file, at, &totals).unwrap());
                let Lines::Held(lines, fault) = scanned.lines else { panic!("{path:?} {at}") };
                let mut reader = LogReader::open(&file, at).unwrap();
                let mut found = lines.iter();
                let end = loop {
                    match reader.next_line(&mut NoBodies) {
                        Ok(Some(line)) => {
                            assert_eq!(found.next().map(|found| &found.line), Some(&line))
                        }
                        end => break end.err(),
                    }
                };
                assert!(found.next().is_none());
                let text = |error: Option<LogError>| error.map(|error| error.to_string());
                assert_eq!(text(fault), text(end));
                at = totals.end;
                members += 1;
            }
        }
        assert!(members > 40, "{members}");
    }
}
