//! Lines that are about to be written: so many of a chunk at a time that their messages can lie
//! side by side with those that are [like them](crate::store::similar).
//!
//! Messages that came one at a time stand in lines of their own, with what is said of each in
//! between. Those of a window go in front of its other lines, which stay in their order:
//!
//! ```text
//! t1 MESSAGE b   t1 MAILBOX %(b)   t2 SEEN   t3 MESSAGE a   t3 MAILBOX %(a)   t4 MESSAGE c  ..
//! t1 MESSAGE (a b c)   t1 MAILBOX %(b)   t2 SEEN   t3 MAILBOX %(a)   ..
//! ```
//!
//! For whoever replays the log that changes nothing:
//!
//! - Of all other lines only MAILBOX lines ask for messages: whether those of their records are
//!   there. A message never moves in front of a line that has a record of it: where one would,
//!   the window ends. (Else a message that came after a record that says it is expunged would
//!   count as expunged in Cyrus's tables also where it lives.)
//! - It has the time stamp of the window's first line: stamps are in the order that they were in,
//!   and the chunk begins when it did.
//! - A window ends with its chunk: each line and message is in the chunk that it was in.
//!
//! When a message came is no longer said by its own line, only by those with its records. Before
//! these it is in no mailbox. What that means for states of which such lines are gone, see
//! [`Index::add_what_outlived`](crate::store::index::Index::add_what_outlived).

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use super::line;
use super::spool::{Message, Spool};
use super::target::Line;
use crate::wire::{Body, Guid};

/// Octets of messages with which a window is full. Those of its last line come on top, so this is
/// less than what the spool holds in memory.
const MESSAGES_MAX: u64 = if cfg!(test) { 1_000 } else { 3 << 20 };
/// Memory for other lines with which it is full.
const OTHERS_MAX: usize = if cfg!(test) { 3_000 } else { 1 << 20 };

/// Lines that are about to be written.
pub(super) struct Window {
    /// Their messages.
    pub(super) spool: Spool,
    others: Vec<Other>,
    /// Memory that these take.
    others_size: usize,
    /// Messages that they have records of.
    mentioned: HashSet<Guid>,
    /// Time stamp of the first line.
    ts: Option<i64>,
    /// How many messages are counted in `len`.
    counted: usize,
    len: u64,
}

/// A line without messages.
pub(super) struct Other {
    pub(super) ts: i64,
    /// As in [`Line`].
    pub(super) text: Vec<u8>,
    /// It stays for what was deleted or expunged then.
    pub(super) held: Option<i64>,
}

/// What a window holds.
pub(super) struct Content {
    /// Time stamp of the messages.
    pub(super) ts: i64,
    /// They come first, in this order.
    pub(super) messages: Vec<Message>,
    pub(super) others: Vec<Other>,
}

impl Window {
    /// An empty one; large messages wait in `staging`.
    pub(super) fn new(staging: PathBuf) -> Window {
        Window {
            spool: Spool::new(staging),
            others: Vec::new(),
            others_size: 0,
            mentioned: HashSet::new(),
            ts: None,
            counted: 0,
            len: 0,
        }
    }

    /// Octets that the lines would take if each were written by itself: by this length it is
    /// decided where chunks are joined and split, as Cyrus does.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Whether all of it is to be written before these messages are read.
    pub(super) fn ends_before(&self, messages: &HashSet<Guid>) -> bool {
        self.spool.octets() >= MESSAGES_MAX || !self.mentioned.is_disjoint(messages)
    }

    /// Whether it is to be written now.
    pub(super) fn is_full(&self) -> bool {
        self.others_size >= OTHERS_MAX
    }

    /// Takes in the messages of a line that the spool has read.
    pub(super) fn add_messages(&mut self, ts: i64) {
        let messages = &self.spool.messages()[self.counted..];
        let (text, _) = line::print_messages(messages);
        let bodies: Vec<&Body> = messages.iter().map(|message| &message.body).collect();
        self.len += Line { ts, text: &text, body_at: &[], bodies: &bodies }.len();
        self.counted = self.spool.messages().len();
        self.ts.get_or_insert(ts);
    }

    /// Takes in another line, which has records of these messages.
    pub(super) fn add(&mut self, other: Other, records_of: Vec<Guid>) {
        let Other { ts, text, .. } = &other;
        self.len += Line::of_text(*ts, text).len();
        self.others_size += size_of::<Other>() + text.len();
        self.ts.get_or_insert(*ts);
        self.mentioned.extend(records_of);
        self.others.push(other);
    }

    /// Takes out all that it holds.
    pub(super) fn take(&mut self) -> io::Result<Content> {
        let messages = self.spool.take()?;
        let others = std::mem::take(&mut self.others);
        self.mentioned.clear();
        (self.others_size, self.counted, self.len) = (0, 0, 0);
        Ok(Content { ts: self.ts.take().unwrap_or_default(), messages, others })
    }
}
