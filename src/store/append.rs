//! Appending to a backup. **Durability is decided here.**
//!
//! | when this has returned `Ok` | the lines appended so far |
//! |---|---|
//! | [`Writer::append`] | survive the death of the process at any instant |
//! | [`Writer::sync`] | survive a power cut |
//! | [`Writer::finish`] | survive a power cut, and are in the index for every reader |
//!
//! A line is flushed through the compressor and handed to the kernel before its
//! append returns. `sync` ends the member and syncs the data file (and, for a new
//! file, its directory). `finish` then commits the index: the index can be rebuilt
//! from the data, never the other way round. Lines whose rows were never committed
//! are indexed again at the next open, see [`super::recover`].
//!
//! After an error the writer is poisoned: it acknowledges nothing more, neither a line
//! nor that those before are durable, and is to be dropped. What it acknowledged before
//! is in the file, and is taken in at the next open.

mod entry;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::aside;
use super::backup::index_path;
use super::chunk::{CHUNK_HEADER, MemberWriter};
use super::data_file::{self, DataFile};
use super::disk::Disk;
use super::error::{Result, StoreError};
use super::index::{Index, State};
use super::printed;
use super::recover::{self, Ready};
use super::staging::Staging;
use crate::lock::{LockError, Wait};
use crate::wire::Body;
use crate::wire::apply::Apply;
use crate::wire::frame::Limits;
use entry::Entry;

/// A backup opened for appending, under its lock.
pub struct Writer {
    path: PathBuf,
    data: DataFile,
    index: Index,
    chunk: Option<OpenChunk>,
    /// A transaction of the index is open: it holds the rows since the last commit.
    has_uncommitted: bool,
    /// Lines were acknowledged that a power cut could still take.
    has_unsynced: bool,
    /// Newest time stamp in the file: Cyrus refuses to reindex a file in which
    /// time runs backwards.
    last_ts: i64,
    /// The file's name is not yet known to survive a power cut.
    is_new: bool,
    poisoned: bool,
    /// The file's octets are known to be those that were hashed, see [`State`].
    is_trusted: bool,
    /// See [`Writer::note_moved`].
    moved: Option<State>,
}

struct OpenChunk {
    id: i64,
    member: MemberWriter,
}

/// A line to append, in canonical text.
pub struct Line<'a> {
    /// `NAME value`, message bodies left out.
    pub text: &'a [u8],
    /// Offsets in `text` at which the bodies belong.
    pub body_at: &'a [usize],
    /// The bodies, as many.
    pub bodies: &'a [Body],
    /// What the line says.
    pub apply: &'a Apply<'a>,
}

impl Writer {
    /// Opens the backup at `path` for appending, without waiting for its lock; a
    /// missing file is made. What a crash left behind is taken in first, and a broken
    /// index built again: see `docs/durability.md`.
    ///
    /// Errors: [`StoreError::Locked`] if another session or tool has it open,
    /// [`StoreError::DataMissing`] if there is an index but no data file.
    pub fn open(path: &Path, now: i64) -> Result<Writer> {
        let file = match data_file::open(path, false, Wait::No) {
            Err(LockError::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
                if std::fs::metadata(index_path(path)).is_ok_and(|meta| meta.len() > 0) {
                    return Err(StoreError::DataMissing(path.to_owned()));
                }
                tracing::warn!(file = %path.display(), "no data file: beginning a new one");
                data_file::open(path, true, Wait::No)
            }
            result => result,
        };
        Writer::open_on(Box::new(file.map_err(StoreError::lock(path))?), path, now)
    }

    /// [`Writer::open`] over a file that is open and locked.
    pub(super) fn open_on(disk: Box<dyn Disk>, path: &Path, now: i64) -> Result<Writer> {
        let mut writer = Writer::open_to_replace(disk, path, now)?;
        writer.note_moved()?;
        Ok(writer)
    }

    /// The same for whoever is about to replace the index: see [`Writer::note_moved`].
    pub(super) fn open_to_replace(disk: Box<dyn Disk>, path: &Path, now: i64) -> Result<Writer> {
        let Ready { data, index, last_ts, is_trusted, moved } = recover::open(disk, path, now)?;
        let is_new = data.len() == 0;
        index.hold().map_err(StoreError::index(path))?;
        Ok(Writer {
            path: path.to_owned(),
            data,
            index,
            chunk: None,
            has_uncommitted: false,
            has_unsynced: false,
            last_ts,
            is_new,
            poisoned: false,
            is_trusted,
            moved,
        })
    }

    /// Notes in the index which file it speaks for, if that had another inode number. Nothing but
    /// time depends on it.
    pub(super) fn note_moved(&mut self) -> Result<()> {
        let Some(state) = self.moved.take() else { return Ok(()) };
        let index = &self.index;
        (|| {
            index.begin()?;
            index.set_state(&state)?;
            index.commit()?;
            index.hold()
        })()
        .map_err(StoreError::index(&self.path))
    }

    /// The data file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The index, with the rows of the open chunk.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Whether lines were acknowledged since the last [`Writer::sync`] that
    /// succeeded: a power cut could still take them.
    pub fn has_unsynced(&self) -> bool {
        self.has_unsynced
    }

    /// Appends a line, its time stamp `now` (Unix time) or later, and enters it into
    /// the index; one of many messages as several lines of fewer. It survives the death of
    /// the process when this returns `Ok`; after an error it is taken back as far as possible.
    ///
    /// A line that could not be read back is refused ([`StoreError::TooLong`]); the writer can be
    /// used on.
    pub fn append(&mut self, now: i64, line: &Line<'_>, staging: &Staging) -> Result<()> {
        let len = printed::len_framed(self.last_ts.max(now), line.text);
        if len > Limits::LOG.line {
            return Err(StoreError::TooLong { path: self.path.clone(), len });
        }
        let was_sound = !self.poisoned;
        let result = self.guarded(|this| {
            let ts = this.last_ts.max(now);
            this.last_ts = ts;
            this.start_chunk(ts)?;
            let Some(OpenChunk { id, member }) = &mut this.chunk else { return Ok(()) };
            let (path, data, index) = (this.path.as_path(), &mut this.data, &this.index);
            let mut entry = Entry { path, data, index, chunk_id: *id, member, ts };
            entry.enter(line, staging)?;
            this.data.flush().map_err(StoreError::io(&this.path))?;
            this.data.acknowledge();
            this.has_unsynced = true;
            Ok(())
        });
        if result.is_err() && was_sound {
            self.data.abandon();
        }
        result
    }

    /// Ends the open chunk, if there is one, and makes the data durable. The rows wait, in an
    /// open transaction, for more lines or for [`Writer::finish`].
    pub fn sync(&mut self, now: i64) -> Result<()> {
        self.guarded(|this| this.end_chunk(now))
    }

    /// [`Writer::sync`], and commits the index. If only that fails, what was synced is
    /// still safe: the next open enters it.
    pub fn finish(&mut self, now: i64) -> Result<()> {
        self.guarded(|this| {
            this.end_chunk(now)?;
            if std::mem::take(&mut this.has_uncommitted) {
                this.index.commit().map_err(StoreError::index(&this.path))?;
            }
            Ok(())
        })
    }

    fn end_chunk(&mut self, now: i64) -> Result<()> {
        let Some(chunk) = self.chunk.take() else { return Ok(()) };
        self.last_ts = self.last_ts.max(now);
        let totals = (|| {
            let totals = chunk.member.finish(&mut self.data)?;
            self.data.sync()?;
            // A line that fails later is not to take the trailer along.
            self.data.acknowledge();
            if self.is_new {
                self.data.sync_name()?;
            }
            Ok(totals)
        })()
        .map_err(StoreError::io(&self.path))?;
        self.is_new = false;
        self.has_unsynced = false;
        let state = State {
            len_file: self.data.len(),
            inode: self.data.inode().map_err(StoreError::io(&self.path))?,
            checkpoint: self.data.hash().checkpoint(),
            modified: self.modified_if_trusted().map_err(StoreError::io(&self.path))?,
        };
        (|| {
            self.index.end_chunk(chunk.id, self.last_ts, totals.len_plain, &totals.data_sha1)?;
            self.index.set_state(&state)
        })()
        .map_err(StoreError::index(&self.path))
    }

    fn modified_if_trusted(&self) -> io::Result<Option<i64>> {
        if self.is_trusted { self.data.modified() } else { Ok(None) }
    }

    fn start_chunk(&mut self, ts: i64) -> Result<()> {
        if self.chunk.is_some() {
            return Ok(());
        }
        let id = (|| {
            if !self.has_uncommitted {
                self.index.begin()?;
                self.has_uncommitted = true;
            }
            self.index.start_chunk(ts, self.data.len(), &self.data.hash().hex())
        })()
        .map_err(StoreError::index(&self.path))?;
        let member = (|| {
            let mut member = MemberWriter::start(&mut self.data)?;
            member.write(CHUNK_HEADER, &mut self.data)?;
            io::Result::Ok(member)
        })()
        .map_err(StoreError::io(&self.path))?;
        self.chunk = Some(OpenChunk { id, member });
        Ok(())
    }

    fn guarded(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.poisoned {
            return Err(StoreError::Poisoned(self.path.clone()));
        }
        // A panic on the way leaves it so.
        self.poisoned = true;
        let result = act(self);
        self.poisoned = result.is_err();
        if let Err(error) = &result {
            // The rows go with the connection in any case.
            let _ = self.index.rollback();
            self.put_aside_if_damaged(error);
        }
        result
    }

    /// A damaged index is found out about only where it is touched: it goes out of
    /// the way now, and the next open builds it again.
    pub fn put_aside_if_damaged(&self, error: &StoreError) {
        let StoreError::Index { source, .. } = error else { return };
        if !source.is_damage() {
            return;
        }
        match aside::put_index_aside(&self.path, self.last_ts) {
            Ok(kept) => tracing::error!(file = %self.path.display(), kept = %kept.display(),
                what = %source, "the index is damaged: it will be built again from the data"),
            Err(error) => tracing::error!(file = %self.path.display(), %error,
                "cannot put the damaged index aside"),
        }
    }
}
