//! Pieces of a member that can be compressed apart from it, at the same time as each other.
//!
//! What a piece may refer to is known before it is compressed: the plain octets in front of it.
//! So each compressor is primed with those, and ends its piece on a whole octet: what comes out
//! reads as if one compressor had written it all.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use flate2::{Compress, FlushCompress, Status};

use super::writer::LEVEL;

/// Stands behind a piece within a line, or a stretch: an empty fixed block and an empty stored one.
/// They say nothing, but who looks for a line behind damage knows by them that none begins here.
pub const WITHIN_LINE: [u8; 6] = [2, 0, 0, 0, 0xff, 0xff];

/// Octets of a piece: each costs the end of a block and a compressor that is primed, about a
/// thousandth.
const PIECE: usize = 128 * 1024;
/// How far back deflate data can refer, in octets (RFC 1951, 2).
const WINDOW: usize = 32 * 1024;

/// A piece of a *stretch*: octets, whole lines for the most part, in front of which reading can
/// begin.
pub struct Piece {
    stretch: Arc<Vec<u8>>,
    range: Range<usize>,
    /// The stretch ends within a line.
    is_line_cut: bool,
}

impl Piece {
    /// Cuts a stretch into pieces, in their order. There is at least one.
    pub fn all_of(stretch: Vec<u8>) -> impl Iterator<Item = Piece> {
        Piece::all_of_part(stretch, false)
    }

    /// The same of one that may end within a line.
    pub fn all_of_part(stretch: Vec<u8>, is_line_cut: bool) -> impl Iterator<Item = Piece> {
        let stretch = Arc::new(stretch);
        let len = stretch.len();
        (0..len.div_ceil(PIECE).max(1)).map(move |number| {
            let range = number * PIECE..((number + 1) * PIECE).min(len);
            Piece { stretch: Arc::clone(&stretch), range, is_line_cut }
        })
    }

    /// Its octets.
    pub(super) fn plain(&self) -> &[u8] {
        &self.stretch[self.range.clone()]
    }

    /// Where in its stretch it lies.
    pub(super) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Whether the stretch begins with it.
    pub fn is_first(&self) -> bool {
        self.range.start == 0
    }

    /// Whether the stretch ends with it.
    pub fn is_last(&self) -> bool {
        self.range.end == self.stretch.len()
    }

    /// What may be referred to from here on.
    fn window_at(&self, at: usize) -> &[u8] {
        &self.stretch[at.saturating_sub(WINDOW)..at]
    }

    /// What may be referred to from behind it.
    pub(super) fn window_behind(&self) -> &[u8] {
        self.window_at(self.range.end)
    }
}

/// A piece, packed.
pub struct Segment {
    piece: Piece,
    packed: Vec<u8>,
}

impl Segment {
    /// What it holds.
    pub fn piece(&self) -> &Piece {
        &self.piece
    }

    /// Deflate data for it.
    pub(super) fn packed(&self) -> &[u8] {
        &self.packed
    }
}

/// Packs pieces, one after another.
pub struct Packer {
    compress: Compress,
}

impl Default for Packer {
    fn default() -> Packer {
        Packer { compress: Compress::new(LEVEL, false) }
    }
}

impl Packer {
    /// Packs a piece.
    pub fn pack(&mut self, piece: Piece) -> io::Result<Segment> {
        let Packer { compress } = self;
        prime(compress, piece.window_at(piece.range.start))?;
        let plain = piece.plain();
        // Mail shrinks to a third.
        let mut packed = vec![0; plain.len() / 2 + 64];
        loop {
            let (used, filled) = (compress.total_in() as usize, compress.total_out() as usize);
            let status = compress
                .compress(&plain[used..], &mut packed[filled..], FlushCompress::Sync)
                .map_err(|e| io::Error::other(format!("deflate: {e}")))?;
            let filled = compress.total_out() as usize;
            if compress.total_in() as usize == plain.len() && filled < packed.len() {
                packed.truncate(filled);
                if !piece.is_last() || piece.is_line_cut {
                    packed.extend_from_slice(&WITHIN_LINE);
                }
                return Ok(Segment { piece, packed });
            }
            if status == Status::StreamEnd {
                return Err(io::Error::other("deflate: ended in a flush"));
            }
            packed.resize(packed.len() * 2, 0);
        }
    }
}

/// Makes a compressor go on behind octets that another one has packed.
pub(super) fn prime(compress: &mut Compress, window: &[u8]) -> io::Result<()> {
    compress.reset();
    if !window.is_empty() {
        compress.set_dictionary(window).map_err(|e| io::Error::other(format!("deflate: {e}")))?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{MemberReader, MemberWriter};
    use super::*;
    use proptest::prelude::*;

    /// Text with much in it that was there before.
    fn text(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed;
        let words = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("word{} ", state >> 48).into_bytes()
        });
        words.flatten().take(len).collect()
    }

    fn pack(writer: &mut MemberWriter, plain: Vec<u8>, out: &mut Vec<u8>) {
        // Each by another compressor.
        for piece in Piece::all_of(plain) {
            writer.add_segment(&Packer::default().pack(piece).unwrap(), out).unwrap();
        }
    }

    fn inflate(mut reader: MemberReader<'_>) -> Vec<u8> {
        let (mut plain, mut buffer) = (Vec::new(), vec![0; 100_000]);
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => return plain,
                len => plain.extend_from_slice(&buffer[..len]),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn what_is_packed_in_pieces_reads_as_one(
            steps in prop::collection::vec((any::<bool>(), 0..4 * PIECE, any::<u64>()), 1..6),
        ) {
            let (mut out, mut plain, mut points) = (Vec::new(), Vec::new(), Vec::new());
            let mut writer = MemberWriter::start(&mut out).unwrap();
            for (in_pieces, len, seed) in steps {
                let line = text(seed, len);
                plain.extend_from_slice(&line);
                if in_pieces {
                    writer.restart(&mut out).unwrap();
                    points.push((out.len(), writer.len_plain()));
                    pack(&mut writer, line, &mut out);
                } else {
                    writer.write(&line, &mut out).unwrap();
                    if writer.end_line(&mut out).unwrap() {
                        points.push((out.len(), writer.len_plain()));
                    }
                }
                prop_assert_eq!(writer.len_plain(), plain.len() as u64);
                // Every line is there as soon as it was written, though the member has no end.
                let mut so_far = flate2::Decompress::new(false);
                let mut got = Vec::with_capacity(plain.len() + 1);
                so_far.decompress_vec(&out[10..], &mut got, flate2::FlushDecompress::None).unwrap();
                prop_assert_eq!(got.len(), plain.len());
            }
            writer.finish(&mut out).unwrap();
            let mut file = tempfile::tempfile().unwrap();
            std::io::Write::write_all(&mut file, &out).unwrap();
            let reader = MemberReader::open(&file, 0).unwrap();
            prop_assert!(inflate(reader) == plain);
            for (at, at_plain) in points {
                let reader = MemberReader::open_at(&file, at as u64, at_plain);
                prop_assert!(inflate(reader) == plain[at_plain as usize..]);
            }
        }
    }

    #[test]
    fn pieces_cost_next_to_nothing() {
        let plain = text(1, 4 * PIECE);
        let mut whole = Vec::new();
        let mut writer = MemberWriter::start(&mut whole).unwrap();
        writer.write(&plain, &mut whole).unwrap();
        writer.finish(&mut whole).unwrap();
        let mut divided = Vec::new();
        let mut writer = MemberWriter::start(&mut divided).unwrap();
        pack(&mut writer, plain, &mut divided);
        writer.finish(&mut divided).unwrap();
        assert!(divided.len() < whole.len() + whole.len() / 200);
    }

    #[test]
    fn a_segment_out_of_its_place_is_refused() {
        let plain = text(1, 2 * PIECE);
        let pack_one = |piece| Packer::default().pack(piece).unwrap();
        let segments: Vec<Segment> = Piece::all_of(plain).map(pack_one).collect();
        let out = &mut Vec::new();
        let mut writer = MemberWriter::start(out).unwrap();
        writer.write(b"line\r\n", out).unwrap();
        writer.end_line(out).unwrap();
        assert!(writer.add_segment(&segments[0], out).is_err());
        writer.restart(out).unwrap();
        assert!(writer.add_segment(&segments[1], out).is_err());
        writer.add_segment(&segments[0], out).unwrap();
        assert!(writer.write(b"line\r\n", out).is_err());
        assert!(writer.add_segment(&segments[0], out).is_err());
        writer.add_segment(&segments[1], out).unwrap();
        writer.write(b"line\r\n", out).unwrap();
    }
}
