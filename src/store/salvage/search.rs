//! The next place behind damage at which reading can begin.
//!
//! Every flush leaves a mark, a full one a mark behind which nothing refers to what is in front
//! of it. So each mark is tried, by inflating from it without what came before; deflate finds
//! out when something is missing. What comes out must begin as a line does, and be one.
//!
//! A message that is stored as it is can hold the octets of a mark, and deflate data behind them
//! that somebody has chosen. Such a mark lies inside a stored block, whose beginning shows, unless
//! that was damaged: so lines that begin where it may still go on are not sure, see
//! [`super::is_credible`]. And a long line is compressed in pieces, with a full flush between two:
//! these are told by what [`WITHIN_LINE`] is.

use std::io;

use flate2::{Decompress, FlushDecompress};

use super::walk::{Fed, Good, Walk};
use crate::store::chunk::WITHIN_LINE;
use crate::store::disk::Disk;
use crate::store::index::RestartPoint;
use crate::store::torn::Pieces;

/// Octets of deflate data that are looked at to see how a line begins.
const HEAD_PACKED: usize = 1024;
/// Inflated octets of the same.
const HEAD: usize = 64;
/// Octets that a stored block can hold, and the length in front of them.
const STORED_MAX: u64 = 65_535 + 4;
/// Octets that may be inflated for nothing, for each octet of the file.
const WORK: u64 = 64;
/// The same, whatever the file holds.
const WORK_AT_LEAST: u64 = 4 << 20;

/// A place where reading can begin, and what is good from there on.
pub(super) struct Start {
    /// File offset.
    pub(super) at: u64,
    pub(super) good: Good,
    pub(super) points: Vec<RestartPoint>,
}

/// Searches one member. What it does for nothing is bounded, whatever the octets.
pub(super) struct Search<'a> {
    disk: &'a dyn Disk,
    /// Where the file ends.
    len: u64,
    /// Places at which reading can begin for sure, in the order of the file.
    known: &'a [RestartPoint],
    inflate: Decompress,
    work: u64,
}

impl<'a> Search<'a> {
    pub(super) fn new(disk: &'a dyn Disk, len: u64, known: &'a [RestartPoint]) -> Search<'a> {
        let inflate = Decompress::new(false);
        Search { disk, len, known, inflate, work: WORK_AT_LEAST }
    }

    /// The next place in `from..limit`.
    pub(super) fn next(&mut self, from: u64, limit: u64) -> io::Result<Option<Start>> {
        if known_at(self.known, from).is_some()
            && let Some(start) = self.start(from, from)?
        {
            return Ok(Some(start));
        }
        let known = self.known;
        let mut known = &known[known.partition_point(|point| point.offset_file <= from)..];
        let mut pieces = Pieces::new(self.disk, from, limit);
        while let Some(piece) = pieces.next_piece()? {
            self.work = self.work.saturating_add(WORK * piece.octets.len() as u64);
            // The mark in front of one may be what is damaged.
            while let Some((point, rest)) = known.split_first()
                && point.offset_file < piece.end
            {
                known = rest;
                if let Some(start) = self.start(from, point.offset_file)? {
                    return Ok(Some(start));
                }
            }
            if piece.ends_in_mark
                && let Some(start) = self.start(from, piece.end)?
            {
                return Ok(Some(start));
            }
            if self.work == 0 {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Begins reading at `at`, behind damage that begins at `from`, if that can be done.
    fn start(&mut self, from: u64, at: u64) -> io::Result<Option<Start>> {
        if !self.begins_as_a_line(at)? || !self.can_be_trusted(from, at)? {
            return Ok(None);
        }
        let known = known_at(self.known, at).map(|point| point.offset_plain);
        let sure_at = from.saturating_add(STORED_MAX);
        let mut walk = Walk::new(true, self.known, sure_at, known);
        run(&mut walk, self.disk, at, self.len)?;
        let work = walk.work();
        let (good, points) = walk.finish();
        self.work = self.work.saturating_sub(work.saturating_sub(good.len));
        Ok((good.lines > 0).then_some(Start { at, good, points }))
    }

    fn begins_as_a_line(&mut self, at: u64) -> io::Result<bool> {
        let mut packed = [0; HEAD_PACKED];
        let mut plain = [0; HEAD];
        let got = read(self.disk, &mut packed, at, self.len)?;
        self.inflate.reset(false);
        // What came out in front of an error counts.
        let _ = self.inflate.decompress(&packed[..got], &mut plain, FlushDecompress::None);
        let (used, produced) = (self.inflate.total_in(), self.inflate.total_out());
        self.work = self.work.saturating_sub(used + produced);
        Ok(self.work > 0 && is_head_of_line(&plain[..produced as usize]))
    }

    fn can_be_trusted(&self, from: u64, at: u64) -> io::Result<bool> {
        if known_at(self.known, at).is_some() {
            return Ok(true);
        }
        let len = WITHIN_LINE.len() as u64;
        let mut around = [0; 2 * WITHIN_LINE.len()];
        let got = read(self.disk, &mut around, at.saturating_sub(len), self.len)?;
        let is_within_line = around[..got].windows(WITHIN_LINE.len()).any(|w| w == WITHIN_LINE);
        Ok(!is_within_line && !may_be_stored(self.disk, from, at)?)
    }
}

/// The point at `offset_file` among those of an index, in the order of the file.
pub(super) fn known_at(known: &[RestartPoint], offset_file: u64) -> Option<&RestartPoint> {
    let found = known.binary_search_by_key(&offset_file, |point| point.offset_file);
    found.ok().and_then(|i| known.get(i))
}

/// Feeds a walk with what there is from `at` on.
pub(super) fn run(walk: &mut Walk<'_>, disk: &dyn Disk, at: u64, len: u64) -> io::Result<()> {
    let mut pieces = Pieces::new(disk, at, len);
    while let Some(piece) = pieces.next_piece()? {
        if walk.feed(&piece) == Fed::Stop {
            break;
        }
    }
    Ok(())
}

/// `ts SP "APPLY" SP`, and a letter.
fn is_head_of_line(plain: &[u8]) -> bool {
    let digits = plain.iter().take_while(|octet| octet.is_ascii_digit()).count();
    let rest = plain[digits..].strip_prefix(b" APPLY ");
    digits > 0 && rest.and_then(<[u8]>::first).is_some_and(u8::is_ascii_alphabetic)
}

/// Whether the four octets in front of `at` may lie inside a stored block that begins behind
/// `from`.
pub(super) fn may_be_stored(disk: &dyn Disk, from: u64, at: u64) -> io::Result<bool> {
    let start = at.saturating_sub(STORED_MAX).max(from.min(at));
    let mut octets = vec![0; (at - start) as usize];
    let got = read(disk, &mut octets, start, at)?;
    Ok(may_end_inside_stored(&octets[..got]))
}

/// Whether a stored block may begin in `octets` that reaches into their last four.
///
/// ```text
/// ... 000 00000 | length, 2 octets | its complement | octets
/// ```
fn may_end_inside_stored(octets: &[u8]) -> bool {
    let mark = octets.len().saturating_sub(4);
    octets[..mark].windows(4).enumerate().any(|(i, w)| {
        let length = u16::from_le_bytes([w[0], w[1]]);
        let complement = u16::from_le_bytes([w[2], w[3]]);
        let is_behind_header = i.checked_sub(1).is_none_or(|i| octets[i] >> 5 == 0);
        // A flush and zeros behind it look so; no block is written that long.
        let around = &octets[i.saturating_sub(2)..i + 4];
        let is_flush = length >= 0xff00 && around.windows(4).any(|w| w == [0, 0, 0xff, 0xff]);
        !is_flush
            && length == !complement
            && length > 0
            && is_behind_header
            && i + 4 + usize::from(length) > mark
    })
}

/// Whether these octets are at `at`.
pub(super) fn has_octets(disk: &dyn Disk, at: u64, octets: &[u8]) -> io::Result<bool> {
    let mut found = vec![0; octets.len()];
    read(disk, &mut found, at, u64::MAX)?;
    Ok(found == octets)
}

/// Reads as much of `octets` as there is in front of `len`.
pub(super) fn read(disk: &dyn Disk, octets: &mut [u8], at: u64, len: u64) -> io::Result<usize> {
    let wanted = len.saturating_sub(at).min(octets.len() as u64) as usize;
    let mut filled = 0;
    while filled < wanted {
        match disk.read_at(&mut octets[filled..wanted], at + filled as u64)? {
            0 => break,
            got => filled += got,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_by_how_they_begin() {
        for (plain, is_head) in [
            (&b"1 APPLY M"[..], true),
            (b"1700000000 APPLY MAILBOX %(", true),
            (b"1700000000 APPLY ", false),
            (b" APPLY M", false),
            (b"# cyrus backup", false),
            (b"", false),
        ] {
            assert_eq!(is_head_of_line(plain), is_head, "{plain:?}");
        }
    }

    #[test]
    fn marks_inside_stored_blocks_are_told() {
        let mut octets = vec![0x55; 1000];
        octets[996..].copy_from_slice(&[0, 0, 0xff, 0xff]);
        assert!(!may_end_inside_stored(&octets));
        // 800 octets from offset 105 on end in front of the mark, 1000 do not.
        for (length, is_inside) in [(800u16, false), (891, false), (892, true), (60_000, true)] {
            octets[100] = 0;
            octets[101..103].copy_from_slice(&length.to_le_bytes());
            octets[103..105].copy_from_slice(&(!length).to_le_bytes());
            assert_eq!(may_end_inside_stored(&octets), is_inside, "{length}");
        }
        octets[500..509].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0, 0xff, 0xff]);
        octets[100] = 0x20;
        assert!(!may_end_inside_stored(&octets));
    }
}
