//! RESERVE and MESSAGE: which messages are missing, and which backups they go to.

use std::collections::{BTreeMap, HashSet};

use super::super::answers::Answers;
use super::super::request::{Refusal, bounded};
use super::reserved::Lacking;
use super::{Lease, Reply, Source, read};
use crate::store::Line;
use crate::wire::apply::{Apply, Mailbox};
use crate::wire::dlist::{Fields, FileHeader, Literals, Printer, Value};
use crate::wire::{Body, Guid};

/// Messages of one line of the log, if it is not the client's.
const LINE_MAX: usize = 1024;

impl Lease {
    /// Which of these messages are not here? What is answered as missing will be
    /// sent, what is not will never be.
    pub(super) fn reserve(&mut self, value: &Value<'_>) -> Reply {
        let Value::KvList(kv) = value else { return Err(Refusal::Protocol) };
        let fields = kv.fields();
        if fields.get("PARTITION").is_none() {
            return Err(Refusal::Protocol);
        }
        let list = |name| Fields::get(&fields, name).map(Value::as_list).ok_or(Refusal::Protocol);
        let mut named = HashSet::new();
        let keys: Vec<Vec<u8>> = bounded(list("MBOXNAME")?)?
            .items()
            .filter_map(|name| name.as_text().map(|name| self.site.names.backup_key(name)))
            // The client names the mailboxes that it was told of, and means the messages of
            // all that it asked for: of those that are not known here, too.
            .chain(self.current.iter().cloned())
            .filter(|key| named.insert(key.clone()))
            .collect();
        let mut known = HashSet::new();
        let wanted: Vec<Guid> = list("GUID")?
            .items()
            .filter_map(|value| value.as_guid())
            .filter(|guid| known.insert(*guid))
            .collect();
        let mut missing_anywhere = HashSet::new();
        for key in &keys {
            let at = self.open(key)?;
            let place = self.reserved.key(key);
            for guid in &wanted {
                let is_here = self.pending.get(guid).is_some()
                    || read(&self.open[at], |index| index.message(guid))?.is_some();
                if !is_here {
                    self.reserved.add(place, *guid);
                    missing_anywhere.insert(*guid);
                }
            }
        }
        let missing: Vec<Guid> =
            wanted.into_iter().filter(|guid| missing_anywhere.contains(guid)).collect();
        let mut answers = Answers::new();
        answers.missing(&missing);
        Ok(answers)
    }

    /// Stores each message in the backup that lacks it, or keeps it until it is known in which
    /// of those that lack it; see [`super::pending`].
    pub(super) fn messages(&mut self, value: &Value<'_>, bodies: Vec<Body>) -> Result<(), Refusal> {
        let Apply::Message(files) = Apply::read(b"MESSAGE", value)? else {
            return Err(Refusal::Protocol);
        };
        if files.len() != bodies.len() {
            return Err(Refusal::Protocol);
        }
        for (file, body) in files.iter().zip(&bodies) {
            self.check_guid(file, body)?;
        }
        let mut known = HashSet::new();
        let mut stored: BTreeMap<Vec<u8>, (Vec<FileHeader>, Vec<Body>)> = BTreeMap::new();
        let mut waiting = Vec::new();
        for (file, body) in files.into_iter().zip(bodies) {
            if !known.insert(file.guid) {
                continue;
            }
            match self.lacking(&file.guid)? {
                None => {}
                Some(Lacking::Several(set)) => waiting.push((file, body, set)),
                Some(Lacking::One(key)) => {
                    let (files, bodies) = stored.entry(key).or_default();
                    files.push(file);
                    bodies.push(body);
                }
            }
        }
        for (key, (files, bodies)) in stored {
            let at = self.open(&key)?;
            self.append_messages(at, files, &bodies, Source::Line)?;
        }
        // Last: what is refused is not to be stored at the end of the group.
        self.pending.add(&waiting, &self.reserved, &self.staging).map_err(|error| {
            tracing::error!(path = %self.site.staging_path.display(), %error,
                "cannot keep a message");
            Refusal::Internal
        })?;
        Ok(())
    }

    /// Which backups lack the message: of those that reserved it, else of those that the latest
    /// GET spoke of (without one, as from a client with a cache, of all that are open).
    fn lacking(&mut self, guid: &Guid) -> Result<Option<Lacking>, Refusal> {
        if let Some(lacking) = self.reserved.lacking(guid) {
            return Ok(Some(lacking));
        }
        let keys = match self.current.is_empty() {
            true => self.open.iter().map(|held| held.key.clone()).collect(),
            false => self.current.clone(),
        };
        if keys.is_empty() {
            // Without a backup to put it into, nothing may be acknowledged.
            return Err(Refusal::Protocol);
        }
        for key in keys {
            let at = self.open(&key)?;
            if read(&self.open[at], |index| index.message(guid))?.is_none() {
                let place = self.reserved.key(&key);
                self.reserved.add(place, *guid);
            }
        }
        Ok(self.reserved.lacking(guid))
    }

    /// Stores the waiting messages that the line names, if this backup lacks them.
    pub(super) fn claim_messages(&mut self, at: usize, line: &Mailbox<'_>) -> Result<(), Refusal> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut known = HashSet::new();
        let (mut files, mut bodies) = (Vec::new(), Vec::new());
        for record in line.records() {
            let guid = record?.guid;
            let Some(message) = self.pending.get(&guid) else { continue };
            if known.insert(guid) && read(&self.open[at], |index| index.message(&guid))?.is_none() {
                files.push(message.header.clone());
                bodies.push(message.body.clone());
            }
        }
        self.append_waiting(at, &files, &bodies, Source::Pending)?;
        self.pending.claim(&files);
        Ok(())
    }

    /// Stores messages that did not come with a line of the client's.
    pub(super) fn append_waiting(
        &mut self,
        at: usize,
        files: &[FileHeader],
        bodies: &[Body],
        source: Source<'_>,
    ) -> Result<(), Refusal> {
        for (files, bodies) in files.chunks(LINE_MAX).zip(bodies.chunks(LINE_MAX)) {
            self.append_messages(at, files.to_vec(), bodies, source)?;
        }
        Ok(())
    }

    fn append_messages(
        &mut self,
        at: usize,
        files: Vec<FileHeader>,
        bodies: &[Body],
        source: Source<'_>,
    ) -> Result<(), Refusal> {
        let (text, body_at) = message_line(&files);
        let apply = Apply::Message(files);
        let line = Line { text: &text, body_at: &body_at, bodies, apply: &apply };
        self.append_from(at, &line, source)?;
        if let (Source::Line, Apply::Message(files)) = (source, &apply) {
            files.iter().for_each(|file| self.reserved.remove(&file.guid));
        }
        Ok(())
    }

    fn check_guid(&self, file: &FileHeader, body: &Body) -> Result<(), Refusal> {
        let found = self.staging.guid(body).map_err(|error| {
            tracing::error!(%error, "cannot read a staged message");
            Refusal::Internal
        })?;
        if found != file.guid {
            tracing::warn!(announced = %file.guid, %found, "message does not have its GUID");
            return Err(Refusal::Protocol);
        }
        Ok(())
    }
}

/// Canonical text of a MESSAGE line, and where in it the bodies belong.
pub(super) fn message_line(files: &[FileHeader]) -> (Vec<u8>, Vec<usize>) {
    let mut printer = Printer::new(Literals::NonSync, b"MESSAGE (".to_vec());
    for (i, file) in files.iter().enumerate() {
        printer.separator(i).file(file);
    }
    printer.raw(b")");
    printer.into_parts()
}
