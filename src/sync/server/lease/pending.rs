//! Messages of a request that is about several users.
//!
//! RESERVE says which messages are missing, and MESSAGE brings them, but whose they are is said
//! by the MAILBOX lines behind it only. So a message that one backup alone lacks goes there at
//! once; one that several lack waits in a file until a MAILBOX line names it, and goes to each
//! backup that does. It was acknowledged, so the file outlives the process, and one that no line
//! has named when the group ends is stored all the same; see [`super::group`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::PathBuf;

use super::reserved::{Reserved, Set};
use crate::store::staging::Staging;
use crate::store::waiting::{Group, WaitingFile};
use crate::wire::dlist::FileHeader;
use crate::wire::{Body, Guid};

/// The messages that wait.
#[derive(Debug)]
pub(super) struct Pending {
    directory: PathBuf,
    /// Made with the first message.
    file: Option<WaitingFile>,
    messages: HashMap<Guid, Message>,
    /// Who lacks the latest one.
    latest: (Set, Vec<Vec<u8>>),
}

/// A message that waits.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) header: FileHeader,
    pub(super) body: Body,
    lacking: Set,
    is_claimed: bool,
}

impl Pending {
    /// None, for now; `directory` is where files are made.
    pub(super) fn new(directory: PathBuf) -> Pending {
        Pending { directory, file: None, messages: HashMap::new(), latest: Default::default() }
    }

    /// Where the bodies of waiting messages are.
    pub(super) fn staging(&self) -> Option<&Staging> {
        self.file.as_ref().map(WaitingFile::staging)
    }

    /// The message, if it waits.
    pub(super) fn get(&self, guid: &Guid) -> Option<&Message> {
        self.messages.get(guid)
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Keeps messages that backups of `reserved` lack; `from` is where their bodies are. They
    /// survive the death of the process when this returns `Ok`; if it fails none is kept of
    /// these, and all that waited go on to do so.
    pub(super) fn add(
        &mut self,
        messages: &[(FileHeader, Body, Set)],
        reserved: &Reserved,
        from: &Staging,
    ) -> io::Result<()> {
        let mut added = Vec::new();
        if let Err(error) = self.write(messages, reserved, from, &mut added) {
            self.file.iter_mut().for_each(WaitingFile::take_back);
            return Err(error);
        }
        self.messages.extend(added);
        Ok(())
    }

    fn write(
        &mut self,
        messages: &[(FileHeader, Body, Set)],
        reserved: &Reserved,
        from: &Staging,
        added: &mut Vec<(Guid, Message)>,
    ) -> io::Result<()> {
        let new = |guid: &Guid| !self.messages.contains_key(guid);
        let mut known = HashSet::new();
        for (header, body, lacking) in messages {
            if !(new(&header.guid) && known.insert(header.guid)) {
                continue;
            }
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(WaitingFile::create(&self.directory)?),
            };
            if self.latest.0 != *lacking {
                self.latest = (*lacking, reserved.keys(*lacking));
            }
            let body = file.add(&self.latest.1, header, body, from)?;
            let header = header.clone();
            let message = Message { body, lacking: *lacking, is_claimed: false, header };
            added.push((message.header.guid, message));
        }
        self.file.as_mut().map_or(Ok(()), WaitingFile::keep)
    }

    /// They are stored in a backup that asked for them.
    pub(super) fn claim(&mut self, files: &[FileHeader]) {
        for file in files {
            if let Some(message) = self.messages.get_mut(&file.guid) {
                message.is_claimed = true;
            }
        }
    }

    /// Messages that nobody has claimed, by those who lack them, in the order in which they
    /// came.
    pub(super) fn unclaimed(&self, reserved: &Reserved) -> Vec<Group> {
        let unclaimed = self.messages.values().filter(|message| !message.is_claimed);
        let mut sorted: Vec<&Message> = unclaimed.collect();
        sorted.sort_by_key(|message| message.place());
        let mut groups: BTreeMap<Set, Group> = BTreeMap::new();
        for message in sorted {
            let group = groups.entry(message.lacking).or_default();
            group.files.push(message.header.clone());
            group.bodies.push(message.body.clone());
        }
        let with_keys = |(set, group)| Group { lacking: reserved.keys(set), ..group };
        groups.into_iter().map(with_keys).collect()
    }

    /// All are where they belong.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.forget().map_or(Ok(()), WaitingFile::remove)
    }

    /// Leaves them in their file, for the next process to find.
    pub(super) fn leave(&mut self) -> Option<PathBuf> {
        self.forget().map(|file| file.path().to_owned())
    }

    fn forget(&mut self) -> Option<WaitingFile> {
        self.messages.clear();
        self.latest = Default::default();
        self.file.take()
    }
}

impl Message {
    /// In the file.
    fn place(&self) -> u64 {
        match self.body {
            Body::Staged { offset, .. } => offset,
            Body::Memory(_) => 0,
        }
    }
}
