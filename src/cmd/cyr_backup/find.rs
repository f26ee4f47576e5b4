//! What the names mean that people type: mailboxes and messages of one backup.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::dump::UNKNOWN;
use super::{Failure, Look};
use crate::cmd::mailbox_name;
use crate::store::StoreError;
use crate::store::index::{Index, MailboxRow, MessageRow, Result as IndexResult};
use crate::store::message::{MessageError, StoredMessage};
use crate::wire::Guid;

impl Look<'_> {
    pub(super) fn index<T>(
        &self,
        read: impl FnOnce(&Index) -> IndexResult<T>,
    ) -> Result<T, Failure> {
        read(self.backup.index())
            .map_err(|e| Failure::Store(StoreError::index(self.backup.path())(e)))
    }

    /// That an item is not in the backup. Cyrus does not say which.
    pub(super) fn unknown(&self, item: &str) -> Failure {
        Failure::Text(if self.own_words { format!("{item}: {UNKNOWN}") } else { UNKNOWN.into() })
    }

    /// As Cyrus finds it: by uniqueid, else by external name; of several the latest, whether it
    /// lives or not.
    pub(super) fn find_mailbox_as_cyrus(
        &self,
        operand: &OsString,
    ) -> Result<Option<MailboxRow>, Failure> {
        let operand = operand.as_bytes();
        if let Some(row) = self.index(|index| index.mailbox_with_uniqueid(operand))? {
            return Ok(Some(row));
        }
        let names = &self.settings.names;
        let name = mailbox_name::internal(names, operand);
        let found = self.index(|index| index.latest_mailbox_named(&name))?;
        if found.is_some() || names.unixhierarchysep {
            return Ok(found);
        }
        // Where separators are dots, `domain!user.name` stays what it is.
        self.index(|index| index.latest_mailbox_named(operand))
    }

    /// By uniqueid, else by external name, else by internal name, which is what lists have; of
    /// several the one that lives, else the latest.
    pub(super) fn find_mailbox(&self, operand: &OsString) -> Result<Option<MailboxRow>, Failure> {
        let operand = operand.as_bytes();
        if let Some(row) = self.index(|index| index.mailbox_with_uniqueid(operand))? {
            return Ok(Some(row));
        }
        let external = mailbox_name::internal(&self.settings.names, operand);
        for name in [external.as_slice(), operand] {
            if let Some(row) = self.index(|index| index.mailbox_named(name))? {
                return Ok(Some(row));
            }
            if let Some(row) = self.index(|index| index.latest_mailbox_named(name))? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// By GUID in either case; `None` if the word is none.
    pub(super) fn find_message(&self, operand: &OsString) -> Result<Option<MessageRow>, Failure> {
        match Guid::from_hex(operand.as_bytes()) {
            Some(guid) => self.index(|index| index.message(&guid)),
            None => Ok(None),
        }
    }

    /// The octets of a message; `None` if it is not known.
    pub(super) fn content(&self, guid: &Guid) -> Result<Option<Vec<u8>>, Failure> {
        match StoredMessage::read(self.backup, guid, &self.settings.backup_staging_path) {
            Ok(message) => {
                let mut octets = Vec::new();
                message.write_to(&mut octets)?;
                Ok(Some(octets))
            }
            Err(MessageError::Unknown { .. }) => Ok(None),
            Err(MessageError::Store(error)) => Err(Failure::Store(error)),
            Err(error) => Err(Failure::Text(error.to_string())),
        }
    }
}
