//! The last rows of two tables, read from the index file without SQLite.
//!
//! A listing wants two rows of each backup. To open a database costs a hundred times as much as
//! to read them: SQLite reads and compiles the definitions of all tables first. Here is as much
//! of the [file format](https://sqlite.org/fileformat2.html) as it takes to find the last row of
//! a table.
//!
//! It is as right as SQLite's answer, which would hold the same lock and look for the same
//! journal. Whatever is out of the ordinary (a journal, a lock of somebody's, another
//! definition of a table, rows too large for a page, pages that make no sense) gives `None`: SQLite
//! is to be asked, and says what is wrong if anything is.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::ChunkRow;
use super::schema::{CHUNK_TABLE, NEEDED_TABLES, VERSION_MAX};
use super::state::{self, State};
use crate::store::backup::with_suffix;
use crate::store::file_hash::Checkpoint;

/// What a listing needs of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct LastRows {
    /// The chunk with the highest id.
    pub(in crate::store) last_chunk: Option<ChunkRow>,
    /// See [`super::Index::state`].
    pub(in crate::store) state: Option<State>,
    /// See [`super::Index::is_ours`].
    pub(in crate::store) is_ours: bool,
}

/// Reads them from the index at `path`. `None`: SQLite is to be asked.
///
/// The exclusive lock of the data file is held: so no other connection of this process is open,
/// whose locks would go when the file is closed here.
pub(in crate::store) fn last_rows(path: &Path) -> Option<LastRows> {
    let file = File::open(path).ok()?;
    share(&file)?;
    // With that lock held nobody is writing to the file. A journal may be what somebody left who
    // died while writing.
    if with_suffix(path, "-journal").exists() {
        return None;
    }
    Pages::open(&file)?.last_rows()
}

/// Takes the lock that SQLite takes to read (`SHARED` in its `os.h`), until the file is closed.
fn share(file: &File) -> Option<()> {
    let request = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0x4000_0002,
        l_len: 510,
        l_pid: 0,
    };
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&request)).ok().map(drop)
}

/// Octets of the header of the file.
const HEADER: usize = 100;
/// Octets that are read at once.
const HEAD: u64 = 32 * 1024;
/// Text in UTF-8.
const UTF8: u32 = 1;
/// Pages of a tree between its root and a leaf.
const DEPTH_MAX: usize = 20;
/// Pages of table definitions.
const SCHEMA_PAGES_MAX: usize = 64;

const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

struct Pages<'f> {
    file: &'f File,
    size: usize,
    count: u32,
    /// How the file begins: all of a small one.
    head: Vec<u8>,
}

struct Page<'p> {
    octets: Cow<'p, [u8]>,
    /// Where the header of the tree's page begins.
    start: usize,
    is_leaf: bool,
    cells: usize,
}

/// A column of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'p> {
    Null,
    Integer(i64),
    Text(&'p str),
}

impl<'f> Pages<'f> {
    /// Reads the header of the file.
    fn open(file: &'f File) -> Option<Pages<'f>> {
        let len_file = file.metadata().ok()?.len();
        let mut head = vec![0; len_file.min(HEAD) as usize];
        if head.len() < HEADER {
            return None;
        }
        file.read_exact_at(&mut head, 0).ok()?;
        let size = match u16::from_be_bytes([head[16], head[17]]) {
            1 => 65_536,
            size => usize::from(size),
        };
        // Rollback journal, no octets reserved, the payload fractions that there are.
        let is_plain =
            head.starts_with(b"SQLite format 3\0") && head[18..24] == [1, 1, 0, 64, 32, 32];
        let (changes, valid_for) = (word(&head, 24)?, word(&head, 92)?);
        let version = i64::from(word(&head, 60)?);
        let is_known = word(&head, 56)? == UTF8 && (1..=VERSION_MAX).contains(&version);
        let count = word(&head, 28)?;
        if !is_plain || !is_known || changes != valid_for || !size.is_power_of_two() || size < 512 {
            return None;
        }
        (len_file == u64::from(count) * size as u64).then_some(())?;
        Some(Pages { file, size, count, head })
    }

    fn last_rows(&self) -> Option<LastRows> {
        let mut roots = Roots::default();
        self.schema(1, &mut { SCHEMA_PAGES_MAX }, &mut roots)?;
        if roots.needed != NEEDED_TABLES.len() {
            return None;
        }
        let last_chunk = self.last_row(roots.chunk?, chunk_row)?;
        let state = match roots.state {
            Some(root) => self.last_row(root, state_row)?,
            None => None,
        };
        let state = state.filter(State::is_possible);
        Some(LastRows { last_chunk, state, is_ours: roots.state.is_some() })
    }

    /// Looks through the definitions below a page of their table.
    fn schema(&self, number: u32, pages_left: &mut usize, roots: &mut Roots) -> Option<()> {
        *pages_left = pages_left.checked_sub(1)?;
        let page = self.page(number)?;
        for i in 0..page.cells {
            if page.is_leaf {
                let (_, payload) = page.row(i)?;
                roots.note(&columns::<5>(payload)?)?;
            } else {
                self.schema(page.child(i)?, pages_left, roots)?;
            }
        }
        if page.is_leaf { Some(()) } else { self.schema(page.last_child()?, pages_left, roots) }
    }

    /// The row with the highest id of the table at `root`, if it has any.
    fn last_row<T>(
        &self,
        root: u32,
        read: impl FnOnce(i64, &[u8]) -> Option<T>,
    ) -> Option<Option<T>> {
        let mut number = root;
        for _ in 0..DEPTH_MAX {
            let page = self.page(number)?;
            if !page.is_leaf {
                number = page.last_child()?;
            } else if page.cells > 0 {
                let (id, payload) = page.row(page.cells - 1)?;
                return read(id, payload).map(Some);
            } else {
                return (number == root).then_some(None);
            }
        }
        None
    }

    fn page(&self, number: u32) -> Option<Page<'_>> {
        if number == 0 || number > self.count {
            return None;
        }
        let at = u64::from(number - 1) * self.size as u64;
        let is_in_head = at + self.size as u64 <= self.head.len() as u64;
        let octets = if is_in_head {
            Cow::Borrowed(self.head.get(at as usize..)?.get(..self.size)?)
        } else {
            let mut octets = vec![0; self.size];
            self.file.read_exact_at(&mut octets, at).ok()?;
            Cow::Owned(octets)
        };
        let start = if number == 1 { HEADER } else { 0 };
        let is_leaf = match *octets.get(start)? {
            LEAF => true,
            INTERIOR => false,
            _ => return None,
        };
        let cells = half(&octets, start + 3)?;
        Some(Page { octets, start, is_leaf, cells })
    }
}

impl Page<'_> {
    fn cell(&self, i: usize) -> Option<usize> {
        half(&self.octets, self.start + if self.is_leaf { 8 } else { 12 } + 2 * i)
    }

    fn child(&self, i: usize) -> Option<u32> {
        word(&self.octets, self.cell(i)?)
    }

    fn last_child(&self) -> Option<u32> {
        word(&self.octets, self.start + 8)
    }

    /// Id and octets of a row; none of which lies outside the page.
    fn row(&self, i: usize) -> Option<(i64, &[u8])> {
        let mut rest = self.octets.get(self.cell(i)?..)?;
        let len = usize::try_from(varint(&mut rest)?).ok()?;
        let id = varint(&mut rest)?;
        // What is longer goes on elsewhere.
        (len <= self.octets.len() - 35).then_some(())?;
        Some((id, rest.get(..len)?))
    }
}

/// Where the tables begin.
#[derive(Default)]
struct Roots {
    chunk: Option<u32>,
    state: Option<u32>,
    /// How many of the tables that every index has were met.
    needed: usize,
}

impl Roots {
    /// Takes note of a definition: type, name, table, root page, text. `None`: it is
    /// not the one that is known.
    fn note(&mut self, definition: &[Value<'_>; 5]) -> Option<()> {
        let &[Value::Text("table"), Value::Text(name), _, Value::Integer(root), Value::Text(sql)] =
            definition
        else {
            return Some(());
        };
        let root = u32::try_from(root).ok()?;
        match name {
            "chunk" if sql != CHUNK_TABLE.trim_end_matches(';') => return None,
            "cyrbk_state" if !sql.starts_with(state::TABLE) => return None,
            "chunk" => self.chunk = Some(root),
            "cyrbk_state" => self.state = Some(root),
            _ => {}
        }
        self.needed += usize::from(NEEDED_TABLES.contains(&name));
        Some(())
    }
}

fn chunk_row(id: i64, payload: &[u8]) -> Option<ChunkRow> {
    let columns = columns::<7>(payload)?;
    let number = |i: usize| match columns[i] {
        Value::Integer(number) => Some(number),
        Value::Null => Some(0),
        Value::Text(_) => None,
    };
    let text = |i: usize| match columns[i] {
        Value::Text(text) => Some(text.to_owned()),
        Value::Null => Some(String::new()),
        Value::Integer(_) => None,
    };
    Some(ChunkRow {
        id,
        ts_start: number(1)?,
        ts_end: number(2)?,
        offset: number(3)? as u64,
        length: number(4)? as u64,
        file_sha1: text(5)?,
        data_sha1: text(6)?,
    })
}

fn state_row(_: i64, payload: &[u8]) -> Option<State> {
    // `mtime`, the last column, may not be there.
    let columns = columns::<10>(payload)?;
    let number = |i: usize| match columns[i] {
        Value::Integer(number) => Some(number),
        _ => None,
    };
    let mut words = [0; 5];
    for (i, word) in words.iter_mut().enumerate() {
        *word = u32::try_from(number(i + 4)?).ok()?;
    }
    let modified = if columns[9] == Value::Null { None } else { Some(number(9)?) };
    let checkpoint = Checkpoint { words, hashed: number(3)? as u64 };
    Some(State { len_file: number(1)? as u64, inode: number(2)? as u64, checkpoint, modified })
}

/// The first `N` columns of a row; those that it does not have are NULL.
fn columns<const N: usize>(payload: &[u8]) -> Option<[Value<'_>; N]> {
    let mut rest = payload;
    let len_header = usize::try_from(varint(&mut rest)?).ok()?;
    let mut types = payload.get(payload.len() - rest.len()..len_header)?;
    let mut body = payload.get(len_header..)?;
    let mut found = [Value::Null; N];
    for value in &mut found {
        if types.is_empty() {
            break;
        }
        *value = column(varint(&mut types)?, &mut body)?;
    }
    Some(found)
}

fn column<'p>(serial_type: i64, body: &mut &'p [u8]) -> Option<Value<'p>> {
    let len = match serial_type {
        0 | 8 | 9 => 0,
        1..=4 => serial_type as usize,
        5 => 6,
        6 => 8,
        // Text; floating point numbers and blobs are out of place.
        13.. if serial_type % 2 == 1 => usize::try_from((serial_type - 13) / 2).ok()?,
        _ => return None,
    };
    let (octets, rest) = body.split_at_checked(len)?;
    *body = rest;
    Some(match serial_type {
        0 => Value::Null,
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        1..=6 => {
            let sign = if octets[0] & 0x80 != 0 { -1 } else { 0 };
            Value::Integer(octets.iter().fold(sign, |n, &octet| n << 8 | i64::from(octet)))
        }
        _ => Value::Text(std::str::from_utf8(octets).ok()?),
    })
}

/// A number of one to nine octets, the first ones with seven bits each.
fn varint(octets: &mut &[u8]) -> Option<i64> {
    let mut number = 0;
    for i in 0..9 {
        let (&octet, rest) = octets.split_first()?;
        *octets = rest;
        if i == 8 {
            return Some(number << 8 | i64::from(octet));
        }
        number = number << 7 | i64::from(octet & 0x7f);
        if octet & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}

fn half(octets: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?)))
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::*;
    use crate::store::index::{Index, Open};

    fn same_as_sqlite(path: &Path) {
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

    fn state(number: u32) -> State {
        let checkpoint = Checkpoint { words: [number, u32::MAX, 0, 1, 128], hashed: 1 << 40 };
        let modified = number.is_multiple_of(2).then_some(-5);
        State { len_file: 1 << 41, inode: u64::MAX - 1, checkpoint, modified }
    }

    #[test]
    fn what_cyrus_has_written_is_read_as_sqlite_does() {
        let dir = tempfile::tempdir().unwrap();
        let mut folders = vec![PathBuf::from("tests/fixtures/backups")];
        let mut count = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|suffix| suffix == "index")
                    && path.metadata().unwrap().len() > 0
                {
                    // Without the journal that some have.
                    let copy = dir.path().join(format!("{count}"));
                    std::fs::copy(&path, &copy).unwrap();
                    same_as_sqlite(&copy);
                    count += 1;
                }
            }
        }
        assert!(count > 3, "{count}");
    }

    #[test]
    fn a_table_of_many_pages_ends_with_its_last_row() {
        let dir = tempfile::tempdir().unwrap();
        let (path, index) = new_index(&dir);
        same_as_sqlite(&path);
        for count in [1, 2, 30, 40, 3_000] {
            index.begin().unwrap();
            for offset in 0..count {
                let offset = count * 10_000 + offset;
                let id = index.start_chunk(-7, offset, &"f".repeat(40)).unwrap();
                if offset % 3 > 0 {
                    index.end_chunk(id, i64::MAX, 1, &"d".repeat(40)).unwrap();
                }
            }
            index.set_state(&state(count as u32)).unwrap();
            index.commit().unwrap();
            same_as_sqlite(&path);
        }
        for size in [4096, 65_536] {
            index.db.execute_batch(&format!("PRAGMA page_size = {size}; VACUUM")).unwrap();
            same_as_sqlite(&path);
        }
        // Definitions of tables go on in other pages.
        index.db.execute_batch("PRAGMA page_size = 512; VACUUM").unwrap();
        assert_eq!(last_rows(&path), None);
    }

    #[test]
    fn whoever_writes_is_left_to_sqlite() {
        let dir = tempfile::tempdir().unwrap();
        let (path, index) = new_index(&dir);
        index.begin().unwrap();
        assert_eq!(last_rows(&path).map(|rows| rows.last_chunk), Some(None));
        index.start_chunk(1, 0, "").unwrap();
        assert_eq!(last_rows(&path), None);
        index.commit().unwrap();
        same_as_sqlite(&path);
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert_eq!(last_rows(&path), None);
        other.execute_batch("COMMIT").unwrap();
        std::fs::write(with_suffix(&path, "-journal"), "x").unwrap();
        assert_eq!(last_rows(&path), None);
    }

    #[test]
    fn what_is_not_as_ever_is_left_to_sqlite() {
        let changes = [
            "PRAGMA user_version = 5",
            "PRAGMA user_version = 0",
            "DROP TABLE mailbox",
            "ALTER TABLE chunk RENAME COLUMN ts_start TO ts_0",
            "ALTER TABLE chunk ADD COLUMN more",
            "ALTER TABLE cyrbk_state RENAME COLUMN inode TO node",
            "INSERT INTO chunk (id, ts_end) VALUES (9, 1.5)",
            "INSERT INTO chunk (id, file_sha1) VALUES (9, x'00')",
            "INSERT INTO chunk (id, file_sha1) VALUES (9, CAST (x'ff' AS TEXT))",
            "INSERT INTO chunk (id, file_sha1) VALUES (9, printf('%9999d', 1))",
            "PRAGMA journal_mode = WAL",
        ];
        for change in changes {
            let dir = tempfile::tempdir().unwrap();
            let (path, index) = new_index(&dir);
            drop(index);
            let db = Connection::open(&path).unwrap();
            db.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
            db.execute_batch(change).unwrap();
            drop(db);
            assert_eq!(last_rows(&path), None, "{change}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("none");
        for octets in [&b""[..], b"SQLite format 3\0", &[0; 5000]] {
            assert_eq!(last_rows(&path), None);
            std::fs::write(&path, octets).unwrap();
        }
    }

    #[test]
    fn tables_that_came_later_may_be_missing() {
        let dir = tempfile::tempdir().unwrap();
        let (path, index) = new_index(&dir);
        index.set_state(&state(1)).unwrap();
        index.db.execute_batch("DROP TABLE sieve").unwrap();
        index.db.execute_batch("ALTER TABLE cyrbk_state DROP COLUMN mtime").unwrap();
        same_as_sqlite(&path);
        index.db.execute_batch("DROP TABLE cyrbk_state").unwrap();
        same_as_sqlite(&path);
    }

    #[test]
    fn numbers_of_all_lengths_are_read() {
        for bits in 0..64 {
            let number = 1_u64 << bits;
            for number in [number, number - 1, number | 1] {
                let dir = tempfile::tempdir().unwrap();
                let (path, index) = new_index(&dir);
                index.db.execute("INSERT INTO chunk (id) VALUES (?1)", [number as i64]).unwrap();
                let id = index.last_chunk().unwrap().unwrap().id;
                index.end_chunk(id, -(number as i64 >> 1), number, "").unwrap();
                same_as_sqlite(&path);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn no_damage_makes_it_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
            near in prop::collection::vec((0..4096_usize, any::<u8>()), 0..8),
        ) {
            let source = "tests/fixtures/backups/main/two/b/bob_5xHD5K.index";
            let mut octets = std::fs::read(source).unwrap();
            for (at, octet) in changes {
                let at = at.index(octets.len());
                octets[at] = octet;
            }
            for (at, octet) in near {
                octets[at] = octet;
            }
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("index");
            std::fs::write(&path, octets).unwrap();
            let _ = last_rows(&path);
        }
    }
}
