//! The bytes of a twoskip file: header, record heads, padding. No file access.
//!
//! ```text
//! 0    header, 64 bytes
//! 64   DUMMY record: head of all 31 lists
//! 336  records, COMMITs and BLANK padding, each a multiple of 8 bytes
//! ```
//!
//! All integers are big-endian; checksums are CRC-32 as in zlib. A record is
//!
//! ```text
//! type 1 | level 1 | key length 2 | value length 4 | [long lengths] |
//! pointers 8*(level+1) | head CRC 4 | tail CRC 4 | key, value, zeros to 8
//! ```
//!
//! A record of level L is on lists 0 to L-1. List i >= 1 runs through pointer
//! i+1; list 0 through the newer of pointers 0 and 1, so that the state before
//! a transaction can always be found again (see [`Head::next`]).

use super::ErrorKind;

/// Size of the file header.
pub(super) const HEADER_LEN: u64 = 64;
/// Where the DUMMY record is.
pub(super) const DUMMY_AT: u64 = HEADER_LEN;
/// Level of the DUMMY record, and so the number of lists.
pub(super) const LEVEL_MAX: u8 = 31;
/// The end of an empty database: header and DUMMY.
pub(super) const EMPTY_LEN: u64 = DUMMY_AT + 8 + 8 * (LEVEL_MAX as u64 + 1) + 8;
/// The size of a COMMIT or DELETE record.
pub(super) const SMALL_LEN: u64 = 24;
/// Longest key or value that is read or written, in bytes. A limit of this
/// reader, not of the format, so that a forged length cannot exhaust memory.
pub(super) const FIELD_LEN_MAX: u64 = 16 << 20;
/// The longest possible record head.
pub(super) const HEAD_LEN_MAX: usize = 8 + 16 + 8 * (LEVEL_MAX as usize + 1) + 8;

const MAGIC: &[u8; 20] = b"\xa1\x02\x8b\x0dtwoskip file\0\0\0\0";
const MAGIC_SKIPLIST: &[u8; 20] = b"\xa1\x02\x8b\x0dskiplist file\0\0\0";
const VERSION: u32 = 1;
const FLAG_DIRTY: u32 = 1;
/// Filler that keeps a record head inside one disk sector.
const BLANK: &[u8; 8] = b" BLANK\x07\xa0";
/// What is assumed to reach the disk whole or not at all, in bytes.
const SECTOR_LEN: u64 = 512;
const KEY_LEN_LONG: u16 = u16::MAX;
const VALUE_LEN_LONG: u32 = u32::MAX;

/// The file header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// 1 in a new file, one more after each repack.
    pub(super) generation: u64,
    /// Number of live records.
    pub(super) records: u64,
    /// Size right after creation or the last repack.
    pub(super) repack_size: u64,
    /// End of the committed data.
    pub(super) current_size: u64,
    /// Bit 0 is DIRTY; the others are kept as they are.
    pub(super) flags: u32,
}

impl Header {
    /// The header of an empty database.
    pub(super) fn empty(generation: u64) -> Header {
        Header { generation, records: 0, repack_size: EMPTY_LEN, current_size: EMPTY_LEN, flags: 0 }
    }

    /// Whether a transaction began and did not end.
    pub(super) fn is_dirty(&self) -> bool {
        self.flags & FLAG_DIRTY != 0
    }

    /// Marks the beginning or the end of a transaction.
    pub(super) fn set_dirty(&mut self, dirty: bool) {
        self.flags = if dirty { self.flags | FLAG_DIRTY } else { self.flags & !FLAG_DIRTY };
    }

    /// Reads a header from the first bytes of a file, which may be fewer than
    /// a header has.
    pub(super) fn decode(bytes: &[u8]) -> Result<Header, ErrorKind> {
        match bytes.get(..MAGIC.len()) {
            Some(magic) if magic == MAGIC => {}
            Some(magic) if magic == MAGIC_SKIPLIST => return Err(ErrorKind::Skiplist),
            Some(_) => return Err(ErrorKind::NotTwoskip),
            None => return Err(ErrorKind::TooShort),
        }
        if bytes.len() < HEADER_LEN as usize {
            return Err(ErrorKind::TooShort);
        }
        let version = be32(bytes, 20);
        if version > VERSION {
            return Err(ErrorKind::Version(version));
        }
        if crc32fast::hash(&bytes[..60]) != be32(bytes, 60) {
            return Err(ErrorKind::damaged(0, "header checksum mismatch"));
        }
        let header = Header {
            generation: be64(bytes, 24),
            records: be64(bytes, 32),
            repack_size: be64(bytes, 40),
            current_size: be64(bytes, 48),
            flags: be32(bytes, 56),
        };
        if header.current_size < EMPTY_LEN
            || !header.current_size.is_multiple_of(8)
            || header.current_size > i64::MAX as u64
        {
            return Err(ErrorKind::damaged(48, "impossible size in the header"));
        }
        Ok(header)
    }

    /// The bytes of the header, checksum included.
    pub(super) fn encode(&self) -> [u8; HEADER_LEN as usize] {
        let mut out = [0; HEADER_LEN as usize];
        out[..20].copy_from_slice(MAGIC);
        out[20..24].copy_from_slice(&VERSION.to_be_bytes());
        out[24..32].copy_from_slice(&self.generation.to_be_bytes());
        out[32..40].copy_from_slice(&self.records.to_be_bytes());
        out[40..48].copy_from_slice(&self.repack_size.to_be_bytes());
        out[48..56].copy_from_slice(&self.current_size.to_be_bytes());
        out[56..60].copy_from_slice(&self.flags.to_be_bytes());
        let crc = crc32fast::hash(&out[..60]);
        out[60..].copy_from_slice(&crc.to_be_bytes());
        out
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// The head of all lists.
    Dummy = b'=',
    /// A key and its value.
    Record = b'+',
    /// Stands on list 0 in the place of a deleted record.
    Delete = b'-',
    /// Ends a transaction; on no list.
    Commit = b'$',
}

/// Everything of a record but its key and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) level: u8,
    pub(super) key_len: u64,
    pub(super) value_len: u64,
    /// The first `level + 1` are in the file; 0 means none.
    pub(super) pointers: [u64; LEVEL_MAX as usize + 1],
    pub(super) tail_crc: u32,
}

impl Head {
    /// A head with one pointer and no key: DELETE, COMMIT.
    pub(super) fn small(kind: Kind, pointer: u64) -> Head {
        let mut head = Head {
            kind,
            level: 0,
            key_len: 0,
            value_len: 0,
            pointers: [0; LEVEL_MAX as usize + 1],
            tail_crc: crc32fast::hash(b""),
        };
        head.pointers[0] = pointer;
        head
    }

    /// The DUMMY of an empty database.
    pub(super) fn dummy() -> Head {
        Head { level: LEVEL_MAX, ..Head::small(Kind::Dummy, 0) }
    }

    /// Reads a head from the bytes at file offset `at`, which must be the
    /// longest possible head or all there is up to the end of the data.
    pub(super) fn decode(bytes: &[u8], at: u64) -> Result<Head, ErrorKind> {
        let cut = || ErrorKind::damaged(at, "record reaches beyond the end of the data");
        let start = bytes.get(..8).ok_or_else(cut)?;
        let kind = match start[0] {
            b'=' => Kind::Dummy,
            b'+' => Kind::Record,
            b'-' => Kind::Delete,
            b'$' => Kind::Commit,
            _ => return Err(ErrorKind::damaged(at, "not a record")),
        };
        let level = start[1];
        let fits = match kind {
            Kind::Dummy => level == LEVEL_MAX,
            Kind::Record => (1..=LEVEL_MAX).contains(&level),
            Kind::Delete | Kind::Commit => level == 0,
        };
        if !fits {
            return Err(ErrorKind::damaged(at, "impossible level of a record"));
        }
        let mut pos = 8;
        let mut field = || {
            pos += 8;
            bytes.get(pos - 8..pos).map(|b| be64(b, 0)).ok_or_else(cut)
        };
        let key_len = match be16(start, 2) {
            KEY_LEN_LONG => field()?,
            short => u64::from(short),
        };
        let value_len = match be32(start, 4) {
            VALUE_LEN_LONG => field()?,
            short => u64::from(short),
        };
        let mut pointers = [0; LEVEL_MAX as usize + 1];
        for pointer in &mut pointers[..=usize::from(level)] {
            *pointer = field()?;
        }
        let crcs = bytes.get(pos..pos + 8).ok_or_else(cut)?;
        if crc32fast::hash(&bytes[..pos]) != be32(crcs, 0) {
            return Err(ErrorKind::damaged(at, "checksum mismatch in a record's head"));
        }
        if key_len > FIELD_LEN_MAX || value_len > FIELD_LEN_MAX {
            return Err(ErrorKind::damaged(at, "unreasonable length of a key or value"));
        }
        Ok(Head { kind, level, key_len, value_len, pointers, tail_crc: be32(crcs, 4) })
    }

    /// The bytes of the head, both checksums included.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_LEN_MAX);
        let key_short = short_key_len(self.key_len);
        let value_short = short_value_len(self.value_len);
        out.extend([self.kind as u8, self.level]);
        out.extend(key_short.to_be_bytes());
        out.extend(value_short.to_be_bytes());
        if key_short == KEY_LEN_LONG {
            out.extend(self.key_len.to_be_bytes());
        }
        if value_short == VALUE_LEN_LONG {
            out.extend(self.value_len.to_be_bytes());
        }
        for pointer in &self.pointers[..=usize::from(self.level)] {
            out.extend(pointer.to_be_bytes());
        }
        out.extend(crc32fast::hash(&out).to_be_bytes());
        out.extend(self.tail_crc.to_be_bytes());
        out
    }

    /// Size of the head in the file.
    pub(super) fn len(&self) -> u64 {
        let long_key = u64::from(short_key_len(self.key_len) == KEY_LEN_LONG);
        let long_value = u64::from(short_value_len(self.value_len) == VALUE_LEN_LONG);
        8 + 8 * (long_key + long_value) + 8 * (u64::from(self.level) + 1) + 8
    }

    /// Size of key, value and padding.
    pub(super) fn tail_len(&self) -> u64 {
        (self.key_len + self.value_len).next_multiple_of(8)
    }

    /// Where list `list` goes on, 0 for nowhere, as a reader sees it for whom
    /// the data ends at `end`: pointers of list 0 beyond that belong to a
    /// transaction that was not committed.
    pub(super) fn next(&self, list: u8, end: u64) -> u64 {
        if list > 0 {
            return self.pointers[usize::from(list) + 1];
        }
        let [first, second, ..] = self.pointers;
        if self.kind == Kind::Delete || second >= end {
            first
        } else if first >= end {
            second
        } else {
            first.max(second)
        }
    }

    /// Points list `list` at `target`. On list 0 this leaves the pointer that
    /// was in force at `committed`, the end of the last transaction.
    pub(super) fn set_next(&mut self, list: u8, target: u64, committed: u64) {
        let [first, second, ..] = self.pointers;
        let slot = match list {
            0 if first >= committed => 0,
            0 if second >= committed => 1,
            0 if second > first => 0,
            0 => 1,
            upper => usize::from(upper) + 1,
        };
        self.pointers[slot] = target;
    }
}

/// Key, value and padding as they stand in the file.
pub(super) fn encode_tail(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut tail = [key, value].concat();
    tail.resize(tail.len().next_multiple_of(8), 0);
    tail
}

/// The filler to write at `end` before a record whose head has `head_len`
/// bytes, so that the head, which is rewritten in place, lies in one sector.
pub(super) fn blanks(end: u64, head_len: u64) -> Vec<u8> {
    let mut out = Vec::new();
    if head_len > SECTOR_LEN - 8 {
        return out;
    }
    let mut at = end;
    while (at + 8) % SECTOR_LEN > (at + head_len - 8) % SECTOR_LEN {
        out.extend(BLANK);
        at += 8;
    }
    out
}

fn short_key_len(len: u64) -> u16 {
    u16::try_from(len).unwrap_or(KEY_LEN_LONG)
}

fn short_value_len(len: u64) -> u32 {
    u32::try_from(len).unwrap_or(VALUE_LEN_LONG)
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    (u32::from(be16(bytes, at)) << 16) | u32::from(be16(bytes, at + 2))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    (u64::from(be32(bytes, at)) << 32) | u64::from(be32(bytes, at + 4))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_print_and_parse() {
        for (level, key_len, value_len) in [(1, 3, 19), (31, 0, 0), (2, 65_534, 9), (3, 65_535, 9)]
        {
            let mut head = Head::small(Kind::Record, 0);
            head.level = level;
            head.key_len = key_len;
            head.value_len = value_len;
            head.pointers[usize::from(level)] = 0x1234_5678;
            let bytes = head.encode();
            assert_eq!(bytes.len() as u64, head.len(), "key of {key_len} bytes");
            assert_eq!(Head::decode(&bytes, 336).unwrap(), head);
        }
    }

    #[test]
    fn blanks_keep_heads_inside_a_sector() {
        // A COMMIT at 0x1f0, as in a repacked file of the reference.
        assert_eq!(blanks(0x1f0, 24).len(), 8);
        assert_eq!(blanks(0x1f8, 24).len(), 0);
        assert_eq!(blanks(0x1e8, 24).len(), 0);
        for end in (336..2048).step_by(8) {
            for head_len in (24..=280).step_by(8) {
                let start = end + blanks(end, head_len).len() as u64;
                // What is rewritten: from the first pointer to the head CRC.
                let (first, last) = (start + 8, start + head_len - 8);
                assert_eq!(first / 512, last / 512, "{end} {head_len}");
            }
        }
    }

    #[test]
    fn list_0_keeps_the_committed_pointer() {
        let mut head = Head::small(Kind::Record, 0);
        head.pointers[..2].copy_from_slice(&[400, 500]);
        head.set_next(0, 1000, 1000);
        assert_eq!(head.pointers[..2], [1000, 500]);
        head.set_next(0, 1100, 1000);
        assert_eq!(head.pointers[..2], [1100, 500]);
        assert_eq!((head.next(0, 1000), head.next(0, 1200)), (500, 1100));
    }
}
