//! Names of mailboxes as paths of folders.
//!
//! ```text
//! user.alice               the inbox, no component
//! user.alice.Work.2026     Work, 2026
//! dom!user.alice.Work      Work
//! DELETED.user.alice.Work.5F000000     DELETED, Work, 5F000000
//! news.comp                news, comp
//! ```
//!
//! `DELETED` stands for the site's own word (`deletedprefix`). Components stay as they are stored:
//! modified UTF-7, `^` for a dot. What could lead out of a directory, or not be a name of a file,
//! is written `%XX`; what is too long for one is cut, and a hash of all of it added. A folder
//! `INBOX` beside the inbox is called `INBOX_`.

use std::collections::HashSet;

use sha1::{Digest, Sha1};

use super::super::index::MailboxRow;
use crate::wire::Guid;
use crate::wire::mboxname::NameRules;

/// A mailbox as a place for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Components of its path; none for the inbox.
    pub path: Vec<String>,
    /// Its identity.
    pub uniqueid: Vec<u8>,
    /// Internal name.
    pub mboxname: Vec<u8>,
}

/// First component of what is gone.
const DELETED: &str = "DELETED";
/// What names of IMAP call the inbox, in any case.
const INBOX: &str = "INBOX";
/// Octets of the name of a file, with room for `.` in front of it and `.mbox` behind.
const NAME_MAX: usize = 255 - 6;
/// Hex digits of the hash that stands for what was cut.
const HASH_LEN: usize = 16;

impl Folder {
    /// The folders of all mailboxes of a user; no two have one path.
    pub fn of_all(mailboxes: &[MailboxRow], rules: &NameRules) -> Vec<Folder> {
        let mut paths = HashSet::new();
        let mut folders: Vec<Folder> = Vec::with_capacity(mailboxes.len());
        for row in mailboxes {
            let mut path = components(&row.mboxname, rules);
            let is_put_aside = rules.undeleted(&row.mboxname).is_some();
            if let Some(deleted) = row.deleted.filter(|_| !is_put_aside) {
                path.insert(0, DELETED.to_owned());
                path.push(format!("{deleted:08X}"));
            }
            if let Some(first) = path.first_mut().filter(|first| first.eq_ignore_ascii_case(INBOX))
            {
                first.push('_');
            }
            let (uniqueid, mboxname) = (row.uniqueid.clone(), row.mboxname.clone());
            folders.push(Folder { path, uniqueid, mboxname });
        }
        for folder in &mut folders {
            while !paths.insert(folder.path.clone()) {
                folder.path.push(safe(&folder.uniqueid).replace('.', "_"));
            }
        }
        folders
    }

    /// Its path as one name of a file; empty for the inbox. No two folders have the same.
    pub(super) fn file_name(&self) -> String {
        fitting(self.path.join("."))
    }

    /// Its path as names of directories, each in the one before.
    pub(super) fn directories(&self) -> impl Iterator<Item = String> {
        self.path.iter().cloned().map(fitting)
    }

    /// The same as the place where everything goes, whatever its name.
    pub fn at_root(self) -> Folder {
        Folder { path: Vec::new(), ..self }
    }
}

/// Since when the mailbox is not there for its user: it was deleted, or put aside under a name
/// that ends in the time, to be deleted later.
pub fn gone_since(row: &MailboxRow, rules: &NameRules) -> Option<i64> {
    row.deleted.or_else(|| rules.deleted_at(&row.mboxname))
}

/// The last component of a name.
fn stamp(mboxname: &[u8]) -> &[u8] {
    mboxname.rsplit(|&c| c == b'.').next().unwrap_or_default()
}

fn components(mboxname: &[u8], rules: &NameRules) -> Vec<String> {
    let Some(name) = rules.undeleted(mboxname) else { return below_owner(mboxname) };
    let mut path = vec![DELETED.to_owned()];
    path.append(&mut below_owner(&name));
    path.push(safe(stamp(mboxname)));
    path
}

/// The components of a name, but for those that say whose it is.
fn below_owner(mboxname: &[u8]) -> Vec<String> {
    let domain = mboxname.iter().position(|&c| c == b'!').map_or(0, |at| at + 1);
    let mut parts: Vec<&[u8]> = mboxname[domain..].split(|&c| c == b'.').collect();
    if parts.len() > 1 && parts[0] == b"user" {
        parts.drain(..2);
    }
    parts.into_iter().map(safe).collect()
}

/// A name for a file.
fn safe(component: &[u8]) -> String {
    let is_dots = component.iter().all(|&c| c == b'.');
    let mut name = String::new();
    for &c in component {
        match c {
            b'/' | b'%' | 0..=0x1f | 0x7f.. => name.push_str(&format!("%{c:02X}")),
            b'.' if is_dots => name.push_str("%2E"),
            _ => name.push(char::from(c)),
        }
    }
    if name.is_empty() { "%".to_owned() } else { name }
}

/// A name that every file system takes. It has no other octets than those of ASCII.
fn fitting(name: String) -> String {
    if name.len() <= NAME_MAX {
        return name;
    }
    let hash = Guid::from(<[u8; 20]>::from(Sha1::digest(&name))).to_string();
    format!("{}~{}", &name[..NAME_MAX - HASH_LEN - 1], &hash[..HASH_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(deleted_prefix: &str) -> NameRules {
        NameRules { deleted_prefix: deleted_prefix.into(), ..NameRules::default() }
    }

    fn row(mboxname: &str) -> MailboxRow {
        MailboxRow {
            mboxname: mboxname.into(),
            uniqueid: format!("id of {mboxname}").into(),
            ..MailboxRow::default()
        }
    }

    #[test]
    fn paths() {
        let path = |name: &str| components(name.as_bytes(), &NameRules::default()).join("|");
        for (name, expected) in [
            ("user.alice", ""),
            ("user.alice.Work.2026", "Work|2026"),
            ("dom.org!user.alice.Work", "Work"),
            ("DELETED.user.alice.Work.5F000000", "DELETED|Work|5F000000"),
            ("dom.org!DELETED.user.alice.5F000000", "DELETED|5F000000"),
            ("DELETED.news.comp.5F000000", "DELETED|news|comp|5F000000"),
            ("DELETED", "DELETED"),
            ("news.comp", "news|comp"),
            ("user", "user"),
            ("user.a^b.c^d", "c^d"),
            ("user.a.&AOQ-", "&AOQ-"),
            ("user.a.x/../../etc", "x%2F|%|%2F|%|%2Fetc"),
            ("user.a.x%y", "x%25y"),
            ("user.a..b", "%|b"),
        ] {
            assert_eq!(path(name), expected, "{name}");
        }
    }

    #[test]
    fn a_site_has_its_own_word_for_what_is_deleted() {
        let deleted = row("TRASHED.user.alice.Work.5F000000");
        let since = |word: &str| gone_since(&deleted, &rules(word));
        assert_eq!((since("TRASHED"), since("DELETED")), (Some(0x5F00_0000), None));
        let folders = Folder::of_all(&[deleted, row("user.alice.DELETED.x")], &rules("TRASHED"));
        assert_eq!(folders[0].path, ["DELETED", "Work", "5F000000"]);
        assert_eq!(folders[1].path, ["DELETED", "x"]);
    }

    #[test]
    fn the_inbox_has_its_name_for_itself() {
        let names = ["user.a", "user.a.INBOX", "user.a.Inbox.x", "user.a.INBOX_", "user.a.x.INBOX"];
        let rows = names.map(row);
        let paths: Vec<String> = Folder::of_all(&rows, &NameRules::default())
            .iter()
            .map(|folder| folder.path.join("|"))
            .collect();
        assert_eq!(paths, ["", "INBOX_", "Inbox_|x", "INBOX_|id of user_a_INBOX_", "x|INBOX"]);
    }

    #[test]
    fn names_of_files_are_short_enough_and_differ() {
        let long = "x".repeat(300);
        let names = [format!("{long}.a"), format!("{long}.b"), long.clone(), "&".repeat(249)];
        let rows = names.map(|name| row(&format!("user.a.{name}")));
        let folders = Folder::of_all(&rows, &NameRules::default());
        let files: HashSet<String> = folders.iter().map(Folder::file_name).collect();
        assert_eq!(files.len(), 4);
        assert!(files.iter().all(|name| name.len() == NAME_MAX), "{files:?}");
        assert!(files.contains(&"&".repeat(249)));
        let parent = folders[2].directories().next();
        let below: Vec<String> = folders[0].directories().collect();
        assert_eq!((below.first(), below.len()), (parent.as_ref(), 2));
        assert_eq!(below[0].len(), NAME_MAX);
    }
}
