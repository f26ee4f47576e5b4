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

/// Octets of messages that are held in memory.
const MEMORY_MAX: usize = 4 << 20;

/// Holds the messages that stay of some lines, until they are written.
pub(super) struct Spool {
    /// Messages of the line that is being read that were not met yet.
    wanted: HashSet<Guid>,
    messages: Vec<Message>,
    /// Octets of these.
    octets: u64,
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
            octets: 0,
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
        if !self.messages.is_empty() {
            return Ok(());
        }
        self.in_memory = 0;
        if self.staged > 0 {
            self.staged = 0;
            self.staging.clear()?;
        }
        Ok(())
    }

    /// Whether the line had all messages that should stay of it.
    pub(super) fn has_all(&self) -> bool {
        self.wanted.is_empty()
    }

    /// The messages so far, in the order of the lines.
    pub(super) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Octets of these.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// Takes out the messages: similar ones side by side, otherwise in their order. They can be
    /// read until the next line.
    pub(super) fn take(&mut self) -> io::Result<Vec<Message>> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.messages.sort_by(|one, other| one.key.cmp(&other.key));
        self.octets = 0;
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
            self.octets += current.body.len();
            self.messages.push(Message { file: current.file, body: current.body, key });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn guid(text: &str) -> Guid {
        Guid::from(<[u8; 20]>::from(Sha1::digest(text)))
    }

    fn read(spool: &mut Spool, text: &str) {
        let size = text.len() as u64;
        spool.start(&FileHeader { partition: b"p".to_vec(), guid: guid(text), size });
        text.as_bytes().chunks(3).for_each(|piece| spool.data(piece));
        spool.end();
    }

    #[test]
    fn similar_messages_that_stay_come_side_by_side() {
        let texts =
            ["From: b\r\n\r\n1", "From: a\r\n\r\n2", "From: c\r\n\r\n3", "From: B\r\n\r\n4"];
        let mut spool = Spool::new(PathBuf::new());
        spool.start_line(Some(&[0, 1].map(|i| guid(texts[i])).into())).unwrap();
        read(&mut spool, texts[0]);
        assert!(!spool.has_all());
        // The last one is a second copy.
        [1, 2, 0].into_iter().for_each(|i| read(&mut spool, texts[i]));
        assert!(spool.has_all());
        // Of another line.
        spool.start_line(Some(&[guid(texts[3])].into())).unwrap();
        read(&mut spool, texts[3]);
        assert_eq!(spool.octets(), 3 * texts[0].len() as u64);
        let messages = spool.take().unwrap();
        let bodies: Vec<Body> = messages.into_iter().map(|message| message.body).collect();
        let expected = [1, 0, 3].map(|i| Body::Memory(texts[i].into()));
        assert_eq!(bodies, expected);
        assert_eq!((spool.octets(), spool.messages().len()), (0, 0));
    }

    /// What is staged of one line outlives the beginning of the next.
    #[test]
    fn what_does_not_fit_into_memory_waits_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let large = "x".repeat(MEMORY_MAX);
        let mut spool = Spool::new(dir.path().to_owned());
        for _ in 0..2 {
            for text in ["first", &large, "last"] {
                spool.start_line(Some(&[guid(text)].into())).unwrap();
                read(&mut spool, text);
                assert!(spool.has_all());
            }
            let messages = spool.take().unwrap();
            assert_eq!(messages[1].body, Body::Staged { offset: 0, len: large.len() as u64 });
            let mut text = Vec::new();
            for message in &messages {
                let take = |octets: &[u8]| {
                    text.extend_from_slice(octets);
                    Ok(())
                };
                spool.staging.read(&message.body, take).unwrap();
            }
            assert_eq!(text, format!("first{large}last").into_bytes());
        }
    }
}
