//! RESERVE and MESSAGE: which messages are missing, and which backups they go to.

use std::collections::HashSet;

use sha1::{Digest, Sha1};

use super::super::answers::Answers;
use super::super::request::Refusal;
use super::{Held, Lease, Reply, read};
use crate::store::Line;
use crate::wire::apply::Apply;
use crate::wire::dlist::{Fields, FileHeader, Literals, Printer, Value};
use crate::wire::{Body, Guid};

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
        let keys: HashSet<Vec<u8>> = list("MBOXNAME")?
            .items()
            .filter_map(|name| name.as_text().map(|name| self.site.names.backup_key(name)))
            // The client names the mailboxes that it was told of, and means the messages of
            // all that it asked for: of those that are not known here, too.
            .chain(self.current.iter().cloned())
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
            let held = &mut self.open[at];
            for guid in &wanted {
                if read(held, |index| index.message(guid))?.is_none() {
                    held.reserved.insert(*guid);
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

    /// Stores messages in every backup that reserved them, and in those that the latest
    /// GET spoke of (without one, as from a client with a cache, in all that are open) if
    /// they lack them: a message is sent once, whosever it is.
    pub(super) fn messages(&mut self, value: &Value<'_>, bodies: &[Body]) -> Result<(), Refusal> {
        let Apply::Message(files) = Apply::read(b"MESSAGE", value)? else {
            return Err(Refusal::Protocol);
        };
        if files.len() != bodies.len() {
            return Err(Refusal::Protocol);
        }
        for (file, body) in files.iter().zip(bodies) {
            self.check_guid(file, body)?;
        }
        let mut stored = 0;
        for key in self.recipients(&files) {
            let at = self.open(&key)?;
            let held = &self.open[at];
            let is_current = self.current.is_empty() || self.current.contains(&key);
            let mut wanted = Vec::new();
            for file in &files {
                let is_reserved = held.reserved.contains(&file.guid);
                let lacks = || read(held, |index| index.message(&file.guid)).map(|m| m.is_none());
                wanted.push(is_reserved || (is_current && lacks()?));
            }
            // One that has them all is not without a place for them.
            stored += usize::from(is_current);
            if wanted.iter().all(|wanted| *wanted) {
                self.append_messages(at, files.clone(), bodies)?;
                stored += 1;
                continue;
            }
            let (files, bodies): (Vec<FileHeader>, Vec<Body>) = files
                .iter()
                .zip(bodies)
                .zip(&wanted)
                .filter(|(_, wanted)| **wanted)
                .map(|((file, body), _)| (file.clone(), body.clone()))
                .unzip();
            if files.is_empty() {
                continue;
            }
            self.append_messages(at, files, &bodies)?;
            stored += 1;
        }
        // Without a backup to put them into, nothing may be acknowledged.
        if stored == 0 { Err(Refusal::Protocol) } else { Ok(()) }
    }

    /// Backups that these messages may be for: those that the latest GET spoke of, or all
    /// that are open, and those that reserved any of them.
    fn recipients(&self, files: &[FileHeader]) -> Vec<Vec<u8>> {
        let reserves = |held: &&Held| files.iter().any(|f| held.reserved.contains(&f.guid));
        let is_any = |held: &&Held| self.current.is_empty() || reserves(held);
        let mut keys = self.current.clone();
        for held in self.open.iter().filter(is_any) {
            if !keys.contains(&held.key) {
                keys.push(held.key.clone());
            }
        }
        keys
    }

    fn append_messages(
        &mut self,
        at: usize,
        files: Vec<FileHeader>,
        bodies: &[Body],
    ) -> Result<(), Refusal> {
        let (text, body_at) = message_line(&files);
        let guids: Vec<Guid> = files.iter().map(|file| file.guid).collect();
        let apply = Apply::Message(files);
        self.append(at, &Line { text: &text, body_at: &body_at, bodies, apply: &apply })?;
        guids.iter().for_each(|guid| {
            self.open[at].reserved.remove(guid);
        });
        Ok(())
    }

    fn check_guid(&self, file: &FileHeader, body: &Body) -> Result<(), Refusal> {
        let mut sha1 = Sha1::new();
        let result = self.staging.read(body, |piece| {
            sha1.update(piece);
            Ok(())
        });
        if let Err(error) = result {
            tracing::error!(%error, "cannot read a staged message");
            return Err(Refusal::Internal);
        }
        let found = Guid::from(<[u8; 20]>::from(sha1.finalize()));
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
