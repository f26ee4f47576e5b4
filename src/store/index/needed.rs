//! Chunks that a compaction has kept for a line that no row points at: an UNMAILBOX, UNSIEVE or
//! EXPUNGE, or the record that says since when a message is expunged.
//!
//! Without this the next compaction could only find out by reading the whole log that there is
//! nothing to gain. The table is cyrbk's own and only a hint: without it, the log is read.

use std::ops::Range;

use rusqlite::Connection;

use super::schema::SchemaError;
use super::{Index, Result};

pub(super) fn create(db: &Connection) -> std::result::Result<(), SchemaError> {
    Ok(db.execute_batch(
        "CREATE TABLE IF NOT EXISTS cyrbk_needed( chunk_id INTEGER NOT NULL, ts INTEGER NOT NULL, \
         PRIMARY KEY (chunk_id, ts) ) WITHOUT ROWID;",
    )?)
}

impl Index {
    /// Whether [`Index::live_chunks`] can tell: the index has this table, and that of what is gone.
    /// One that cyrbk has not written to has none of its own.
    pub fn knows_needs(&self) -> Result<bool> {
        Ok(self.db.table_exists(None, "cyrbk_needed")? && self.has_gone()?)
    }

    /// A chunk is needed as long as something is there that was deleted or expunged at these
    /// times, Unix time.
    pub fn need_chunk(&self, chunk_id: i64, times: &[i64]) -> Result<()> {
        let mut statement =
            self.db.prepare_cached("INSERT OR IGNORE INTO cyrbk_needed VALUES (?1, ?2)")?;
        times.iter().try_for_each(|ts| statement.execute([chunk_id, *ts]).map(drop))?;
        Ok(())
    }

    /// Notes, in the index of a compaction, that a line stays for what was deleted or expunged
    /// at `ts`. Of several times the last one counts.
    pub fn hold_line(&self, line: i64, ts: i64) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO held_line VALUES (?1, ?2)
                 ON CONFLICT (line) DO UPDATE SET ts = max(ts, excluded.ts)",
            )?
            .execute([line, ts])?;
        Ok(())
    }

    /// The times for which lines of these stay.
    pub fn held_times(&self, lines: &Range<i64>) -> Result<Vec<i64>> {
        let query = "SELECT DISTINCT ts FROM held_line WHERE line >= ?1 AND line < ?2";
        self.rows(query, [lines.start, lines.end], |row| row.get(0))
    }
}
