//! Reading one gzip member from any place of a file.

use std::io;

use flate2::{Decompress, FlushDecompress, Status};

use crate::store::disk::Disk;

/// Octets of input read at a time, if there are so many.
const BUFFER: usize = 64 * 1024;
/// Longest member header that is read: names and comments have no limit.
const HEADER_MAX: usize = 16 * 1024;

const FLAG_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;

/// Why a member cannot be read on. Offsets are those of the file.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The file could not be read.
    #[error("cannot read at offset {at}: {source}")]
    Io {
        /// Where.
        at: u64,
        /// Why.
        source: io::Error,
    },
    /// No member begins here.
    #[error("no gzip member at offset {at}")]
    NotAMember {
        /// Where.
        at: u64,
    },
    /// The file ends inside the member.
    #[error("the file ends at offset {at}, inside a gzip member")]
    Torn {
        /// The end of the file.
        at: u64,
    },
    /// The octets are damaged.
    #[error("damaged gzip member near offset {at}: {what}")]
    Corrupt {
        /// Near where.
        at: u64,
        /// What does not fit.
        what: &'static str,
    },
}

/// A member that is being read.
pub struct MemberReader<'f> {
    file: &'f dyn Disk,
    /// Where the file ends, as far as this reader is concerned.
    end: u64,
    /// File offset of `buffer[used]`.
    at: u64,
    buffer: Box<[u8]>,
    used: usize,
    filled: usize,
    inflate: Decompress,
    crc: crc32fast::Hasher,
    len_plain: u64,
    /// The last call filled the whole buffer of the caller.
    is_full: bool,
    /// The last block was read; the trailer comes next.
    inflated: bool,
    /// Deflate has found damage here; what came out in front of it was handed over.
    damaged: Option<u64>,
    /// The trailer was checked, or cannot be: reading did not begin at the beginning.
    checked: bool,
}

impl<'f> MemberReader<'f> {
    /// Reads the header of the member that begins at `offset`.
    pub fn open(file: &'f dyn Disk, offset: u64) -> Result<MemberReader<'f>, MemberError> {
        MemberReader::open_until(file, offset, u64::MAX)
    }

    /// The same, as if the file ended at `end`.
    pub fn open_until(
        file: &'f dyn Disk,
        offset: u64,
        end: u64,
    ) -> Result<MemberReader<'f>, MemberError> {
        let mut reader = MemberReader::inflater(file, offset, end);
        reader.header(offset)?;
        Ok(reader)
    }

    /// Goes to the member that begins at `offset`, wherever this one is: with the same buffers.
    /// After an error nothing but this is to be called.
    pub(in crate::store) fn reopen(&mut self, offset: u64) -> Result<(), MemberError> {
        self.inflate.reset(false);
        self.crc.reset();
        (self.at, self.used, self.filled, self.len_plain) = (offset, 0, 0, 0);
        (self.is_full, self.inflated, self.damaged, self.checked) = (false, false, None, false);
        self.header(offset)
    }

    /// Begins at a restart point: the file offset behind a full flush, which is
    /// `offset_plain` inflated octets into its member. The member's CRC-32 and length
    /// cannot be checked.
    pub fn open_at(file: &'f dyn Disk, offset_file: u64, offset_plain: u64) -> MemberReader<'f> {
        MemberReader::open_at_until(file, offset_file, offset_plain, u64::MAX)
    }

    /// The same, as if the file ended at `end`.
    pub fn open_at_until(
        file: &'f dyn Disk,
        offset_file: u64,
        offset_plain: u64,
        end: u64,
    ) -> MemberReader<'f> {
        let mut reader = MemberReader::inflater(file, offset_file, end);
        reader.len_plain = offset_plain;
        reader.checked = true;
        reader
    }

    fn inflater(file: &'f dyn Disk, offset: u64, end: u64) -> MemberReader<'f> {
        let len_buffer = end.saturating_sub(offset).min(BUFFER as u64) as usize;
        MemberReader {
            file,
            end,
            at: offset,
            buffer: vec![0; len_buffer].into_boxed_slice(),
            used: 0,
            filled: 0,
            inflate: Decompress::new(false),
            crc: crc32fast::Hasher::new(),
            len_plain: 0,
            is_full: false,
            inflated: false,
            damaged: None,
            checked: false,
        }
    }

    /// Octets of input that are read at a time.
    pub(in crate::store) fn len_buffer(&self) -> usize {
        self.buffer.len()
    }

    /// File offset of the next compressed octet; once [`MemberReader::read`] has
    /// returned 0, the end of the member.
    pub fn offset_file(&self) -> u64 {
        self.at
    }

    /// Inflated octets of the member up to here.
    pub fn len_plain(&self) -> u64 {
        self.len_plain
    }

    /// Inflates into `out`. 0 means that the member has ended and its CRC-32 and
    /// length were right. `out` must not be empty. Damage is told once everything that could be
    /// inflated in front of it was handed over.
    pub fn read(&mut self, out: &mut [u8]) -> Result<usize, MemberError> {
        while !self.inflated {
            if let Some(at) = self.damaged {
                return Err(MemberError::Corrupt { at, what: "bad deflate data" });
            }
            // What filled the caller's buffer may have left output behind.
            if !self.is_full {
                self.fill()?;
            }
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let input = &self.buffer[self.used..self.filled];
            let input_was_empty = input.is_empty();
            let result = self.inflate.decompress(input, out, FlushDecompress::None);
            let consumed = (self.inflate.total_in() - before_in) as usize;
            let produced = (self.inflate.total_out() - before_out) as usize;
            self.advance(consumed);
            self.is_full = produced == out.len();
            self.crc.update(&out[..produced]);
            self.len_plain += produced as u64;
            if result.is_err() {
                self.damaged = Some(self.at);
            } else if matches!(result, Ok(Status::StreamEnd)) {
                self.inflated = true;
            } else if consumed == 0 && produced == 0 && !input_was_empty {
                return Err(MemberError::Corrupt { at: self.at, what: "deflate data make no end" });
            }
            if produced > 0 {
                return Ok(produced);
            }
        }
        if !self.checked {
            self.trailer()?;
            self.checked = true;
        }
        Ok(0)
    }

    fn header(&mut self, offset: u64) -> Result<(), MemberError> {
        let mut fixed = [0; 10];
        for octet in &mut fixed {
            *octet = self.octet()?;
        }
        if fixed[..3] != [0x1f, 0x8b, 8] || fixed[3] & 0xe0 != 0 {
            return Err(MemberError::NotAMember { at: offset });
        }
        if fixed[3] & FLAG_EXTRA != 0 {
            let len = u16::from_le_bytes([self.octet()?, self.octet()?]);
            for _ in 0..len {
                self.octet()?;
            }
        }
        for flag in [FLAG_NAME, FLAG_COMMENT] {
            let mut left = HEADER_MAX;
            while fixed[3] & flag != 0 && self.octet()? != 0 {
                left -= 1;
                if left == 0 {
                    return Err(MemberError::NotAMember { at: offset });
                }
            }
        }
        if fixed[3] & FLAG_CRC != 0 {
            self.octet()?;
            self.octet()?;
        }
        Ok(())
    }

    fn trailer(&mut self) -> Result<(), MemberError> {
        let mut words = [[0u8; 4]; 2];
        for octet in words.as_flattened_mut() {
            *octet = self.octet()?;
        }
        let [crc, len] = words.map(u32::from_le_bytes);
        if crc != self.crc.clone().finalize() {
            return Err(MemberError::Corrupt { at: self.at, what: "the CRC-32 does not match" });
        }
        if len != self.len_plain as u32 {
            return Err(MemberError::Corrupt { at: self.at, what: "the length does not match" });
        }
        Ok(())
    }

    fn octet(&mut self) -> Result<u8, MemberError> {
        self.fill()?;
        let octet = self.buffer[self.used];
        self.advance(1);
        Ok(octet)
    }

    fn advance(&mut self, count: usize) {
        self.used += count;
        self.at += count as u64;
    }

    /// Makes sure that there is input.
    fn fill(&mut self) -> Result<(), MemberError> {
        if self.used < self.filled {
            return Ok(());
        }
        let at = self.at;
        let want = self.end.saturating_sub(at).min(self.buffer.len() as u64) as usize;
        self.used = 0;
        self.filled = 0;
        match self.file.read_at(&mut self.buffer[..want], at) {
            Ok(0) => Err(MemberError::Torn { at }),
            Ok(len) => {
                self.filled = len;
                Ok(())
            }
            Err(source) => Err(MemberError::Io { at, source }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{CHUNK_HEADER, MemberWriter};
    use super::*;
    use std::fs::File;
    use std::io::Write;

    fn member(lines: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = MemberWriter::start(&mut out).unwrap();
        for line in lines {
            writer.write(line, &mut out).unwrap();
            writer.end_line(&mut out).unwrap();
        }
        writer.finish(&mut out).unwrap();
        out
    }

    fn file(octets: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(octets).unwrap();
        file
    }

    fn inflate(file: &File, offset: u64) -> (Vec<u8>, Result<u64, MemberError>) {
        let mut plain = Vec::new();
        let mut reader = match MemberReader::open(file, offset) {
            Ok(reader) => reader,
            Err(e) => return (plain, Err(e)),
        };
        let mut buffer = [0; 1000];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return (plain, Ok(reader.offset_file())),
                Ok(len) => plain.extend_from_slice(&buffer[..len]),
                Err(e) => return (plain, Err(e)),
            }
        }
    }

    #[test]
    fn members_follow_each_other() {
        let one = member(&[CHUNK_HEADER, b"1 APPLY UNMAILBOX a\r\n"]);
        let two = member(&[&vec![b'x'; 700_000]]);
        let file = file(&[&one[..], &two[..]].concat());
        let (plain, end) = inflate(&file, 0);
        assert_eq!(plain, [CHUNK_HEADER, b"1 APPLY UNMAILBOX a\r\n"].concat());
        assert_eq!(end.unwrap(), one.len() as u64);
        let (plain, end) = inflate(&file, one.len() as u64);
        assert_eq!(plain.len(), 700_000);
        assert_eq!(end.unwrap(), (one.len() + two.len()) as u64);
    }

    #[test]
    fn a_member_cut_anywhere_gives_every_flushed_line() {
        let lines: [&[u8]; 3] = [CHUNK_HEADER, b"first line\r\n", b"second, longer line\r\n"];
        let mut out = Vec::new();
        let mut ends = Vec::new();
        let mut writer = MemberWriter::start(&mut out).unwrap();
        for line in lines {
            writer.write(line, &mut out).unwrap();
            writer.end_line(&mut out).unwrap();
            ends.push((out.len(), writer.len_plain()));
        }
        writer.finish(&mut out).unwrap();
        for cut in 0..out.len() {
            let (plain, end) = inflate(&file(&out[..cut]), 0);
            assert!(matches!(end, Err(MemberError::Torn { .. })), "{cut}: {end:?}");
            let due = ends.iter().filter(|(packed, _)| *packed <= cut).map(|(_, len)| *len).max();
            assert!(plain.len() as u64 >= due.unwrap_or(0), "{cut} of {ends:?}: {}", plain.len());
        }
    }

    #[test]
    fn no_damage_passes_unnoticed_or_panics() {
        let good = member(&[CHUNK_HEADER, b"some text, some more text, some text\r\n"]);
        let plain = inflate(&file(&good), 0).0;
        for at in 10..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let (got, end) = inflate(&file(&bad), 0);
                assert!(end.is_err() || got == plain, "octet {at} bit {bit}");
            }
        }
        assert!(matches!(
            inflate(&file(b"not gzip at all"), 0).1,
            Err(MemberError::NotAMember { .. })
        ));
        assert!(matches!(inflate(&file(b""), 0).1, Err(MemberError::Torn { .. })));
    }

    #[test]
    fn headers_with_every_field_are_read() {
        let good = member(&[b"text"]);
        let mut long = good[..10].to_vec();
        long[3] = FLAG_CRC | FLAG_EXTRA | FLAG_NAME | FLAG_COMMENT;
        long.extend_from_slice(&[3, 0, 1, 2, 3]);
        long.extend_from_slice(b"name\0comment\0xx");
        long.extend_from_slice(&good[10..]);
        let (plain, end) = inflate(&file(&long), 0);
        assert_eq!((plain, end.unwrap()), (b"text".to_vec(), long.len() as u64));
    }
}
