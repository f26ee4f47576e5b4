//! Do backups.db and the files on the partitions belong together?

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::store::catalog::{Catalog, CatalogError, Entry};
use crate::store::survey;

/// What can be wrong with a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SiteFault {
    /// An entry leads to no file.
    NoFile {
        /// Whose.
        userid: Vec<u8>,
        /// Where it leads.
        path: PathBuf,
    },
    /// Entries of several users lead to one file.
    OneFile {
        /// Whose.
        userids: Vec<Vec<u8>>,
        /// Which file.
        path: PathBuf,
    },
    /// No entry leads to this data file.
    NoEntry {
        /// Which file.
        path: PathBuf,
    },
    /// An index, or what else stands beside a data file, without the data file.
    NoData {
        /// Which file.
        path: PathBuf,
    },
    /// What a process that is gone has left in the staging area. (note)
    Staging {
        /// Its directory.
        path: PathBuf,
    },
}

impl SiteFault {
    /// Whether nothing is wrong: only worth knowing.
    pub fn is_note(&self) -> bool {
        matches!(self, SiteFault::Staging { .. })
    }
}

/// Why a site could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The catalog cannot be read.
    #[error("cannot open backups.db: {0}")]
    Catalog(#[from] CatalogError),
    /// A partition cannot be read.
    #[error("cannot read the partitions: {0}")]
    Io(#[from] io::Error),
}

/// Compares names only: no file is opened. The server may run: what it makes meanwhile is
/// not taken for a fault.
pub fn site(
    catalog: &Catalog,
    partitions: &[PathBuf],
    staging: &Path,
) -> Result<Vec<SiteFault>, SiteError> {
    // Files first: an entry is written after its file is made.
    let files = survey::files_below(partitions)?;
    let entries = catalog.list()?;
    let mut faults = Vec::new();
    let mut users: BTreeMap<(u64, u64), Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        match fs::metadata(&entry.path) {
            Ok(meta) if meta.is_file() => {
                let inode = (meta.dev(), meta.ino());
                users.entry(inode).or_default().push(entry);
            }
            _ => faults.push(SiteFault::NoFile { userid: entry.userid, path: entry.path }),
        }
    }
    let shared = users.values().filter(|users| users.len() > 1);
    faults.extend(shared.map(|users| SiteFault::OneFile {
        userids: users.iter().map(|entry| entry.userid.clone()).collect(),
        path: users[0].path.clone(),
    }));
    faults.sort_by_key(|fault| format!("{fault:?}"));
    let data: HashSet<&[u8]> = files
        .iter()
        .filter(|(path, _)| path.file_name().is_some_and(|name| !survey::is_side_file(name)))
        .map(|(path, _)| path.as_os_str().as_bytes())
        .collect();
    let known: HashMap<_, _> = users.iter().map(|(inode, users)| (*inode, users)).collect();
    for (path, inode) in &files {
        let name = path.as_os_str().as_bytes();
        if data.contains(name) {
            if !known.contains_key(inode) {
                faults.push(SiteFault::NoEntry { path: path.clone() });
            }
        } else if !has_data_file(name, &data) {
            faults.push(SiteFault::NoData { path: path.clone() });
        }
    }
    faults.extend(left_in(staging)?);
    Ok(faults)
}

/// Whether the name, without some of its endings, is that of a data file.
fn has_data_file(mut name: &[u8], data: &HashSet<&[u8]>) -> bool {
    while let Some(at) = name.iter().rposition(|&c| c == b'.') {
        name = &name[..at];
        if data.contains(name) {
            return true;
        }
    }
    false
}

/// Cyrus's staging areas: `sync./<pid>/`.
fn left_in(staging: &Path) -> io::Result<Vec<SiteFault>> {
    let mut faults = Vec::new();
    let entries = match fs::read_dir(staging.join("sync.")) {
        // It belongs to others, or there is none.
        Err(_) => return Ok(faults),
        Ok(entries) => entries,
    };
    for entry in entries {
        let entry = entry?;
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            faults.push(SiteFault::Staging { path: entry.path() });
        }
    }
    faults.sort_by_key(|fault| format!("{fault:?}"));
    Ok(faults)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_files() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        fs::create_dir_all(at("one/a")).unwrap();
        fs::create_dir_all(at("staging/sync./1")).unwrap();
        // Above any pid.
        fs::create_dir_all(at("staging/sync./4294967295")).unwrap();
        for name in
            ["a_1", "a_1.index", "a_1.1795000000", "b_1", "b_1.index", "c_1.index", "d_1.new"]
        {
            fs::write(at("one/a").join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink(at("one/a/a_1"), at("one/a/old_1")).unwrap();
        let catalog = Catalog::open(at("backups.db"));
        for (user, file) in [("a", "a_1"), ("also-a", "old_1"), ("gone", "gone_1")] {
            catalog.set(user.as_bytes(), &at("one/a").join(file)).unwrap();
        }
        let faults = site(&catalog, &[at("one"), at("two")], &at("staging")).unwrap();
        let expected = [
            SiteFault::NoFile { userid: b"gone".to_vec(), path: at("one/a/gone_1") },
            SiteFault::OneFile {
                userids: vec![b"a".to_vec(), b"also-a".to_vec()],
                path: at("one/a/a_1"),
            },
            SiteFault::NoEntry { path: at("one/a/b_1") },
            SiteFault::NoData { path: at("one/a/c_1.index") },
            SiteFault::NoData { path: at("one/a/d_1.new") },
            SiteFault::Staging { path: at("staging/sync./4294967295") },
        ];
        assert_eq!(faults, expected);
    }
}
