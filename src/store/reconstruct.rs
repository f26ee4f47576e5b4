//! Building the catalog again from the data files.
//!
//! [`plan`] decides from what the catalog says and what the files say; nothing is
//! ever guessed. A user gets an entry only if exactly one file is theirs and names
//! nobody else. An entry that leads to an existing file stays, whatever else is
//! found. The rest is for the administrator.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::catalog::{Change, Entry};
use super::survey::{Evidence, Surveyed};

/// What was found out about a user or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The entry is right, as far as can be seen.
    Unchanged {
        /// Whose it is.
        userid: Vec<u8>,
        /// The data file.
        path: PathBuf,
    },
    /// There was no entry, and exactly one file.
    Added {
        /// Whose it is.
        userid: Vec<u8>,
        /// The data file.
        path: PathBuf,
    },
    /// The entry leads to no file, and there is exactly one other.
    Replaced {
        /// Whose it is.
        userid: Vec<u8>,
        /// Where the entry leads.
        old: PathBuf,
        /// The data file.
        path: PathBuf,
    },
    /// The entry leads to no file, and there is no other.
    Missing {
        /// Whose it is.
        userid: Vec<u8>,
        /// Where the entry leads.
        path: PathBuf,
    },
    /// Several files are this user's. The entry, if there is one, stays.
    ManyFiles {
        /// Whose they are.
        userid: Vec<u8>,
        /// Where the entry leads.
        entry: Option<PathBuf>,
        /// The files without an entry.
        others: Vec<PathBuf>,
    },
    /// The lines of a file name several users; how many lines each.
    ManyOwners {
        /// The data file.
        path: PathBuf,
        /// Userids with their lines.
        owners: BTreeMap<Vec<u8>, u64>,
    },
    /// The entry of one user leads to a file whose lines name another.
    WrongOwner {
        /// Whose entry it is.
        userid: Vec<u8>,
        /// The data file.
        path: PathBuf,
        /// Userids with their lines.
        owners: BTreeMap<Vec<u8>, u64>,
    },
    /// No line of a file without an entry says whose it is.
    NoOwner {
        /// The data file.
        path: PathBuf,
        /// Its length in octets.
        len_file: u64,
    },
    /// No backup.
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    Unreadable {
        /// The data file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl Verdict {
    /// Whether it is left to the administrator.
    pub fn is_open(&self) -> bool {
        !matches!(
            self,
            Verdict::Unchanged { .. }
                | Verdict::Added { .. }
                | Verdict::Replaced { .. }
                | Verdict::Foreign { .. }
        )
    }

    /// What is to be done about it in the catalog.
    pub fn change(&self) -> Option<Change> {
        let (userid, from, to) = match self {
            Verdict::Added { userid, path } => (userid, None, path),
            Verdict::Replaced { userid, old, path } => (userid, Some(old.clone()), path),
            _ => return None,
        };
        Some(Change { userid: userid.clone(), from, to: Some(to.clone()) })
    }
}

/// Compares the catalog with the files. Users come first, in byte order.
pub fn plan(entries: &[Entry], files: &[Surveyed]) -> Vec<Verdict> {
    let mut plan = Plan { entries, claims: BTreeMap::new(), found: HashMap::new() };
    let mut of_files = Vec::new();
    let entered: BTreeSet<&Path> = entries.iter().map(|entry| entry.path.as_path()).collect();
    for file in files {
        match &file.evidence {
            Ok(evidence) => {
                plan.found.insert(&file.path, evidence);
                if !entered.contains(file.path.as_path()) {
                    of_files.extend(plan.claim(&file.path, evidence));
                }
            }
            Err(error) => of_files
                .push(Verdict::Unreadable { path: file.path.clone(), why: error.to_string() }),
        }
    }
    let unreadable: BTreeSet<&Path> = files
        .iter()
        .filter(|file| file.evidence.is_err())
        .map(|file| file.path.as_path())
        .collect();
    let mut verdicts = plan.users(&unreadable);
    verdicts.append(&mut of_files);
    verdicts
}

struct Plan<'p> {
    entries: &'p [Entry],
    /// Files without an entry, by the one user whom their lines name.
    claims: BTreeMap<Vec<u8>, Vec<PathBuf>>,
    found: HashMap<&'p Path, &'p Evidence>,
}

impl<'p> Plan<'p> {
    /// Notes whose a file without an entry is, or says why that is not clear.
    fn claim(&mut self, path: &Path, evidence: &Evidence) -> Option<Verdict> {
        let path = path.to_owned();
        let mut owners = evidence.owners.keys();
        match (owners.next(), owners.next()) {
            (Some(owner), None) => {
                self.claims.entry(owner.clone()).or_default().push(path);
                None
            }
            (Some(_), Some(_)) => {
                Some(Verdict::ManyOwners { path, owners: evidence.owners.clone() })
            }
            _ if evidence.is_backup || evidence.len_file == 0 => {
                Some(Verdict::NoOwner { path, len_file: evidence.len_file })
            }
            _ => Some(Verdict::Foreign { path }),
        }
    }

    fn users(mut self, unreadable: &BTreeSet<&Path>) -> Vec<Verdict> {
        let entries: BTreeMap<&[u8], &Entry> =
            self.entries.iter().map(|entry| (entry.userid.as_slice(), entry)).collect();
        let mut verdicts: BTreeMap<Vec<u8>, Verdict> = BTreeMap::new();
        for (userid, entry) in entries {
            let claims = self.claims.remove(userid).unwrap_or_default();
            if unreadable.contains(entry.path.as_path()) && claims.is_empty() {
                continue;
            }
            verdicts.insert(userid.to_vec(), self.entered(entry, claims));
        }
        for (userid, mut paths) in self.claims {
            let verdict = match (paths.pop(), paths.is_empty()) {
                (Some(path), true) => Verdict::Added { userid: userid.clone(), path },
                (Some(path), false) => {
                    paths.push(path);
                    Verdict::ManyFiles { userid: userid.clone(), entry: None, others: paths }
                }
                (None, _) => continue,
            };
            verdicts.insert(userid, verdict);
        }
        verdicts.into_values().collect()
    }

    /// A user with an entry; `claims`: other files that are this user's.
    fn entered(&self, entry: &Entry, mut claims: Vec<PathBuf>) -> Verdict {
        let (userid, path) = (entry.userid.clone(), entry.path.clone());
        let Some(evidence) = self.found.get(entry.path.as_path()) else {
            return match (claims.pop(), claims.is_empty()) {
                (None, _) => Verdict::Missing { userid, path },
                (Some(claim), true) => Verdict::Replaced { userid, old: path, path: claim },
                (Some(claim), false) => {
                    claims.push(claim);
                    Verdict::ManyFiles { userid, entry: Some(path), others: claims }
                }
            };
        };
        if evidence.owners.keys().any(|owner| *owner != entry.userid) {
            return Verdict::WrongOwner { userid, path, owners: evidence.owners.clone() };
        }
        if claims.is_empty() {
            return Verdict::Unchanged { userid, path };
        }
        Verdict::ManyFiles { userid, entry: Some(path), others: claims }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, owners: &[&str]) -> Surveyed {
        let owners = owners.iter().map(|owner| (owner.as_bytes().to_vec(), 3)).collect();
        let evidence = Evidence { len_file: 9, owners, is_backup: true, is_damaged: false };
        Surveyed { path: path.into(), evidence: Ok(evidence) }
    }

    fn entry(userid: &str, path: &str) -> Entry {
        Entry { userid: userid.into(), path: path.into() }
    }

    fn many(userid: &str, entry: Option<&str>, others: &[&str]) -> Verdict {
        Verdict::ManyFiles {
            userid: userid.into(),
            entry: entry.map(PathBuf::from),
            others: others.iter().map(PathBuf::from).collect(),
        }
    }

    #[test]
    fn one_file_of_one_user_is_entered_and_nothing_else() {
        let files = [
            file("/1", &["alice"]),
            file("/2", &["bob"]),
            file("/3", &["bob"]),
            file("/4", &["carol", "dave"]),
            file("/5", &[]),
        ];
        let verdicts = plan(&[], &files);
        let changes: Vec<_> = verdicts.iter().filter_map(Verdict::change).collect();
        let alice = Change { userid: b"alice".to_vec(), from: None, to: Some("/1".into()) };
        assert_eq!(changes, [alice]);
        assert_eq!(verdicts[1], many("bob", None, &["/2", "/3"]));
        assert!(matches!(verdicts[2], Verdict::ManyOwners { .. }));
        assert!(matches!(verdicts[3], Verdict::NoOwner { .. }));
        assert_eq!(verdicts.iter().filter(|verdict| verdict.is_open()).count(), 3);
    }

    #[test]
    fn an_entry_that_leads_to_a_file_stays() {
        let entries = [
            entry("alice", "/1"),
            entry("bob", "/2"),
            entry("carol", "/3"),
            entry("dave", "/4"),
            entry("erin", "/5"),
            entry("frank", "/6"),
        ];
        let files = [
            file("/1", &["alice"]),
            file("/2", &[]),
            file("/3", &["carol"]),
            file("/3b", &["carol"]),
            file("/4", &["other"]),
            file("/5b", &["erin"]),
        ];
        let verdicts = plan(&entries, &files);
        assert!(matches!(verdicts[0], Verdict::Unchanged { .. }));
        assert!(matches!(verdicts[1], Verdict::Unchanged { .. }));
        assert_eq!(verdicts[2], many("carol", Some("/3"), &["/3b"]));
        assert!(matches!(verdicts[3], Verdict::WrongOwner { .. }));
        assert!(matches!(&verdicts[4], Verdict::Replaced { path, .. } if path == Path::new("/5b")));
        assert!(matches!(verdicts[5], Verdict::Missing { .. }));
        assert_eq!(verdicts.iter().filter_map(Verdict::change).count(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_said_once() {
        let unreadable =
            Surveyed { path: "/1".into(), evidence: Err(std::io::Error::other("bad disk")) };
        let verdicts = plan(&[entry("alice", "/1")], &[unreadable]);
        assert!(matches!(&verdicts[..], [Verdict::Unreadable { .. }]), "{verdicts:?}");
    }
}
