//! How much of the data file the index speaks for.
//!
//! One row, in a table of cyrbk's own: the length of the data file when the index
//! was last committed, and the state of its SHA-1 there, so that an append needs
//! to hash new octets only. A file that Cyrus wrote to meanwhile is longer than
//! `len_file`, one that was put in its place (by a compaction, or from a tape) has
//! another inode number; an index that Cyrus built has no such table.
//!
//! `mtime` is the data file's, if all its octets are known to be those that were hashed:
//! cyrbk has written them, or has looked at each since. As long as the file has that time
//! nobody has changed it, and it need not be hashed again to know that. Once anybody else has
//! changed it, no later append makes it trusted again, until all of it was hashed.

use rusqlite::{Connection, OptionalExtension, params};

use super::schema::SchemaError;
use super::{Index, Result};
use crate::store::disk::{Disk, Look};
use crate::store::file_hash::Checkpoint;

/// What is remembered between two appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Octets of the data file that the index accounts for.
    pub len_file: u64,
    /// Its inode number then.
    pub inode: u64,
    /// SHA-1 of the data file's octets up to a multiple of 64.
    pub checkpoint: Checkpoint,
    /// When the data file was last changed (see [`Disk::modified`]), if its octets are those
    /// that the checkpoint is of.
    pub modified: Option<i64>,
}

impl State {
    /// Whether `file` has not been changed since its octets were hashed. Reads none of them.
    pub fn vouches_for(&self, file: &dyn Disk) -> std::io::Result<bool> {
        Ok(self.modified.is_some() && self.fits(&file.look()?))
    }

    /// The same of a file that was looked at.
    pub fn fits(&self, file: &Look) -> bool {
        self.modified.is_some()
            && (self.len_file, self.inode, self.modified) == (file.len, file.inode, file.modified)
    }

    /// Whether it can be what a writer has left.
    fn is_possible(&self) -> bool {
        let hashed = self.checkpoint.hashed;
        hashed.is_multiple_of(64) && hashed <= self.len_file
    }
}

pub(super) fn create(db: &Connection) -> std::result::Result<(), SchemaError> {
    db.execute_batch(
        "CREATE TABLE IF NOT EXISTS cyrbk_state( id INTEGER PRIMARY KEY CHECK (id = 1), \
         len_file INTEGER NOT NULL, inode INTEGER NOT NULL, hashed INTEGER NOT NULL, \
         h0 INTEGER NOT NULL, h1 INTEGER NOT NULL, h2 INTEGER NOT NULL, h3 INTEGER NOT NULL, \
         h4 INTEGER NOT NULL, mtime INTEGER );",
    )?;
    if !db.column_exists(None, "cyrbk_state", "mtime")? {
        db.execute_batch("ALTER TABLE cyrbk_state ADD COLUMN mtime INTEGER")?;
    }
    Ok(())
}

impl Index {
    /// The state, if cyrbk has written to this index.
    pub fn state(&self) -> Result<Option<State>> {
        if !self.is_ours()? {
            return Ok(None);
        }
        // `*`: `mtime`, the last column, came later than the others.
        let mut statement = self.db.prepare_cached("SELECT * FROM cyrbk_state")?;
        let has_mtime = statement.column_count() > 9;
        let row = statement
            .query_row([], |row| {
                let mut words = [0; 5];
                for (i, word) in words.iter_mut().enumerate() {
                    *word = row.get(i + 4)?;
                }
                let hashed = row.get::<_, i64>(3)? as u64;
                Ok(State {
                    len_file: row.get::<_, i64>(1)? as u64,
                    inode: row.get::<_, i64>(2)? as u64,
                    checkpoint: Checkpoint { words, hashed },
                    modified: if has_mtime { row.get(9)? } else { None },
                })
            })
            .optional()?;
        Ok(row.filter(State::is_possible))
    }

    /// Whether cyrbk made this index, or has written to it.
    pub fn is_ours(&self) -> Result<bool> {
        Ok(self.db.table_exists(None, "cyrbk_state")?)
    }

    /// Notes when the data file was last changed, all of which was looked at. An index of an
    /// older cyrbk stays as it is.
    pub fn note_modified(&self, modified: Option<i64>) -> Result<()> {
        if self.db.column_exists(None, "cyrbk_state", "mtime")? {
            self.db.execute("UPDATE cyrbk_state SET mtime = ?1", [modified])?;
        }
        Ok(())
    }

    /// Remembers the state; part of the running transaction.
    pub fn set_state(&self, state: &State) -> Result<()> {
        let [h0, h1, h2, h3, h4] = state.checkpoint.words;
        let (len_file, inode) = (state.len_file as i64, state.inode as i64);
        let hashed = state.checkpoint.hashed as i64;
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO cyrbk_state (id, len_file, inode, hashed, h0, h1, h2, h3,
                 h4, mtime) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![len_file, inode, hashed, h0, h1, h2, h3, h4, state.modified])?;
        Ok(())
    }
}
