//! Messages of a request that is about several users.
//!
//! RESERVE says which messages are missing, and MESSAGE brings them, but whose they are is said
//! by the MAILBOX lines behind it only. So a message that one backup alone lacks goes there at
//! once; one that several lack waits, in memory or in a file of its own, until a MAILBOX line
//! names it, and goes to each backup that does. One that no line names is forgotten with RESTART or the next
//! GET: nobody was told that it is here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::PathBuf;

use crate::store::staging::Staging;
use crate::wire::dlist::FileHeader;
use crate::wire::{Body, Guid};

/// Octets of waiting messages that stay in memory.
const MEMORY_MAX: usize = 1 << 20;

/// Who lacks a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lacking {
    /// This backup alone.
    One(Vec<u8>),
    /// More than one.
    Several,
}

/// The messages that a client was told are missing.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    keys: Vec<Vec<u8>>,
    /// The place in `keys`; `None` for several.
    lacking: HashMap<Guid, Option<usize>>,
}

impl Reserved {
    /// The backup lacks the message.
    pub(super) fn add(&mut self, key: &[u8], guid: Guid) {
        let at = self.keys.iter().position(|known| known == key).unwrap_or_else(|| {
            self.keys.push(key.to_vec());
            self.keys.len() - 1
        });
        match self.lacking.entry(guid) {
            Entry::Vacant(entry) => {
                entry.insert(Some(at));
            }
            Entry::Occupied(mut entry) if *entry.get() != Some(at) => {
                entry.insert(None);
            }
            Entry::Occupied(_) => {}
        }
    }

    /// Who lacks it; `None` if it was not reserved.
    pub(super) fn lacking(&self, guid: &Guid) -> Option<Lacking> {
        let place = self.lacking.get(guid)?;
        let one = place.and_then(|at| self.keys.get(at).cloned());
        Some(one.map_or(Lacking::Several, Lacking::One))
    }

    /// It has come.
    pub(super) fn remove(&mut self, guid: &Guid) {
        self.lacking.remove(guid);
    }
}

/// The messages that wait.
#[derive(Debug)]
pub(super) struct Pending {
    staging: Staging,
    /// Octets in the staging file.
    len: u64,
    in_memory: usize,
    messages: HashMap<Guid, (FileHeader, Body)>,
}

impl Pending {
    /// None, for now; `directory` is where staging files are made.
    pub(super) fn new(directory: PathBuf) -> Pending {
        Pending { staging: Staging::new(directory), len: 0, in_memory: 0, messages: HashMap::new() }
    }

    /// Where the bodies of waiting messages are.
    pub(super) fn staging(&self) -> &Staging {
        &self.staging
    }

    /// The message, if it waits.
    pub(super) fn get(&self, guid: &Guid) -> Option<&(FileHeader, Body)> {
        self.messages.get(guid)
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Keeps a message; `from` is where its body is. If that fails none waits any more.
    pub(super) fn add(&mut self, file: &FileHeader, body: &Body, from: &Staging) -> io::Result<()> {
        if self.messages.contains_key(&file.guid) {
            return Ok(());
        }
        let kept = match body {
            Body::Memory(octets) if self.in_memory + octets.len() <= MEMORY_MAX => {
                self.in_memory += octets.len();
                body.clone()
            }
            _ => {
                if let Err(error) = from.read(body, |piece| self.staging.add(piece)) {
                    let _ = self.clear();
                    return Err(error);
                }
                let offset = self.len;
                self.len += body.len();
                Body::Staged { offset, len: body.len() }
            }
        };
        self.messages.insert(file.guid, (file.clone(), kept));
        Ok(())
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.messages.clear();
        (self.len, self.in_memory) = (0, 0);
        self.staging.clear()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn guid(number: u8) -> Guid {
        Guid::from([number; 20])
    }

    #[test]
    fn who_lacks_what() {
        let mut reserved = Reserved::default();
        reserved.add(b"tom", guid(1));
        reserved.add(b"tom", guid(2));
        reserved.add(b"bob", guid(2));
        reserved.add(b"tom", guid(1));
        assert_eq!(reserved.lacking(&guid(1)), Some(Lacking::One(b"tom".to_vec())));
        assert_eq!(reserved.lacking(&guid(2)), Some(Lacking::Several));
        reserved.add(b"tom", guid(2));
        assert_eq!(reserved.lacking(&guid(2)), Some(Lacking::Several));
        reserved.remove(&guid(2));
        assert_eq!(reserved.lacking(&guid(2)), None);
    }

    #[test]
    fn messages_wait_in_the_order_they_came() {
        let dir = tempfile::tempdir().unwrap();
        let from = Staging::new(dir.path().to_owned());
        let mut pending = Pending::new(dir.path().to_owned());
        let file = |number: u8, size| FileHeader {
            partition: b"default".to_vec(),
            guid: guid(number),
            size,
        };
        let read = |pending: &Pending, number| {
            let mut octets = Vec::new();
            let (_, body) = pending.get(&guid(number)).unwrap();
            let take = |piece: &[u8]| -> io::Result<()> {
                octets.extend_from_slice(piece);
                Ok(())
            };
            pending.staging().read(body, take).unwrap();
            octets
        };
        for round in 0..2 {
            pending.add(&file(1, 3), &Body::Memory(b"one".to_vec()), &from).unwrap();
            pending.add(&file(2, 0), &Body::Memory(Vec::new()), &from).unwrap();
            pending.add(&file(1, 3), &Body::Memory(b"two".to_vec()), &from).unwrap();
            pending.add(&file(3, 5), &Body::Memory(b"three".to_vec()), &from).unwrap();
            // Those that are too large, and what comes behind them, go to the file.
            for number in [5, 6] {
                let large = vec![number; MEMORY_MAX - 100];
                let file = file(number, large.len() as u64);
                pending.add(&file, &Body::Memory(large), &from).unwrap();
            }
            let is_staged =
                |number| matches!(pending.get(&guid(number)), Some((_, Body::Staged { .. })));
            assert_eq!([1, 3, 5, 6].map(is_staged), [false, false, false, true], "{round}");
            for number in [5, 6] {
                assert_eq!(read(&pending, number), vec![number; MEMORY_MAX - 100], "{round}");
            }
            assert_eq!(read(&pending, 1), b"one", "{round}");
            assert_eq!(read(&pending, 2), b"", "{round}");
            assert_eq!(read(&pending, 3), b"three", "{round}");
            // A body that cannot be read.
            let gone = Body::Staged { offset: 0, len: 4 };
            assert!(pending.add(&file(4, 4), &gone, &from).is_err());
            assert!(pending.is_empty());
        }
    }
}
