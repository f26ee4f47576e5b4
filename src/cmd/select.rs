//! Which backups the operands mean.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::{mailbox_name, site};
use crate::config::Settings;
use crate::store::catalog::{Catalog, CatalogError, Entry};
use crate::store::twoskip::WriteTxn;
use crate::wire::mboxname::SHARED;

/// How operands are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// `-A`: every backup in the catalog; no operands.
    All,
    /// `-D`: domains of users.
    Domains,
    /// `-P`: beginnings of userids.
    Prefixes,
    /// `-f`: data files, in the catalog or not.
    Files,
    /// `-m`: mailboxes, by their external names; the backup is that of the owner.
    Mailboxes,
    /// The same by cyrbk's own words: where an external name is nobody's, it may be an internal
    /// one, which is what lists have.
    MailboxesOfEitherName,
    /// `-u`: userids, verbatim.
    #[default]
    Userids,
}

/// A backup to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Whose it is, where that is known.
    pub(super) userid: Option<Vec<u8>>,
    /// The data file, as stored or as given.
    pub(super) path: PathBuf,
}

impl Target {
    /// What it is called in output.
    pub(super) fn label(&self) -> &[u8] {
        self.userid.as_deref().unwrap_or(self.path.as_os_str().as_bytes())
    }
}

impl From<Entry> for Target {
    fn from(entry: Entry) -> Target {
        Target { userid: Some(entry.userid), path: entry.path }
    }
}

/// What one operand led to.
#[derive(Debug)]
pub(super) enum Selected {
    Backup(Target),
    /// No such user, or nobody knows.
    Unknown {
        operand: OsString,
        why: Unknown,
    },
}

/// Why an operand led to no backup.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unknown {
    #[error("not found in backups.db")]
    NotInCatalog,
    #[error("cannot open backups.db: {0}")]
    Catalog(#[from] CatalogError),
}

/// Resolves the operands in their order; an overlap gives the same backup twice.
/// An error concerns all of them: the catalog had to be listed and could not be.
pub(super) fn select(
    settings: &Settings,
    mode: Mode,
    operands: &[OsString],
) -> Result<Vec<Selected>, Unknown> {
    let list = |keep: &dyn Fn(&[u8], &[u8]) -> bool, operands: &[OsString]| {
        let entries = catalog(settings)?.list()?;
        let matching = |operand: &OsString| {
            let operand = operand.as_bytes().to_vec();
            entries.iter().filter(move |entry| keep(&operand, &entry.userid)).cloned()
        };
        let found = operands.iter().flat_map(matching);
        Ok(found.map(|entry| Selected::Backup(entry.into())).collect())
    };
    match mode {
        Mode::All => list(&|_, _| true, &[OsString::new()]),
        Mode::Prefixes => list(&|prefix, userid| userid.starts_with(prefix), operands),
        Mode::Domains => {
            let default = settings.names.defaultdomain.as_deref().map(str::as_bytes);
            list(&|domain, userid| domain_of(userid).or(default) == Some(domain), operands)
        }
        Mode::Files | Mode::Mailboxes | Mode::MailboxesOfEitherName | Mode::Userids => {
            Ok(operands.iter().map(|operand| one(settings, mode, operand)).collect())
        }
    }
}

/// Resolves a single operand; with the modes that stand for many, as a userid.
pub(super) fn one(settings: &Settings, mode: Mode, operand: &OsString) -> Selected {
    let found = match mode {
        Mode::Files => Ok(Target { userid: None, path: operand.into() }),
        Mode::Mailboxes => {
            let key = owner(settings, operand);
            lookup(settings, &key, key != SHARED)
        }
        Mode::MailboxesOfEitherName => {
            let mut key = owner(settings, operand);
            if key == SHARED {
                key = site::name_rules(settings).backup_key(operand.as_bytes());
            }
            lookup(settings, &key, key != SHARED)
        }
        // The empty userid is that of the shared backup, which then has no name.
        _ => lookup(settings, operand.as_bytes(), !operand.is_empty()),
    };
    match found {
        Ok(target) => Selected::Backup(target),
        Err(why) => Selected::Unknown { operand: operand.clone(), why },
    }
}

/// The key of the backup with the mailbox of that external name.
fn owner(settings: &Settings, extname: &OsString) -> Vec<u8> {
    let name = mailbox_name::internal(&settings.names, extname.as_bytes());
    site::name_rules(settings).backup_key(&name)
}

fn lookup(settings: &Settings, key: &[u8], named: bool) -> Result<Target, Unknown> {
    let path = catalog(settings)?.lookup(key)?.ok_or(Unknown::NotInCatalog)?;
    Ok(Target { userid: named.then(|| key.to_vec()), path })
}

/// The catalog; where there is none yet an empty one is made, as Cyrus's tools do.
/// So a configuration that leads nowhere is an error, and an empty site is none.
fn catalog(settings: &Settings) -> Result<Catalog, CatalogError> {
    let path = &settings.backup_db_path;
    if !path.exists() {
        drop(WriteTxn::begin(path)?);
    }
    Ok(site::catalog(settings))
}

fn domain_of(userid: &[u8]) -> Option<&[u8]> {
    let at = userid.iter().rposition(|&c| c == b'@')?;
    Some(&userid[at + 1..])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::ImapdConf;

    fn settings(dir: &std::path::Path) -> Settings {
        let conf = dir.join("imapd.conf");
        std::fs::write(&conf, format!("configdirectory: {}\n", dir.display())).unwrap();
        Settings::from_conf(&ImapdConf::read(&conf, None).unwrap(), "ctl_backups").unwrap()
    }

    fn labels(settings: &Settings, mode: Mode, operands: &[&str]) -> String {
        let operands: Vec<OsString> = operands.iter().map(OsString::from).collect();
        let selected = select(settings, mode, &operands).unwrap();
        let label = |selected: &Selected| match selected {
            Selected::Backup(target) => String::from_utf8(target.label().to_vec()).unwrap(),
            Selected::Unknown { operand, why } => format!("{}: {why}", operand.display()),
        };
        selected.iter().map(label).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn modes() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        assert_eq!(labels(&settings, Mode::All, &[]), "");
        let catalog = Catalog::open(settings.backup_db_path.clone());
        for user in ["%SHARED", "alice", "bob", "carol@other.org"] {
            catalog.set(user.as_bytes(), format!("/b/{user}_x").as_ref()).unwrap();
        }
        let labels = |mode, operands: &[&str]| labels(&settings, mode, operands);
        assert_eq!(labels(Mode::All, &[]), "%SHARED alice bob carol@other.org");
        assert_eq!(labels(Mode::Prefixes, &["b", "al", "x", ""]).split(' ').count(), 6);
        assert_eq!(labels(Mode::Prefixes, &["b", "al"]), "bob alice");
        assert_eq!(labels(Mode::Domains, &["internal"]), "%SHARED alice bob");
        assert_eq!(labels(Mode::Domains, &["other.org", "Other.org"]), "carol@other.org");
        assert_eq!(labels(Mode::Files, &["/some/file"]), "/some/file");
        assert_eq!(
            labels(Mode::Userids, &["bob", "nobody", "bob"]),
            "bob nobody: not found in backups.db bob"
        );
        assert_eq!(labels(Mode::Userids, &["", "%SHARED"]), "/b/%SHARED_x %SHARED");
        assert_eq!(labels(Mode::Mailboxes, &["user/bob/Work", "news"]), "bob /b/%SHARED_x");
        assert_eq!(labels(Mode::Mailboxes, &["user.bob.Work"]), "/b/%SHARED_x");
        let names = ["user/bob/Work", "user.bob.Work", "other.org!user.carol", "news"];
        assert_eq!(
            labels(Mode::MailboxesOfEitherName, &names),
            "bob bob carol@other.org /b/%SHARED_x"
        );
    }

    #[test]
    fn a_catalog_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        std::fs::write(&settings.backup_db_path, "something else altogether").unwrap();
        let why = select(&settings, Mode::All, &[]).unwrap_err().to_string();
        assert!(why.starts_with("cannot open backups.db: "), "{why}");
        let one = labels(&settings, Mode::Userids, &["alice"]);
        assert!(one.starts_with("alice: cannot open backups.db: "), "{one}");
    }
}
