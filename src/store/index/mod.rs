//! The index of one backup: an SQLite file beside the data file, with exactly
//! Cyrus's tables, so that its tools read it; tables of cyrbk's own have names
//! that begin with `cyrbk_`, which Cyrus ignores. All SQL is in this folder.
//!
//! The index can be rebuilt from the data file at any time. Its changes of one
//! chunk are one transaction, committed after the data they speak of were synced.

mod apply;
mod audit;
mod by_chunk;
mod doubt;
mod figures;
mod gone;
mod last_rows;
mod moment;
mod needed;
mod own;
mod provenance;
mod read;
mod restart;
mod schema;
mod sources;
mod state;
mod truth;
mod whole;
#[cfg(test)]
pub(crate) mod work;

use std::cell::Cell as StdCell;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, ToSql, params};

pub use apply::Position;
pub use audit::{Cell, Rows, Table, TableSum, UnsentRow};
pub use by_chunk::LinkRow;
pub use figures::Place;
pub(in crate::store) use last_rows::last_rows;
pub use own::{ActiveRow, AnnotationRow};
pub use provenance::Wanted;
pub use read::{MailboxRow, MessageRow, RecordRow, SeenRow, SieveRow};
pub use restart::RestartPoint;
use schema::SchemaError;
pub use sources::{Kept, Note, NoteKind, Source};
pub use state::State;

/// How long a statement waits for another process's transaction: as in Cyrus.
const BUSY_MS: std::time::Duration = std::time::Duration::from_secs(20);

/// Memory for pages of an index that is thrown away.
const SCRATCH_CACHE_KIB: u32 = 8 * 1024;

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// It is empty, damaged or not a backup's index: only building it again helps.
    #[error("{path}: {what}")]
    Unusable {
        /// The index file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Some later program made it; it is left alone.
    #[error("{path}: index version {version} is newer than the newest known")]
    Newer {
        /// The index file.
        path: PathBuf,
        /// Its `user_version`.
        version: i64,
    },
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl IndexError {
    /// Whether there was no room: for temporary files, unless the index was written to.
    pub fn is_full(&self) -> bool {
        match self {
            IndexError::Sqlite(error) => error.sqlite_error_code() == Some(ErrorCode::DiskFull),
            _ => false,
        }
    }

    /// Whether the index is broken, and not just busy, out of reach or on a full
    /// disk: then building it again from the data helps.
    pub fn is_damage(&self) -> bool {
        match self {
            IndexError::Unusable { .. } => true,
            IndexError::Newer { .. } => false,
            IndexError::Sqlite(error) => is_damage(error),
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TypeMismatch)
    ) || matches!(
        error,
        rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..)
    )
}

/// Result of index operations.
pub type Result<T> = std::result::Result<T, IndexError>;

/// How to open an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// It must exist; nothing is written to it.
    Read,
    /// It must exist.
    Write,
    /// It is made if it is missing or empty.
    Create,
    /// It is made, and means nothing to anybody before whoever makes it has synced the file behind
    /// the first commit, which does not: what is left of it otherwise is no index.
    Build,
}

/// A row of table `chunk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// Not stable: compaction and reindexing renumber.
    pub id: i64,
    /// Unix time, seconds.
    pub ts_start: i64,
    /// Unix time, seconds.
    pub ts_end: i64,
    /// Offset of the member in the data file.
    pub offset: u64,
    /// Inflated octets.
    pub length: u64,
    /// SHA-1 of the data file in front of `offset`, hex.
    pub file_sha1: String,
    /// SHA-1 of the inflated octets, hex.
    pub data_sha1: String,
}

/// An open index.
pub struct Index {
    db: Connection,
    /// A transaction is open only to read, see [`Index::hold`].
    is_held: StdCell<bool>,
    /// Lines of the log are known to be missing, see [`Index::miss_lines`].
    misses_lines: StdCell<bool>,
}

impl Index {
    /// Opens the index at `path`.
    ///
    /// Errors: [`IndexError::Unusable`] if it is no database, damaged or not a
    /// backup's index, [`IndexError::Newer`], [`IndexError::Sqlite`] for all that may
    /// be over at the next try.
    pub fn open(path: &Path, mode: Open) -> Result<Index> {
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX
            | match mode {
                // A hot journal must be rolled back, which takes write access.
                Open::Read | Open::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
                Open::Create | Open::Build => {
                    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
                }
            };
        let db = Connection::open_with_flags(path, flags)?;
        #[cfg(test)]
        let db = work::watched(db)?;
        let index = Index::over(db);
        let configured = index.configure(mode).map_err(SchemaError::from);
        let prepared = configured.and_then(|()| schema::prepare(&index.db, mode));
        match prepared {
            Ok(()) => Ok(index),
            Err(SchemaError::Newer(version)) => {
                Err(IndexError::Newer { path: path.to_owned(), version })
            }
            Err(SchemaError::Sqlite(error)) if !is_damage(&error) => Err(error.into()),
            Err(what) => {
                Err(IndexError::Unusable { path: path.to_owned(), what: what.to_string() })
            }
        }
    }

    fn over(db: Connection) -> Index {
        Index { db, is_held: StdCell::new(false), misses_lines: StdCell::new(false) }
    }

    /// An index of its own in memory, spilled to a temporary file when large.
    pub fn scratch() -> Result<Index> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags("", flags)?;
        let index = Index::over(db);
        index.configure(Open::Create)?;
        // It need not be small, but fast.
        index.db.execute_batch("PRAGMA page_size = 4096")?;
        index.work_on_disk(SCRATCH_CACHE_KIB)?;
        schema::prepare(&index.db, Open::Create).map_err(|what| IndexError::Unusable {
            path: PathBuf::new(),
            what: what.to_string(),
        })?;
        Ok(index)
    }

    /// For work on all rows at once: what is sorted goes to temporary files, and at most so much
    /// of the index is held in memory.
    pub(in crate::store) fn work_on_disk(&self, cache_kib: u32) -> Result<()> {
        let script = format!("PRAGMA temp_store = FILE; PRAGMA cache_size = -{cache_kib};");
        Ok(self.db.execute_batch(&script)?)
    }

    fn configure(&self, mode: Open) -> rusqlite::Result<()> {
        self.db.busy_timeout(BUSY_MS)?;
        self.db.set_prepared_statement_cache_capacity(64);
        // Otherwise a statement is compiled anew for each new value of its parameters.
        self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        // Cyrus renames the index as a single file: no write-ahead log. FULL: a
        // commit that returned survives a power cut. Rows refer to rows just looked up or
        // made, and none is ever deleted: to have that checked costs a third of the time.
        self.db.execute_batch(
            "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF;
             PRAGMA secure_delete = OFF; PRAGMA temp_store = MEMORY;",
        )?;
        if mode != Open::Read {
            // GUIDs are random keys: a cache of 16 MiB makes large chunks 1.4 times as fast.
            // A new index has some thirty tables and indexes, of which each has a page: four times
            // as large a file with pages of SQLite's usual size. Large ones are none the worse.
            self.db.execute_batch("PRAGMA cache_size = -16384; PRAGMA page_size = 1024;")?;
        }
        if mode == Open::Build {
            // There is no earlier state that a journal would have to bring back.
            self.db.execute_batch("PRAGMA journal_mode = MEMORY")?;
        }
        Ok(())
    }

    /// Asks several things: the file is locked, and looked at for changes, once for all of
    /// them. Nothing is to be written meanwhile.
    pub(in crate::store) fn at_once<T>(&self, ask: impl FnOnce(&Index) -> T) -> Result<T> {
        if !self.db.is_autocommit() {
            return Ok(ask(self));
        }
        self.db.execute_batch("BEGIN")?;
        let answer = ask(self);
        self.end_reading()?;
        Ok(answer)
    }

    /// After an error of the disk SQLite has ended the transaction by itself.
    fn end_reading(&self) -> rusqlite::Result<()> {
        if self.db.is_autocommit() { Ok(()) } else { self.db.execute_batch("COMMIT") }
    }

    /// Whether every page can be read and is what it should be. Reads all of them.
    pub(in crate::store) fn is_intact(&self) -> Result<bool> {
        // Of this alone: a temporary database, once it is open, stays where it is.
        let script = "PRAGMA main.quick_check(1)";
        let found: String = self.db.query_row(script, [], |row| row.get(0))?;
        Ok(found == "ok")
    }

    /// From now on, until [`Index::begin`], all questions are asked at once: for whoever holds
    /// the lock of the data file, so that nobody wants to write meanwhile.
    pub(in crate::store) fn hold(&self) -> Result<()> {
        self.db.execute_batch("BEGIN")?;
        self.is_held.set(true);
        Ok(())
    }

    /// Ends what [`Index::hold`] has begun; whether it had.
    fn let_go(&self) -> Result<bool> {
        let was_held = self.is_held.replace(false);
        if was_held {
            self.end_reading()?;
        }
        Ok(was_held)
    }

    /// Begins the transaction of a chunk. Others still see the index as it was.
    pub fn begin(&self) -> Result<()> {
        self.let_go()?;
        Ok(self.db.execute_batch("BEGIN IMMEDIATE")?)
    }

    /// Commits. When this returns `Ok` the rows survive a power cut, but for [`Open::Build`].
    pub fn commit(&self) -> Result<()> {
        Ok(self.db.execute_batch("COMMIT")?)
    }

    /// Forgets everything since [`Index::begin`].
    pub fn rollback(&self) -> Result<()> {
        // That of [`Index::hold`] would be ended too.
        self.is_held.set(false);
        Ok(self.db.execute_batch("ROLLBACK")?)
    }

    /// Makes the index behave as on a full disk once it has grown by so many pages.
    #[cfg(test)]
    pub(crate) fn limit_growth(&self, pages: i64) -> Result<()> {
        let now: i64 = self.db.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let limit = format!("PRAGMA max_page_count = {}", now + pages);
        Ok(self.db.query_row(&limit, [], |_| Ok(()))?)
    }

    /// Adds the row of a chunk that begins at `offset`.
    pub fn start_chunk(&self, ts: i64, offset: u64, file_sha1: &str) -> Result<i64> {
        self.db
            .prepare_cached(
                "INSERT INTO chunk (ts_start, ts_end, offset, length, file_sha1, data_sha1)
                 VALUES (?1, NULL, ?2, NULL, ?3, NULL)",
            )?
            .execute(params![ts, offset as i64, file_sha1])?;
        Ok(self.db.last_insert_rowid())
    }

    /// Completes the row of a chunk.
    pub fn end_chunk(&self, id: i64, ts: i64, length: u64, data_sha1: &str) -> Result<()> {
        self.db
            .prepare_cached(
                "UPDATE chunk SET ts_end = ?2, length = ?3, data_sha1 = ?4 WHERE id = ?1",
            )?
            .execute(params![id, ts, length as i64, data_sha1])?;
        Ok(())
    }

    /// All chunks in row order.
    pub fn chunks(&self) -> Result<Vec<ChunkRow>> {
        let mut statement = self.db.prepare_cached(&chunk_query("ORDER BY id"))?;
        let rows = statement.query_map([], chunk_row)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// All chunks in the order of the file, some at a time. Those without an offset, which were
    /// never finished, come first.
    pub fn chunks_by_offset(&self) -> impl Iterator<Item = Result<ChunkRow>> {
        let unfinished = match self.chunks_where("offset IS NULL", params![]) {
            Ok(rows) => rows.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        let key = |row: &ChunkRow| row.offset as i64;
        unfinished.into_iter().chain(self.chunk_pages("offset", key))
    }

    /// All chunks in row order, some at a time.
    pub fn chunks_by_id(&self) -> impl Iterator<Item = Result<ChunkRow>> {
        self.chunk_pages("id", |row| row.id)
    }

    fn chunk_pages(
        &self,
        column: &str,
        key: impl Fn(&ChunkRow) -> i64,
    ) -> impl Iterator<Item = Result<ChunkRow>> {
        let condition = format!("{column} > ?1 ORDER BY {column} LIMIT 256");
        let mut page = Vec::new().into_iter();
        let mut behind = i64::MIN;
        std::iter::from_fn(move || {
            if page.as_slice().is_empty() {
                match self.chunks_where(&condition, [behind]) {
                    Ok(rows) => page = rows.into_iter(),
                    Err(error) => return Some(Err(error)),
                }
            }
            let row = page.next()?;
            behind = key(&row);
            Some(Ok(row))
        })
    }

    fn chunks_where(
        &self,
        condition: &str,
        params: impl rusqlite::Params,
    ) -> Result<Vec<ChunkRow>> {
        self.rows(&chunk_query(&format!("WHERE {condition}")), params, chunk_row)
    }

    /// The chunk with the highest id.
    pub fn last_chunk(&self) -> Result<Option<ChunkRow>> {
        let query = chunk_query("ORDER BY id DESC LIMIT 1");
        Ok(self.db.prepare_cached(&query)?.query_row([], chunk_row).optional()?)
    }

    /// One chunk.
    pub fn chunk(&self, id: i64) -> Result<Option<ChunkRow>> {
        let query = chunk_query("WHERE id = ?1");
        Ok(self.db.prepare_cached(&query)?.query_row([id], chunk_row).optional()?)
    }
}

fn chunk_query(tail: &str) -> String {
    format!("SELECT id, ts_start, ts_end, offset, length, file_sha1, data_sha1 FROM chunk {tail}")
}

/// NULLs are what an index that was never finished holds: they read as zero and
/// as hashes that match nothing.
fn chunk_row(row: &Row<'_>) -> rusqlite::Result<ChunkRow> {
    let number = |i| row.get::<_, Option<i64>>(i).map(Option::unwrap_or_default);
    Ok(ChunkRow {
        id: row.get(0)?,
        ts_start: number(1)?,
        ts_end: number(2)?,
        offset: number(3)? as u64,
        length: number(4)? as u64,
        file_sha1: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
        data_sha1: row.get::<_, Option<String>>(6)?.unwrap_or_default(),
    })
}

/// Octets stored as TEXT: names are seldom, but may be, other than UTF-8, and
/// Cyrus's tools insist on the type.
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// A text column as octets; NULL is `None`.
fn octets(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Vec<u8>>> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(text) | ValueRef::Blob(text) => Some(text.to_vec()),
        _ => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// As SQLite does by itself after an error of the disk, and a writer after any.
    #[test]
    fn reading_may_have_ended_before_it_is_ended() {
        let index = Index::scratch().unwrap();
        let ends: [fn(&Index); 2] = [
            |index| index.db.execute_batch("ROLLBACK").unwrap(),
            |index| index.rollback().unwrap(),
        ];
        for end in ends {
            index.hold().unwrap();
            end(&index);
            index.begin().unwrap();
            index.start_chunk(1, index.chunks().unwrap().len() as u64, "").unwrap();
            index.commit().unwrap();
        }
        let answer = index.at_once(|index| {
            index.db.execute_batch("ROLLBACK").unwrap();
            index.chunks().map(|chunks| chunks.len())
        });
        assert_eq!(answer.unwrap().unwrap(), 2);
    }
}
