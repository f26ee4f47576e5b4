//! What a restore reads: a backup as it is, or as it was.

use crate::store::error::Result;
use crate::store::index::Index;
use crate::store::{Backup, exact};

/// A backup, where the messages are, and an index that says all that is to be restored.
pub struct View<'b> {
    backup: &'b Backup,
    /// Unless the backup's own says it.
    index: Option<Index>,
}

impl<'b> View<'b> {
    /// The latest state. Where Cyrus has written the index, the data are read once.
    pub fn now(backup: &'b Backup) -> Result<View<'b>> {
        Ok(View { backup, index: exact::whole_index(backup)? })
    }

    /// The messages' place.
    pub fn backup(&self) -> &Backup {
        self.backup
    }

    /// What is to be restored.
    pub fn index(&self) -> &Index {
        self.index.as_ref().unwrap_or(self.backup.index())
    }
}
