//! dlist, the value syntax of the replication protocol and of the log.
//!
//! ```text
//! value   = list / kvlist / file / literal / flag / nstring
//! list    = "(" [ value *( ws value ) ] ")"
//! kvlist  = "%(" [ key ws value *( ws key ws value ) ] ")"
//! file    = "%{" astring SP guid SP number "}" CRLF       body kept elsewhere
//! literal = "{" number ["+"] "}" CRLF *OCTET
//! flag    = "\" *atom-char
//! nstring = "NIL" / astring
//! astring = atom / quoted / literal
//! ```
//!
//! The reader borrows: a list is a checked span of the line, read again when
//! it is walked, so a line with 100,000 records needs no tree. The printer
//! writes the one form in which Cyrus itself prints a value; its tools
//! recompute lengths and hashes of the log by printing again what they read,
//! so every other form would give them a wrong index.

use std::borrow::Cow;

use super::Guid;

mod print;
mod read;
mod scan;
mod tokens;

pub use print::{Literals, Printer};
pub use read::{Fields, Items, KvList, List, Named, Pairs, Value, parse_item, parse_value};

/// In how many lists a value may lie; the protocol itself needs four.
pub const DEPTH_MAX: usize = 32;

/// Fields of one kvlist: they are looked up in memory, where one of four octets takes twenty times
/// as much. The protocol itself has some thirty.
pub const FIELDS_MAX: usize = 10_000;

/// Text that is not a dlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at octet {at}")]
pub struct SyntaxError {
    /// What is wrong.
    pub what: &'static str,
    /// Offset into the text that was given.
    pub at: usize,
}

/// What stands between `%{` and `}`: a message and its size in octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// Partition the sender keeps it on.
    pub partition: Vec<u8>,
    /// SHA-1 it claims to have.
    pub guid: Guid,
    /// Octets that follow.
    pub size: u64,
}

impl FileHeader {
    /// Reads `%{partition guid size}`. A partition that would be printed as a literal is refused:
    /// a header is one line, in the log as on the wire.
    pub fn parse(text: &[u8]) -> Option<FileHeader> {
        let inner = text.strip_prefix(b"%{")?.strip_suffix(b"}")?;
        let mut words = inner.rsplitn(3, |&c| c == b' ');
        let size = number(words.next()?)?;
        let guid = Guid::from_hex(words.next()?)?;
        let partition = match read::parse_value(words.next()?) {
            Ok(Value::Atom(text)) if !print::is_literal(&text) => text.into_owned(),
            _ => return None,
        };
        Some(FileHeader { partition, guid, size })
    }

    /// The size that a header ends with, whatever stands in front of it.
    pub(super) fn size_of(header: &[u8]) -> Option<u64> {
        number(header.rsplit(|&c| c == b' ').next()?)
    }
}

/// A number as a field holds it: digits only, 64 bits.
pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, c| match c {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(c - b'0')),
        _ => None,
    })
}

/// Text for messages to people.
pub fn lossy(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}
