//! Where a new backup goes: partition, hash directory, file name.
//!
//! The path is `<partition>/<h>/<userid>_XXXXXX`, with `h` a letter computed
//! from the userid and six random characters.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::partition::{SelectMode, Weights, draw, space_of};

/// Mode of new directories before the umask.
const DIR_MODE: u32 = 0o755;
/// Random characters at the end of a file name, from `[A-Za-z0-9]`.
const SUFFIX_LEN: usize = 6;

/// Why a new backup could not be placed.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// There is no partition, or none with space.
    #[error("couldn't select partition")]
    NoPartition,
    /// The userid cannot be a file name: it would leave its hash directory.
    #[error("userid not allowed in a file name: {}", userid.escape_ascii())]
    UnsafeUserid {
        /// The userid.
        userid: Vec<u8>,
    },
    /// A directory or the file could not be made.
    #[error("{}: cannot create: {source}", path.display())]
    Io {
        /// What was to be created, or its directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The settings of placement, as imapd.conf gives them.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// `backuppartition-<name>`: name to directory.
    pub partitions: BTreeMap<String, PathBuf>,
    /// `partition_select_mode`.
    pub mode: SelectMode,
    /// `partition_select_exclude`: names of partitions never chosen, in
    /// either case.
    pub exclude: Vec<String>,
    /// `partition_select_soft_usage_limit`, in percent used; 0 for none.
    pub soft_usage_limit: i32,
    /// `partition_select_usage_reinit`: after how many choices free space is
    /// looked at again; 0 for never.
    pub usage_reinit: u32,
    /// `fulldirhash`.
    pub fulldirhash: bool,
    /// `umask`, for directories. Files are 0600 in any case.
    pub umask: u32,
}

/// Chooses and creates; may be shared between threads.
#[derive(Debug)]
pub struct Placement {
    policy: Policy,
    /// Computed when the first partition is chosen.
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    weights: Weights,
    /// Choices made with these weights.
    choices: u32,
}

impl Placement {
    /// Reads nothing yet.
    pub fn new(policy: Policy) -> Placement {
        Placement { policy, state: Mutex::new(None) }
    }

    /// The partition for the next new backup.
    pub fn choose(&self) -> Result<PathBuf, PlacementError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let reinit = self.policy.usage_reinit;
        let due = |state: &State| reinit > 0 && state.choices >= reinit;
        if state.as_ref().is_none_or(due) {
            *state = Some(State { weights: self.weights(), choices: 0 });
        }
        let chosen = state.as_mut().and_then(|state| {
            state.choices = state.choices.saturating_add(1);
            state.weights.choose(draw())
        });
        chosen.map(Path::to_owned).ok_or(PlacementError::NoPartition)
    }

    /// Creates an empty file (mode 0600) for a new backup and every directory
    /// that it needs. Returns its absolute path. File and name are durable.
    pub fn create_file(&self, userid: &[u8]) -> Result<PathBuf, PlacementError> {
        check_userid(userid)?;
        let letter = hash_letter(userid, self.policy.fulldirhash);
        let dir = self.choose()?.join(letter.to_string());
        let prefix = OsString::from_vec([userid, b"_"].concat());
        let create = || {
            let dir = std::path::absolute(&dir)?;
            create_dirs(&dir, self.policy.umask)?;
            let file = tempfile::Builder::new()
                .prefix(&prefix)
                .rand_bytes(SUFFIX_LEN)
                .tempfile_in(&dir)?;
            // Removed again if any of these fails.
            file.as_file().sync_all()?;
            sync_dir(&dir)?;
            // Another program may have made the directory without a sync.
            dir.parent().map_or(Ok(()), sync_dir)?;
            let (_, path) = file.keep().map_err(|e| e.error)?;
            Ok(path)
        };
        create().map_err(|source| PlacementError::Io { path: dir, source })
    }

    fn weights(&self) -> Weights {
        let excluded = |name: &str| {
            let mut names = self.policy.exclude.iter();
            name.is_empty() || names.any(|other| other.eq_ignore_ascii_case(name))
        };
        let open = self.policy.partitions.iter();
        let dirs = open.filter(|(name, _)| !excluded(name)).map(|(_, dir)| dir.clone());
        let policy = &self.policy;
        Weights::compute(dirs.collect(), policy.mode, policy.soft_usage_limit, |dir| {
            space_of(dir, policy.umask)
        })
    }
}

/// The hash directory of a userid; `full` is the option `fulldirhash`.
pub fn hash_letter(userid: &[u8], full: bool) -> char {
    if full {
        let end = userid.iter().position(|&b| b == b'.').unwrap_or(userid.len());
        let hash = userid[..end].iter().fold(0_u32, |n, &b| (n << 3) ^ (n >> 5) ^ u32::from(b));
        return char::from(b'A' + (hash % 23) as u8);
    }
    match userid.first().map(u8::to_ascii_lowercase) {
        Some(first @ b'a'..=b'z') => char::from(first),
        _ => 'q',
    }
}

/// Refuses a userid that would name something outside the hash directory.
fn check_userid(userid: &[u8]) -> Result<(), PlacementError> {
    if userid.contains(&b'/') || userid.contains(&0) || matches!(userid, b"" | b"." | b"..") {
        return Err(PlacementError::UnsafeUserid { userid: userid.to_vec() });
    }
    Ok(())
}

/// Creates `dir` and what is missing above it, each made durable in its parent.
pub(super) fn create_dirs(dir: &Path, umask: u32) -> io::Result<()> {
    let missing = match DirBuilder::new().mode(DIR_MODE & !umask).create(dir) {
        Ok(()) => return dir.parent().map_or(Ok(()), sync_dir),
        Err(e) => e,
    };
    match missing.kind() {
        io::ErrorKind::AlreadyExists if dir.is_dir() => Ok(()),
        io::ErrorKind::NotFound => {
            let parent = dir.parent().ok_or(missing)?;
            create_dirs(parent, umask)?;
            create_dirs(dir, umask)
        }
        _ => Err(missing),
    }
}

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn policy(dirs: &[(&str, &Path)]) -> Policy {
        Policy {
            partitions: dirs
                .iter()
                .map(|(name, dir)| ((*name).to_owned(), dir.to_path_buf()))
                .collect(),
            mode: SelectMode::Random,
            umask: 0o077,
            ..Policy::default()
        }
    }

    #[test]
    fn letters_without_fulldirhash() {
        let cases: [(&[u8], char); 8] = [
            (b"alice", 'a'),
            (b"Zoe", 'z'),
            (b"%SHARED", 'q'),
            (b"1abc", 'q'),
            (b"_x", 'q'),
            (b".x", 'q'),
            (b"\xc3\xa4", 'q'),
            (b"", 'q'),
        ];
        for (userid, letter) in cases {
            assert_eq!(hash_letter(userid, false), letter, "{}", userid.escape_ascii());
        }
    }

    #[test]
    fn letters_with_fulldirhash() {
        let cases: [(&str, char); 10] = [
            ("alice", 'L'),
            ("bob", 'E'),
            ("carol", 'B'),
            ("%SHARED", 'J'),
            ("dave@virt.example", 'T'),
            ("user0001", 'V'),
            ("foo", 'U'),
            ("foo.bar", 'U'),
            (".hidden", 'A'),
            ("", 'A'),
        ];
        for (userid, letter) in cases {
            assert_eq!(hash_letter(userid.as_bytes(), true), letter, "{userid}");
        }
    }

    #[test]
    fn a_file_is_made_private_in_new_directories() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("deep/one");
        let placement = Placement::new(policy(&[("one", &dir)]));
        let path = placement.create_file(b"Bob").unwrap();
        assert_eq!(path.parent().unwrap(), dir.join("b"));
        let name = path.file_name().unwrap().to_str().unwrap();
        let suffix = name.strip_prefix("Bob_").unwrap();
        assert!(suffix.len() == 6 && suffix.bytes().all(|b| b.is_ascii_alphanumeric()), "{name}");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        for dir in [&dir.join("b"), &dir, &top.path().join("deep")] {
            assert_eq!(mode(dir), 0o700, "{}", dir.display());
        }
        assert_ne!(path, placement.create_file(b"Bob").unwrap());
    }

    #[test]
    fn userids_that_lead_elsewhere_are_refused() {
        let top = tempfile::tempdir().unwrap();
        let placement = Placement::new(policy(&[("one", top.path())]));
        for userid in [&b"a/b"[..], b"../x", b"..", b".", b"a\0b", b"/etc", b""] {
            let refused = placement.create_file(userid);
            assert!(matches!(refused, Err(PlacementError::UnsafeUserid { .. })), "{refused:?}");
        }
        assert_eq!(fs::read_dir(top.path()).unwrap().count(), 0);
    }

    #[test]
    fn excluded_and_nameless_partitions_are_not_chosen() {
        let dirs = ["one", "two", "three"].map(PathBuf::from);
        let mut policy = policy(&[("one", &dirs[0]), ("two", &dirs[1]), ("", &dirs[2])]);
        policy.exclude = vec!["ONE".to_owned()];
        let placement = Placement::new(policy.clone());
        for _ in 0..20 {
            assert_eq!(placement.choose().unwrap(), dirs[1]);
        }
        policy.exclude.push("two".to_owned());
        let none = Placement::new(policy).choose();
        assert!(matches!(none, Err(PlacementError::NoPartition)), "{none:?}");
    }

    #[test]
    fn every_mode_chooses_on_a_real_file_system() {
        for mode in ["random", "freespace-most", "freespace-percent-most"]
            .into_iter()
            .chain(["freespace-percent-weighted", "freespace-percent-weighted-delta"])
        {
            let top = tempfile::tempdir().unwrap();
            let dir = top.path().join("new");
            let mut policy = policy(&[("one", &dir)]);
            policy.mode = SelectMode::from_option(mode).unwrap();
            assert_eq!(Placement::new(policy).choose().unwrap(), dir, "{mode}");
            assert_eq!(dir.exists(), mode != "random", "{mode}");
        }
    }

    #[test]
    fn weights_are_computed_anew_after_so_many_choices() {
        let top = tempfile::tempdir().unwrap();
        let mut policy = policy(&[("one", top.path())]);
        policy.usage_reinit = 3;
        let placement = Placement::new(policy);
        let counts: Vec<u32> = (0..7)
            .map(|_| {
                placement.choose().unwrap();
                placement.state.lock().unwrap().as_ref().unwrap().choices
            })
            .collect();
        assert_eq!(counts, [1, 2, 3, 1, 2, 3, 1]);
    }
}
