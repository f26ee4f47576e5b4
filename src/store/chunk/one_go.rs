//! The trace that a compaction of Cyrus's leaves in each member that it writes.
//!
//! A session flushes each line through the compressor, so that a flush is also in front of the
//! end of its member. cyrbk's compaction leaves one there too, Cyrus's does not:
//!
//! ```text
//! a session's member ends    00 00 ff ff   03 00   crc32 length
//! Cyrus's compaction's       ..........................  crc32 length
//! ```

use std::io;

use super::super::disk::Disk;
use super::CHUNK_HEADER;

/// Octets of a member without content, as versions of zlib before 1.2.12 leave them.
const EMPTY_MEMBER: [u8; 20] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// The flush behind a last line, and the empty block that ends a member.
const SESSION_END: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];
/// CRC-32 and length.
const TRAILER: usize = 8;
/// Members without content that are passed over.
const EMPTY_MAX: usize = 64;

/// Whether the member at `offset`, which holds `len_plain` octets and is in front of `end`, was
/// written in one go: by a compaction of Cyrus's. `false` also if that cannot be told.
pub(in crate::store) fn is_in_one_go(
    file: &dyn Disk,
    offset: u64,
    len_plain: u64,
    mut end: u64,
) -> io::Result<bool> {
    if len_plain <= CHUNK_HEADER.len() as u64 {
        return Ok(false);
    }
    for _ in 0..EMPTY_MAX {
        let mut tail = [0; EMPTY_MEMBER.len()];
        let Some(at) = end.checked_sub(tail.len() as u64).filter(|at| *at >= offset) else {
            return Ok(false);
        };
        if file.read_at(&mut tail, at)? < tail.len() {
            return Ok(false);
        }
        if tail == EMPTY_MEMBER {
            end = at;
            continue;
        }
        let (body, trailer) = tail.split_at(tail.len() - TRAILER);
        // Something else stands in front of `end`: nothing is known of the member.
        let is_its_end = trailer[4..] == (len_plain as u32).to_le_bytes();
        return Ok(is_its_end && !body.ends_with(&SESSION_END));
    }
    Ok(false)
}
