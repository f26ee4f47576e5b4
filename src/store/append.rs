//! Appending to a backup. **Durability is decided here.**
//!
//! | when this has returned `Ok` | the lines appended so far |
//! |---|---|
//! | [`Writer::append`] | survive the death of the process at any instant |
//! | [`Writer::finish`] | survive a power cut |
//!
//! A line is flushed through the compressor and handed to the kernel before its
//! append returns. `finish` ends the member, syncs the data file (and, for a new
//! file, its directory), and only then commits the index: the index can be rebuilt
//! from the data, never the other way round. Lines whose rows were never committed
//! are indexed again at the next open, see [`super::recover`].
//!
//! After an error the writer is poisoned: it acknowledges nothing more and is to be
//! dropped.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::backup::index_path;
use super::chunk::{CHUNK_HEADER, MemberWriter};
use super::data_file::{self, DataFile};
use super::error::{Result, StoreError};
use super::index::{Index, IndexError, Open, Position, State};
use super::recover;
use super::staging::Staging;
use crate::lock::Wait;
use crate::wire::Body;
use crate::wire::apply::Apply;

/// A backup opened for appending, under its lock.
pub struct Writer {
    path: PathBuf,
    data: DataFile,
    index: Index,
    chunk: Option<OpenChunk>,
    /// Newest time stamp in the file: Cyrus refuses to reindex a file in which
    /// time runs backwards.
    last_ts: i64,
    /// The file's name is not yet known to survive a power cut.
    is_new: bool,
    poisoned: bool,
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
    /// missing file is made. What a crash left behind is taken in first.
    ///
    /// Errors: [`StoreError::Locked`] if another session or tool has it open.
    pub fn open(path: &Path, now: i64) -> Result<Writer> {
        let file = data_file::open(path, true, Wait::No).map_err(StoreError::lock(path))?;
        let len = file.metadata().map_err(StoreError::io(path))?.len();
        let index = open_index(path, now)?;
        let (data, last_ts) = recover::take_in(file, path, &index, now)?;
        Ok(Writer {
            path: path.to_owned(),
            data,
            index,
            chunk: None,
            last_ts,
            is_new: len == 0,
            poisoned: false,
        })
    }

    /// The data file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The index, with the rows of the open chunk.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Appends a line, its time stamp `now` (Unix time) or later, and enters it into the index.
    pub fn append(&mut self, now: i64, line: &Line<'_>, staging: &Staging) -> Result<()> {
        self.guarded(|this| {
            let ts = this.last_ts.max(now);
            this.last_ts = ts;
            this.start_chunk(ts)?;
            let Some(chunk) = &mut this.chunk else { return Ok(()) };
            let offset = chunk.member.len_plain();
            write_line(&mut chunk.member, &mut this.data, ts, line, staging)
                .map_err(StoreError::io(&this.path))?;
            let at = Position { chunk_id: chunk.id, ts, offset };
            this.index.apply(at, line.apply).map_err(StoreError::index(&this.path))
        })
    }

    /// Ends the open chunk, if there is one; see the module for what that means.
    pub fn finish(&mut self, now: i64) -> Result<()> {
        let Some(chunk) = self.chunk.take() else { return Ok(()) };
        self.guarded(|this| {
            this.last_ts = this.last_ts.max(now);
            let io = StoreError::io(&this.path);
            let totals = (|| {
                let totals = chunk.member.finish(&mut this.data)?;
                this.data.sync()?;
                if this.is_new {
                    this.data.sync_name()?;
                }
                Ok(totals)
            })()
            .map_err(io)?;
            this.is_new = false;
            let state =
                State { len_file: this.data.len(), checkpoint: this.data.hash().checkpoint() };
            (|| {
                this.index.end_chunk(
                    chunk.id,
                    this.last_ts,
                    totals.len_plain,
                    &totals.data_sha1,
                )?;
                this.index.set_state(&state)?;
                this.index.commit()
            })()
            .map_err(StoreError::index(&this.path))
        })
    }

    fn start_chunk(&mut self, ts: i64) -> Result<()> {
        if self.chunk.is_some() {
            return Ok(());
        }
        let id = (|| {
            self.index.begin()?;
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
        let result = act(self);
        if result.is_err() {
            self.poisoned = true;
            // The rows go with the connection in any case.
            let _ = self.index.rollback();
        }
        result
    }
}

fn write_line(
    member: &mut MemberWriter,
    data: &mut DataFile,
    ts: i64,
    line: &Line<'_>,
    staging: &Staging,
) -> io::Result<()> {
    member.write(format!("{ts} APPLY ").as_bytes(), data)?;
    let mut from = 0;
    for (&at, body) in line.body_at.iter().zip(line.bodies) {
        member.write(&line.text[from..at], data)?;
        staging.read(body, |piece| member.write(piece, data))?;
        from = at;
    }
    member.write(&line.text[from..], data)?;
    member.write(b"\r\n", data)?;
    member.end_line(data)?;
    data.flush()
}

/// Opens the index for writing. One that cannot be used is put aside: it is
/// built again from the data.
fn open_index(path: &Path, now: i64) -> Result<Index> {
    let index_file = index_path(path);
    match Index::open(&index_file, Open::Create) {
        Ok(index) => Ok(index),
        Err(IndexError::Unusable { what, .. }) => {
            let aside = super::backup::with_suffix(path, &format!(".index.{now}"));
            tracing::warn!(index = %index_file.display(), kept = %aside.display(), %what,
                "index unusable, building it again from the data");
            std::fs::rename(&index_file, &aside).map_err(StoreError::io(&index_file))?;
            Index::open(&index_file, Open::Create).map_err(StoreError::index(path))
        }
        Err(source) => Err(StoreError::Index { path: path.to_owned(), source }),
    }
}
