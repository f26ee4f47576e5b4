//! twoskip: the file format of backups.db, a sorted map from bytes to bytes.
//!
//! It knows nothing of users. The format is the one of Cyrus IMAP 3.0 to 3.10,
//! written in place with the same algorithm, so that Cyrus's own programs and
//! this one can take turns on one file.
//!
//! ```text
//! mod (API, locks, files) -> write -> recover -> read -> { format, medium }
//! ```
//!
//! - A reader takes the shared lock and never writes. A file whose last
//!   transaction did not end is read around: it shows its committed state.
//! - A writer takes the exclusive lock, first repairs such a file, gathers its
//!   changes in memory, and writes them when it commits.
//! - What cannot be read for certain is an error that names file and offset.
//!   Nothing is guessed and nothing is thrown away.
//!
//! The lock belongs to the open file, not to the process: a thread that holds
//! a [`WriteTxn`] and calls a function with the same path waits for itself.

mod format;
mod medium;
mod read;
mod recover;
mod replace;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_crash;
#[cfg(test)]
mod tests_hostile;
mod write;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::lock::{self, Kind, LockError, Wait};
use format::Header;
use read::View;
use write::Writer;

/// A file is repacked when its committed size exceeds this many bytes (the
/// reference has this very number) and twice the size after the last repack.
const REPACK_SIZE_MIN: u64 = 16_834;

/// Why a database could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct TwoskipError {
    /// The database file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: ErrorKind,
}

/// The cause of a [`TwoskipError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A system call failed. After one in a commit, the old state holds.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The last step of a commit failed: the change may or may not survive.
    #[error("cannot finish a commit, the change may or may not be stored: {0}")]
    InDoubt(io::Error),
    /// The file contradicts itself.
    #[error(
        "damaged at offset {at:#x}: {what}; nothing was changed. Keep a copy, then put back \
         an older one (ctl_cyrusdb keeps some in db.backup1 and db.backup2) or rebuild it \
         from the data files (ctl_backups reconstruct)"
    )]
    Damaged {
        /// Offset in the file, in bytes.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Shorter than a header, but not empty.
    #[error("too short for a header; put back an older copy, or remove it if it is not needed")]
    TooShort,
    /// Some other kind of file.
    #[error("not a twoskip database")]
    NotTwoskip,
    /// The older format of Cyrus.
    #[error(
        "skiplist databases are not supported; convert it with \
         `cvt_cyrusdb <this file> skiplist <new file> twoskip` and put the new file in its place"
    )]
    Skiplist,
    /// A later version of the format.
    #[error("twoskip version {0} is not supported")]
    Version(u32),
    /// A key or value of this many bytes is not accepted.
    #[error("a key or value of {0} bytes is too long")]
    TooLong(usize),
}

impl ErrorKind {
    fn io(action: &'static str, source: io::Error) -> ErrorKind {
        ErrorKind::Io { action, source }
    }

    fn damaged(at: u64, what: &'static str) -> ErrorKind {
        ErrorKind::Damaged { at, what }
    }

    fn of(self, path: &Path) -> TwoskipError {
        TwoskipError { path: path.to_owned(), kind: self }
    }
}

/// Where the levels of new records come from.
pub trait Levels: Send {
    /// The level of the next record; taken into the range 1 to 31.
    fn level(&mut self) -> u8;
}

/// Random levels: each further one half as likely.
#[derive(Debug, Default)]
pub struct RandomLevels;

impl Levels for RandomLevels {
    fn level(&mut self) -> u8 {
        let random = RandomState::new().build_hasher().finish();
        1 + random.trailing_ones().min(30) as u8
    }
}

/// Keys with their values.
pub type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A database file, open under the shared lock.
pub struct Twoskip {
    file: File,
    header: Header,
    /// Whether the upper lists can be relied on.
    clean: bool,
}

impl Twoskip {
    /// Whether there is no record, by the header of a file that was left in order. A file that is
    /// missing or empty is a database without records.
    pub fn is_empty(path: &Path) -> Result<bool, TwoskipError> {
        let read = || {
            let Some(db) = Twoskip::open(path)? else { return Ok(true) };
            if db.clean {
                return Ok(db.header.records == 0);
            }
            let mut records = 0;
            db.view().walk(|_| {
                records += 1;
                Ok(())
            })?;
            Ok(records == 0)
        };
        read().map_err(|kind: ErrorKind| kind.of(path))
    }

    /// All keys and values in key order. A file that is missing or empty is a
    /// database without records.
    pub fn read_all(path: &Path) -> Result<Pairs, TwoskipError> {
        let read = || {
            let Some(db) = Twoskip::open(path)? else {
                return Ok(Pairs::new());
            };
            let mut records = Pairs::new();
            db.view().walk(|record| {
                records.push((record.key().to_vec(), record.value().to_vec()));
                Ok(())
            })?;
            if db.clean && db.header.records != records.len() as u64 {
                tracing::warn!(
                    path = %path.display(),
                    header = db.header.records,
                    found = records.len(),
                    "twoskip: wrong number of records in the header"
                );
            }
            Ok(records)
        };
        read().map_err(|kind: ErrorKind| kind.of(path))
    }

    /// The value of `key`. Reads a number of records that grows with the
    /// logarithm of their count (all of them if the file is not clean).
    pub fn lookup(path: &Path, key: &[u8]) -> Result<Option<Vec<u8>>, TwoskipError> {
        let read = || match Twoskip::open(path)? {
            Some(db) => db.get(key),
            None => Ok(None),
        };
        read().map_err(|kind| kind.of(path))
    }

    /// Runs `change` in a transaction, which is committed if it returns `Ok`
    /// and leaves no trace otherwise. See [`WriteTxn::commit`].
    pub fn update<T, E: From<TwoskipError>>(
        path: &Path,
        change: impl FnOnce(&mut WriteTxn) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut txn = WriteTxn::begin(path)?;
        let out = change(&mut txn)?;
        txn.commit()?;
        Ok(out)
    }

    /// `None` if there is no file, or an empty one.
    fn open(path: &Path) -> Result<Option<Twoskip>, ErrorKind> {
        let options = OpenOptions::new().read(true).to_owned();
        let file = match lock::open_locked(path, &options, Kind::Shared, Wait::Yes) {
            Ok(file) => file,
            Err(LockError::Io(e)) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(lock_failed(e)),
        };
        if file.metadata().map_err(|e| ErrorKind::io("examine", e))?.len() == 0 {
            return Ok(None);
        }
        let header = read::header(&file)?;
        let clean = read::is_clean(&file, &header)?;
        Ok(Some(Twoskip { file, header, clean }))
    }

    fn view(&self) -> View<'_, File> {
        View::new(&self.file, self.header.current_size)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ErrorKind> {
        if self.clean {
            let found = self.view().find(key)?.found;
            return Ok(found.map(|record| record.value().to_vec()));
        }
        // An unfinished transaction may have changed the upper lists, which
        // keep no committed state. List 0 does.
        let mut value = None;
        self.view().walk(|record| {
            if record.key() == key {
                value = Some(record.value().to_vec());
            }
            Ok(())
        })?;
        Ok(value)
    }
}

/// A transaction on a database file, which it holds under the exclusive lock.
///
/// Changes are gathered in memory and reach the file in [`commit`]; dropping
/// the transaction forgets them.
///
/// [`commit`]: WriteTxn::commit
pub struct WriteTxn {
    path: PathBuf,
    writer: Writer<File>,
    levels: Box<dyn Levels>,
    /// In the order in which they were made; `None` deletes.
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// The last change of each key, as an index into `changes`.
    latest: BTreeMap<Vec<u8>, usize>,
}

impl WriteTxn {
    /// Waits for the exclusive lock, however long, and begins. Creates the
    /// file (mode 0600, its directory must exist) if there is none, and
    /// repairs one whose last transaction did not end.
    pub fn begin(path: &Path) -> Result<WriteTxn, TwoskipError> {
        WriteTxn::begin_with(path, Box::new(RandomLevels))
    }

    /// As [`begin`](WriteTxn::begin), with the levels of new records given.
    pub fn begin_with(path: &Path, levels: Box<dyn Levels>) -> Result<WriteTxn, TwoskipError> {
        let writer = open_writer(path).map_err(|kind| kind.of(path))?;
        Ok(WriteTxn {
            path: path.to_owned(),
            writer,
            levels,
            changes: Vec::new(),
            latest: BTreeMap::new(),
        })
    }

    /// The value of `key` as this transaction has it.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, TwoskipError> {
        if let Some(&index) = self.latest.get(key) {
            return Ok(self.changes[index].1.clone());
        }
        match self.writer.view().find(key) {
            Ok(place) => Ok(place.found.map(|record| record.value().to_vec())),
            Err(kind) => Err(kind.of(&self.path)),
        }
    }

    /// Gives `key` a value, in place of one that it may have.
    pub fn set(&mut self, key: &[u8], value: &[u8]) {
        self.change(key, Some(value.to_vec()));
    }

    /// Removes `key`; no error if it is not there.
    pub fn delete(&mut self, key: &[u8]) {
        self.change(key, None);
    }

    /// Writes the changes and gives up the lock.
    ///
    /// After `Ok` they survive a power cut. A crash before that, at any
    /// instant, leaves all of them or none.
    ///
    /// # Errors
    ///
    /// None of the changes took effect, but for [`ErrorKind::InDoubt`].
    pub fn commit(mut self) -> Result<(), TwoskipError> {
        self.apply().map_err(|kind| kind.of(&self.path))?;
        self.repack_if_due();
        Ok(())
    }

    fn change(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        self.latest.insert(key.to_vec(), self.changes.len());
        self.changes.push((key.to_vec(), value));
    }

    fn apply(&mut self) -> Result<(), ErrorKind> {
        // Meet any damage before the file is made dirty: Cyrus's tools answer
        // a dirty and damaged file with a recovery that loses records.
        for key in self.latest.keys() {
            self.writer.view().find(key)?;
        }
        for (key, value) in &self.changes {
            write::check_lengths(key, value.as_deref().unwrap_or_default())?;
        }
        for (key, value) in &self.changes {
            match value {
                Some(value) => self.writer.store(key, value, &mut *self.levels)?,
                None => self.writer.delete(key)?,
            }
        }
        self.writer.commit()
    }

    /// A repack is for speed and size only: when it fails, the commit before
    /// it holds all the same, so the failure is logged and no more.
    fn repack_if_due(&mut self) {
        let header = self.writer.header();
        let size = header.current_size;
        if size <= REPACK_SIZE_MIN || size <= header.repack_size.saturating_mul(2) {
            return;
        }
        if let Err(kind) = self.repack() {
            let error = kind.of(&self.path);
            tracing::warn!(%error, "twoskip: not repacked");
        }
    }

    fn repack(&mut self) -> Result<(), ErrorKind> {
        let old = self.writer.medium();
        let image = write::repacked_image(old, self.writer.header(), &mut *self.levels)?;
        let new = replace::replace(&self.path, old, &image)?;
        let header = read::header(&new)?;
        // Dropping the old writer lets go of the old file's lock: those who
        // wait for it find the new file.
        self.writer = Writer::new(new, header);
        Ok(())
    }
}

/// Opens for writing what is there, or a new database.
fn open_writer(path: &Path) -> Result<Writer<File>, ErrorKind> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    let mut file =
        lock::open_locked(path, &options, Kind::Exclusive, Wait::Yes).map_err(lock_failed)?;
    if file.metadata().map_err(|e| ErrorKind::io("examine", e))?.len() == 0 {
        // An empty file is a valid state, half a header is not: the file
        // appears whole, in place of the empty one.
        file = replace::replace(path, &file, &write::empty_image(1))?;
    }
    let mut header = read::header(&file)?;
    if !read::is_clean(&file, &header)? {
        let fixed = recover::repair(&mut file, &mut header)?;
        tracing::info!(
            path = %path.display(),
            records = header.records,
            bytes = header.current_size,
            fixed,
            "twoskip: recovered"
        );
    }
    Ok(Writer::new(file, header))
}

fn lock_failed(error: LockError) -> ErrorKind {
    match error {
        LockError::Io(e) => ErrorKind::io("open or lock", e),
        LockError::Busy => ErrorKind::io("lock", io::ErrorKind::WouldBlock.into()),
    }
}
