//! How much of the data file the index speaks for.
//!
//! One row, in a table of cyrbk's own: the length of the data file when the index
//! was last committed, and the state of its SHA-1 there, so that an append needs
//! to hash new octets only. A file that Cyrus wrote to meanwhile is longer than
//! `len_file`, one that was put in its place (by a compaction, or from a tape) has
//! another inode number; an index that Cyrus built has no such table.

use rusqlite::{Connection, OptionalExtension, params};

use super::schema::SchemaError;
use super::{Index, Result};
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
}

pub(super) fn create(db: &Connection) -> std::result::Result<(), SchemaError> {
    Ok(db.execute_batch(
        "CREATE TABLE IF NOT EXISTS cyrbk_state( id INTEGER PRIMARY KEY CHECK (id = 1), \
         len_file INTEGER NOT NULL, inode INTEGER NOT NULL, hashed INTEGER NOT NULL, \
         h0 INTEGER NOT NULL, h1 INTEGER NOT NULL, h2 INTEGER NOT NULL, h3 INTEGER NOT NULL, \
         h4 INTEGER NOT NULL );",
    )?)
}

impl Index {
    /// The state, if cyrbk has written to this index.
    pub fn state(&self) -> Result<Option<State>> {
        if !self.is_ours()? {
            return Ok(None);
        }
        let row = self
            .db
            .prepare_cached("SELECT len_file, inode, hashed, h0, h1, h2, h3, h4 FROM cyrbk_state")?
            .query_row([], |row| {
                let mut words = [0; 5];
                for (i, word) in words.iter_mut().enumerate() {
                    *word = row.get(i + 3)?;
                }
                let hashed = row.get::<_, i64>(2)? as u64;
                Ok(State {
                    len_file: row.get::<_, i64>(0)? as u64,
                    inode: row.get::<_, i64>(1)? as u64,
                    checkpoint: Checkpoint { words, hashed },
                })
            })
            .optional()?;
        let is_possible = |state: &State| {
            let hashed = state.checkpoint.hashed;
            hashed.is_multiple_of(64) && hashed <= state.len_file
        };
        Ok(row.filter(is_possible))
    }

    /// Whether cyrbk made this index, or has written to it.
    pub fn is_ours(&self) -> Result<bool> {
        Ok(self.db.table_exists(None, "cyrbk_state")?)
    }

    /// Remembers the state; part of the running transaction.
    pub fn set_state(&self, state: &State) -> Result<()> {
        let [h0, h1, h2, h3, h4] = state.checkpoint.words;
        let (len_file, inode) = (state.len_file as i64, state.inode as i64);
        let hashed = state.checkpoint.hashed as i64;
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO cyrbk_state (id, len_file, inode, hashed, h0, h1, h2, h3,
                 h4) VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![len_file, inode, hashed, h0, h1, h2, h3, h4])?;
        Ok(())
    }
}
