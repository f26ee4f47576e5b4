//! Where reading can begin inside a chunk.
//!
//! A full flush of the compressor at the end of a line leaves nothing in front of it
//! that what follows refers to: a reader can begin there, and the cost of one message
//! is that of the message and not of its chunk. The table is cyrbk's own and only a
//! hint: without it reading begins at the member's beginning.

use rusqlite::{Connection, OptionalExtension, params};

use super::schema::SchemaError;
use super::{Index, Result};

/// A place behind a full flush, between two lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPoint {
    /// Inflated octets of the chunk in front of it.
    pub offset_plain: u64,
    /// Octets of the data file in front of it.
    pub offset_file: u64,
}

pub(super) fn create(db: &Connection) -> std::result::Result<(), SchemaError> {
    Ok(db.execute_batch(
        "CREATE TABLE IF NOT EXISTS cyrbk_restart( chunk_id INTEGER NOT NULL, offset_plain \
         INTEGER NOT NULL, offset_file INTEGER NOT NULL, PRIMARY KEY (chunk_id, offset_plain) ) \
         WITHOUT ROWID;",
    )?)
}

impl Index {
    /// Remembers a point.
    pub fn add_restart_point(&self, chunk_id: i64, point: RestartPoint) -> Result<()> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO cyrbk_restart (chunk_id, offset_plain, offset_file)
                 VALUES (?1, ?2, ?3)",
            )?
            .execute(params![chunk_id, point.offset_plain as i64, point.offset_file as i64])?;
        Ok(())
    }

    /// The points of a chunk, in the order of their offsets.
    pub fn restart_points(&self, chunk_id: i64) -> Result<Vec<RestartPoint>> {
        if !self.db.table_exists(None, "cyrbk_restart")? {
            return Ok(Vec::new());
        }
        let query = "SELECT offset_plain, offset_file FROM cyrbk_restart WHERE chunk_id = ?1
                     ORDER BY offset_plain";
        self.rows(query, [chunk_id], |row| {
            Ok(RestartPoint {
                offset_plain: row.get::<_, i64>(0)? as u64,
                offset_file: row.get::<_, i64>(1)? as u64,
            })
        })
    }

    /// The points of all chunks, in the order of the data file.
    pub fn all_restart_points(&self) -> Result<Vec<RestartPoint>> {
        if !self.db.table_exists(None, "cyrbk_restart")? {
            return Ok(Vec::new());
        }
        let query = "SELECT offset_plain, offset_file FROM cyrbk_restart ORDER BY offset_file";
        self.rows(query, [], |row| {
            Ok(RestartPoint {
                offset_plain: row.get::<_, i64>(0)? as u64,
                offset_file: row.get::<_, i64>(1)? as u64,
            })
        })
    }

    /// The last point of a chunk at or in front of a line, if there is any.
    pub fn restart_point(&self, chunk_id: i64, offset_plain: u64) -> Result<Option<RestartPoint>> {
        if !self.db.table_exists(None, "cyrbk_restart")? {
            return Ok(None);
        }
        let query = "SELECT offset_plain, offset_file FROM cyrbk_restart WHERE chunk_id = ?1 AND
                     offset_plain <= ?2 ORDER BY offset_plain DESC LIMIT 1";
        Ok(self
            .db
            .prepare_cached(query)?
            .query_row(params![chunk_id, offset_plain as i64], |row| {
                Ok(RestartPoint {
                    offset_plain: row.get::<_, i64>(0)? as u64,
                    offset_file: row.get::<_, i64>(1)? as u64,
                })
            })
            .optional()?)
    }
}
