//! Gzip members: how chunks are written and read (RFC 1952, RFC 1951).
//!
//! The only users of the compressor. A data file is a row of members without
//! anything in between; each holds one chunk of the log.

mod one_go;
mod reader;
mod segment;
mod writer;

pub(super) use one_go::is_in_one_go;
pub use reader::{MemberError, MemberReader};
pub use segment::{Packer, Piece, Segment, WITHIN_LINE};
pub(super) use writer::hex;
pub use writer::{MemberTotals, MemberWriter, RESTART_EVERY};

/// First line of every chunk.
pub const CHUNK_HEADER: &[u8] = b"# cyrus backup: chunk start\r\n";

/// What Cyrus writes in front of each member: deflate, no name, no time, Unix.
pub const MEMBER_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
