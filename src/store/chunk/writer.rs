//! Writing one gzip member.

use std::io::{self, Write};

use flate2::{Compress, Compression, FlushCompress, Status};
use sha1::{Digest, Sha1};

use super::MEMBER_HEADER;
use super::segment::{self, Segment};

/// Level 7: on real mail files are as small as those that zlib writes at its level 6, in three
/// fifths of its time. Level 6 of this compressor takes a quarter less, for two percent more
/// space. See `docs/performance.md`.
pub(super) const LEVEL: Compression = Compression::new(7);
/// Octets of output gathered before they are handed on.
const BUFFER: usize = 64 * 1024;
/// A full flush, at which reading can begin, after so many plain octets.
/// Between these a line ends with a sync flush, which is as complete on disk and
/// costs a sixth of the space. Half as often as this costs half a percent less, twice as often a
/// percent and a half more.
pub const RESTART_EVERY: u64 = 512 * 1024;

/// A member that is being written. Nothing of a line can be relied upon before
/// [`MemberWriter::end_line`] has returned, and no trailer exists before
/// [`MemberWriter::finish`] has.
pub struct MemberWriter {
    compress: Compress,
    crc: crc32fast::Hasher,
    sha1: Sha1,
    len_plain: u64,
    since_restart: u64,
    /// Segments of a stretch were added, up to here in it; more are to come.
    stretch: Option<usize>,
    /// Others have packed what stands in front; it ends with this.
    window: Option<Vec<u8>>,
    buffer: Box<[u8]>,
}

/// What a finished member holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberTotals {
    /// Inflated octets.
    pub len_plain: u64,
    /// SHA-1 of the inflated octets, 40 lower-case hex digits.
    pub data_sha1: String,
}

impl MemberWriter {
    /// Writes the member header to `out`.
    pub fn start(out: &mut impl Write) -> io::Result<MemberWriter> {
        out.write_all(&MEMBER_HEADER)?;
        Ok(MemberWriter {
            compress: Compress::new(LEVEL, false),
            crc: crc32fast::Hasher::new(),
            sha1: Sha1::new(),
            len_plain: 0,
            since_restart: 0,
            stretch: None,
            window: None,
            buffer: vec![0; BUFFER].into_boxed_slice(),
        })
    }

    /// Inflated octets so far: the offset of what is written next.
    pub fn len_plain(&self) -> u64 {
        self.len_plain
    }

    /// Adds octets; they may stay in the compressor.
    pub fn write(&mut self, plain: &[u8], out: &mut impl Write) -> io::Result<()> {
        self.count(plain);
        self.deflate(plain, FlushCompress::None, out)
    }

    fn count(&mut self, plain: &[u8]) {
        self.crc.update(plain);
        self.sha1.update(plain);
        self.len_plain += plain.len() as u64;
        self.since_restart += plain.len() as u64;
    }

    /// Makes a place where reading can begin, as in front of a large line. Returns whether
    /// there was none here.
    pub fn restart(&mut self, out: &mut impl Write) -> io::Result<bool> {
        let is_due = self.since_restart > 0;
        self.since_restart = 0;
        if self.window.take().is_some() {
            // Segments end on whole octets: nothing need be written to begin anew.
            self.compress.reset();
        } else if is_due {
            self.deflate(&[], FlushCompress::Full, out)?;
        }
        Ok(is_due)
    }

    /// Adds what was packed elsewhere: the segments of a stretch, in order and to its end. There
    /// must be a place in front of the first one where reading can begin, see
    /// [`MemberWriter::restart`].
    pub fn add_segment(&mut self, segment: &Segment, out: &mut impl Write) -> io::Result<()> {
        let piece = segment.piece();
        let fits = match self.stretch {
            None => self.since_restart == 0 && piece.range().start == 0,
            Some(end) => piece.range().start == end,
        };
        if !fits {
            return Err(io::Error::other("a segment that does not fit what stands in front"));
        }
        self.count(piece.plain());
        out.write_all(segment.packed())?;
        self.stretch = Some(piece.range().end).filter(|_| !piece.is_last());
        self.window = piece.is_last().then(|| piece.window_behind().to_vec());
        Ok(())
    }

    /// Pushes everything added so far through to `out`: a reader can inflate it
    /// even if nothing more is ever written. Returns whether reading can begin here.
    pub fn end_line(&mut self, out: &mut impl Write) -> io::Result<bool> {
        let is_due = self.since_restart >= RESTART_EVERY;
        let flush = if is_due { FlushCompress::Full } else { FlushCompress::Sync };
        self.deflate(&[], flush, out)?;
        if is_due {
            self.since_restart = 0;
        }
        Ok(is_due)
    }

    /// Writes the last block and the trailer.
    pub fn finish(mut self, out: &mut impl Write) -> io::Result<MemberTotals> {
        // Nothing comes any more that could refer to it.
        self.window.iter_mut().for_each(Vec::clear);
        self.deflate(&[], FlushCompress::Finish, out)?;
        out.write_all(&self.crc.finalize().to_le_bytes())?;
        out.write_all(&(self.len_plain as u32).to_le_bytes())?;
        Ok(MemberTotals { len_plain: self.len_plain, data_sha1: hex(&self.sha1.finalize()) })
    }

    /// Repeats until the input is used and the output was not filled: only then
    /// has a flush come through whole.
    fn deflate(
        &mut self,
        mut plain: &[u8],
        flush: FlushCompress,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if self.stretch.is_some() {
            return Err(io::Error::other("a stretch without its end"));
        }
        if let Some(window) = self.window.take() {
            segment::prime(&mut self.compress, &window)?;
        }
        loop {
            let (before_in, before_out) = (self.compress.total_in(), self.compress.total_out());
            let status = self
                .compress
                .compress(plain, &mut self.buffer, flush)
                .map_err(|e| io::Error::other(format!("deflate: {e}")))?;
            plain = &plain[(self.compress.total_in() - before_in) as usize..];
            let produced = (self.compress.total_out() - before_out) as usize;
            out.write_all(&self.buffer[..produced])?;
            let drained = plain.is_empty() && produced < self.buffer.len();
            if status == Status::StreamEnd || (drained && flush != FlushCompress::Finish) {
                return Ok(());
            }
        }
    }
}

/// Lower-case hex digits.
pub(in crate::store) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
