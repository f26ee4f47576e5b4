//! What Cyrus's own verify checks, in its order, up to the first fault.

use std::fs::File;
use std::path::Path;

use super::finding::{Check, Event, Fault, Finding, Sink, Step};
use super::links::Links;
use super::messages::Messages;
use super::pass::{self, Content, Piece, Taken};
use crate::store::backup::Backup;
use crate::store::chunk::MemberError;
use crate::store::disk::Disk;
use crate::store::error::{Result, StoreError};
use crate::store::file_hash::FileHash;
use crate::store::index::{ChunkRow, Index, IndexError};
use crate::wire::apply::{self, Apply};

/// A last chunk of at most so many octets in the file is inflated in any case.
const SMALL: u64 = 64 * 1024;
/// To hash fewer octets than this is no more work than to note that they were hashed.
pub(in crate::store) const WORTH_NOTING: u64 = 1 << 20;

/// Checks the checksums of the last chunk. Returns whether nothing was wrong; an
/// error means that it could not be found out.
///
/// That takes to hash the whole data file, unless nobody has changed that since it was
/// hashed, as far as the file system knows: what was true then is true now. What that
/// cannot know, octets that a disk has lost, is for [`full`] to find.
pub fn quick(backup: &Backup, sink: &mut Sink<'_>) -> Result<bool> {
    let (chunk, is_trusted) = backup
        .index()
        .at_once(|index| {
            let last = index.last_chunk().map_err(StoreError::index(backup.path()))?;
            Ok::<_, StoreError>((last, backup.is_trusted()?))
        })
        .map_err(StoreError::index(backup.path()))??;
    let Some(chunk) = chunk else { return Ok(true) };
    // Before it is read: whoever writes to it meanwhile is noticed.
    let modified = backup.file().modified().map_err(StoreError::io(backup.path()))?;
    let last = LastChunk { chunk: &chunk, len_file: backup.len_file()?, is_trusted };
    let sound = last_chunk(backup.path(), backup.file(), &last, sink)?;
    if sound && !last.is_hashed() && last.len_file >= WORTH_NOTING {
        backup.trust(modified);
    }
    Ok(sound)
}

/// The last chunk of a backup, for [`last_chunk`].
pub(in crate::store) struct LastChunk<'c> {
    pub(in crate::store) chunk: &'c ChunkRow,
    /// Octets of the data file.
    pub(in crate::store) len_file: u64,
    /// The file has not been changed since all of it was hashed.
    pub(in crate::store) is_trusted: bool,
}

impl LastChunk<'_> {
    /// What lies in front of it need not be hashed.
    fn is_hashed(&self) -> bool {
        self.is_trusted && self.chunk.offset < self.len_file
    }
}

/// [`quick`] for a backup whose index was read by somebody else.
pub(in crate::store) fn last_chunk(
    path: &Path,
    file: &File,
    last: &LastChunk<'_>,
    sink: &mut Sink<'_>,
) -> Result<bool> {
    let (hash, len_file, is_sorted) = (FileHash::default(), last.len_file, false);
    let mut run = Run { path, file, len_file, hash, is_sorted, sink };
    if last.is_hashed() { Ok(run.trusted(last.chunk)) } else { run.checksums_only(last.chunk) }
}

/// Checks everything that Cyrus does. Returns as [`quick`] does.
pub fn full(backup: &Backup, sink: &mut Sink<'_>) -> Result<bool> {
    full_with(backup, 1, sink)
}

/// The same; chunks are read by `jobs` threads.
pub fn full_with(backup: &Backup, jobs: usize, sink: &mut Sink<'_>) -> Result<bool> {
    backup.index().work_by_chunk().map_err(StoreError::index(backup.path()))?;
    let sound = backup.index().at_once(|_| every_chunk(backup, jobs, sink));
    sound.map_err(StoreError::index(backup.path()))?
}

fn every_chunk(backup: &Backup, jobs: usize, sink: &mut Sink<'_>) -> Result<bool> {
    let (path, file, len_file) = (backup.path(), backup.file(), backup.len_file()?);
    let (hash, is_sorted) = (FileHash::default(), false);
    let mut run = Run { path, file, len_file, hash, is_sorted, sink };
    // Row order, unless the index is forged: then still one pass over the file.
    let mut rows = backup.index().chunks_by_offset();
    loop {
        let page = rows.by_ref().take(pass::PAGE).collect::<std::result::Result<Vec<_>, _>>();
        let page = page.map_err(StoreError::index(path))?;
        if page.is_empty() {
            return Ok(true);
        }
        if !run.chunks(&page, jobs, backup)? {
            return Ok(false);
        }
    }
}

struct Run<'a, 's> {
    path: &'a Path,
    file: &'a File,
    len_file: u64,
    hash: FileHash,
    /// What the index knows is sorted by chunk.
    is_sorted: bool,
    sink: &'a mut Sink<'s>,
}

/// What should be in a chunk.
struct Expected<'i> {
    messages: Messages<'i>,
    links: Links<'i>,
}

impl Expected<'_> {
    /// A line that says nothing intelligible is passed over: if the index has
    /// something from it, that will be missing.
    fn compare(&mut self, taken: &Taken) -> std::result::Result<(), IndexError> {
        let Ok((name, value)) = taken.line.item() else { return Ok(()) };
        if apply::is_message(&name, &value) {
            return self.messages.compare(taken.line.offset, &taken.bodies);
        }
        match Apply::read(&name, &value) {
            Ok(Apply::Mailbox(mailbox)) => self.links.compare(&mailbox),
            _ => Ok(()),
        }
    }
}

impl<'a> Run<'a, '_> {
    fn checksums_only(&mut self, chunk: &ChunkRow) -> Result<bool> {
        self.begin(chunk, Check::Checksums);
        if let Some(fault) = self.file_checksum(chunk)? {
            return Ok(self.end(chunk, [fault]));
        }
        let content = pass::text(self.file, chunk.offset, self.len_file);
        let fault = self.data_checksums(chunk, &content);
        Ok(self.end(chunk, fault.or_else(|| unreadable(chunk, content))))
    }

    /// The octets in front of the chunk are those that were hashed.
    fn trusted(&mut self, chunk: &ChunkRow) -> bool {
        self.begin(chunk, Check::Checksums);
        (self.sink)(Event::Step(Step::FileChecksum));
        if self.len_file - chunk.offset > SMALL {
            (self.sink)(Event::Step(Step::DataLength));
            (self.sink)(Event::Step(Step::DataChecksum));
            return self.end(chunk, []);
        }
        let content = pass::text(self.file, chunk.offset, self.len_file);
        let fault = self.data_checksums(chunk, &content);
        self.end(chunk, fault.or_else(|| unreadable(chunk, content)))
    }

    /// Checks chunks up to the first fault; returns whether there was none.
    fn chunks(&mut self, chunks: &[ChunkRow], jobs: usize, backup: &Backup) -> Result<bool> {
        let offsets: Vec<u64> = chunks.iter().map(|chunk| chunk.offset).collect();
        let (mut expected, mut sound) = (None, true);
        let known = pass::known(backup, chunks)?;
        let source = pass::Source { file: backup.file(), known: &known };
        pass::chunks(source, &offsets, jobs, &mut |i, piece| {
            let chunk = &chunks[i];
            if expected.is_none() {
                expected = self.begin_chunk(chunk, backup.index())?;
            }
            sound = match (&mut expected, piece) {
                (None, _) => false,
                (Some(expected), Piece::Lines(lines)) => {
                    let compared = lines.iter().try_for_each(|taken| expected.compare(taken));
                    compared.map_err(StoreError::index(backup.path()))?;
                    true
                }
                (Some(_), Piece::End(content)) => match expected.take() {
                    Some(expected) => self.end_chunk(chunk, content, expected)?,
                    None => false,
                },
            };
            Ok::<_, StoreError>(sound)
        })?;
        Ok(sound)
    }

    /// `None` if the chunk need not be looked at any more.
    fn begin_chunk<'i>(
        &mut self,
        chunk: &ChunkRow,
        index: &'i Index,
    ) -> Result<Option<Expected<'i>>> {
        self.begin(chunk, Check::Checksums);
        if let Some(fault) = self.file_checksum(chunk)? {
            self.end(chunk, [fault]);
            return Ok(None);
        }
        // Only now: readers are at work.
        if !std::mem::replace(&mut self.is_sorted, true) {
            index.sort_by_chunk().map_err(StoreError::index(self.path))?;
        }
        let messages = Messages::of_chunk(index, chunk.id);
        let links = Links::of_chunk(index, chunk.id);
        let links = links.map_err(StoreError::index(self.path))?;
        Ok(Some(Expected { messages, links }))
    }

    fn end_chunk(
        &mut self,
        chunk: &ChunkRow,
        mut content: Content,
        expected: Expected<'_>,
    ) -> Result<bool> {
        let path = self.path;
        let fault = || StoreError::index(path);
        let lines = std::mem::replace(&mut content.lines, Ok(()));
        let figures = self.data_checksums(chunk, &content);
        if !self.end(chunk, figures.or_else(|| unreadable(chunk, content))) {
            return Ok(false);
        }
        self.begin(chunk, Check::Messages);
        let faults = match lines {
            Err(source) => vec![Fault::Unreadable { offset_file: chunk.offset, source }],
            Ok(()) => expected.messages.faults().map_err(fault())?,
        };
        if !self.end(chunk, faults) {
            return Ok(false);
        }
        self.begin(chunk, Check::MailboxLinks);
        let faults = expected.links.faults().map_err(fault())?;
        Ok(self.end(chunk, faults))
    }

    fn begin(&mut self, chunk: &ChunkRow, check: Check) {
        (self.sink)(Event::Begin { chunk_id: Some(chunk.id), check });
    }

    fn end(&mut self, chunk: &ChunkRow, faults: impl IntoIterator<Item = Fault>) -> bool {
        let mut sound = true;
        for fault in faults {
            sound = false;
            let (chunk_id, offset_file) = (Some(chunk.id), Some(chunk.offset));
            let finding = Finding { chunk_id, offset_file, fault, filed: Vec::new() };
            (self.sink)(Event::Finding(&finding));
        }
        (self.sink)(Event::End { sound });
        sound
    }

    /// Chunks come in the order of their offsets: the hash only goes forward.
    fn file_checksum(&mut self, chunk: &ChunkRow) -> Result<Option<Fault>> {
        (self.sink)(Event::Step(Step::FileChecksum));
        let end = chunk.offset.min(self.len_file);
        self.hash.update_from(self.file, end).map_err(StoreError::io(self.path))?;
        let (disk, index) = (self.hash.hex(), chunk.file_sha1.clone());
        Ok((disk != index).then_some(Fault::FileChecksum { disk, index }))
    }

    /// What is wrong with the figures; nothing if the member is damaged.
    fn data_checksums(&mut self, chunk: &ChunkRow, content: &Content) -> Option<Fault> {
        // A member that merely ends too early is told by its length.
        if matches!(&content.member, Err(error) if !matches!(error, MemberError::Torn { .. })) {
            return None;
        }
        (self.sink)(Event::Step(Step::DataLength));
        if content.len_plain != chunk.length {
            return Some(Fault::DataLength { disk: content.len_plain, index: chunk.length });
        }
        (self.sink)(Event::Step(Step::DataChecksum));
        if content.data_sha1 != chunk.data_sha1 {
            let (disk, index) = (content.data_sha1.clone(), chunk.data_sha1.clone());
            return Some(Fault::DataChecksum { disk, index });
        }
        None
    }
}

fn unreadable(chunk: &ChunkRow, content: Content) -> Option<Fault> {
    let source = content.member.err()?;
    Some(Fault::Unreadable { offset_file: chunk.offset, source: source.into() })
}
