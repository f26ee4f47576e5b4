//! The catalog: which user's backup is which data file, in backups.db.
//!
//! Keys are userids, taken verbatim; values are absolute paths. The shared
//! backup has the key `%SHARED`, and the empty userid means it too.
//!
//! No lock is held between calls, and none while a data file's lock is waited
//! for.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::placement::{Placement, PlacementError};
use super::twoskip::{ErrorKind, Twoskip, TwoskipError, WriteTxn};

/// The userid of the backup of all shared mailboxes.
pub const SHARED_USERID: &[u8] = b"%SHARED";

/// Why the catalog could not answer.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The database could not be read or written.
    #[error(transparent)]
    Database(#[from] TwoskipError),
    /// A new backup could not be placed.
    #[error("unable to make backup path for {}: {source}", userid.escape_ascii())]
    Placement {
        /// Whose backup it was to be.
        userid: Vec<u8>,
        /// The cause.
        source: PlacementError,
    },
    /// The entry of a user has no path, or one was to be stored.
    #[error("{}: empty path for {}", db.display(), userid.escape_ascii())]
    EmptyPath {
        /// The database file.
        db: PathBuf,
        /// The user.
        userid: Vec<u8>,
    },
}

/// One backup in the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, verbatim.
    pub userid: Vec<u8>,
    /// The data file. Whether it exists is not known; an entry that another
    /// program left empty gives an empty path.
    pub path: PathBuf,
}

/// What is to become of one user's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key, verbatim.
    pub userid: Vec<u8>,
    /// The data file that the entry must have now; `None`: there must be no entry.
    pub from: Option<PathBuf>,
    /// The one that it is to have; `None`: the entry goes.
    pub to: Option<PathBuf>,
}

/// Whether [`Catalog::lookup_or_create`] made the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was there already.
    Existing,
    /// It is new: an empty data file without an index.
    New,
}

/// The location database, by its path.
#[derive(Clone, Debug)]
pub struct Catalog {
    db: PathBuf,
}

impl CatalogError {
    /// Whether the database's own octets are at fault. One that cannot be read for any other
    /// reason may be sound.
    pub fn is_of_contents(&self) -> bool {
        let CatalogError::Database(TwoskipError { kind, .. }) = self else { return false };
        matches!(
            kind,
            ErrorKind::Damaged { .. }
                | ErrorKind::TooShort
                | ErrorKind::NotTwoskip
                | ErrorKind::Skiplist
        )
    }
}

impl Catalog {
    /// Names the database; it is opened and locked anew by each call.
    pub fn open(db: PathBuf) -> Catalog {
        Catalog { db }
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.db
    }

    /// The data file of a user, `None` if the user has no backup.
    pub fn lookup(&self, userid: &[u8]) -> Result<Option<PathBuf>, CatalogError> {
        let key = key_of(userid);
        let value = Twoskip::lookup(&self.db, key)?;
        value.map(|value| self.path_in(key, value)).transpose()
    }

    /// All backups, in byte order of their userids.
    pub fn list(&self) -> Result<Vec<Entry>, CatalogError> {
        let records = Twoskip::read_all(&self.db)?.into_iter();
        let entry = |(userid, value)| Entry { userid, path: OsString::from_vec(value).into() };
        Ok(records.map(entry).collect())
    }

    /// Whether there is no entry; does not read them all.
    pub fn is_empty(&self) -> Result<bool, CatalogError> {
        Ok(Twoskip::is_empty(&self.db)?)
    }

    /// The data file of a user, which is created, empty and with mode 0600, if
    /// the user has none. Two callers at once get the same one.
    ///
    /// On return the file, its name and the entry survive a power cut. On an
    /// error no entry was made and the file is gone again; only where the
    /// commit is in doubt ([`ErrorKind::InDoubt`]) does the file stay, so that
    /// the entry, should it exist, leads somewhere.
    pub fn lookup_or_create(
        &self,
        userid: &[u8],
        placement: &Placement,
    ) -> Result<(PathBuf, Created), CatalogError> {
        if let Some(path) = self.lookup(userid)? {
            return Ok((path, Created::Existing));
        }
        let key = key_of(userid);
        let mut txn = WriteTxn::begin(&self.db)?;
        if let Some(value) = txn.get(key)? {
            return Ok((self.path_in(key, value)?, Created::Existing));
        }
        let path = placement
            .create_file(key)
            .map_err(|source| CatalogError::Placement { userid: key.to_vec(), source })?;
        txn.set(key, path.as_os_str().as_bytes());
        match txn.commit() {
            Ok(()) => Ok((path, Created::New)),
            Err(e) => {
                if !matches!(e.kind, ErrorKind::InDoubt(_)) {
                    let _ = fs::remove_file(&path);
                }
                Err(e.into())
            }
        }
    }

    /// Makes `path` the data file of a user, who may have had another one.
    /// Durable on return. No file is touched.
    pub fn set(&self, userid: &[u8], path: &Path) -> Result<(), CatalogError> {
        let key = key_of(userid);
        let value = path.as_os_str().as_bytes();
        if value.is_empty() {
            return Err(self.empty_path(key));
        }
        Twoskip::update(&self.db, |txn| {
            txn.set(key, value);
            Ok(())
        })
    }

    /// Makes all these changes, in one transaction that is durable on return; each
    /// only if the user's data file still is the one expected (`None`: has none).
    /// Returns the users for whom it was not.
    pub fn change_all(&self, changes: &[Change]) -> Result<Vec<Vec<u8>>, CatalogError> {
        if let Some(change) = changes.iter().find(|c| c.to.as_deref() == Some(Path::new(""))) {
            return Err(self.empty_path(&change.userid));
        }
        Twoskip::update(&self.db, |txn| {
            let mut refused = Vec::new();
            for change in changes {
                let key = key_of(&change.userid);
                let expected = change.from.as_ref().map(|path| path.as_os_str().as_bytes());
                if txn.get(key)?.as_deref() != expected {
                    refused.push(key.to_vec());
                    continue;
                }
                match &change.to {
                    Some(path) => txn.set(key, path.as_os_str().as_bytes()),
                    None => txn.delete(key),
                }
            }
            Ok(refused)
        })
    }

    /// As [`change_all`](Catalog::change_all), in a new database that takes the place of the one
    /// that is there, which is called `aside` from then on. It stays where it is until the new one
    /// is durable: whoever finds no database begins new backups.
    pub fn start_over(
        &self,
        changes: &[Change],
        aside: &Path,
    ) -> Result<Vec<Vec<u8>>, CatalogError> {
        // A symbolic link stays one.
        let db = fs::canonicalize(&self.db).map_err(|e| self.failed("resolve", e))?;
        let mut fresh = db.clone().into_os_string();
        fresh.push(".fresh");
        let fresh = Catalog::open(fresh.into());
        match fs::remove_file(&fresh.db) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fresh.failed("remove", e)),
            _ => {}
        }
        let refused = fresh.change_all(changes)?;
        fs::hard_link(&db, aside).map_err(|e| self.failed("put aside", e))?;
        let directory = db.parent().unwrap_or(Path::new("/"));
        fs::rename(&fresh.db, &db)
            .and_then(|()| fs::File::open(directory)?.sync_all())
            .map_err(|e| self.failed("replace", e))?;
        Ok(refused)
    }

    /// Forgets a user; no error if there is none. Durable on return. No file
    /// is touched.
    pub fn remove(&self, userid: &[u8]) -> Result<(), CatalogError> {
        Twoskip::update(&self.db, |txn| {
            txn.delete(key_of(userid));
            Ok(())
        })
    }

    fn path_in(&self, key: &[u8], value: Vec<u8>) -> Result<PathBuf, CatalogError> {
        if value.is_empty() {
            return Err(self.empty_path(key));
        }
        Ok(OsString::from_vec(value).into())
    }

    fn failed(&self, action: &'static str, source: io::Error) -> CatalogError {
        TwoskipError { path: self.db.clone(), kind: ErrorKind::Io { action, source } }.into()
    }

    fn empty_path(&self, key: &[u8]) -> CatalogError {
        CatalogError::EmptyPath { db: self.db.clone(), userid: key.to_vec() }
    }
}

fn key_of(userid: &[u8]) -> &[u8] {
    if userid.is_empty() { SHARED_USERID } else { userid }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use tempfile::TempDir;

    use super::super::partition::SelectMode;
    use super::super::placement::Policy;
    use super::*;

    fn site() -> (TempDir, Catalog, Placement) {
        let top = tempfile::tempdir().unwrap();
        let partitions = ["one", "two"].map(|name| (name.to_owned(), top.path().join(name)));
        let policy = Policy {
            partitions: partitions.into(),
            mode: SelectMode::Random,
            umask: 0o077,
            ..Policy::default()
        };
        let catalog = Catalog::open(top.path().join("backups.db"));
        (top, catalog, Placement::new(policy))
    }

    fn files_below(top: &Path) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        for entry in fs::read_dir(top).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.append(&mut files_below(&path));
            } else {
                files.insert(path);
            }
        }
        files
    }

    #[test]
    fn a_user_is_created_once() {
        let (_top, catalog, placement) = site();
        assert_eq!(catalog.lookup(b"alice").unwrap(), None);
        assert_eq!(catalog.list().unwrap(), []);
        assert!(!catalog.path().exists(), "a lookup created the database");
        let (path, created) = catalog.lookup_or_create(b"alice", &placement).unwrap();
        assert_eq!(created, Created::New);
        assert!(path.is_absolute() && path.is_file());
        let again = catalog.lookup_or_create(b"alice", &placement).unwrap();
        assert_eq!(again, (path.clone(), Created::Existing));
        assert_eq!(catalog.lookup(b"alice").unwrap(), Some(path));
        // Verbatim: neither case nor a domain is folded.
        assert_eq!(catalog.lookup(b"Alice").unwrap(), None);
    }

    #[test]
    fn the_empty_userid_is_the_shared_backup() {
        let (_top, catalog, placement) = site();
        let (path, _) = catalog.lookup_or_create(b"", &placement).unwrap();
        assert!(path.parent().unwrap().ends_with("q"), "{}", path.display());
        assert_eq!(catalog.lookup(SHARED_USERID).unwrap(), Some(path));
        assert_eq!(catalog.list().unwrap()[0].userid, SHARED_USERID);
    }

    #[test]
    fn set_remove_and_byte_order() {
        let (_top, catalog, _) = site();
        for userid in ["b", "a", "B", "a.b", "\u{e4}"] {
            catalog.set(userid.as_bytes(), &Path::new("/p").join(userid)).unwrap();
        }
        catalog.set(b"a", Path::new("/moved")).unwrap();
        catalog.remove(b"b").unwrap();
        catalog.remove(b"nobody").unwrap();
        let entries = catalog.list().unwrap();
        let shown: Vec<_> = entries
            .iter()
            .map(|e| (e.userid.escape_ascii().to_string(), e.path.to_str().unwrap()))
            .collect();
        let expected =
            [("B", "/p/B"), ("a", "/moved"), ("a.b", "/p/a.b"), ("\\xc3\\xa4", "/p/\u{e4}")];
        assert_eq!(shown, expected.map(|(k, v)| (k.to_owned(), v)));
        assert!(matches!(catalog.set(b"a", Path::new("")), Err(CatalogError::EmptyPath { .. })));
    }

    #[test]
    fn an_entry_is_followed_as_it_is() {
        let (_top, catalog, placement) = site();
        catalog.set(b"../x", Path::new("/some/where")).unwrap();
        let found = catalog.lookup_or_create(b"../x", &placement).unwrap();
        assert_eq!(found, (PathBuf::from("/some/where"), Created::Existing));
        // What the reference never writes, but crashes on.
        Twoskip::update(catalog.path(), |txn| -> Result<(), TwoskipError> {
            txn.set(b"empty", b"");
            Ok(())
        })
        .unwrap();
        let text = catalog.lookup_or_create(b"empty", &placement).unwrap_err().to_string();
        assert!(text.ends_with("backups.db: empty path for empty"), "{text}");
        assert_eq!(catalog.list().unwrap().len(), 2);
    }

    #[test]
    fn a_failure_leaves_neither_file_nor_entry() {
        let (top, catalog, placement) = site();
        catalog.lookup_or_create(b"alice", &placement).unwrap();
        let before = files_below(top.path());
        let error = catalog.lookup_or_create(b"../x", &placement).unwrap_err();
        assert!(matches!(error, CatalogError::Placement { .. }), "{error}");
        // Longer than the database takes: fails after the file was made, if
        // the file system has not refused the name before.
        let long = vec![b'l'; 300];
        catalog.lookup_or_create(&long, &placement).unwrap_err();
        let nowhere = Placement::new(Policy::default());
        let text = catalog.lookup_or_create(b"bob", &nowhere).unwrap_err().to_string();
        assert_eq!(text, "unable to make backup path for bob: couldn't select partition");
        assert_eq!(files_below(top.path()), before);
        assert_eq!(catalog.list().unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_database_creates_nothing() {
        let (top, catalog, placement) = site();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/twoskip");
        for name in ["bad-header-crc.db", "bad-tail-crc.db", "truncated-60.db", "short.db"] {
            fs::copy(root.join(name), catalog.path()).unwrap();
            let before = files_below(top.path());
            catalog.lookup_or_create(b"carol", &placement).unwrap_err();
            assert_eq!(files_below(top.path()), before, "{name}");
        }
    }

    #[test]
    fn changes_are_made_only_to_what_is_as_expected() {
        let (_top, catalog, _) = site();
        catalog.set(b"alice", Path::new("/a")).unwrap();
        catalog.set(b"bob", Path::new("/b")).unwrap();
        let change = |userid: &str, from: Option<&str>, to: Option<&str>| Change {
            userid: userid.into(),
            from: from.map(PathBuf::from),
            to: to.map(PathBuf::from),
        };
        let changes = [
            change("alice", Some("/a"), Some("/a2")),
            change("bob", Some("/other"), Some("/b2")),
            change("carol", None, Some("/c")),
            change("dave", Some("/d"), None),
        ];
        let refused = catalog.change_all(&changes).unwrap();
        assert_eq!(refused, [b"bob".to_vec(), b"dave".to_vec()]);
        let paths = catalog.list().unwrap().into_iter().map(|entry| entry.path);
        assert_eq!(paths.collect::<Vec<_>>(), ["/a2", "/b", "/c"].map(PathBuf::from));
        assert!(catalog.change_all(&[change("alice", Some("/a2"), Some(""))]).is_err());
        assert!(catalog.change_all(&[change("alice", Some("/a2"), None)]).unwrap().is_empty());
        assert_eq!(catalog.lookup(b"alice").unwrap(), None);
    }

    #[test]
    fn threads_agree_on_every_user() {
        let (top, catalog, placement) = site();
        let users: Vec<String> = (0..60).map(|n| format!("user{n}")).collect();
        let create = || {
            let made = users
                .iter()
                .map(|user| catalog.lookup_or_create(user.as_bytes(), &placement).unwrap());
            made.collect::<Vec<_>>()
        };
        let (one, two) = std::thread::scope(|scope| {
            let other = scope.spawn(create);
            (create(), other.join().unwrap())
        });
        for (a, b) in one.iter().zip(&two) {
            assert_eq!(a.0, b.0);
            let new = [a.1, b.1].iter().filter(|&&c| c == Created::New).count();
            assert_eq!(new, 1, "{}", a.0.display());
        }
        // The data files and the database, nothing else.
        assert_eq!(files_below(top.path()).len(), users.len() + 1);
        assert_eq!(catalog.list().unwrap().len(), users.len());
    }
}
