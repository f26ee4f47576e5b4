//! Messages on their way from one data file to another.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use sha1::{Digest, Sha1};

use crate::store::log::BodySink;
use crate::store::similar;
use crate::store::staging::Staging;
use crate::wire::dlist::FileHeader;
use crate::wire::{Body, Guid};

/// Octets of messages of one line that are held in memory.
const MEMORY_MAX: usize = 4 << 20;

/// Holds the messages of a line that stay, until the line is written.
pub(super) struct Spool {
    wanted: HashSet<Guid>,
    messages: Vec<Message>,
    in_memory: usize,
    pub(super) staging: Staging,
    staged: u64,
    current: Option<Current>,
    error: Option<io::Error>,
}

/// A message that stays.
pub(super) struct Message {
    pub(super) file: FileHeader,
    pub(super) body: Body,
    /// See [`similar`].
    key: Vec<u8>,
}

#[cfg(test)]
impl Message {
    pub(super) fn new(file: FileHeader, body: Body) -> Message {
        Message { file, body, key: Vec::new() }
    }
}

/// A message that is being read.
struct Current {
    file: FileHeader,
    sha1: Sha1,
    body: Body,
    /// Its first octets.
    head: Vec<u8>,
}

impl Spool {
    pub(super) fn new(directory: PathBuf) -> Spool {
        Spool {
            wanted: HashSet::new(),
            messages: Vec::new(),
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
        self.messages.clear();
        self.in_memory = 0;
        if self.staged > 0 {
            self.staged = 0;
            self.staging.clear()?;
        }
        Ok(())
    }

    /// The messages of the line that stay: similar ones side by side, otherwise in their order.
    pub(super) fn take(&mut self) -> io::Result<Vec<Message>> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.messages.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(std::mem::take(&mut self.messages))
    }

    fn add(&mut self, octets: &[u8]) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        current.sha1.update(octets);
        let missing = similar::HEAD - current.head.len();
        current.head.extend_from_slice(&octets[..missing.min(octets.len())]);
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
        self.current = self.wanted.contains(&header.guid).then(|| {
            let size = usize::try_from(header.size).unwrap_or(usize::MAX);
            let fits = self.in_memory.saturating_add(size) <= MEMORY_MAX;
            let body = if fits {
                self.in_memory += size;
                Body::Memory(Vec::with_capacity(size))
            } else {
                Body::Staged { offset: self.staged, len: 0 }
            };
            Current { file: header.clone(), sha1: Sha1::new(), body, head: Vec::new() }
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
        if found == current.file.guid && self.wanted.remove(&found) {
            let key = similar::key(&current.head);
            self.messages.push(Message { file: current.file, body: current.body, key });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn similar_messages_that_stay_come_side_by_side() {
        let texts =
            ["From: b\r\n\r\n1", "From: a\r\n\r\n2", "From: c\r\n\r\n3", "From: B\r\n\r\n4"];
        let guid = |text: &str| Guid::from(<[u8; 20]>::from(Sha1::digest(text)));
        let wanted = [0, 1, 3].map(|i| guid(texts[i])).into();
        let mut spool = Spool::new(PathBuf::new());
        spool.start_line(Some(&wanted)).unwrap();
        // The last one is a second copy.
        for text in texts.into_iter().chain([texts[0]]) {
            let size = text.len() as u64;
            spool.start(&FileHeader { partition: b"p".to_vec(), guid: guid(text), size });
            text.as_bytes().chunks(3).for_each(|piece| spool.data(piece));
            spool.end();
        }
        let messages = spool.take().unwrap();
        let bodies: Vec<Body> = messages.into_iter().map(|message| message.body).collect();
        let expected = [1, 0, 3].map(|i| Body::Memory(texts[i].into()));
        assert_eq!(bodies, expected);
    }
}
