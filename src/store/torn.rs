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

mod pieces;

use std::io;

use flate2::{Decompress, FlushDecompress, Status};
use memchr::memmem;
use sha1::{Digest, Sha1};

use super::chunk::{CHUNK_HEADER, MEMBER_HEADER, MemberError, MemberReader};
use super::disk::Disk;
use super::log::LogLine;
use crate::wire::Guid;
use crate::wire::frame::{Event, Framer, Limits};
pub(super) use pieces::{Piece, Pieces, has_lost_sector};

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
    use super::pieces::FLUSH_MARK;
    use super::pieces::tests::file;
    use super::*;
    use std::io::Write;

    use flate2::write::GzEncoder;

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
