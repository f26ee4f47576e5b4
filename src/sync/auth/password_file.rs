//! `cyrbk.passwd`: the users of this server and their SCRAM verifiers; no
//! password is kept.
//!
//! ```text
//! cyrbk-passwd 1 <secret>
//! <user>:<SCRAM-SHA-1 verifier> <SCRAM-SHA-256 verifier>
//! ```
//!
//! One user a line, in the order of their names; verifiers are written as in
//! [`super::verifier`]. The secret (32 octets in base64) is from what the answers
//! for unknown users are made, and lives in the file so that they stay the same
//! over a restart. A user name is canonical and has no colon. An empty file is a
//! file without users. A file that group or others may read or write is refused.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::policy::{NameError, check_name};
use super::verifier::{
    DEFAULT_ITERATIONS, PasswordError, SALT_LEN, ScramHash, Verifier, prepare_password,
};
use crate::lock::{self, Kind, LockError, Wait};

const MAGIC: &str = "cyrbk-passwd 1 ";
const SECRET_LEN: usize = 32;
/// A larger file is not a password file.
const MAX_FILE_LEN: u64 = 16 << 20;

/// Why the password file cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum PasswordFileError {
    /// There is none.
    #[error("{}: no such password file; make it with `cyrbk passwd USER`", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner have access.
    #[error("{0}: others than its owner have access (mode {mode:04o}); run `chmod 600 {0}`",
            .path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not what this module writes.
    #[error("{}:{line}: {what}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// The kernel refused something.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or its directory.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// A name that cannot be a user.
    #[error("{name:?}: {source}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// A password that cannot be used.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// There is no such user to remove.
    #[error("{}: no user {name:?}", .path.display())]
    NoUser {
        /// The file.
        path: PathBuf,
        /// The user asked for.
        name: String,
    },
}

/// A password file by its path; nothing is open between calls.
#[derive(Clone, Debug)]
pub struct PasswordFile {
    path: PathBuf,
}

/// The content of a password file.
#[derive(Debug)]
pub struct Accounts {
    secret: [u8; SECRET_LEN],
    users: BTreeMap<String, Account>,
}

/// The verifiers of one user.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) sha1: Verifier,
    pub(super) sha256: Verifier,
}

impl PasswordFile {
    /// Names the file; it is looked at when it is used.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        PasswordFile { path: path.into() }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file.
    pub fn load(&self) -> Result<Accounts, PasswordFileError> {
        self.load_open(&self.open()?)
    }

    /// Opens the file for reading. A device or pipe in its place cannot block.
    pub(super) fn open(&self) -> Result<File, PasswordFileError> {
        OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&self.path)
            .map_err(|e| self.io_error(e))
    }

    /// Reads the open file, from its beginning.
    pub(super) fn load_open(&self, mut file: &File) -> Result<Accounts, PasswordFileError> {
        let metadata = file.metadata().map_err(|e| self.io_error(e))?;
        if !metadata.is_file() || metadata.len() > MAX_FILE_LEN {
            return Err(self.syntax(1, "this is not a password file"));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(PasswordFileError::Permissions { path: self.path.clone(), mode });
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|e| self.io_error(e))?;
        self.parse(&text)
    }

    /// Gives `user` (in canonical form) a password, new or first; makes the file
    /// if there is none. Blocks while somebody else changes the file.
    ///
    /// When this returns, the change survives a power cut; after a crash before
    /// that the file is the old or the new one, never a part.
    pub fn set(&self, user: &str, password: &str) -> Result<(), PasswordFileError> {
        self.set_with(user, password, DEFAULT_ITERATIONS)
    }

    pub(super) fn set_with(
        &self,
        user: &str,
        password: &str,
        iterations: u32,
    ) -> Result<(), PasswordFileError> {
        check_name(user)
            .map_err(|source| PasswordFileError::Name { name: user.to_owned(), source })?;
        let prepared = prepare_password(password.as_bytes())?;
        let derive = |hash| -> Result<Verifier, PasswordFileError> {
            let salt: [u8; SALT_LEN] = random().map_err(|e| self.io_error(e))?;
            Ok(Verifier::derive(hash, prepared.as_bytes(), iterations, &salt))
        };
        let account =
            Account { sha1: derive(ScramHash::Sha1)?, sha256: derive(ScramHash::Sha256)? };
        let locked = self.lock(true)?;
        let mut accounts = self.load_open(&locked)?;
        accounts.users.insert(user.to_owned(), account);
        self.replace(&locked, &accounts)
    }

    /// Takes `user` out of the file; durable like [`PasswordFile::set`].
    pub fn remove(&self, user: &str) -> Result<(), PasswordFileError> {
        let locked = self.lock(false)?;
        let mut accounts = self.load_open(&locked)?;
        if accounts.users.remove(user).is_none() {
            return Err(PasswordFileError::NoUser {
                path: self.path.clone(),
                name: user.to_owned(),
            });
        }
        self.replace(&locked, &accounts)
    }

    fn lock(&self, create: bool) -> Result<File, PasswordFileError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(create).mode(0o600);
        options.custom_flags(nix::libc::O_NONBLOCK);
        match lock::open_locked(&self.path, &options, Kind::Exclusive, Wait::Yes) {
            Ok(file) => Ok(file),
            Err(LockError::Io(e)) => Err(self.io_error(e)),
            Err(LockError::Busy) => Err(self.io_error(io::ErrorKind::WouldBlock.into())),
        }
    }

    /// Puts a new file in the place of `locked`, with its owner: root may change
    /// the file of the server's user.
    fn replace(&self, locked: &File, accounts: &Accounts) -> Result<(), PasswordFileError> {
        let write = || -> io::Result<()> {
            // The file exists: it is locked. A symbolic link to it stays one.
            let path = self.path.canonicalize()?;
            let dir = path.parent().unwrap_or(Path::new("/"));
            let old = locked.metadata()?;
            let mut new = tempfile::Builder::new()
                .prefix(".cyrbk.passwd.")
                .permissions(Permissions::from_mode(0o600))
                .tempfile_in(dir)?;
            let made = new.as_file().metadata()?;
            if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
                fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
            }
            new.write_all(accounts.to_text().as_bytes())?;
            new.as_file().sync_all()?;
            new.persist(&path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|e| self.io_error(e))
    }

    fn parse(&self, text: &str) -> Result<Accounts, PasswordFileError> {
        let mut lines = text.lines().enumerate();
        let secret = match lines.next() {
            None => random().map_err(|e| self.io_error(e))?,
            Some((_, header)) => header
                .strip_prefix(MAGIC)
                .and_then(|secret| STANDARD.decode(secret).ok())
                .and_then(|secret| secret.try_into().ok())
                .ok_or_else(|| self.syntax(1, "the first line is not \"cyrbk-passwd 1 SECRET\""))?,
        };
        let mut users = BTreeMap::new();
        for (i, line) in lines.filter(|(_, line)| !line.is_empty()) {
            let (name, account) = parse_line(line).map_err(|what| self.syntax(i + 1, &what))?;
            if users.insert(name.clone(), account).is_some() {
                return Err(self.syntax(i + 1, &format!("the user {name:?} again")));
            }
        }
        Ok(Accounts { secret, users })
    }

    fn syntax(&self, line: usize, what: &str) -> PasswordFileError {
        PasswordFileError::Syntax { path: self.path.clone(), line, what: what.to_owned() }
    }

    pub(super) fn io_error(&self, source: io::Error) -> PasswordFileError {
        let path = self.path.clone();
        match source.kind() {
            io::ErrorKind::NotFound => PasswordFileError::Missing { path },
            _ => PasswordFileError::Io { path, source },
        }
    }
}

impl Accounts {
    /// The names of the users, sorted.
    pub fn users(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// The verifier of `user` for one mechanism.
    pub(super) fn verifier(&self, hash: ScramHash, user: &str) -> Option<&Verifier> {
        self.users.get(user).map(|account| match hash {
            ScramHash::Sha1 => &account.sha1,
            ScramHash::Sha256 => &account.sha256,
        })
    }

    /// What to answer for a user who does not exist.
    pub(super) fn decoy(&self, hash: ScramHash, name: &str) -> Verifier {
        Verifier::decoy(hash, &self.secret, name)
    }

    fn to_text(&self) -> String {
        let mut text = format!("{MAGIC}{}\n", STANDARD.encode(self.secret));
        for (name, account) in &self.users {
            let (sha1, sha256) = (account.sha1.to_text(), account.sha256.to_text());
            text.push_str(&format!("{name}:{sha1} {sha256}\n"));
        }
        text
    }
}

fn parse_line(line: &str) -> Result<(String, Account), String> {
    let (name, verifiers) = line.split_once(':').ok_or("no \":\" after the user name")?;
    check_name(name).map_err(|e| e.to_string())?;
    let (sha1, sha256) =
        verifiers.split_once(' ').ok_or("two verifiers separated by a space were expected")?;
    let account = Account {
        sha1: Verifier::parse(ScramHash::Sha1, sha1)?,
        sha256: Verifier::parse(ScramHash::Sha256, sha256)?,
    };
    Ok((name.to_owned(), account))
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets)?;
    Ok(octets)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fresh() -> (tempfile::TempDir, PasswordFile) {
        let dir = tempfile::tempdir().unwrap();
        let file = PasswordFile::new(dir.path().join("cyrbk.passwd"));
        (dir, file)
    }

    fn is_password_of(file: &PasswordFile, user: &str, password: &str) -> bool {
        let accounts = file.load().unwrap();
        let agree = [ScramHash::Sha1, ScramHash::Sha256]
            .map(|hash| accounts.verifier(hash, user).unwrap().matches(password));
        assert_eq!(agree[0], agree[1]);
        agree[0]
    }

    #[test]
    fn set_change_remove() {
        let (dir, file) = fresh();
        file.set_with("tom", "first", 4096).unwrap();
        file.set_with("a b", "other", 4096).unwrap();
        assert!(is_password_of(&file, "tom", "first"));
        let decoy = file.load().unwrap().decoy(ScramHash::Sha1, "nobody");
        file.set_with("tom", "second", 4096).unwrap();
        assert!(is_password_of(&file, "tom", "second"));
        assert!(!is_password_of(&file, "tom", "first"));
        assert!(is_password_of(&file, "a b", "other"));
        let accounts = file.load().unwrap();
        assert_eq!(accounts.users().collect::<Vec<_>>(), ["a b", "tom"]);
        assert!(accounts.decoy(ScramHash::Sha1, "nobody") == decoy, "the secret stays");
        file.remove("tom").unwrap();
        assert!(matches!(file.remove("tom"), Err(PasswordFileError::NoUser { .. })));
        assert_eq!(file.load().unwrap().users().count(), 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing left over");
    }

    #[test]
    fn new_files_are_private_and_hold_no_password() {
        let (_dir, file) = fresh();
        file.set_with("tom", "plainly-readable", 4096).unwrap();
        let mode = std::fs::metadata(file.path()).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert!(!text.contains("plainly-readable"), "{text}");
        assert!(text.starts_with("cyrbk-passwd 1 "), "{text}");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let (_dir, file) = fresh();
        file.set_with("tom", "pw", 4096).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            let message = file.load().unwrap_err().to_string();
            let advice = format!("run `chmod 600 {}`", file.path().display());
            assert!(message.contains(&advice), "{message}");
            assert!(message.contains(&format!("mode {mode:04o}")), "{message}");
            assert!(file.set_with("tom", "other", 4096).is_err());
            assert!(file.remove("tom").is_err());
        }
        std::fs::set_permissions(file.path(), Permissions::from_mode(0o400)).unwrap();
        file.load().unwrap();
    }

    #[test]
    fn a_missing_file_says_what_to_run() {
        let (_dir, file) = fresh();
        for error in [file.load().unwrap_err(), file.remove("tom").unwrap_err()] {
            let message = error.to_string();
            assert!(message.contains("cyrbk.passwd: "), "{message}");
            assert!(message.contains("`cyrbk passwd USER`"), "{message}");
        }
        assert!(!file.path().exists());
    }

    #[test]
    fn damage_is_named_by_line() {
        let (_dir, file) = fresh();
        file.set_with("tom", "pw", 4096).unwrap();
        let good = std::fs::read_to_string(file.path()).unwrap();
        let line = good.lines().nth(1).unwrap();
        for (text, at, what) in [
            (good.replace("passwd 1", "passwd 2"), 1, "first line"),
            (good.replace("passwd 1 ", "passwd 1 A"), 1, "first line"),
            (format!("{good}{line}\n"), 3, "the user \"tom\" again"),
            (format!("{good}no colon\n"), 3, "no \":\""),
            (format!("{good}a\tb:x y\n"), 3, "contains '\\t'"),
            (format!("{good}\n{}\n", line.replace("tom:", ":")), 4, "empty"),
            (good.replace("$4096", "$1"), 2, "iteration count"),
            (good.replace(" SCRAM", ""), 2, "two verifiers"),
        ] {
            std::fs::write(file.path(), &text).unwrap();
            let message = file.load().unwrap_err().to_string();
            assert!(message.contains(&format!("cyrbk.passwd:{at}: ")), "{message}");
            assert!(message.contains(what), "{message}");
        }
    }

    #[test]
    fn bad_names_and_passwords_are_refused() {
        let (_dir, file) = fresh();
        for name in ["", "a:b", "a\nb", "a\x7f", "t\u{f6}m"] {
            let refused = file.set_with(name, "pw", 4096);
            assert!(matches!(refused, Err(PasswordFileError::Name { .. })), "{name:?}");
        }
        let refused = file.set_with("tom", "", 4096);
        assert!(matches!(refused, Err(PasswordFileError::Password(_))));
        assert!(!file.path().exists());
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let (_dir, file) = fresh();
        let writers: Vec<_> = (0..4)
            .map(|i| {
                let file = file.clone();
                std::thread::spawn(move || file.set_with(&format!("u{i}"), "pw", 4096))
            })
            .collect();
        for writer in writers {
            writer.join().unwrap().unwrap();
        }
        assert_eq!(file.load().unwrap().users().count(), 4);
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let (dir, file) = fresh();
        file.set_with("tom", "pw", 4096).unwrap();
        let link = PasswordFile::new(dir.path().join("link"));
        std::os::unix::fs::symlink("cyrbk.passwd", link.path()).unwrap();
        link.set_with("tim", "pw", 4096).unwrap();
        assert!(link.path().is_symlink());
        assert_eq!(file.load().unwrap().users().count(), 2);
    }

    #[test]
    fn an_empty_file_has_no_users() {
        let (_dir, file) = fresh();
        std::fs::write(file.path(), "").unwrap();
        std::fs::set_permissions(file.path(), Permissions::from_mode(0o600)).unwrap();
        assert_eq!(file.load().unwrap().users().count(), 0);
    }
}
