//! Messages on their way from one data file to another.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use sha1::{Digest, Sha1};

use crate::store::log::BodySink;
use crate::store::staging::Staging;
use crate::wire::dlist::FileHeader;
use crate::wire::{Body, Guid};

/// Octets of messages of one line that are held in memory.
const MEMORY_MAX: usize = 4 << 20;

/// Holds the messages of a line that stay, until the line is written.
pub(super) struct Spool {
    wanted: HashSet<Guid>,
    flags: Vec<bool>,
    bodies: Vec<Body>,
    in_memory: usize,
    pub(super) staging: Staging,
    staged: u64,
    current: Option<Current>,
    error: Option<io::Error>,
}

/// A message that is being read.
struct Current {
    guid: Guid,
    sha1: Sha1,
    body: Body,
}

impl Spool {
    pub(super) fn new(directory: PathBuf) -> Spool {
        Spool {
            wanted: HashSet::new(),
            flags: Vec::new(),
            bodies: Vec::new(),
            in_memory: 0,
            staging: Staging::new(directory),
            staged: 0,
            current: None,
            error: None,
        }
    }

    /// The messages that stay of the next line.
    pub(super) fn start_line(&mut self, wanted: Option<&HashSet<Guid>>) -> io::Result<()> {
        self.wanted = wanted.cloned().unwrap_or_default();
        self.flags.clear();
        self.bodies.clear();
        self.in_memory = 0;
        if self.staged > 0 {
            self.staged = 0;
            self.staging.clear()?;
        }
        Ok(())
    }

    /// Which messages of the line stay, and those.
    pub(super) fn take(&mut self) -> io::Result<(Vec<bool>, Vec<Body>)> {
        match self.error.take() {
            Some(error) => Err(error),
            None => Ok((std::mem::take(&mut self.flags), std::mem::take(&mut self.bodies))),
        }
    }

    fn add(&mut self, octets: &[u8]) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        current.sha1.update(octets);
        match &mut current.body {
            Body::Memory(body) => body.extend_from_slice(octets),
            Body::Staged { len, .. } => {
                self.staging.add(octets)?;
                *len += octets.len() as u64;
                self.staged += octets.len() as u64;
            }
        }
        Ok(())
    }
}

impl BodySink for Spool {
    fn start(&mut self, header: &FileHeader) {
        self.flags.push(false);
        self.current = self.wanted.contains(&header.guid).then(|| {
            let size = usize::try_from(header.size).unwrap_or(usize::MAX);
            let fits = self.in_memory.saturating_add(size) <= MEMORY_MAX;
            let body = if fits {
                self.in_memory += size;
                Body::Memory(Vec::with_capacity(size))
            } else {
                Body::Staged { offset: self.staged, len: 0 }
            };
            Current { guid: header.guid, sha1: Sha1::new(), body }
        });
    }

    fn data(&mut self, octets: &[u8]) {
        if let Err(error) = self.add(octets) {
            self.error.get_or_insert(error);
        }
    }

    /// Of several copies in a line the first sound one stays.
    fn end(&mut self) {
        let Some(current) = self.current.take() else { return };
        let found = Guid::from(<[u8; 20]>::from(current.sha1.finalize()));
        if found == current.guid
            && let Some(flag) = self.flags.last_mut()
        {
            *flag = self.wanted.remove(&found);
            if *flag {
                self.bodies.push(current.body);
            }
        }
    }
}
