//! What a restore reads: a backup as it is, or as it was.

use crate::store::Backup;
use crate::store::error::Result;
use crate::store::exact::{Damage, Truth};
use crate::store::index::Index;

/// A backup, where the messages are, and an index that says all that is to be restored.
pub struct View<'b> {
    truth: Truth<'b>,
}

impl<'b> View<'b> {
    /// The latest state. Where Cyrus has written the index, the data are read once.
    pub fn now(backup: &'b Backup) -> Result<View<'b>> {
        Ok(View { truth: Truth::of(backup)? })
    }

    /// The messages' place.
    pub fn backup(&self) -> &Backup {
        self.truth.backup()
    }

    /// What is to be restored.
    pub fn index(&self) -> &Index {
        self.truth.index()
    }

    /// What could not be read, and may have said that there is more to be restored.
    pub fn damages(&self) -> &[Damage] {
        self.truth.damages()
    }
}
