//! What was stored, read again from a backup that is open for appending.
//!
//! The data file is read through a descriptor of its own beside the open chunk, whose lines are
//! in it as soon as they are acknowledged. Nothing is given out that does not have its GUID.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::PathBuf;

use sha1::{Digest, Sha1};

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
    chunks: BTreeMap<u64, (HashSet<Guid>, Vec<RestartPoint>)>,
}

impl Held {
    /// Prepares to read those of `guids` that are stored here.
    pub(super) fn read_back(&self, guids: &[Guid]) -> Result<ReadBack, Refusal> {
        let mut chunks: BTreeMap<u64, (HashSet<Guid>, Vec<RestartPoint>)> = BTreeMap::new();
        for guid in guids {
            let Some(row) = read(self, |index| index.message(guid))? else { continue };
            let Some(chunk) = read(self, |index| index.chunk(row.chunk_id))? else { continue };
            let (wanted, points) = chunks.entry(chunk.offset).or_default();
            if wanted.is_empty() {
                *points = read(self, |index| index.restart_points(chunk.id))?;
            }
            wanted.insert(*guid);
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
    /// passed over, and the count of those found is returned.
    pub(super) fn read(
        self,
        staging: &mut Staging,
        batch: &mut Batch,
        mut take: impl FnMut(&mut Batch, &mut Staging) -> Result<(), Refusal>,
    ) -> Result<usize, Refusal> {
        let mut found = 0;
        for (offset, (mut wanted, points)) in self.chunks {
            let log = |error: LogError| Refusal::from(StoreError::log(&self.path)(error));
            let reader = LogReader::open(&self.file, offset).map_err(log)?;
            let mut reader = reader.resuming(&self.file, points);
            while !wanted.is_empty() {
                let mut sink =
                    Sink { wanted: &mut wanted, staging, batch, open: None, error: None };
                let line = reader.next_line(&mut sink);
                if let Some(error) = sink.error {
                    tracing::error!(%error, "cannot stage a message");
                    return Err(Refusal::Internal);
                }
                if line.map_err(log)?.is_none() {
                    break;
                }
                if !batch.files.is_empty() {
                    found += batch.files.len();
                    take(batch, staging)?;
                }
            }
        }
        Ok(found)
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
    hash: Sha1,
    octets: Vec<u8>,
    /// Where it begins in the staging area, if it is there.
    staged_at: Option<u64>,
}

impl BodySink for Sink<'_> {
    fn start(&mut self, header: &FileHeader) {
        if self.wanted.contains(&header.guid) {
            let is_large = header.size > (MEMORY_MAX - self.batch.in_memory.min(MEMORY_MAX)) as u64;
            self.open = Some(OpenBody {
                header: header.clone(),
                hash: Sha1::new(),
                octets: Vec::new(),
                staged_at: is_large.then_some(self.batch.staged),
            });
        }
    }

    fn data(&mut self, octets: &[u8]) {
        let Some(open) = &mut self.open else { return };
        open.hash.update(octets);
        if open.staged_at.is_none() {
            open.octets.extend_from_slice(octets);
        } else if self.error.is_none() {
            self.error = self.staging.add(octets).err();
            self.batch.staged += octets.len() as u64;
        }
    }

    fn end(&mut self) {
        let Some(open) = self.open.take() else { return };
        let found = Guid::from(<[u8; 20]>::from(open.hash.finalize()));
        if found != open.header.guid {
            tracing::error!(guid = %open.header.guid, %found, "stored message is damaged");
            return;
        }
        self.wanted.remove(&found);
        self.batch.in_memory += open.octets.len();
        self.batch.bodies.push(match open.staged_at {
            Some(offset) => Body::Staged { offset, len: open.header.size },
            None => Body::Memory(open.octets),
        });
        self.batch.files.push(open.header);
    }
}
