//! Finding the good part of a torn or damaged stretch of a data file.
//!
//! Whoever writes a data file flushes the compressor after each line, so that
//! every acknowledged line ends at an empty stored block, `00 00 ff ff`, on an octet
//! boundary. The same octets can turn up inside compressed data; a candidate counts
//! only if the member inflates cleanly when it is ended there.
//!
//! A torn member has no CRC-32, and a power cut can lose sectors in its middle, which
//! then read as zeros. Deflate data seldom notice. So every line must be well formed, every
//! message must have its GUID, and no other line may come from a sector of zeros; the
//! first that fails ends what is whole.
//!
//! An error of the disk is an error here: it does not tell good octets from bad.

use std::io;

use flate2::{Decompress, FlushDecompress, Status};
use sha1::{Digest, Sha1};

use super::chunk::{CHUNK_HEADER, MEMBER_HEADER, MemberError, MemberReader};
use super::disk::Disk;
use super::log::LogLine;
use crate::wire::Guid;
use crate::wire::frame::{Event, Framer, Limits};

/// The end of what a flush writes.
const FLUSH_MARK: [u8; 4] = [0, 0, 0xff, 0xff];
/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;
/// An empty last block.
const LAST_BLOCK: [u8; 2] = [3, 0];

/// The part of a torn member that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// File offset behind the last complete line's flush.
    pub end: u64,
    crc: u32,
    len_plain: u64,
}

impl Kept {
    /// What must follow `end` to make the member complete.
    pub(super) fn trailer(&self) -> Vec<u8> {
        let len = self.len_plain as u32;
        [&LAST_BLOCK[..], &self.crc.to_le_bytes(), &len.to_le_bytes()].concat()
    }
}

/// The last complete line of the member at `offset`, if it has any.
pub(super) fn last_complete_line(
    file: &dyn Disk,
    offset: u64,
    len: u64,
) -> io::Result<Option<Kept>> {
    let start = match MemberReader::open_until(file, offset, len) {
        Ok(member) => member.offset_file(),
        Err(MemberError::Io { source, .. }) => return Err(source),
        Err(_) => return Ok(None),
    };
    let mut walk = Walk::default();
    let mut pieces = Pieces::new(file, start, len);
    let mut candidates = Vec::new();
    while let Some(piece) = pieces.next_piece()? {
        let messages = walk.messages;
        if !walk.feed(&piece) {
            break;
        }
        if walk.messages == messages && has_lost_sector(&piece, pieces.at) {
            break;
        }
        if walk.is_between_lines(&piece) && walk.lines > 1 {
            let crc = walk.crc.clone().finalize();
            candidates.push(Kept { end: pieces.at, crc, len_plain: walk.len_plain });
        }
    }
    while let Some(kept) = candidates.pop() {
        if ends_cleanly(file, start, &kept)? {
            return Ok(Some(kept));
        }
    }
    Ok(None)
}

/// What a member that does not inflate to its end leaves to work with.
pub(super) struct Broken {
    /// Its complete lines, if it has any.
    pub(super) kept: Option<Kept>,
    /// Where the next readable member begins.
    pub(super) next: Option<u64>,
}

/// Looks at the broken member at `offset`, and for what follows it before `len`.
///
/// Files inside a message can be stored as they are, gzip files among them: so no member
/// is looked for where the broken one's own lines are.
pub(super) fn broken_member(file: &dyn Disk, offset: u64, len: u64) -> io::Result<Broken> {
    let kept = last_complete_line(file, offset, len)?;
    let from = kept.as_ref().map_or(offset + 1, |kept| kept.end);
    let next = next_member(file, from, len)?;
    Ok(Broken { kept, next })
}

/// The next offset from `from` on at which a readable member with a chunk begins.
fn next_member(file: &dyn Disk, from: u64, len: u64) -> io::Result<Option<u64>> {
    let mark = &MEMBER_HEADER[..3];
    let mut at = from;
    let mut buffer = vec![0; 1 << 16];
    while at + 18 <= len {
        let got = file.read_at(&mut buffer, at)?;
        if got < mark.len() {
            return Ok(None);
        }
        for i in buffer[..got].windows(mark.len()).enumerate().filter(|(_, w)| *w == mark) {
            let candidate = at + i.0 as u64;
            match is_chunk(file, candidate, len) {
                Ok(true) => return Ok(Some(candidate)),
                Err(MemberError::Io { source, .. }) => return Err(source),
                Ok(false) | Err(_) => {}
            }
        }
        at += (got - mark.len() + 1) as u64;
    }
    Ok(None)
}

/// Whether the member at `offset` begins as a chunk does. An error if it is not readable.
fn is_chunk(file: &dyn Disk, offset: u64, len: u64) -> Result<bool, MemberError> {
    let mut reader = MemberReader::open_until(file, offset, len)?;
    let mut start = [0; CHUNK_HEADER.len()];
    let mut filled = 0;
    while filled < start.len() {
        match reader.read(&mut start[filled..])? {
            0 => return Ok(false),
            got => filled += got,
        }
    }
    Ok(start == CHUNK_HEADER && super::replay::totals(file, offset, len).map(|_| true)?)
}

/// Inflates and frames what it is fed.
pub(super) struct Walk {
    inflate: Decompress,
    framer: Framer,
    crc: crc32fast::Hasher,
    /// Inflated octets so far.
    pub(super) len_plain: u64,
    lines: u64,
    /// Message bodies that had their GUID.
    messages: u64,
    body: Option<(Guid, Sha1)>,
    buffer: Vec<u8>,
}

impl Default for Walk {
    fn default() -> Walk {
        Walk {
            inflate: Decompress::new(false),
            framer: Framer::new(Limits::LOG),
            crc: crc32fast::Hasher::new(),
            len_plain: 0,
            lines: 0,
            messages: 0,
            body: None,
            buffer: vec![0; 1 << 16],
        }
    }
}

impl Walk {
    /// Whether a piece that ends in a flush, just fed, has also ended a line.
    pub(super) fn is_between_lines(&self, piece: &[u8]) -> bool {
        piece.ends_with(&FLUSH_MARK) && self.framer.at_line_start()
    }

    /// `false`: damaged, or at an end; nothing more can come.
    pub(super) fn feed(&mut self, mut packed: &[u8]) -> bool {
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let Ok(status) =
                self.inflate.decompress(packed, &mut self.buffer, FlushDecompress::None)
            else {
                return false;
            };
            packed = &packed[(self.inflate.total_in() - before_in) as usize..];
            let produced = (self.inflate.total_out() - before_out) as usize;
            self.crc.update(&self.buffer[..produced]);
            self.len_plain += produced as u64;
            if !self.frame(produced) || status == Status::StreamEnd {
                return false;
            }
            if packed.is_empty() && produced < self.buffer.len() {
                return true;
            }
        }
    }

    fn frame(&mut self, produced: usize) -> bool {
        let mut plain = &self.buffer[..produced];
        loop {
            match self.framer.next(&mut plain) {
                Event::More => return true,
                Event::Line => {
                    self.lines += 1;
                    if !self.framer.take_line().is_ok_and(LogLine::is_sound) {
                        return false;
                    }
                }
                Event::Lost => return false,
                Event::BodyStart(header) => self.body = Some((header.guid, Sha1::new())),
                Event::Body(octets) => {
                    self.body.iter_mut().for_each(|(_, sha1)| sha1.update(octets));
                }
                Event::BodyEnd => {
                    let is_whole = |(guid, sha1): (Guid, Sha1)| {
                        guid == Guid::from(<[u8; 20]>::from(sha1.finalize()))
                    };
                    if !self.body.take().is_none_or(is_whole) {
                        return false;
                    }
                    self.messages += 1;
                }
                Event::Continue => {}
            }
        }
    }
}

/// Cuts the file into pieces that end at flush marks.
pub(super) struct Pieces<'f> {
    file: &'f dyn Disk,
    /// Offset behind the last piece.
    pub(super) at: u64,
    len: u64,
    buffer: Vec<u8>,
}

impl<'f> Pieces<'f> {
    /// The pieces of `from..len`.
    pub(super) fn new(file: &'f dyn Disk, from: u64, len: u64) -> Pieces<'f> {
        Pieces { file, at: from, len, buffer: Vec::new() }
    }

    pub(super) fn next_piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            let from = searched;
            if let Some(i) =
                self.buffer[from..].windows(FLUSH_MARK.len()).position(|w| w == FLUSH_MARK)
            {
                let end = from + i + FLUSH_MARK.len();
                return Ok(Some(self.split(end)));
            }
            searched = self.buffer.len().saturating_sub(FLUSH_MARK.len() - 1);
            let known = self.buffer.len();
            let left = self.len - self.at - known as u64;
            if left == 0 {
                return Ok((known > 0).then(|| self.split(known)));
            }
            self.buffer.resize(known + left.min(1 << 16) as usize, 0);
            let got = self.file.read_at(&mut self.buffer[known..], self.at + known as u64)?;
            self.buffer.truncate(known + got);
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn split(&mut self, end: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(end);
        self.at += end as u64;
        std::mem::replace(&mut self.buffer, rest)
    }
}

/// Whether a piece of the file that ends at `end` holds a sector of zeros.
fn has_lost_sector(piece: &[u8], end: u64) -> bool {
    let start = end - piece.len() as u64;
    let first = (start.next_multiple_of(SECTOR) - start) as usize;
    let sectors = piece.get(first..).unwrap_or_default().chunks_exact(SECTOR as usize);
    sectors.into_iter().any(|sector| sector.iter().all(|octet| *octet == 0))
}

/// Whether the deflate data from `start` to `kept.end`, with a last block behind
/// them, are a whole.
fn ends_cleanly(file: &dyn Disk, start: u64, kept: &Kept) -> io::Result<bool> {
    let mut inflate = Decompress::new(false);
    let mut out = vec![0; 1 << 16];
    let mut packed = vec![0; 1 << 16];
    let mut at = start;
    loop {
        let want = (kept.end - at).min(packed.len() as u64) as usize;
        let got = file.read_at(&mut packed[..want], at)?;
        at += got as u64;
        let last = got == 0;
        let mut input = if last { &LAST_BLOCK[..] } else { &packed[..got] };
        loop {
            let before_in = inflate.total_in();
            let before_out = inflate.total_out();
            let Ok(status) = inflate.decompress(input, &mut out, FlushDecompress::None) else {
                return Ok(false);
            };
            if status == Status::StreamEnd {
                return Ok(last && inflate.total_out() == kept.len_plain);
            }
            input = &input[(inflate.total_in() - before_in) as usize..];
            if input.is_empty() && ((inflate.total_out() - before_out) as usize) < out.len() {
                break;
            }
        }
        if last {
            return Ok(false);
        }
    }
}
