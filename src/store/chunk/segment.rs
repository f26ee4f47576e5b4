//! Pieces of a member that can be compressed apart from it, and from each other.
//!
//! Between two full flushes nothing refers to anything outside, and both end on a whole octet:
//! so what stands there may come from another compressor.

use std::io;

use flate2::{Compress, FlushCompress, Status};

use super::writer::LEVEL;

/// Stands behind a piece of a line that goes on: an empty fixed block and an empty stored one.
/// They say nothing, but who looks for a line behind damage knows by them that none begins here.
pub const WITHIN_LINE: [u8; 6] = [2, 0, 0, 0, 0xff, 0xff];

/// Octets, whole lines for the most part, packed so that reading can begin in front of them and
/// behind them.
pub struct Segment {
    plain: Vec<u8>,
    packed: Vec<u8>,
}

impl Segment {
    /// What it holds.
    pub fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// The same, for a piece of a line that goes on behind it.
    pub fn within_line(mut self) -> Segment {
        self.packed.extend_from_slice(&WITHIN_LINE);
        self
    }

    /// Deflate data for it.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }
}

/// Packs segments, one after another.
pub struct Packer {
    compress: Compress,
}

impl Default for Packer {
    fn default() -> Packer {
        Packer { compress: Compress::new(LEVEL, false) }
    }
}

impl Packer {
    /// Packs octets.
    pub fn pack(&mut self, plain: Vec<u8>) -> io::Result<Segment> {
        let Packer { compress } = self;
        compress.reset();
        // Mail shrinks to a third.
        let mut packed = vec![0; plain.len() / 2 + 64];
        loop {
            let (used, filled) = (compress.total_in() as usize, compress.total_out() as usize);
            let status = compress
                .compress(&plain[used..], &mut packed[filled..], FlushCompress::Full)
                .map_err(|e| io::Error::other(format!("deflate: {e}")))?;
            let filled = compress.total_out() as usize;
            if compress.total_in() as usize == plain.len() && filled < packed.len() {
                packed.truncate(filled);
                return Ok(Segment { plain, packed });
            }
            if status == Status::StreamEnd {
                return Err(io::Error::other("deflate: ended in a flush"));
            }
            packed.resize(packed.len() * 2, 0);
        }
    }
}
