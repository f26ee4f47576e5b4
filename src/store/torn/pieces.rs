//! A stretch of a data file, cut where a flush of its writer may have ended.

use std::io;

use memchr::memmem;

use crate::store::disk::Disk;

/// The end of what a flush writes.
pub(super) const FLUSH_MARK: [u8; 4] = [0, 0, 0xff, 0xff];
/// What a disk writes whole or not at all.
const SECTOR: u64 = 512;
/// Octets of a file that are looked at together; a multiple of a sector.
const PIECE: u64 = 64 * 1024;
/// Octets of a file that lie between flush marks, or some of these octets.
pub(in crate::store) struct Piece<'b> {
    pub(in crate::store) octets: &'b [u8],
    /// File offset behind them.
    pub(in crate::store) end: u64,
    /// They end in a flush mark.
    pub(in crate::store) ends_in_mark: bool,
}

/// Cuts the file into pieces that end at flush marks, or at a multiple of [`PIECE`] if
/// none comes before: a line can be of any length.
pub(in crate::store) struct Pieces<'f> {
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
    pub(in crate::store) fn new(file: &'f dyn Disk, from: u64, len: u64) -> Pieces<'f> {
        Pieces { file, at: from, len, buffer: Vec::new(), used: 0 }
    }

    /// At most [`PIECE`] octets, and what is left of a mark.
    pub(in crate::store) fn next_piece(&mut self) -> io::Result<Option<Piece<'_>>> {
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
        let at = memmem::find(&octets[..octets.len().min(wanted)], &FLUSH_MARK)?;
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
pub(in crate::store) fn has_lost_sector(piece: &Piece<'_>) -> bool {
    let start = piece.end - piece.octets.len() as u64;
    let first = (start.next_multiple_of(SECTOR) - start) as usize;
    let sectors = piece.octets.get(first..).unwrap_or_default().chunks_exact(SECTOR as usize);
    sectors.into_iter().any(|sector| sector.iter().all(|octet| *octet == 0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;

    pub(in crate::store::torn) fn file(octets: &[u8]) -> File {
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
}
