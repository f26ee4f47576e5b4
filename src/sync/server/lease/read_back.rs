//! What was stored, read again from a backup that is open for appending.
//!
//! The data file is read through a descriptor of its own beside the open chunk, whose lines are
//! in it as soon as they are acknowledged. Nothing is given out that does not have its GUID where
//! it lies then: in memory, or in the staging file, which the client's own lines fill, too.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::PathBuf;

use super::super::request::Refusal;
use super::{Held, read};
use crate::store::index::{RestartPoint, SieveRow};
use crate::store::log::{BodySink, LogError, LogReader};
use crate::store::staging::Staging;
use crate::store::{StoreError, script};
use crate::wire::dlist::FileHeader;
use crate::wire::{Body, Guid};

/// Octets of messages that a batch holds in memory; what is beyond is staged.
const MEMORY_MAX: usize = 8 << 20;

/// Messages of one line.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) files: Vec<FileHeader>,
    pub(super) bodies: Vec<Body>,
    in_memory: usize,
    staged: u64,
}

/// Messages to be read, by the place of their chunk.
pub(super) struct ReadBack {
    path: PathBuf,
    file: File,
    chunks: BTreeMap<u64, Wanted>,
}

/// Messages of one chunk.
#[derive(Default)]
struct Wanted {
    guids: HashSet<Guid>,
    /// Where the first of their lines is, in inflated octets.
    first: u64,
    points: Vec<RestartPoint>,
}

impl Held {
    /// Prepares to read those of `guids` that are stored here.
    pub(super) fn read_back(&self, guids: &[Guid]) -> Result<ReadBack, Refusal> {
        let mut chunks: BTreeMap<u64, Wanted> = BTreeMap::new();
        for guid in guids {
            let Some(row) = read(self, |index| index.message(guid))? else { continue };
            let Some(chunk) = read(self, |index| index.chunk(row.chunk_id))? else { continue };
            let wanted = chunks.entry(chunk.offset).or_default();
            if wanted.guids.is_empty() {
                wanted.points = read(self, |index| index.restart_points(chunk.id))?;
                wanted.first = row.offset;
            }
            wanted.first = wanted.first.min(row.offset);
            wanted.guids.insert(*guid);
        }
        let path = self.writer.path().to_owned();
        let file = File::open(&path).map_err(StoreError::io(&path))?;
        Ok(ReadBack { path, file, chunks })
    }

    /// The text of a script.
    pub(super) fn script(&self, row: &SieveRow) -> Result<Vec<u8>, Refusal> {
        let chunk = read(self, |index| index.chunk(row.chunk_id))?.ok_or(Refusal::Nonexistent)?;
        let path = self.writer.path();
        let file = File::open(path).map_err(StoreError::io(path))?;
        let points = read(self, |index| index.restart_points(chunk.id))?;
        script::read(&file, chunk.offset, points, row)
            .map_err(StoreError::log(path))?
            .ok_or(Refusal::Nonexistent)
    }
}

impl ReadBack {
    /// Reads chunk by chunk; `take` gets what each line held. Messages that are damaged are
    /// passed over, and the count of those found is returned. What was staged is forgotten.
    pub(super) fn read(
        mut self,
        staging: &mut Staging,
        batch: &mut Batch,
        mut take: impl FnMut(&mut Batch, &mut Staging) -> Result<(), Refusal>,
    ) -> Result<usize, Refusal> {
        batch.clear(staging)?;
        let mut found = 0;
        for (offset, mut wanted) in std::mem::take(&mut self.chunks) {
            let is_near = |point: &RestartPoint| point.offset_plain <= wanted.first;
            let near = wanted.points.iter().copied().rfind(is_near);
            // It is a hint: what is not found from there is looked for from the beginning.
            for point in near.map(Some).into_iter().chain([None]) {
                let read =
                    self.read_chunk(offset, point, &mut wanted, staging, batch, |b, s| {
                        found += b.files.len();
                        take(b, s)
                    })?;
                if let (Err(error), None) = (read, point) {
                    return Err(StoreError::log(&self.path)(error).into());
                }
            }
        }
        Ok(found)
    }

    /// Reads a chunk from a restart point or its beginning on, until nothing more is wanted.
    fn read_chunk(
        &self,
        offset: u64,
        point: Option<RestartPoint>,
        Wanted { guids, points, .. }: &mut Wanted,
        staging: &mut Staging,
        batch: &mut Batch,
        mut take: impl FnMut(&mut Batch, &mut Staging) -> Result<(), Refusal>,
    ) -> Result<Result<(), LogError>, Refusal> {
        if guids.is_empty() {
            return Ok(Ok(()));
        }
        let mut reader = match LogReader::open_near(&self.file, offset, point) {
            Ok(reader) => reader.resuming(&self.file, points.clone()),
            Err(error) => return Ok(Err(error)),
        };
        while !guids.is_empty() {
            let mut sink = Sink { wanted: guids, staging, batch, open: None, error: None };
            let line = reader.next_line(&mut sink);
            if let Some(error) = sink.error {
                tracing::error!(%error, "cannot stage a message");
                return Err(Refusal::Internal);
            }
            match line {
                Ok(Some(_)) if batch.files.is_empty() => {}
                Ok(Some(_)) => take(batch, staging)?,
                Ok(None) => break,
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }
}

impl Batch {
    /// Empties it, and the staging area with it.
    pub(super) fn clear(&mut self, staging: &mut Staging) -> Result<(), Refusal> {
        *self = Batch::default();
        staging.clear().map_err(|error| {
            tracing::error!(%error, "cannot empty the staging file");
            Refusal::Internal
        })
    }
}

/// Keeps the bodies that are wanted.
struct Sink<'s> {
    wanted: &'s mut HashSet<Guid>,
    staging: &'s mut Staging,
    batch: &'s mut Batch,
    open: Option<OpenBody>,
    error: Option<std::io::Error>,
}

struct OpenBody {
    header: FileHeader,
    octets: Vec<u8>,
    /// Where it begins in the staging area, if it is there.
    staged_at: Option<u64>,
}

impl BodySink for Sink<'_> {
    fn start(&mut self, header: &FileHeader) {
        // One that damage has cut off.
        self.open = None;
        if self.wanted.contains(&header.guid) {
            let is_large = header.size > (MEMORY_MAX - self.batch.in_memory.min(MEMORY_MAX)) as u64;
            self.open = Some(OpenBody {
                header: header.clone(),
                octets: Vec::new(),
                staged_at: is_large.then_some(self.batch.staged),
            });
        }
    }

    fn data(&mut self, octets: &[u8]) {
        let Some(open) = &mut self.open else { return };
        if open.staged_at.is_none() {
            open.octets.extend_from_slice(octets);
        } else if self.error.is_none() {
            self.error = self.staging.add(octets).err();
            self.batch.staged += octets.len() as u64;
        }
    }

    fn end(&mut self) {
        let Some(open) = self.open.take().filter(|_| self.error.is_none()) else { return };
        let len = open.octets.len();
        let body = match open.staged_at {
            Some(offset) => Body::Staged { offset, len: open.header.size },
            None => Body::Memory(open.octets),
        };
        match self.staging.guid(&body) {
            Ok(found) if found == open.header.guid => {
                self.wanted.remove(&found);
                self.batch.in_memory += len;
                self.batch.bodies.push(body);
                self.batch.files.push(open.header);
            }
            Ok(found) => {
                tracing::error!(guid = %open.header.guid, %found, "stored message is damaged");
            }
            Err(error) => self.error = Some(error),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
