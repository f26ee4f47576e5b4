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
use memchr::memmem;
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
/// Octets of a file that are looked at together; a multiple of a sector.
const PIECE: u64 = 64 * 1024;
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
    // A sector of zeros that no GUID has accounted for yet.
    let mut is_sector_lost = false;
    while let Some(piece) = pieces.next_piece()? {
        let messages = walk.messages;
        if !walk.feed(piece.octets) {
            break;
        }
        is_sector_lost |= has_lost_sector(&piece);
        if walk.messages > messages {
            is_sector_lost = false;
        }
        // Inside a message its GUID will tell.
        if is_sector_lost && walk.body.is_none() {
            break;
        }
        if walk.is_between_lines(&piece) && walk.lines > 1 {
            let crc = walk.crc.clone().finalize();
            candidates.push(Kept { end: piece.end, crc, len_plain: walk.len_plain });
        }
    }
    while let Some(kept) = candidates.pop() {
        if ends_cleanly(file, start, &kept)? {
            return Ok(Some(kept));
        }
    }
    Ok(None)
}

/// Where the next readable member begins behind the broken one at `offset`, before `len`.
///
/// Files inside a message can be stored as they are, gzip files among them: so no member
/// is looked for where the broken one's own lines are.
pub(super) fn next_behind(file: &dyn Disk, offset: u64, len: u64) -> io::Result<Option<u64>> {
    let kept = last_complete_line(file, offset, len)?;
    next_member(file, kept.map_or(offset + 1, |kept| kept.end), len)
}

/// The next offset from `from` on at which a readable member with a chunk begins.
pub(super) fn next_member(file: &dyn Disk, from: u64, len: u64) -> io::Result<Option<u64>> {
    next_where(file, from, len, |at| is_chunk(file, at, len))
}

/// The next offset from `from` on at which a chunk begins that ends with the file, behind a
/// complete line at least.
pub(super) fn next_torn(file: &dyn Disk, from: u64, len: u64) -> io::Result<Option<u64>> {
    next_where(file, from, len, |at| {
        let io = |source| MemberError::Io { at, source };
        let is_torn = begins_as_chunk(file, at, len)?
            && matches!(super::replay::totals(file, at, len), Err(MemberError::Torn { .. }));
        Ok(is_torn && last_complete_line(file, at, len).map_err(io)?.is_some())
    })
}

/// The next offset from `from` on that has the mark of a member, and for which `is_it` says so.
fn next_where(
    file: &dyn Disk,
    from: u64,
    len: u64,
    is_it: impl Fn(u64) -> Result<bool, MemberError>,
) -> io::Result<Option<u64>> {
    let mark = &MEMBER_HEADER[..3];
    let mut at = from;
    let mut buffer = vec![0; 1 << 16];
    while at + 18 <= len {
        let got = file.read_at(&mut buffer, at)?;
        if got < mark.len() {
            return Ok(None);
        }
        for i in memmem::find_iter(&buffer[..got], mark) {
            let candidate = at + i as u64;
            match is_it(candidate) {
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
    let is_chunk = begins_as_chunk(file, offset, len)?;
    Ok(is_chunk && super::replay::totals(file, offset, len).map(|_| true)?)
}

fn begins_as_chunk(file: &dyn Disk, offset: u64, len: u64) -> Result<bool, MemberError> {
    let mut reader = MemberReader::open_until(file, offset, len)?;
    let mut start = [0; CHUNK_HEADER.len()];
    let mut filled = 0;
    while filled < start.len() {
        match reader.read(&mut start[filled..])? {
            0 => return Ok(false),
            got => filled += got,
        }
    }
    Ok(start == CHUNK_HEADER)
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
    /// Whether a piece, just fed, has ended a line and its flush.
    pub(super) fn is_between_lines(&self, piece: &Piece<'_>) -> bool {
        piece.ends_in_mark && self.framer.at_line_start()
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
                    if !self.framer.take_line().is_ok_and(|line| LogLine::is_sound(&line)) {
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

/// Octets of a file that lie between flush marks, or some of these octets.
pub(super) struct Piece<'b> {
    pub(super) octets: &'b [u8],
    /// File offset behind them.
    pub(super) end: u64,
    /// They end in a flush mark.
    pub(super) ends_in_mark: bool,
}

/// Cuts the file into pieces that end at flush marks, or at a multiple of [`PIECE`] if
/// none comes before: a line can be of any length.
pub(super) struct Pieces<'f> {
    file: &'f dyn Disk,
    /// Offset behind the last piece.
    at: u64,
    len: u64,
    buffer: Vec<u8>,
    /// Where the last piece ends in `buffer`.
    used: usize,
}

impl<'f> Pieces<'f> {
    /// The pieces of `from..len`.
    pub(super) fn new(file: &'f dyn Disk, from: u64, len: u64) -> Pieces<'f> {
        Pieces { file, at: from, len, buffer: Vec::new(), used: 0 }
    }

    /// At most [`PIECE`] octets, and what is left of a mark.
    pub(super) fn next_piece(&mut self) -> io::Result<Option<Piece<'_>>> {
        // A mark that lies across the limit is not cut through.
        let limit = (PIECE - self.at % PIECE) as usize;
        let wanted = limit + FLUSH_MARK.len() - 1;
        let mut marked = self.behind_mark(wanted);
        if marked.is_none() {
            self.fill(wanted)?;
            marked = self.behind_mark(wanted);
        }
        let start = self.used;
        let length = marked.unwrap_or(limit).min(self.buffer.len() - start);
        self.used += length;
        self.at += length as u64;
        Ok((length > 0).then(|| Piece {
            octets: &self.buffer[start..self.used],
            end: self.at,
            ends_in_mark: marked.is_some(),
        }))
    }

    /// Octets up to the end of the first mark, if one ends within `wanted` octets.
    fn behind_mark(&self, wanted: usize) -> Option<usize> {
        let octets = &self.buffer[self.used..];
        let octets = &octets[..octets.len().min(wanted)];
        let at = memmem::find(octets, &FLUSH_MARK)?;
        Some(at + FLUSH_MARK.len())
    }

    /// Reads until there are `wanted` octets, or all.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        loop {
            let known = self.buffer.len();
            let left = self.len.saturating_sub(self.at + known as u64);
            if known >= wanted || left == 0 {
                return Ok(());
            }
            self.buffer.resize(known + left.min(PIECE) as usize, 0);
            let got = self.file.read_at(&mut self.buffer[known..], self.at + known as u64)?;
            self.buffer.truncate(known + got);
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Whether a piece holds a sector of zeros. No sector of zeros lies in two pieces: they are
/// cut at ends of sectors and behind marks, which are not zeros.
pub(super) fn has_lost_sector(piece: &Piece<'_>) -> bool {
    let start = piece.end - piece.octets.len() as u64;
    let first = (start.next_multiple_of(SECTOR) - start) as usize;
    let sectors = piece.octets.get(first..).unwrap_or_default().chunks_exact(SECTOR as usize);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    use flate2::write::GzEncoder;

    fn file(octets: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(octets).unwrap();
        file
    }

    /// Checks that the pieces are the file, and returns the ends of those that end in marks.
    fn marks(octets: &[u8], from: usize) -> Vec<u64> {
        let file = file(octets);
        let mut pieces = Pieces::new(&file, from as u64, octets.len() as u64);
        let (mut at, mut marks) = (from, Vec::new());
        while let Some(piece) = pieces.next_piece().unwrap() {
            assert!(!piece.octets.is_empty() && piece.octets.len() <= PIECE as usize + 3);
            assert_eq!(piece.octets, &octets[at..at + piece.octets.len()]);
            at += piece.octets.len();
            assert_eq!(piece.end, at as u64);
            marks.extend(piece.ends_in_mark.then_some(piece.end));
        }
        assert_eq!(at, octets.len());
        marks
    }

    #[test]
    fn pieces_are_short_and_cut_no_mark() {
        let plain = vec![1; 5 * PIECE as usize + 77];
        assert_eq!(marks(&plain, 10), []);
        assert_eq!(marks(&[], 0), []);
        for at in (2 * PIECE as usize - 5..2 * PIECE as usize + 5).chain([13, plain.len() - 4]) {
            let mut octets = plain.clone();
            octets[at..at + 4].copy_from_slice(&FLUSH_MARK);
            assert_eq!(marks(&octets, 13), [at as u64 + 4]);
        }
        let row = FLUSH_MARK.repeat(PIECE as usize / 4 + 9);
        assert_eq!(marks(&row, 2).len(), row.len() / 4 - 1);
    }

    #[test]
    fn a_lost_sector_is_seen_wherever_pieces_are_cut() {
        let octets = vec![1; 2 * PIECE as usize + 700];
        for (sector, mark) in [(0, 5), (127, 5), (127, 65_534), (128, 5), (128, 66_048), (130, 7)] {
            let mut octets = octets.clone();
            octets[mark..mark + 4].copy_from_slice(&FLUSH_MARK);
            octets[sector * 512..(sector + 1) * 512].fill(0);
            let file = file(&octets);
            let mut pieces = Pieces::new(&file, 0, octets.len() as u64);
            let mut lost = 0;
            while let Some(piece) = pieces.next_piece().unwrap() {
                lost += usize::from(has_lost_sector(&piece));
            }
            assert_eq!(lost, 1, "{sector} {mark}");
        }
    }

    /// A torn member of stored blocks: the header, a message with this body, a line.
    fn torn(body: &[u8]) -> (Vec<u8>, u64) {
        let guid = Guid::from(<[u8; 20]>::from(Sha1::digest(body)));
        let mut out = GzEncoder::new(Vec::new(), flate2::Compression::none());
        out.write_all(CHUNK_HEADER).unwrap();
        out.flush().unwrap();
        let size = body.len();
        write!(out, "1 APPLY MESSAGE (%{{default {guid} {size}}}\r\n").unwrap();
        out.write_all(body).unwrap();
        out.write_all(b")\r\n").unwrap();
        out.flush().unwrap();
        let message = out.get_ref().len() as u64;
        out.write_all(b"1 APPLY SUB %(USERID a MBOXNAME user.a)\r\n").unwrap();
        out.flush().unwrap();
        (out.get_ref().clone(), message)
    }

    #[test]
    fn zeros_and_marks_inside_a_message_are_left_to_its_guid() {
        let mut body = vec![b'x'; 300_000];
        body[100_000..102_000].fill(0);
        body[102_000..102_004].copy_from_slice(&FLUSH_MARK);
        body[250_000..252_000].fill(0);
        let (octets, message) = torn(&body);
        let len = octets.len() as u64;
        let kept = last_complete_line(&file(&octets), 0, len).unwrap().unwrap();
        assert_eq!(kept.end, len);

        // Lost, in the message and behind it.
        let mut bad = octets.clone();
        bad[51_200..51_712].fill(0);
        assert_eq!(last_complete_line(&file(&bad), 0, len).unwrap(), None);
        let mut bad = octets[..message as usize].to_vec();
        bad.resize(message as usize + 2_000, 0);
        let kept = last_complete_line(&file(&bad), 0, bad.len() as u64).unwrap().unwrap();
        assert_eq!(kept.end, message);
    }
}
