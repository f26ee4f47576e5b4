//! Raw deflate (RFC 1951) in both directions, every reply ended by a sync flush.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Buffer, TransportError};

/// Replies up to this go out as stored blocks: a few octets more, and no work.
const STORED_MAX: usize = 512;
/// An empty stored block, which is what a sync flush writes.
const SYNC: [u8; 5] = [0x00, 0x00, 0x00, 0xff, 0xff];

/// Replies to deflate blocks.
///
/// A flush ends at an octet, and the blocks behind it need not refer to what was
/// before. So there is a compressor (some 300 KB) only while a long reply is under way,
/// and none in a session that waits.
#[derive(Debug, Default)]
pub(super) struct Deflater {
    compressor: Option<Box<Compress>>,
}

impl Deflater {
    /// Whether it holds nothing at present.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.compressor.is_none()
    }

    /// The blocks for `plain`. With the last piece of a reply everything is flushed.
    pub(super) fn deflate(
        &mut self,
        plain: &[u8],
        is_last: bool,
    ) -> Result<Vec<u8>, TransportError> {
        if is_last && self.compressor.is_none() && plain.len() <= STORED_MAX {
            return Ok(stored(plain));
        }
        let compressor = self
            .compressor
            .get_or_insert_with(|| Box::new(Compress::new(Compression::default(), false)));
        let flush = if is_last { FlushCompress::Sync } else { FlushCompress::None };
        let mut packed = Vec::with_capacity(plain.len() / 2 + 256);
        let mut rest = plain;
        loop {
            let before = compressor.total_in();
            compressor
                .compress_vec(rest, &mut packed, flush)
                .map_err(|_| TransportError::Deflate)?;
            rest = &rest[taken(before, compressor.total_in(), rest.len())..];
            // Room left over means that nothing was held back for want of it.
            if rest.is_empty() && packed.len() < packed.capacity() {
                break;
            }
            packed.reserve(16 * 1024);
        }
        if is_last {
            self.compressor = None;
        }
        Ok(packed)
    }
}

fn stored(plain: &[u8]) -> Vec<u8> {
    // At most STORED_MAX.
    let len = plain.len() as u16;
    let mut block = Vec::with_capacity(plain.len() + 2 * SYNC.len());
    block.push(0);
    block.extend_from_slice(&len.to_le_bytes());
    block.extend_from_slice(&(!len).to_le_bytes());
    block.extend_from_slice(plain);
    block.extend_from_slice(&SYNC);
    block
}

/// The client's deflate stream to octets.
#[derive(Debug)]
pub(super) struct Inflater {
    decompressor: Decompress,
    /// The output was full the last time: more may come without input.
    is_pending: bool,
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater { decompressor: Decompress::new(false), is_pending: false }
    }
}

impl Inflater {
    /// Inflates from `packed` until `out` is full or the input used up; 0 if nothing
    /// comes of it.
    pub(super) fn inflate(
        &mut self,
        packed: &mut Buffer,
        out: &mut [u8],
    ) -> Result<usize, TransportError> {
        let mut len = 0;
        while len < out.len() && (self.is_pending || !packed.is_empty()) {
            let (taken_before, given_before) =
                (self.decompressor.total_in(), self.decompressor.total_out());
            let status = self
                .decompressor
                .decompress(packed.rest(), &mut out[len..], FlushDecompress::None)
                .map_err(|_| TransportError::Inflate)?;
            let used = taken(taken_before, self.decompressor.total_in(), packed.len());
            let given = taken(given_before, self.decompressor.total_out(), out.len() - len);
            packed.skip(used);
            len += given;
            self.is_pending = len == out.len();
            match status {
                // The protocol has no end of the stream before that of the connection.
                Status::StreamEnd => return Err(TransportError::Inflate),
                Status::Ok | Status::BufError if used == 0 && given == 0 => break,
                Status::Ok | Status::BufError => {}
            }
        }
        Ok(len)
    }
}

fn taken(before: u64, after: u64, max: usize) -> usize {
    usize::try_from(after.saturating_sub(before)).map_or(max, |len| len.min(max))
}
