//! What a listing needs of an index, in one look.
//!
//! A listing opens thousands of indexes for two rows of each. So nothing is set up for more than
//! that, and one transaction has both: what is left is SQLite's reading of the definitions of
//! all tables, three quarters of the instructions.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::schema::{NEEDED_TABLES, VERSION_MAX};
use super::state::State;
use super::{ChunkRow, Index};

/// The last rows of two tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct LastRows {
    /// The chunk with the highest id.
    pub(in crate::store) last_chunk: Option<ChunkRow>,
    /// See [`Index::state`].
    pub(in crate::store) state: Option<State>,
    /// See [`Index::is_ours`].
    pub(in crate::store) is_ours: bool,
}

/// Reads them from the index at `path`. `None`: something is out of the ordinary, and
/// [`Index::open`] will set it right (the journal of one that was killed) or say what it is.
pub(in crate::store) fn last_rows(path: &Path) -> Option<LastRows> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).ok()?;
    // Whoever else is at it will not be waited for here.
    db.busy_timeout(Duration::ZERO).ok()?;
    // Ended by closing it.
    db.execute_batch("BEGIN").ok()?;
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).ok()?;
    let has = |name: &&str| db.table_exists(None, *name).unwrap_or(false);
    if !(1..=VERSION_MAX).contains(&version) || !NEEDED_TABLES.iter().all(has) {
        return None;
    }
    let index = Index::over(db);
    let (last_chunk, state) = (index.last_chunk().ok()?, index.state().ok()?);
    Some(LastRows { last_chunk, state, is_ours: index.is_ours().ok()? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::store::backup::with_suffix;
    use crate::store::file_hash::Checkpoint;
    use crate::store::index::Open;

    fn is_same_as_opened(path: &Path) {
        let index = Index::open(path, Open::Read).unwrap();
        let expected = LastRows {
            last_chunk: index.last_chunk().unwrap(),
            state: index.state().unwrap(),
            is_ours: index.is_ours().unwrap(),
        };
        assert_eq!(last_rows(path), Some(expected), "{}", path.display());
    }

    fn new_index(dir: &tempfile::TempDir) -> (PathBuf, Index) {
        let path = dir.path().join("index");
        let index = Index::open(&path, Open::Create).unwrap();
        (path, index)
    }

    #[test]
    fn what_an_index_holds() {
        let dir = tempfile::tempdir().unwrap();
        let (path, index) = new_index(&dir);
        is_same_as_opened(&path);
        index.begin().unwrap();
        for offset in [0, 700] {
            let id = index.start_chunk(-7, offset, &"f".repeat(40)).unwrap();
            index.end_chunk(id, 8, 1, &"d".repeat(40)).unwrap();
        }
        let checkpoint = Checkpoint { words: [1, u32::MAX, 0, 1, 128], hashed: 640 };
        let state = State { len_file: 700, inode: 9, checkpoint, modified: Some(-5) };
        index.set_state(&state).unwrap();
        // Nothing is seen of what is not committed.
        assert_eq!(last_rows(&path).map(|rows| rows.last_chunk), Some(None));
        index.commit().unwrap();
        let rows = last_rows(&path).unwrap();
        assert_eq!((rows.last_chunk.unwrap().offset, rows.state), (700, Some(state)));
        is_same_as_opened(&path);
        // Tables that came later may be missing.
        index.db.execute_batch("DROP TABLE sieve").unwrap();
        index.db.execute_batch("ALTER TABLE cyrbk_state DROP COLUMN mtime").unwrap();
        is_same_as_opened(&path);
        index.db.execute_batch("DROP TABLE cyrbk_state").unwrap();
        is_same_as_opened(&path);
    }

    #[test]
    fn an_index_of_cyrus() {
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("index");
        std::fs::copy("tests/fixtures/backups/main/two/b/bob_5xHD5K.index", &copy).unwrap();
        is_same_as_opened(&copy);
        assert!(!last_rows(&copy).unwrap().is_ours);
    }

    #[test]
    fn what_is_out_of_the_ordinary_is_left_to_others() {
        for change in [
            "PRAGMA user_version = 5",
            "PRAGMA user_version = 0",
            "DROP TABLE mailbox",
            "ALTER TABLE chunk RENAME COLUMN ts_start TO ts_0",
            "INSERT INTO chunk (id, file_sha1) VALUES (9, x'00')",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (path, index) = new_index(&dir);
            index.db.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
            index.db.execute_batch(change).unwrap();
            drop(index);
            assert_eq!(last_rows(&path), None, "{change}");
        }
        let dir = tempfile::tempdir().unwrap();
        let (path, _index) = new_index(&dir);
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert_eq!(last_rows(&path), None, "somebody is writing");
        other.execute_batch("COMMIT").unwrap();
        is_same_as_opened(&path);
        std::fs::write(with_suffix(&path, "-journal"), [1; 600]).unwrap();
        assert_eq!(last_rows(&path), None, "somebody was killed while writing");
        let path = dir.path().join("none");
        for octets in [&b""[..], b"SQLite format 3\0", &[0; 5000]] {
            assert_eq!(last_rows(&path), None);
            std::fs::write(&path, octets).unwrap();
        }
    }
}
