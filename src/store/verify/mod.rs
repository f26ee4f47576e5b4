//! Does a backup still hold what its index says?
//!
//! [`quick`] checks the checksums of the last chunk: whether the file can be
//! appended to. [`full`] checks for each chunk that
//!
//! 1. the octets in front of it, its length and its text are those recorded
//!    (SHA-1), and the gzip member is whole (CRC-32);
//! 2. each message that the index places in it is there, and hashes to its GUID;
//! 3. each mailbox and each record that was last seen in it is there, with the
//!    values that the index has.
//!
//! The first check that fails ends the run. What is found goes to a sink, as it
//! is found. The file is hashed once and each chunk inflated once, whatever is
//! wrong with them; memory grows with the rows of one chunk.

mod links;
mod messages;

use super::backup::Backup;
use super::chunk::MemberError;
use super::error::{Result, StoreError};
use super::file_hash::FileHash;
use super::index::ChunkRow;
use super::log::{LogError, LogReader};
use crate::wire::apply::Apply;
use links::Links;
use messages::Messages;

/// A group of checks on one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Of the file in front of it and of its text.
    Checksums,
    /// The messages stored in it.
    Messages,
    /// The mailboxes and records last seen in it.
    MailboxLinks,
}

/// A part of [`Check::Checksums`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// SHA-1 of the file in front of the chunk.
    FileChecksum,
    /// Inflated length.
    DataLength,
    /// SHA-1 of the inflated text.
    DataChecksum,
}

/// What a sink is told, in this order for each check: `Begin`, `Step`s and
/// `Finding`s, `End`.
#[derive(Debug)]
pub enum Event<'a> {
    /// A check begins.
    Begin {
        /// Row of the chunk.
        chunk_id: i64,
        /// Which check.
        check: Check,
    },
    /// A part of it begins.
    Step(Step),
    /// Something is wrong.
    Finding(&'a Finding),
    /// The check is done.
    End {
        /// Whether nothing was wrong.
        sound: bool,
    },
}

/// Takes events.
pub type Sink<'s> = dyn FnMut(Event<'_>) + 's;

/// Something that is wrong with a chunk.
#[derive(Debug)]
pub struct Finding {
    /// Row of the chunk.
    pub chunk_id: i64,
    /// What it is.
    pub fault: Fault,
}

/// What can be wrong with a chunk.
#[derive(Debug)]
pub enum Fault {
    /// The file in front of the chunk has another SHA-1 (hex).
    FileChecksum {
        /// That of the file.
        disk: String,
        /// The recorded one.
        index: String,
    },
    /// The chunk has another inflated length, in octets.
    DataLength {
        /// What could be inflated.
        disk: u64,
        /// The recorded one.
        index: u64,
    },
    /// The text of the chunk has another SHA-1 (hex).
    DataChecksum {
        /// That of the text.
        disk: String,
        /// The recorded one.
        index: String,
    },
    /// The chunk, which begins at this offset of the file, cannot be read to its end.
    Unreadable {
        /// In octets.
        offset_file: u64,
        /// Why.
        source: LogError,
    },
    /// No line with the message is where the index has it.
    NoMessage {
        /// Row of the message.
        message_id: i64,
        /// Where it should be: inflated octets from the start of the chunk.
        offset: u64,
    },
    /// The octets of the message do not hash to its GUID.
    MessageContent {
        /// Row of the message.
        message_id: i64,
    },
    /// No line gives the mailbox the values that the index has.
    NoMailbox {
        /// Its identity.
        uniqueid: Vec<u8>,
        /// Its internal name.
        mboxname: Vec<u8>,
    },
    /// No record gives the message in its mailbox the values that the index has.
    NoRecord {
        /// Of the mailbox.
        uniqueid: Vec<u8>,
        /// Of the message.
        uid: u32,
    },
}

/// Checks the checksums of the last chunk. Returns whether nothing was wrong; an
/// error means that it could not be found out.
pub fn quick(backup: &Backup, sink: &mut Sink<'_>) -> Result<bool> {
    match backup.index().last_chunk().map_err(StoreError::index(backup.path()))? {
        Some(chunk) => Run::start(backup, sink)?.checksums_only(&chunk),
        None => Ok(true),
    }
}

/// Checks everything. Returns as [`quick`] does.
pub fn full(backup: &Backup, sink: &mut Sink<'_>) -> Result<bool> {
    let mut chunks = backup.index().chunks().map_err(StoreError::index(backup.path()))?;
    // Row order, unless the index is forged: then still one pass over the file.
    chunks.sort_by_key(|chunk| chunk.offset);
    let mut run = Run::start(backup, sink)?;
    for chunk in &chunks {
        if !run.chunk(chunk)? {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Run<'a, 's> {
    backup: &'a Backup,
    len_file: u64,
    hash: FileHash,
    sink: &'a mut Sink<'s>,
}

/// What one pass over a chunk brought.
struct Content {
    len_plain: u64,
    data_sha1: String,
    /// The member ended as it should.
    member: std::result::Result<(), MemberError>,
    /// All lines could be read.
    lines: std::result::Result<(), LogError>,
}

impl<'a, 's> Run<'a, 's> {
    fn start(backup: &'a Backup, sink: &'a mut Sink<'s>) -> Result<Run<'a, 's>> {
        Ok(Run { backup, len_file: backup.len_file()?, hash: FileHash::default(), sink })
    }

    fn checksums_only(&mut self, chunk: &ChunkRow) -> Result<bool> {
        self.begin(chunk, Check::Checksums);
        if let Some(fault) = self.file_checksum(chunk)? {
            return Ok(self.end(chunk, [fault]));
        }
        let content = read(self.backup, chunk, None);
        let fault = self.data_checksums(chunk, content);
        Ok(self.end(chunk, fault))
    }

    fn chunk(&mut self, chunk: &ChunkRow) -> Result<bool> {
        self.begin(chunk, Check::Checksums);
        if let Some(fault) = self.file_checksum(chunk)? {
            return Ok(self.end(chunk, [fault]));
        }
        let index = self.backup.index();
        let expected =
            || Ok((Messages::of_chunk(index, chunk.id)?, Links::of_chunk(index, chunk.id)?));
        let (mut messages, mut links) =
            expected().map_err(StoreError::index(self.backup.path()))?;
        let mut content = read(self.backup, chunk, Some((&mut messages, &mut links)));
        let lines = std::mem::replace(&mut content.lines, Ok(()));
        let fault = self.data_checksums(chunk, content);
        if !self.end(chunk, fault) {
            return Ok(false);
        }
        self.begin(chunk, Check::Messages);
        let faults = match lines {
            Err(source) => vec![Fault::Unreadable { offset_file: chunk.offset, source }],
            Ok(()) => messages.faults(),
        };
        if !self.end(chunk, faults) {
            return Ok(false);
        }
        self.begin(chunk, Check::MailboxLinks);
        Ok(self.end(chunk, links.faults()))
    }

    fn begin(&mut self, chunk: &ChunkRow, check: Check) {
        (self.sink)(Event::Begin { chunk_id: chunk.id, check });
    }

    fn end(&mut self, chunk: &ChunkRow, faults: impl IntoIterator<Item = Fault>) -> bool {
        let mut sound = true;
        for fault in faults {
            sound = false;
            (self.sink)(Event::Finding(&Finding { chunk_id: chunk.id, fault }));
        }
        (self.sink)(Event::End { sound });
        sound
    }

    /// Chunks come in the order of their offsets: the hash only goes forward.
    fn file_checksum(&mut self, chunk: &ChunkRow) -> Result<Option<Fault>> {
        (self.sink)(Event::Step(Step::FileChecksum));
        let end = chunk.offset.min(self.len_file);
        self.hash
            .update_from(self.backup.file(), end)
            .map_err(StoreError::io(self.backup.path()))?;
        let (disk, index) = (self.hash.hex(), chunk.file_sha1.clone());
        Ok((disk != index).then_some(Fault::FileChecksum { disk, index }))
    }

    fn data_checksums(&mut self, chunk: &ChunkRow, content: Content) -> Option<Fault> {
        let unreadable = |source: MemberError| Fault::Unreadable {
            offset_file: chunk.offset,
            source: source.into(),
        };
        // A member that merely ends too early is told by its length.
        let torn = match content.member {
            Err(torn @ MemberError::Torn { .. }) => Some(torn),
            Err(damage) => return Some(unreadable(damage)),
            Ok(()) => None,
        };
        (self.sink)(Event::Step(Step::DataLength));
        if content.len_plain != chunk.length {
            return Some(Fault::DataLength { disk: content.len_plain, index: chunk.length });
        }
        (self.sink)(Event::Step(Step::DataChecksum));
        if content.data_sha1 != chunk.data_sha1 {
            let (disk, index) = (content.data_sha1, chunk.data_sha1.clone());
            return Some(Fault::DataChecksum { disk, index });
        }
        torn.map(unreadable)
    }
}

/// Inflates a chunk once, and compares its lines with what is expected on the way.
fn read(
    backup: &Backup,
    chunk: &ChunkRow,
    expected: Option<(&mut Messages, &mut Links)>,
) -> Content {
    let mut content =
        Content { len_plain: 0, data_sha1: String::new(), member: Ok(()), lines: Ok(()) };
    let mut reader = match LogReader::open_hashing(backup.file(), chunk.offset) {
        Ok(reader) => reader,
        Err(error) => {
            content.fail(error);
            return content;
        }
    };
    if let Some((messages, links)) = expected
        && let Err(error) = compare_lines(&mut reader, messages, links)
    {
        content.fail(error);
    }
    if content.member.is_ok()
        && let Err(error) = reader.skip_rest()
    {
        content.member = Err(error);
    }
    content.len_plain = reader.len_plain();
    content.data_sha1 = reader.plain_sha1();
    content
}

impl Content {
    fn fail(&mut self, error: LogError) {
        match error {
            LogError::Member(error) => self.member = Err(error),
            error => self.lines = Err(error),
        }
    }
}

/// A line that says nothing intelligible is passed over: if the index has
/// something from it, that will be missing.
fn compare_lines(
    reader: &mut LogReader<'_>,
    messages: &mut Messages,
    links: &mut Links,
) -> std::result::Result<(), LogError> {
    while let Some(line) = reader.next_line(messages)? {
        let apply = line.item().ok().and_then(|(name, value)| Apply::read(&name, &value).ok());
        if let Some(Apply::Mailbox(mailbox)) = &apply {
            links.compare(mailbox);
        }
        messages.end_line(line.offset, matches!(apply, Some(Apply::Message(_))));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
